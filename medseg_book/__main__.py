"""`python -m medseg_book` is the command `medseg`."""

from medseg_book.cli import main

if __name__ == "__main__":
    main()
