"""Check the stored notebooks against the rules; name what is broken, note what has moved on."""

from __future__ import annotations

from dataclasses import dataclass, field

from . import measures, modules, notebook
from .catalogue import Chapter
from .rules import RULES


@dataclass
class Verdict:
    """What the check found in one chapter: breaches fail it, notes do not."""

    chapter: Chapter
    problems: list[tuple[str, str]] = field(default_factory=list)  # (rule's id, message)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems


def check(chapter: Chapter) -> Verdict:
    """Every rule for a chapter of that kind; without a stored run those about the source."""
    verdict = Verdict(chapter)
    stored = chapter.outputs is not None
    if not stored:
        message = f"{chapter.stored.name} is missing: medseg refresh {chapter.slug}"
        verdict.problems.append(("pair", message))
    shaped = measures.in_new_shape(chapter)
    for rule in RULES:
        if chapter.kind not in rule.kinds or not (stored or rule.source):
            continue
        messages = list(rule.check(chapter))
        if rule.shape and not shaped:
            verdict.notes += [f"[{rule.id}] for the new shape: {message}" for message in messages]
        else:
            verdict.problems += [(rule.id, message) for message in messages]
    verdict.notes += _core_notes(chapter)
    return verdict


def _core_notes(chapter: Chapter) -> list[str]:
    """Modules of the packages whose code has changed since the chapter's last run.

    That is no failure: a faster solver need not rerun fifty chapters. It tells what to rerun when
    a result looks different.
    """
    payload = notebook.payload(chapter.outputs, notebook.CLAIMS_MIME) or {}
    changed = modules.changed(payload.get("core", {}))
    return [f"changed since its last run: {', '.join(changed)}"] if changed else []
