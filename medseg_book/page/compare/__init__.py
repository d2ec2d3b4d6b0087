"""Comparing the arms of an experiment on equal budgets, paired by seed and by case."""

from medseg_book.page.compare._arms import run_arms
from medseg_book.page.compare._results import Record, Results

__all__ = ["Record", "Results", "run_arms"]
