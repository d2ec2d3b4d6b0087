"""Choice of the device that a chapter runs on."""

from __future__ import annotations

import torch


def pick(device: str | torch.device = "auto") -> torch.device:
    """The torch device of a name: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.

    ``"auto"`` takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        ValueError: an unknown name, or a device that this machine does not have.

    Taught in: all chapters.
    """
    if str(device) == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(_message(device, "is not a device")) from error
    if chosen.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (chosen.index or 0) >= count:
            raise ValueError(_message(device, f"is not there: {count} CUDA device(s) found"))
    elif chosen.type == "mps":
        if not torch.backends.mps.is_available():
            raise ValueError(_message(device, "is not there: MPS is not available"))
    elif chosen.type != "cpu":
        raise ValueError(_message(device, "is not supported"))
    return chosen


def _message(device: object, problem: str) -> str:
    return f'device={str(device)!r} {problem}; choose "auto", "cpu", "cuda", "cuda:<n>" or "mps"'
