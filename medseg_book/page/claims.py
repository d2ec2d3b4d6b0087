"""The claims of a chapter: fixed before the experiment, judged by their spread, stored as data.

A notebook calls `check` (and `exact`, `paper_only`, `note`) once per claim, `metric` for a figure
that a table over many runs should have, and `report` at its end, which stores them in the notebook
as data of type `MIME`. `scales.begin` resets the list.

A claim's verdict is one of

- `holds`: the mean meets the bound, and the interval lies wholly beyond `null` (no effect);
- `does not hold`: the mean and the whole interval miss the bound;
- `within noise`: neither;
- `paper scale only`, `not judged` (smoke scale, or too few values), `noted`.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from medseg_book.page import display, provenance
from medseg_book.page.claims_table import Claim, markdown, order, plain
from medseg_book.page.verdict import FAILS, HOLDS, NOISE, NOTED, PAPER, UNJUDGED, decide, join, tidy
from medseg_core import checks

MIME = "application/vnd.medseg.claims+json"
CONTEXT = {  # of the run, as `reset` takes it
    "slug": "",
    "scale": "lesson",
    "seed": 0,
    "device": "cpu",
    "extended": False,
    "overrides": {},
}


@dataclass
class _Run:
    """What the notebook that runs in this kernel has claimed so far."""

    context: dict[str, Any]
    claims: dict[str, Claim] = field(default_factory=dict)
    cells: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float | None] = field(default_factory=dict)
    start: float = field(default_factory=time.perf_counter)


_run = _Run(dict(CONTEXT))


def reset(**context: Any) -> None:
    """Forget all claims, restart the clock, and note the run: `slug`, `scale`, `seed`, ...

    Raises:
        ValueError: an entry that a run does not have.
    """
    for key in context:
        checks.choice(key, "context", tuple(CONTEXT))
    global _run
    _run = _Run({**CONTEXT, **context})


def context() -> dict[str, Any]:
    """The run that the claims belong to, as `reset` took it."""
    return dict(_run.context)


def check(
    id: str,
    text: str,
    measured: Any,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    between: tuple[float, float] | None = None,
    null: float | None = None,
    unit: Literal["seed", "case", "fold"] = "seed",
    groups: Any = None,
    paper: str = "",
    baseline: str | float = "",
    ci: float = 0.95,
    if_fails: str = "",
    timing: bool = False,
) -> Claim:
    """Judge a claim about the mean of `measured`, and keep it for `report`.

    Args:
        id: "C3", or "C3a" for a part; C3 holds only if all its parts do.
        text: the claim with its metric and margin.
        measured: paired differences, 0 = no effect (a ratio as relative change), or an absolute
            level. `unit="seed"` or `"fold"`: one number each, with Student's interval; fewer than
            three are not judged. `unit="case"`: numbers per case, (cases,) of one seed or
            (seeds, cases), which are averaged over the seeds first and bootstrapped over the
            cases. A case without a value (NaN) in every seed is left out and counted.
        at_least, at_most, between: the bound, exactly one; `between` takes (low, high), and needs
            the whole interval in there.
        null: what the interval must lie beyond. Default: 0 for a margin (`at_least` > 0,
            `at_most` < 0), otherwise the bound itself (a tolerance). Give it for an absolute
            level: `at_least=0.8, null=0.8`. Touching a null of 0 is not beyond it: two arms that
            are the same prove nothing.
        unit: what varies: "seed", "case" or "fold".
        groups: (cases,) the patient of each case, where one has several: patients are resampled.
        paper: the paper's own figures.
        baseline: the baseline's level, for the reader.
        ci: share that the interval covers.
        if_fails: the likely reason, shown unless the claim holds.
        timing: the numbers depend on the machine.

    Raises:
        ValueError: an id that is malformed or taken; not exactly one bound; no values; NaN or
            infinity (NaN is allowed with `unit="case"`); seeds with unequal numbers of cases.

    Taught in: all chapters.
    """
    _free(id)
    outcome = decide(
        measured,
        at_least=at_least,
        at_most=at_most,
        between=between,
        null=null,
        unit=unit,
        groups=groups,
        ci=ci,
    )
    if _run.context["scale"] == "smoke":
        detail = join("smoke scale", outcome.detail)
        outcome = outcome._replace(verdict=UNJUDGED, detail=detail)
    return _keep(
        Claim(
            id,
            text,
            **outcome._asdict(),
            n=len(outcome.values),
            unit=unit,
            paper=paper,
            baseline=baseline if isinstance(baseline, str) else f"{baseline:.4g}",
            if_fails=if_fails,
            timing=timing,
        )
    )


def exact(id: str, text: str, ok: bool, detail: str = "", *, if_fails: str = "") -> Claim:
    """Keep a claim that is simply true or false: two solvers agree, a count is right.

    Raises:
        ValueError: an id that is malformed or taken.
        TypeError: if `ok` is not a truth value.
    """
    _free(id)
    if not isinstance(ok, (bool, np.bool_)):
        raise TypeError(f"ok must be True or False, got {ok!r}")
    verdict = HOLDS if ok else FAILS
    if _run.context["scale"] == "smoke":
        verdict, detail = UNJUDGED, join(f"smoke scale: {'true' if ok else 'false'}", detail)
    return _keep(Claim(id, text, verdict, detail=detail, unit="exact", if_fails=if_fails))


def paper_only(id: str, text: str, paper: str, detail: str = "") -> Claim:
    """Keep a claim that this scale cannot judge; `detail` says why.

    Raises:
        ValueError: an id that is malformed or taken.
    """
    _free(id)
    return _keep(Claim(id, text, PAPER, paper=paper, detail=detail))


def note(id: str, text: str, value: float | str) -> Claim:
    """Keep a result that is reported and not judged: a number or a phrase.

    Raises:
        ValueError: an id that is malformed or taken; NaN or infinity.
    """
    _free(id)
    if isinstance(value, str):
        return _keep(Claim(id, text, NOTED, detail=value))
    value = float(checks.finite(value, "value"))
    return _keep(Claim(id, text, NOTED, mean=tidy(value), n=1, values=[tidy(value)]))


def metric(name: str, value: float) -> None:
    """Keep a figure of the run for tables over many runs, such as `medseg sweep` makes.

    Nothing is claimed of it and the page does not show it. The name must mean the same in every
    run: "Dice, U-Net" with the number of images swept, not "Dice, U-Net (10 images)". A second
    value replaces the first; NaN is kept as no value.

    Raises:
        ValueError: an empty name or one of several lines; infinity.
    """
    if not isinstance(name, str) or not name.strip() or "\n" in name:
        raise ValueError(f"name must be one line of text, got {name!r}")
    value = float(value)
    _run.metrics[name] = None if np.isnan(value) else tidy(float(checks.finite(value, "value")))


def payload() -> dict[str, Any]:
    """All claims so far with their run, as `report` stores them: plain JSON."""
    content = {
        **_run.context,
        "claims": [asdict(claim) for claim in _ordered()],
        "metrics": dict(_run.metrics),
        "seconds": round(time.perf_counter() - _run.start, 1),
        "peak_memory_mb": tidy(provenance.peak_memory_mb()),
        "core": provenance.core_hashes(),
    }
    return json.loads(json.dumps(content, default=str, allow_nan=False))


def report() -> None:
    """Show the table of all claims, and store it in the notebook as data.

    Parts (C3a, C3b) are followed by the claim that they make up.
    """
    claims, context = _ordered(), _run.context
    text, table = plain(claims, context), markdown(claims, context)
    display.show({"text/plain": text, "text/markdown": table, MIME: payload()})


def _free(id: str) -> None:
    """Refuse a malformed or taken id. A cell that a reader runs again replaces its own claims."""
    if not isinstance(id, str) or not re.fullmatch(r"C\d+[a-z]?", id):
        raise ValueError(f'id must look like "C3" or "C3a", got {id!r}')
    if id in _run.claims:
        then, now = _run.cells[id], display.cell()
        if then is None or now is None or then[0] == now[0] or then[1] != now[1]:
            raise ValueError(f"id {id!r} is taken by {_run.claims[id].text!r}")
        del _run.claims[id]
    clashes = [other for other in _run.claims if _is_part(other, id) or _is_part(id, other)]
    if clashes:
        raise ValueError(f"id {id!r} clashes with {clashes[0]!r}: a claim follows from its parts")


def _is_part(part: str, whole: str) -> bool:
    return part[-1].isalpha() and part[:-1] == whole


def _keep(claim: Claim) -> Claim:
    _run.claims[claim.id] = claim
    _run.cells[claim.id] = display.cell()
    return claim


def _ordered() -> list[Claim]:
    """All claims by number, each group of parts followed by the claim that they make up."""
    claims = list(_run.claims.values())
    wholes = {c.id[:-1] for c in claims if c.id[-1].isalpha()}
    derived = [_whole(w, [c for c in claims if _is_part(c.id, w)]) for w in wholes]
    return sorted([*claims, *derived], key=lambda c: order(c.id))


def _whole(id: str, parts: Sequence[Claim]) -> Claim:
    ids = sorted(part.id for part in parts)
    verdicts = {part.verdict for part in parts if part.verdict != NOTED}
    if len(verdicts) <= 1:
        verdict = verdicts.pop() if verdicts else NOTED
    else:
        # One part that fails fails the whole; one that nobody judged leaves it open.
        verdict = next(v for v in (FAILS, NOISE, UNJUDGED, PAPER) if v in verdicts)
        verdict = UNJUDGED if verdict == PAPER else verdict
    text = f"{', '.join(ids[:-1])} and {ids[-1]} together" if len(ids) > 1 else f"{ids[0]} alone"
    return Claim(id, text, verdict, parts=ids, timing=any(part.timing for part in parts))
