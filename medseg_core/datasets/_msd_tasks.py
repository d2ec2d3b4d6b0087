"""The ten tasks of the Medical Segmentation Decathlon, as published."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """One task as published (Simpson et al., arXiv:1902.09063); a dataset.json has the last word.

    Attributes:
        name: of its folder.
        channels: the images' modalities, in the order of their fourth axis.
        labels: what each value means.
        prefix: with which its files' names begin.
    """

    name: str
    channels: tuple[str, ...]
    labels: dict[int, str]
    prefix: str


def _task(name: str, channels: str, labels: str, prefix: str) -> Task:
    names = ["background", *labels.split(", ")]
    return Task(name, tuple(channels.split(", ")), dict(enumerate(names)), prefix)


TASKS = (
    _task(
        "Task01_BrainTumour",
        "FLAIR, T1w, t1gd, T2w",
        "edema, non-enhancing tumor, enhancing tumour",
        "BRATS",
    ),
    _task("Task02_Heart", "MRI", "left atrium", "la"),
    _task("Task03_Liver", "CT", "liver, cancer", "liver"),
    _task("Task04_Hippocampus", "MRI", "Anterior, Posterior", "hippocampus"),
    _task("Task05_Prostate", "T2, ADC", "PZ, TZ", "prostate"),
    _task("Task06_Lung", "CT", "cancer", "lung"),
    _task("Task07_Pancreas", "CT", "pancreas, cancer", "pancreas"),
    _task("Task08_HepaticVessel", "CT", "Vessel, Tumour", "hepaticvessel"),
    _task("Task09_Spleen", "CT", "spleen", "spleen"),
    _task("Task10_Colon", "CT", "colon cancer primaries", "colon"),
)


def known(task: int | str) -> Task | None:
    """The published task of a number (4), a folder ("Task04_Hippocampus") or a name."""
    return next((t for t in TASKS if is_named(t.name, task)), None)


def is_named(folder: str, task: int | str) -> bool:
    """Whether ``folder`` is that of a task given by number, name or both."""
    number, _, name = folder.partition("_")
    if isinstance(task, int):
        return number.lower() == f"task{task:02d}"
    return str(task).lower() in (folder.lower(), name.lower(), number.lower())
