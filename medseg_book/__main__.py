"""The command `medseg`, also as `python -m medseg_book`."""

from __future__ import annotations

import sys

SWEEP = {"dask", "dask_jobqueue", "distributed", "boto3", "botocore"}  # what [sweep] brings


def main() -> None:
    """Run the command; where a package of an extra is missing, say in one line which extra."""
    try:
        from medseg_book.cli import main as command

        command()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "medseg_book", "medseg_core"):  # ours: a mistake of ours
            raise
        extra = "sweep" if missing in SWEEP else "book"
        install = f"pip install 'medseg-core[{extra}]'"
        print(f"medseg: {missing} is not installed; {install} brings it", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
