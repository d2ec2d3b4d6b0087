"""`sweep.csv`: one row per point, read from the notebooks, so that they can give it anew."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

from nbformat import NotebookNode

from medseg_book.run import notebook

from .point import DONE, Outcome, status_of

NAME = "sweep.csv"
SUFFIX, FAILED_SUFFIX = ".ipynb", ".failed.ipynb"
FIRST = (
    "point", "slug", "status", "scale", "seed", "device", "seconds", "peak_memory_mb", "date",
    "code_hash", "notebook", "error",
)  # fmt: skip
Row = dict[str, Any]


def row(name: str, file: str, nb: NotebookNode) -> Row | None:
    """The row of an executed notebook; None for one that no run of ours has written."""
    record = nb.metadata.get("medseg")
    if not record or "code_hash" not in record:
        return None
    run = notebook.payload(nb, notebook.RUN_MIME) or {}
    found: Row = {
        "point": name,
        "slug": record["slug"],
        "status": status_of(record.get("ename", "")) if "failed" in record else DONE,
        "scale": record.get("scale"),
        "seed": record.get("seed"),
        "device": run.get("device_name") or record.get("device"),
        "seconds": record.get("seconds"),
        "peak_memory_mb": record.get("peak_memory_mb"),
        "date": record.get("date"),
        "code_hash": record["code_hash"],
        "notebook": file,
        "error": record.get("error", ""),
    }
    found |= parameter_columns(record.get("parameters", {}))
    claims = notebook.payload(nb, notebook.CLAIMS_MIME) or {}
    found |= {f"metrics.{name}": value for name, value in claims.get("metrics", {}).items()}
    for claim in claims.get("claims", []):
        for key in ("verdict", "mean", "low", "high"):
            found[f"claims.{claim['id']}.{key}"] = claim.get(key)
    return found


def parameter_columns(given: Mapping[str, Any]) -> Row:
    """`param.<name>`, values as JSON; each setting of `overrides` has a column of its own."""
    flat = {k: v for k, v in given.items() if k != "overrides"}
    flat |= {f"overrides.{k}": v for k, v in (given.get("overrides") or {}).items()}
    return {f"param.{k}": json.dumps(v, default=str) for k, v in flat.items()}


def lost(outcome: Outcome, slug: str, given: Mapping[str, Any], code_hash: str) -> Row:
    """The row of a point that left no notebook: its worker died, or the disk was full."""
    found = {
        "point": outcome.name,
        "slug": slug,
        "status": outcome.status,
        "scale": given.get("scale"),
        "seed": given.get("seed"),
        "seconds": round(outcome.seconds, 1),
        "code_hash": code_hash,
        "notebook": "",
        "error": outcome.error,
    }
    return found | parameter_columns(given)


def point_of(file: str) -> str | None:
    """The point that a file of the folder belongs to; None for other files."""
    if not file.endswith(SUFFIX):
        return None
    return file.removesuffix(FAILED_SUFFIX).removesuffix(SUFFIX)


def parse(text: str) -> list[Row]:
    """The rows of a stored table, every value as text."""
    return list(csv.DictReader(io.StringIO(text)))


def write(rows: Iterable[Mapping[str, Any]]) -> str:
    """The table as text, rows by name, columns by kind; empty = no value."""
    rows = sorted(rows, key=lambda r: str(r["point"]))
    names = dict.fromkeys(name for r in rows for name in r)
    order = list(FIRST)
    for kind in ("param.", "metrics.", "claims."):
        order += [name for name in names if name.startswith(kind)]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, order, restval="", lineterminator="\n")
    writer.writeheader()
    for r in rows:
        writer.writerow({k: "" if v is None else v for k, v in r.items()})
    return stream.getvalue()
