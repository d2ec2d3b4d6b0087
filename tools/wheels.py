"""Collect what a CUDA machine with Python and torch, but without a network, lacks: `make wheels`.

pip resolves the book's packages at the pinned versions, and is told by an empty stand-in that torch
is there already: neither torch nor any CUDA library is collected, and the other machine's torch,
built for its driver, stays as it is.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from email import message_from_bytes
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = "book,qp,live,data,sweep,dev"
WITH_TORCH = ("torch", "sympy", "mpmath")  # torch, and the pins that only torch needs
ON_TORCH = ("monai",)  # whose releases ask for a torch of their time
BUILD = ("setuptools>=77", "wheel")  # for `pip install -e .` there


def main(arguments: list[str] | None = None) -> int:
    """Fill the folder; the exit code is pip's where pip fails."""
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=here, help=f"the other machine's Python ({here})")
    parser.add_argument(
        "--platform", default="", help="its wheel tag, e.g. manylinux_2_28_x86_64; default: as here"
    )
    parser.add_argument(
        "--torch", default="", help="its torch, e.g. 2.6.0; default: the tested one"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "wheels")
    options = parser.parse_args(arguments)
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    try:
        torch_there = str(Version(options.torch or torch_version(lines)))
        wanted = [*pins(lines, options.python, free=ON_TORCH if options.torch else ()), *BUILD]
        target = ["--python-version", options.python, "--only-binary=:all:"]
        target += [word for tag in tags(options.platform) for word in ("--platform", tag)]
    except ValueError as error:
        parser.error(str(error))
    shutil.rmtree(options.out, ignore_errors=True)  # two versions of one package would confuse
    options.out.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        torch = stand_in(Path(folder), torch_there)
        code = pip("wheel", "--no-deps", "-w", options.out, copy_of_packages(Path(folder)))
        more = [f"{path}[{EXTRAS}]" for path in options.out.glob("medseg_core-*.whl")]
        while more and not code:
            code = pip("download", "-d", options.out, *target, torch, *wanted, *more)
            more = lacking(options.out, options.python)
    (options.out / torch.name).unlink(missing_ok=True)
    if code:
        print(f"pip failed: {options.out} is not complete", file=sys.stderr)
        return code
    text = instructions(options.python, options.platform, torch_wanted(options.out))
    (options.out / "INSTALL.txt").write_text(text, encoding="utf-8")
    sizes = [path.stat().st_size for path in options.out.glob("*.whl")]
    print(f"{options.out.name}/: {len(sizes)} wheels for Python {options.python}, ", end="")
    print(f"{sum(sizes) / 1e6:.0f} MB; INSTALL.txt there says how to use them")
    return 0


