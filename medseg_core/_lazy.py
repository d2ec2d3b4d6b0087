"""Sub-modules that load on first use (PEP 562), so that importing a package stays cheap."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable, Mapping
from typing import Any


def attach(
    package: str, exports: Mapping[str, str] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package whose sub-modules load when first named.

    Write `__getattr__, __dir__ = attach(__name__)` in the package's `__init__.py`; then
    `import medseg_core; medseg_core.solvers.star_dp` works without importing either by hand.
    `exports` names what a sub-module holds, {"cardiac_sax": "cardiac"}: `phantoms.cardiac_sax`.
    """
    exports = dict(exports or {})

    def __getattr__(name: str) -> Any:
        full = f"{package}.{name}"
        if name in exports:
            return getattr(importlib.import_module(f"{package}.{exports[name]}"), name)
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
        public = (name for name in found if not name.startswith("_"))
        return sorted({*vars(module), *exports, *public})

    return __getattr__, __dir__
