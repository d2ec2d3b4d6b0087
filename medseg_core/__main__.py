"""`python -m medseg_core` is the command `medseg`."""

from medseg_core.cli import main

if __name__ == "__main__":
    main()
