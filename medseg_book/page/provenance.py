"""Where a result comes from: versions, machine, memory, and the code that made it."""

from __future__ import annotations

import ast
import hashlib
import platform
import sys
from importlib import metadata
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

PACKAGES = ("medseg_core", "medseg_book")


def versions() -> dict[str, str]:
    """Versions of Python, torch, NumPy, monai and this package; imports none of them."""
    from medseg_core import __version__

    found = {"python": platform.python_version()}
    for name in ("torch", "numpy", "monai"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found | {"medseg_core": __version__}


def device_name(device: torch.device) -> str:
    """The device's product name, as `"NVIDIA A100"`; the architecture where it has none to tell."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or platform.processor() or platform.machine()


def peak_memory_mb() -> float | None:
    """Largest resident memory of this process so far, in MiB; None where nothing tells it."""
    try:
        # Linux: getrusage would also count the process that started this one.
        for line in (
            Path("/proc/self/status").read_text(encoding="ascii", errors="ignore").split("\n")
        ):
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024  # kB
    except OSError:
        pass
    try:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes on macOS, else kB
    except ImportError:  # Windows
        pass
    try:
        import psutil
    except ImportError:
        return None
    info = psutil.Process().memory_info()
    return getattr(info, "peak_wset", info.rss) / 2**20


def source_hash(path: str | Path) -> str:
    """Hash of a Python file's code without docstrings, comments and layout (16 hex digits).

    It is the same under all Python versions that can parse the file.

    Raises:
        SyntaxError: if the file is no valid Python.
    """
    tree = ast.parse(Path(path).read_text(encoding="utf-8"), filename=str(path))
    return hashlib.sha256(_canonical(tree).encode()).hexdigest()[:16]


def core_hashes() -> dict[str, str]:
    """`source_hash` of every module of the two packages that is loaded, by module name.

    Each is taken the first time that the loaded module is seen, and kept: `scales.begin` calls it,
    so that a file edited or deleted during a run changes nothing. "" stands for a module whose
    source cannot be read.
    """
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] not in PACKAGES:
            continue
        # Loading a module again gives it a new spec: then other code runs.
        if name not in _seen or _seen[name][0] is not module.__spec__:
            _seen[name] = module.__spec__, _hash_or_nothing(module)
    return {name: found for name, (_, found) in sorted(_seen.items())}


_seen: dict[str, tuple[ModuleSpec | None, str]] = {}


def _hash_or_nothing(module: ModuleType) -> str:
    try:
        return source_hash(module.__file__)
    except (AttributeError, TypeError, OSError, SyntaxError, ValueError):  # no file, or no Python
        return ""


def _canonical(node: Any) -> str:
    """A syntax tree as text. Empty fields are left out: later Python versions add some."""
    if isinstance(node, list):
        return "[" + ",".join(map(_canonical, node)) + "]"
    if not isinstance(node, ast.AST):
        return ascii(node)
    fields = dict(ast.iter_fields(node))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
        fields["body"] = node.body[1:]
    if isinstance(node, ast.JoinedStr):  # early Python 3.12 adds empty pieces to format strings
        pieces = node.values
        fields["values"] = [v for v in pieces if getattr(v, "value", None) != ""]
    inner = (f"{k}={_canonical(v)}" for k, v in sorted(fields.items()) if v not in (None, []))
    return f"{type(node).__name__}({','.join(inner)})"
