"""`make wheels`: what is asked of pip, and what is found lacking. pip itself is not run here."""

import importlib.util
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheels():
    spec = importlib.util.spec_from_file_location("wheels", ROOT / "tools" / "wheels.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wheel(folder, name, *needs):
    path = folder / f"{name}-1.0-py3-none-any.whl"
    lines = [f"Name: {name}", "Version: 1.0", *(f"Requires-Dist: {need}" for need in needs)]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}-1.0.dist-info/METADATA", "\n".join(lines) + "\n")
    return path


def test_the_pins_of_another_python(wheels):
    lines = [
        "# comment",
        "numpy==2.2.6",
        "torch==2.13.0",
        "sympy==1.14.0",
        'theme==0.15; python_version < "3.11"',
        'theme==0.16; python_version >= "3.11"  # newer',
        "",
    ]
    assert wheels.pins(lines, "3.10") == ["numpy==2.2.6", "theme==0.15"]
    assert wheels.pins(lines, "3.13") == ["numpy==2.2.6", "theme==0.16"]
    assert wheels.pins(lines, "3.13", free=["numpy"]) == ["theme==0.16"]
    assert wheels.torch_version(lines) == "2.13.0"


@pytest.mark.parametrize("python", ["3.9", "3.14", "3", "3.11.2", ""])
def test_a_python_that_the_book_does_not_support(wheels, python):
    with pytest.raises(ValueError, match=r"python must be 3\.10, 3\.11, 3\.12 or 3\.13, got"):
        wheels.pins(["numpy==2.2.6"], python)


def test_what_the_folder_lacks(wheels, tmp_path):
    ours = ["torch>=2.6", "alpha>=1", 'beta; extra == "sweep"', 'medseg-core[qp]; extra == "book"']
    wheel(tmp_path, "medseg_core", *ours, 'gamma[s3]; extra == "qp"', 'no; extra == "other"')
    wheel(tmp_path, "alpha", 'delta>=3; python_version == "3.12"', "Alpha-Two")
    wheel(tmp_path, "alpha_two", "sympy", "nothing; sys_platform == 'win32'")
    wheel(tmp_path, "beta")
    wheel(tmp_path, "gamma", 'epsilon; extra == "s3"', 'zeta; extra == "gcs"')
    assert wheels.lacking(tmp_path, "3.11") == ["epsilon"]
    assert wheels.lacking(tmp_path, "3.12") == ["delta>=3", "epsilon"]
    wheel(tmp_path, "epsilon", "alpha")  # a circle ends too
    wheel(tmp_path, "delta")
    assert wheels.lacking(tmp_path, "3.12") == []


def test_the_tags_of_older_systems(wheels):
    tags = wheels.tags("manylinux_2_28_x86_64")
    assert tags[0] == "manylinux_2_28_x86_64" and tags[-1] == "linux_x86_64"
    assert {"manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux1_x86_64"} <= set(tags)
    assert "manylinux_2_29_x86_64" not in tags and wheels.tags("") == []
    assert "manylinux2014_x86_64" not in wheels.tags("manylinux_2_12_x86_64")
    for wrong in ("win_amd64", "manylinux2014_x86_64", "2_28"):
        with pytest.raises(ValueError, match="platform must look like manylinux_2_28_x86_64, got"):
            wheels.tags(wrong)


