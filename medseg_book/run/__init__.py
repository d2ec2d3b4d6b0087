"""The runner: find, show, run, refresh and check the chapters (papermill underneath).

`medseg_book.cli` is the command line on top. Notebooks do not import this sub-package; the ledger,
which reads the other chapters' stored results, is the one exception.
"""
