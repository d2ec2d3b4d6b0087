"""Parameters as a reader types them: their values, and the check against the notebook."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from .errors import UsageError, unknown

SCALES = ("smoke", "lesson", "paper")
STANDARD = {
    "scale": "lesson",
    "seed": 0,
    "device": "auto",
    "data_dir": None,
    "extended": False,
    "overrides": {},
}
DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


class _Loader(yaml.SafeLoader):
    """YAML with 1.2's scalars: `1e-3` is a number, and `no`, `on` or `2020-01-01` stay text."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"null|Null|NULL|None|", ["n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?", None),
    ("float", r"[-+]?\.(inf|Inf)|\.(nan|NaN)", list("-+.")),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}",
        re.compile(rf"(?:{_pattern})\Z"),
        _first if _first is not None else list("-+.0123456789"),
    )
# YAML 1.1 would read 010 as octal; a reader who types 010 means ten.
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))


def parse_value(text: str, name: str = "value") -> Any:
    """The value that a reader means: `3`, `1e-3`, `true`, `[1, 2]`, `{n_train: 20}`, else text."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        why = str(error).splitlines()[0]
        raise UsageError(f"{name}: cannot read {text!r} as a value ({why})") from None


def check(given: Mapping[str, Any], declared: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """`given`, checked against the notebook's parameters and made ready for the kernel.

    Unknown names, unknown scales and values of the wrong type are refused; `data_dir` becomes
    absolute, since the kernel need not stand where the reader does.
    """
    ready: dict[str, Any] = {}
    for name, value in given.items():
        if name not in declared:
            raise unknown("parameter", name, declared)
        _check_type(name, value, declared[name]["inferred_type_name"])
        if name == "scale" and value not in SCALES:
            raise unknown("scale", value, SCALES)
        if name == "seed" and value < 0:
            raise UsageError(f"seed takes an integer >= 0, got {value}")
        if name == "device" and not DEVICE.fullmatch(str(value)):
            raise unknown("device", value, ("auto", "cpu", "cuda", "cuda:1", "mps"))
        if name == "data_dir" and value is not None:
            value = str(Path(value).expanduser().resolve())
            if not Path(value).is_dir():
                raise UsageError(f"data_dir: there is no folder {value}")
        ready[name] = value
    return ready


def merge_overrides(given: Mapping[str, Any], settings: Iterable[tuple[str, Any]]) -> dict:
    """`--set key=value` pairs laid over the parameter `overrides`."""
    given, settings = dict(given), dict(settings)
    if settings:
        overrides = given.get("overrides") or {}
        _check_type("overrides", overrides, "dict")
        given["overrides"] = {**overrides, **settings}
    return given


_TYPES = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str, Path, type(None)),
    "dict": (dict, type(None)),
    "list": (list, tuple, type(None)),
}


def _check_type(name: str, value: Any, declared: str) -> None:
    base = declared.split("[")[0].split("|")[0].strip().lower()
    takes = _TYPES.get(base)
    wrong_bool = isinstance(value, bool) and base in ("int", "float", "str")
    if takes and (wrong_bool or not isinstance(value, takes)):
        raise UsageError(f"{name} takes {declared}, got {value!r} ({type(value).__name__})")
