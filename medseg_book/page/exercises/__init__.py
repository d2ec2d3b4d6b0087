"""Exercises that can be attempted and checked, and questions to test oneself.

An exercise is a question with a hint, a starter cell that ends with `check`, and solution cells of
which one ends with `solution`: there the answer is known from the run, and nothing is typed in.

>>> exercises.check("ex2", lambda: trimmed_error(signals), within=0.001)  # in the starter cell
>>> exercises.solution("ex2", trimmed_error(signals))  # at the end of the solution
"""

from medseg_book.page.exercises._attempts import MIME, check, reset, solution
from medseg_book.page.exercises._quiz import quiz

__all__ = ["MIME", "check", "quiz", "reset", "solution"]
