"""How a chapter starts: its settings at one of three scales, the device, the seeds, the clock."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg_book.page import claims, display, exercises, provenance
from medseg_core import checks, rng

if TYPE_CHECKING:
    import torch

SCALES = ("smoke", "lesson", "paper")
MIME = "application/vnd.medseg.run+json"


@dataclasses.dataclass(frozen=True)
class Run:
    """What a chapter's cells read: `s` holds the settings, `seeds` the seeds of its repetitions."""

    slug: str
    scale: str
    s: Any
    device: torch.device
    seed: int
    seeds: list[int]
    extended: bool = False
    data_dir: Path | None = None
    dataset: str = "phantom"
    reader: Any = None  # of the data set, opened and checked; None for a phantom

    @property
    def workers(self) -> int:
        """Processes that share the runs of a comparison.

        Small networks leave a CPU's cores idle; a GPU is not shared.
        """
        import torch

        alone = self.smoke or self.device.type != "cpu"
        return 1 if alone else min(torch.get_num_threads(), 4)

    @property
    def smoke(self) -> bool:
        """Whether this run only shows that the chapter works."""
        return self.scale == "smoke"


def begin(
    slug: str,
    table: Mapping[str, Any],
    *,
    scale: str,
    seed: int,
    device: str,
    overrides: Mapping[str, Any] | str | None,
    data_dir: str | Path | None = None,
    dataset: str = "phantom",
    sources: Mapping[str, Callable[[Path], Any] | None] | None = None,
    extended: bool = False,
) -> Run:
    """Start a chapter: choose its settings, seed everything, reset `claims`, start the clock.

    Shows one line for the reader, and stores the run's parameters, versions and machine in the
    notebook.

    Args:
        slug: the chapter.
        table: {"smoke": S(...), "lesson": S(...), "paper": S(...)} of one dataclass S. Fields with
            a meaning here, all optional: `n_seeds` (repetitions, default 1), `n_seeds_cpu` (the
            same on a CPU), `expected` (time, as text for the reader).
        scale: which of the three.
        seed: the first seed; repetitions take seed, seed + 1, ...
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        overrides: settings to change, {field: value}, or that as JSON text (a command line's).
            A value must have the type of the setting that it replaces (an integer may stand for a
            float); lists become tuples.
        data_dir: folder of a real data set, or None for a phantom.
        dataset: one of `sources`.
        sources: {name: None for a phantom, or a function of the folder that gives a reader}. The
            reader is opened, and checked before anything is trained.
        extended: whether ablations and extra seeds run that only a GPU has the time for.

    Raises:
        ValueError: an unknown scale, setting, device or data set; a folder that is missing, or
            given to a phantom; a negative seed.
        TypeError: a value whose type differs from the setting's.
        The reader's error: a folder that does not hold the data set, with what is missing.

    Taught in: all chapters.
    """
    from medseg_core.training.device import pick

    settings = _settings(table, scale)
    changes = _parse(overrides)
    settings = _override(settings, changes)
    reader = _open(sources or {"phantom": None}, dataset, data_dir)
    folder = None if data_dir is None else Path(data_dir).expanduser()
    chosen = pick(device)
    provenance.core_hashes()  # of the code that is loaded now; claims.report adds later modules
    rng.seed_all(seed)
    seeds = [seed + i for i in range(_n_seeds(settings, chosen))]
    run = Run(
        slug, scale, settings, chosen, int(seed), seeds, bool(extended), folder, dataset, reader
    )
    record = _record(run, changes)
    claims.reset(**{k: record[k] for k in (*claims.CONTEXT,)})
    exercises.reset()
    line = _line(run, changes)
    display.show({"text/plain": line.replace("**", ""), "text/markdown": line, MIME: record})
    return run


