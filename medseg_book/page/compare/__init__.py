"""Comparing the arms of an experiment on equal budgets, paired by seed and by case."""

from medseg_book.page.compare._arms import run_arms
from medseg_book.page.compare._results import Record, Results
from medseg_book.page.compare._tuning import Tuned, best_validation, tuned

__all__ = ["Record", "Results", "Tuned", "best_validation", "run_arms", "tuned"]
