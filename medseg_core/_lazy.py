"""Sub-modules that load on first use (PEP 562), so that importing a package stays cheap."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable
from types import ModuleType


def attach(package: str) -> tuple[Callable[[str], ModuleType], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package whose sub-modules load when first named.

    Write `__getattr__, __dir__ = attach(__name__)` in the package's `__init__.py`; then
    `import medseg_core; medseg_core.solvers.star_dp` works without importing either by hand.
    """

    def __getattr__(name: str) -> ModuleType:
        full = f"{package}.{name}"
        if not name.startswith("_"):
            try:
                return importlib.import_module(full)
            except ModuleNotFoundError as error:
                if error.name != full:  # the sub-module is there, something that it needs is not
                    raise
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        module = sys.modules[package]
        found = (m.name for m in pkgutil.iter_modules(module.__path__))
        return sorted({*vars(module), *(name for name in found if not name.startswith("_"))})

    return __getattr__, __dir__