def open_reader(make: Callable[[Path], Any], folder: str | Path, parameter: str) -> Any:
    """A reader of `folder`, checked; `parameter` is the notebook's name for that folder.

    Raises:
        ValueError: no such folder.
        The reader's error: the folder does not hold the data set, with what is missing.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise ValueError(f"{parameter} must be a folder that exists, got {str(folder)!r}")
    reader = make(path)
    reader.check().require()
    return reader


def _open(
    sources: Mapping[str, Callable[[Path], Any] | None],
    dataset: str,
    data_dir: str | Path | None,
) -> Any:
    make = sources[checks.choice(dataset, "dataset", list(sources))]
    if make is None and data_dir is not None:
        real = ", ".join(repr(name) for name, reader in sources.items() if reader)
        more = f"; data sets that need one: {real}" if real else ""
        raise ValueError(
            f"dataset={dataset!r} and data_dir={str(data_dir)!r} do not fit: a phantom takes no "
            f"folder{more}"
        )
    if make is None:
        return None
    if data_dir is None:
        raise ValueError(f"dataset={dataset!r} needs its folder: data_dir is None")
    return open_reader(make, data_dir, "data_dir")


def _settings(table: Mapping[str, Any], scale: str) -> Any:
    checks.choice(scale, "scale", SCALES)
    missing = [name for name in SCALES if name not in table]
    unknown = [name for name in table if name not in SCALES]
    if missing or unknown:
        raise ValueError(f"table must have the scales {', '.join(SCALES)}; got {', '.join(table)}")
    kinds = {type(s) for s in table.values()}
    if len(kinds) > 1 or not dataclasses.is_dataclass(table[scale]):
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise TypeError(f"table must hold instances of one dataclass, got {names}")
    return table[scale]


def _parse(overrides: Mapping[str, Any] | str | None) -> dict[str, Any]:
    if isinstance(overrides, str):
        try:
            overrides = json.loads(overrides or "{}")
        except json.JSONDecodeError as error:
            raise ValueError(f"overrides must be JSON, got {overrides!r}: {error}") from error
    if not isinstance(overrides or {}, Mapping):
        raise TypeError(f"overrides must be {{setting: value}}, got {overrides!r}")
    return dict(overrides or {})


def _override(settings: Any, changes: dict[str, Any]) -> Any:
    fields = {f.name: f for f in dataclasses.fields(settings) if f.init}
    values = {}
    for key, value in changes.items():
        if key not in fields:
            raise ValueError(
                f"overrides: unknown setting {key!r}{checks.near(key, fields)}; "
                f"settings are {', '.join(fields)}"
            )
        optional = any(word in str(fields[key].type) for word in ("None", "Optional", "Any"))
        if value is None and optional:
            values[key] = None
        else:
            values[key] = _fit(value, getattr(settings, key), f"overrides[{key!r}]")
    return dataclasses.replace(settings, **values)


def _fit(value: Any, current: Any, name: str) -> Any:
    """`value`, refused unless it has the type of `current`; lists become tuples at every depth."""
    if isinstance(value, (list, tuple)):
        if current is not None and not isinstance(current, (list, tuple)):
            raise TypeError(f"{name} must be {_type(current)}, got {value!r}")
        # A tuple's length may change (widths of a deeper net), the type of its items may not.
        items = list(current or ()) or [None]
        pattern = items if len(items) == len(value) else [items[0]] * len(value)
        return tuple(
            _fit(v, p, f"{name}[{i}]") for i, (v, p) in enumerate(zip(value, pattern, strict=True))
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    if current is None:
        return value
    if isinstance(current, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, bool) != isinstance(current, bool) or not isinstance(value, type(current)):
        raise TypeError(f"{name} must be {_type(current)} such as {current!r}, got {value!r}")
    return value


def _type(current: Any) -> str:
    return "a tuple" if isinstance(current, (list, tuple)) else f"of type {type(current).__name__}"


def _n_seeds(settings: Any, device: torch.device) -> int:
    name = "n_seeds"
    if device.type == "cpu" and getattr(settings, "n_seeds_cpu", None) is not None:
        name = "n_seeds_cpu"
    return checks.between(getattr(settings, name, 1), name, 1, None)


def _record(run: Run, changes: dict[str, Any]) -> dict[str, Any]:
    record = {
        "slug": run.slug,
        "scale": run.scale,
        "seed": run.seed,
        "device": str(run.device),
        "device_name": provenance.device_name(run.device),
        "extended": run.extended,
        "overrides": changes,
        "settings": dataclasses.asdict(run.s),
        "data": run.data_dir.resolve().name if run.data_dir else run.dataset,
        "versions": provenance.versions(),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    return json.loads(json.dumps(record, default=str))  # tuples become lists, paths text


def _line(run: Run, changes: dict[str, Any]) -> str:
    import torch

    last = f" to {run.seeds[-1]}" if len(run.seeds) > 1 else ""
    where = f"{run.device} ({provenance.device_name(run.device)})"
    if run.device.type == "cpu":
        threads = torch.get_num_threads()
        where = f"cpu ({threads} thread{'s' if threads > 1 else ''})"
    parts = [
        f"Running **{run.slug}** at `{run.scale}` scale, seed{'s' if last else ''} "
        f"{run.seed}{last}, on {where}{', extended' if run.extended else ''}."
    ]
    if run.data_dir:
        parts.append(f"Data: `{run.data_dir.resolve().name}`.")
    if changes:
        listed = ", ".join(f"`{key} = {getattr(run.s, key)!r}`" for key in changes)
        parts.append(f"Changed: {listed}.")
    if getattr(run.s, "expected", ""):
        parts.append(f"Expected time: {run.s.expected.rstrip('.')}.")
    if run.smoke:
        parts.append("This scale shows that the chapter runs; it is too short to judge a claim.")
    return " ".join(parts)
