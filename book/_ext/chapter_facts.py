"""What a card says about a page, read from its stored notebook.

The box "At a glance" tells the idea and, in a line of its own, ``**Images:** cardiac MR. **Level:**
intermediate.``. The minutes are those of the stored lesson, the verdicts those of its claims.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

CLAIMS = "application/vnd.medseg.claims+json"
HOLDS, FAILS, OPEN = "holds", "does not hold", ("undecided", "within noise")
LEVELS = ("introductory", "intermediate", "advanced")

# The words after "**Idea:**" in the box at the top, with their continuation lines.
IDEA = re.compile(
    r"^[\s>|*-]*\*\*(?:the )?idea[^*]*\*\*[\s:|.]*(.+(?:\n(?!\s*[-*|:#]).+)*)", re.I | re.M
)
PARAGRAPH = re.compile(r"^(?![#:`({>|\-*+!\s])(.+(?:\n.+)*)", re.M)


@dataclass
class Page:
    docname: str
    title: str
    idea: str = ""
    images: str = ""
    level: str = ""
    minutes: int | None = None
    verdicts: Counter = field(default_factory=Counter)

    @property
    def theme(self) -> str:
        return Path(self.docname).parent.name

    @property
    def slug(self) -> str:
        return Path(self.docname).name


def plain(markdown: str) -> str:
    """The words of a line of MyST in one line, without citations, links and table edges."""
    text = re.sub(r"\s*\{cite:\w+\}`[^`]*`", "", markdown)
    text = re.sub(r"\{[\w:]+\}`([^`<]*)(?:<[^`]*)?`", r"\1", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return " ".join(text.split()).strip(" |")


def said(opening: str, name: str) -> str:
    found = re.search(rf"\*\*{name}:\*\*\s*([^.*\n]+)", opening)
    return plain(found[1]) if found else ""


def read_page(root: Path, docname: str) -> Page:
    """Read what there is to say from the stored notebook (or the Markdown page)."""
    notebook = root / f"{docname}.ipynb"
    if not notebook.is_file():
        prose = [(root / f"{docname}.md").read_text(encoding="utf-8")]
        cells, run = [], {}
    else:
        stored = json.loads(notebook.read_text(encoding="utf-8"))
        cells, run = stored["cells"], stored["metadata"].get("medseg", {})
        prose = ["".join(c["source"]) for c in cells if c["cell_type"] == "markdown"]
    opening = "\n\n".join(prose[:4])
    title = re.search(r"^# +(.+)$", opening, re.M)
    idea = IDEA.search(opening) or PARAGRAPH.search(opening)
    page = Page(
        docname,
        title=plain(title[1]) if title else Path(docname).name,
        idea=plain(idea[1]) if idea else "",
        images=said(opening, "Images"),
        level=said(opening, "Level"),
        minutes=math.ceil(run["seconds"] / 60) if run.get("scale") == "lesson" else None,
    )
    for cell in cells:
        for output in cell.get("outputs", []):
            if report := output.get("data", {}).get(CLAIMS):
                # As in chapter and ledger: parts count through the claim that they make up.
                parts = {part for claim in report["claims"] for part in claim.get("parts", ())}
                whole = [claim for claim in report["claims"] if claim.get("id") not in parts]
                page.verdicts = Counter(claim["verdict"] for claim in whole)
    return page


def fact_line(page: Page) -> str:
    """Facts for a card's foot; each in a span by whose class the filters find it."""
    told = {
        "theme": page.theme.replace("-", " "),
        "images": page.images,
        "level": page.level,
        "minutes": f"{page.minutes} min" if page.minutes else "",
    }
    return " · ".join(f"[{words}]{{.fact-{name}}}" for name, words in told.items() if words)


def verdict_line(page: Page) -> str:
    """For example "✓ 4 hold, ✗ 1 fails, ≈ 1 undecided" in spans; empty where nothing was judged."""
    holds, fails = page.verdicts[HOLDS], page.verdicts[FAILS]
    undecided = sum(page.verdicts[word] for word in OPEN)
    told = {
        "holds": (holds, f"✓ {holds} hold{'s' * (holds == 1)}"),
        "fails": (fails, f"✗ {fails} fail{'s' * (fails == 1)}"),
        "open": (undecided, f"≈ {undecided} undecided"),
    }
    return " ".join(
        f"[{words}]{{.verdict .verdict-{kind}}}" for kind, (count, words) in told.items() if count
    )