def pip(*arguments: object) -> int:
    """Run this environment's pip."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    return subprocess.run([*command, *map(str, arguments)]).returncode


def copy_of_packages(folder: Path) -> Path:
    """What the wheel is built from, elsewhere: setuptools leaves its `build/` beside it."""
    copy = folder / "packages"
    ignore = shutil.ignore_patterns("__pycache__")
    for package in ("medseg_core", "medseg_book"):
        shutil.copytree(ROOT / package, copy / package, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    return copy


def pins(lines: Iterable[str], python: str, free: Iterable[str] = ()) -> list[str]:
    """The lines of `constraints.txt` that hold for that Python (as "3.12"), without torch's.

    Packages in `free` are left out: pip finds a version of them that goes with the others.
    """
    left_out = {*WITH_TORCH, *free}
    found = [Requirement(text) for line in lines if (text := line.partition("#")[0].strip())]
    return [
        f"{pin.name}{pin.specifier}"
        for pin in found
        if pin.name not in left_out and holds(pin, python)
    ]


def lacking(folder: Path, python: str) -> list[str]:
    """What the package needs on that Python and the folder does not hold.

    pip judges a requirement such as `aiohttp; python_version == "3.12"` by the Python that runs it,
    not by the one that it collects for.
    """
    needs = requirements(folder)
    todo = [("medseg-core", extra) for extra in ("", *EXTRAS.split(","))]
    seen, absent = set(todo), set()
    while todo:
        name, extra = todo.pop()
        for requirement in needs[name]:
            below = canonicalize_name(requirement.name)
            if below in WITH_TORCH or not holds(requirement, python, extra):
                continue
            if below not in needs:
                absent.add(f"{requirement.name}{requirement.specifier}")
                continue
            steps = {(below, more) for more in ("", *requirement.extras)} - seen
            seen |= steps
            todo += steps
    return sorted(absent)


def requirements(folder: Path) -> dict[str, list[Requirement]]:
    """What each wheel of the folder asks for, by the package's name."""
    found = {}
    for path in folder.glob("*.whl"):
        with zipfile.ZipFile(path) as wheel:
            name = next(n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
            texts = message_from_bytes(wheel.read(name)).get_all("Requires-Dist", [])
        found[str(parse_wheel_filename(path.name)[0])] = [Requirement(text) for text in texts]
    return found


def torch_wanted(folder: Path) -> str:
    """The versions of torch that all wheels of the folder go with, as ">=2.6,>=2.8"."""
    asked = [r for needs in requirements(folder).values() for r in needs if r.name == "torch"]
    return str(SpecifierSet(",".join(str(r.specifier) for r in asked if not r.marker)))


def holds(requirement: Requirement, python: str, extra: str = "") -> bool:
    """Whether a requirement's marker is true on the other machine.

    Raises:
        ValueError: a Python that the book does not support.
    """
    if not re.fullmatch(r"3\.1[0-3]", python):
        raise ValueError(f"python must be 3.10, 3.11, 3.12 or 3.13, got {python!r}")
    there = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "extra": extra,
    }
    return requirement.marker is None or requirement.marker.evaluate(there)


def torch_version(lines: Iterable[str]) -> str:
    """The torch that the pins are tested with."""
    return next(line for line in lines if line.startswith("torch==")).partition("==")[2].split()[0]


def stand_in(folder: Path, version: str) -> Path:
    """An empty wheel named torch that needs nothing."""
    path = folder / f"torch-{version}-py3-none-any.whl"
    info = f"torch-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


def tags(platform: str) -> list[str]:
    """Every tag whose wheels a machine of that one runs: a newer glibc takes older ones' too.

    >>> tags("manylinux_2_6_x86_64")
    ['manylinux_2_6_x86_64', 'manylinux_2_5_x86_64', 'manylinux1_x86_64', 'linux_x86_64']

    Raises:
        ValueError: a tag of another shape.
    """
    if not platform:
        return []
    match = re.fullmatch(r"manylinux_2_(\d+)_(\w+)", platform)
    if not match:
        raise ValueError(f"platform must look like manylinux_2_28_x86_64, got {platform!r}")
    found, machine = [], match[2]
    for minor in range(int(match[1]), 4, -1):
        found.append(f"manylinux_2_{minor}_{machine}")
        if old := {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}.get(minor):
            found.append(f"{old}_{machine}")
    return [*found, f"linux_{machine}"]


def instructions(python: str, platform: str, torch: str) -> str:
    """What stands in INSTALL.txt."""
    return f"""\
For Python {python} on {platform or "a Linux like the one that made this folder"}, \
with torch {torch}.

Copy the clone of the book, this folder in it, to the other machine. There, in the clone and in the
environment that holds torch:

    python -m pip install --no-index --find-links wheels 'medseg-core[{EXTRAS}]'

torch stays as it is. To edit the package there, install the clone itself instead:

    python -m pip install --no-index --find-links wheels -e '.[{EXTRAS}]'

Then `medseg doctor` says what the machine has.
"""


if __name__ == "__main__":
    sys.exit(main())
