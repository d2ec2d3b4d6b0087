"""What every stored notebook of the book must fulfil: one function per rule.

A rule takes a chapter and yields one message per breach. `check` runs them; each is named, so that
a message says which promise is broken. Rules marked `source` need no stored run.
"""

# Each registers its rules, which are checked in this order.
from . import _run, _parts, _exercises, _outputs, _budget, _place  # noqa: F401, I001
from ._registry import RULES

__all__ = ["RULES"]
