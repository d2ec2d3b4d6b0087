"""How the book's notebooks were run, read from the stored ones: the status page's data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from medseg_book.page.plotting import Table
from medseg_book.page.verdict import FAILS, HOLDS, NOISE

from . import ledger, modules, notebook
from .catalogue import Chapter

STATUS_MIME = "application/vnd.medseg.status+json"
FRESH, STALE, NO_RUN = "fresh", "stale", "no run"
JUDGED = {"✓": HOLDS, "✗": FAILS, "≈": NOISE}  # the table's columns; the rest is one more
VERSIONS = ("torch", "medseg_core", "python")
NONE, MOVED = "–", "°"


@dataclass(frozen=True)
class Status:
    """One notebook's last run. `record` is its provenance, empty where it has not run."""

    slug: str
    title: str
    document: str
    kind: str
    group: str  # its theme, as the book's map calls it
    state: str
    record: Mapping[str, Any]
    machine: str
    verdicts: Mapping[str, int]
    weight: int  # bytes of the stored outputs
    to_claims: float | None  # seconds from the notebook's start to the report of its claims
    gpu: Mapping[str, Any]  # a kept GPU run's scale, and its seconds over the same span
    moved: bool  # whether a module of the package that it used has changed since

    @property
    def seconds(self) -> float:
        return self.record.get("seconds") or 0.0


def read(chapters: Iterable[Chapter]) -> list[Status]:
    """The notebooks by theme, primers and the guide's pages last.

    Pages beside the cover (the ledger, this one) are made from the others and are left out: else
    each would be out of date as soon as the other has run.
    """
    chapters = [chapter for chapter in chapters if chapter.theme]
    groups = _groups(chapters)
    rows = [_read(chapter, groups[chapter.theme]) for chapter in chapters]
    order = list(groups.values())
    return sorted(rows, key=lambda row: order.index(row.group))  # stable within a theme


def headline(rows: Iterable[Status]) -> str:
    """How many, how fresh, how long and how old: two lines."""
    rows = list(rows)
    ran = sorted((row for row in rows if row.record.get("date")), key=lambda r: r.record["date"])
    fresh = sum(row.state == FRESH for row in rows)
    noun = "notebook" if len(rows) == 1 else "notebooks"
    lines = [f"**{len(rows)} {noun}, {fresh} fresh.**"]
    if ran:
        minutes = sum(row.seconds for row in ran) / 60
        lines[0] += f" All runs together took {minutes:.0f} minutes."
        first, last = ran[0], ran[-1]
        lines.append(
            f"Oldest run: {first.slug}, {_date(first)}; latest: {last.slug}, {_date(last)}."
        )
    return "  \n".join(lines)


def table(rows: Iterable[Status]) -> Table:
    """One row per notebook below its theme."""
    rows = list(rows)
    differ = _differing(rows)
    header = ["notebook", "state", *JUDGED, NONE, "run", "time", "MiB", "kB", "date", *differ]
    body, group = [], None
    for row in rows:
        if row.group != group:
            group = row.group
            body.append([f"**{group}**", *[""] * (len(header) - 1)])
        record, versions = row.record, row.record.get("versions") or {}
        where = [record[name] for name in ("scale", "device") if record.get(name)]
        cells = [_link(row), row.state + (f" {MOVED}" if row.moved else ""), *_counts(row.verdicts)]
        cells += [", ".join(where) or NONE]
        cells += [_seconds(record.get("seconds")), _rounded(record.get("peak_memory_mb"))]
        cells += [f"{row.weight / 1000:.0f}", _date(row)]
        cells += [versions.get(name, NONE) for name in differ]
        body.append(cells)
    return Table(header, body, _note(rows, differ))


def gpu_table(rows: Iterable[Status]) -> Table | None:
    """GPU seconds beside the CPU's, of the notebooks that keep a GPU run; None without any."""
    kept = [row for row in rows if row.gpu]
    if not kept:
        return None
    body = []
    for row in kept:
        cpu, gpu = row.to_claims, row.gpu["seconds"]
        same = row.gpu["scale"] == row.record.get("scale") and cpu and gpu
        scales = [row.record.get("scale") or NONE, row.gpu["scale"] or NONE]
        ratio = f"{cpu / gpu:.1f}" if same else NONE
        body.append([_link(row), scales[0], _seconds(cpu), scales[1], _seconds(gpu), ratio])
    header = ["notebook", "stored run", "time", "GPU run", "time", "times faster"]
    note = (
        "Both times run from the start of the notebook to the report of its claims. "
        "Runs of different scales are not compared."
    )
    return Table(header, body, note)