@pytest.fixture
def run(wheels, monkeypatch, tmp_path):
    """`main` with a pip that writes empty wheels; returns its exit code and what pip was asked."""
    asked = []

    def pip(*arguments):
        arguments = [str(a) for a in arguments]
        asked.append(arguments)
        out = Path(arguments[arguments.index("-w" if "-w" in arguments else "-d") + 1])
        if arguments[0] == "wheel":
            for package in ("medseg_core", "medseg_book"):
                assert (Path(arguments[-1]) / package / "__init__.py").is_file()
            wheel(out, "medseg_core", "torch>=2.6", "numpy", 'late; python_version == "3.12"')
        else:
            stand_in = next(a for a in arguments if "/torch-" in a)
            assert zipfile.is_zipfile(stand_in)
            (out / Path(stand_in).name).write_bytes(Path(stand_in).read_bytes())
            wheel(out, "numpy", "torch>=2.8", 'torch<2; extra == "old"')
            if "late" in arguments:
                wheel(out, "late")
        return codes.pop(0) if codes else 0

    codes = []
    monkeypatch.setattr(wheels, "pip", pip)
    out = tmp_path / "wheels"
    return lambda *a, fail=(): (
        codes.extend(fail),
        wheels.main([*a, "--out", str(out)]),
        asked,
        out,
    )[1:]


def test_a_folder_without_torch(run, capsys):
    code, asked, out = run("--python", "3.12", "--platform", "manylinux_2_28_x86_64")
    assert code == 0
    names = {path.name.partition("-")[0] for path in out.glob("*.whl")}
    assert names == {"medseg_core", "numpy", "late"}  # asked for in a second turn
    download = asked[1]
    assert download[0] == "download" and "--only-binary=:all:" in download
    assert download[download.index("--python-version") + 1] == "3.12"
    assert not any(a.startswith(("torch=", "nvidia", "triton")) for a in download)
    assert any(a.endswith("[book,qp,live,data,sweep,dev]") for a in download)
    text = (out / "INSTALL.txt").read_text()
    assert "Python 3.12 on manylinux_2_28_x86_64, with torch >=2.6,>=2.8.\n" in text
    assert "pip install --no-index --find-links wheels 'medseg-core[" in text
    assert "3 wheels for Python 3.12" in capsys.readouterr().out


def test_another_torch_frees_what_is_built_on_it(run):
    _, asked, _ = run("--python", "3.12")
    download = asked[-1]
    assert any(a.startswith("monai==") for a in download)
    _, asked, _ = run("--python", "3.12", "--torch", "2.6.0+cu124")
    download = asked[-1]
    assert not any(a.startswith("monai==") for a in download)
    assert any(a.endswith("/torch-2.6.0+cu124-py3-none-any.whl") for a in download)
    assert any(a.startswith("scipy==") for a in download)


def test_old_wheels_go_and_a_failure_leaves_no_instructions(run, capsys):
    _, _, out = run("--python", "3.12")
    (out / "old-0.1-py3-none-any.whl").touch()
    code, _, _ = run("--python", "3.12", fail=(0, 7))
    assert code == 7 and "is not complete" in capsys.readouterr().err
    assert not (out / "old-0.1-py3-none-any.whl").exists()
    assert not (out / "INSTALL.txt").exists()


def test_wrong_arguments(run, capsys):
    with pytest.raises(SystemExit):
        run("--torch", "new")
    assert "Invalid version: 'new'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run("--python", "2.7")
    assert "python must be 3.10, 3.11, 3.12 or 3.13, got '2.7'" in capsys.readouterr().err


def test_the_extras_are_those_of_the_project(wheels):
    text = (ROOT / "pyproject.toml").read_text()
    section = text.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    declared = [line.split(" =")[0] for line in section.splitlines() if " = [" in line]
    assert wheels.EXTRAS.split(",") == declared


def test_what_is_left_out_is_needed_by_torch_alone(wheels):
    """Otherwise a machine whose torch brings none of it would lack it."""
    from importlib import metadata

    pinned = (ROOT / "constraints.txt").read_text().splitlines()
    names = {Requirement(text).name for line in pinned if (text := line.partition("#")[0].strip())}
    for name in names - set(wheels.WITH_TORCH):
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        for need in map(Requirement, needs):
            used = need.marker is None or need.marker.evaluate({"extra": ""})
            only_torch = need.name in ("sympy", "mpmath")
            assert not (used and only_torch), f"{name} needs {need.name}"
