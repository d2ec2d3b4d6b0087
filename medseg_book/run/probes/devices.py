"""GPUs: what the driver has, what torch was built for, and whether the two work together."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from .finding import Finding

SLOW = "smoke and lesson scale are made for a CPU; paper scale takes days there"
SYSTEM = Path("/")  # where the kernel's own files lie
SECONDS = 20  # that nvidia-smi may take


@dataclass(frozen=True)
class Driver:
    """NVIDIA's driver; `devices` holds their names, as far as nvidia-smi tells them."""

    version: str
    devices: tuple[str, ...] = ()


def probe() -> list[Finding]:
    """The devices that a chapter can run on."""
    found = driver()
    try:
        import torch
    except ImportError:
        return [Finding("missing", "torch", f"not installed{_beside(found)}", "pip install torch")]
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    if getattr(torch.version, "hip", None):
        build = f"ROCm {torch.version.hip}"
    torch_line = Finding("ok", "torch", f"{torch.__version__} ({build})")
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        return [torch_line, *(_device(torch, i, found) for i in range(count))]
    if found:
        if build == "CPU only":
            detail = f"torch is built for the CPU only{_beside(found)}"
            remedy = "install the CUDA build of torch that fits this driver (see pytorch.org)"
        else:
            detail = f"torch cannot use it{_beside(found)}"
            remedy = (
                f"check that the driver is new enough for {build} and that CUDA_VISIBLE_DEVICES "
                "does not hide the device"
            )
        return [torch_line, Finding("missing", "GPU", detail, remedy, needed=False)]
    if torch.backends.mps.is_available():
        return [torch_line, Finding("ok", "GPU", "Apple's (device mps)")]
    return [torch_line, Finding("slow", "GPU", f"none: {SLOW}")]


def driver() -> Driver | None:
    """NVIDIA's driver, from nvidia-smi or from the kernel; None where there is none."""
    if smi := shutil.which("nvidia-smi"):
        query = ["--query-gpu=driver_version,name", "--format=csv,noheader"]
        try:
            done = subprocess.run([smi, *query], capture_output=True, text=True, timeout=SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            done = None
        rows = [row.split(", ", 1) for row in done.stdout.splitlines()] if done else []
        if done and done.returncode == 0 and rows and all(len(row) == 2 for row in rows):
            return Driver(rows[0][0].strip(), tuple(name.strip() for _, name in rows))
    try:
        text = (SYSTEM / "proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        return None
    number = re.search(r"\b(\d+\.\d+(?:\.\d+)?)\b", text)
    return Driver(number[1] if number else "of an unknown version")


def _device(torch: ModuleType, index: int, found: Driver | None) -> Finding:
    about = torch.cuda.get_device_properties(index)
    detail = f"{about.name}, {about.total_memory / 2**30:.0f} GiB, "
    detail += f"compute capability {about.major}.{about.minor}"
    detail += f", driver {found.version}" if found else ""
    try:  # the device may be listed and yet be too new or too old for this build
        works = float((torch.ones(2, device=f"cuda:{index}") * 2).sum()) == 4
        reason = "a sum came out wrong"
    except RuntimeError as error:
        works, reason = False, str(error).splitlines()[0]
    if works:
        return Finding("ok", f"cuda:{index}", detail)
    remedy = "install a build of torch for this device (see pytorch.org)"
    return Finding("missing", f"cuda:{index}", f"{detail}; it fails: {reason}", remedy)


def _beside(found: Driver | None) -> str:
    if not found:
        return ""
    devices = f" ({', '.join(found.devices)})" if found.devices else ""
    return f", beside NVIDIA's driver {found.version}{devices}"