def digest(chapters: Iterable[Chapter]) -> str:
    """Hash of what the page shows, by which it knows whether it is up to date.

    Without the comparison with the present package: else each change of a module would ask for
    a new page, and it is no failure.
    """
    content = [{k: v for k, v in asdict(row).items() if k != "moved"} for row in read(chapters)]
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read(chapter: Chapter, group: str) -> Status:
    nb = chapter.outputs
    record = dict(nb.metadata.get("medseg", {})) if nb is not None else {}
    record.pop("cells", None)
    payload = notebook.payload(nb, notebook.CLAIMS_MIME) or {}
    run = notebook.payload(nb, notebook.RUN_MIME) or {}
    recorded = ledger.recorded(chapter)
    return Status(
        slug=chapter.slug,
        title=chapter.title,
        document=chapter.document,
        kind=chapter.kind,
        group=group,
        state=_state(record, chapter),
        record=record,
        machine=run.get("device_name", ""),
        verdicts=dict(ledger.counts(payload.get("claims", []))),
        weight=notebook.weight(nb) if nb is not None else 0,
        to_claims=payload.get("seconds"),
        gpu={k: recorded.get(k) for k in ("seconds", "scale")} if recorded else {},
        moved=bool(modules.changed(payload.get("core", {}))),
    )


def _state(record: Mapping[str, Any], chapter: Chapter) -> str:
    if "code_hash" not in record:
        return NO_RUN
    return FRESH if record["code_hash"] == notebook.code_hash(chapter.code) else STALE


def _groups(chapters: Sequence[Chapter]) -> dict[str, str]:
    """Folder -> title: the themes in the order of the book's map, then primers and guide."""
    import yaml

    path = chapters[0].root / "book" / "themes.yml" if chapters else Path()
    themes = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else []
    titles = {theme["folder"]: theme["title"] for theme in themes}
    for folder in sorted({c.theme for c in chapters}, key=_last):
        titles.setdefault(folder, folder.replace("-", " ").capitalize())
    return titles


def _last(folder: str) -> tuple[bool, bool, str]:
    return folder == "guide", folder == "primers", folder


def _differing(rows: Iterable[Status]) -> list[str]:
    """The versions that are not the same in all runs."""
    known = [row.record["versions"] for row in rows if row.record.get("versions")]
    return [name for name in VERSIONS if len({v.get(name) for v in known}) > 1]


def _note(rows: Iterable[Status], differ: Iterable[str]) -> str:
    """What all runs share, said once."""
    rows = list(rows)
    known = next((row.record["versions"] for row in rows if row.record.get("versions")), {})
    shared = [f"{name} {known[name]}" for name in VERSIONS if name in known and name not in differ]
    machines = sorted({row.machine for row in rows} - {""})
    lines = [f"All runs with {', '.join(shared)}."] if shared else []
    lines += [f"Machine: {', '.join(machines)}."] if machines else []
    note = " ".join(lines)
    if any(row.moved for row in rows):
        today = datetime.now(timezone.utc).date().isoformat()
        note += f"\n\n{MOVED} The package has changed since that run (compared on {today})."
    return note.strip()


def _counts(verdicts: Mapping[str, int]) -> list[str]:
    if not verdicts:
        return [NONE] * (len(JUDGED) + 1)
    judged = [verdicts.get(word, 0) for word in JUDGED.values()]
    return [str(n) for n in (*judged, sum(verdicts.values()) - sum(judged))]


def _link(row: Status) -> str:
    # Outputs are not resolved by Sphinx, so the link names the built page.
    title = row.title.replace("`", "").replace('"', "'")
    return f'[{row.slug}]({row.document}.html "{title}")'


def _date(row: Status) -> str:
    return str(row.record.get("date") or NONE)[:10]


def _seconds(value: float | None) -> str:
    return NONE if value is None else f"{value:.0f} s"


def _rounded(value: float | None) -> str:
    return NONE if value is None else f"{value:.0f}"
