"""One organ whose lookalikes are drawn at several contrasts."""

import pytest
import torch

from medseg_core.papers.bifseg_interactive.crf import Cut
from medseg_core.papers.bifseg_interactive.leak import leak_scene

CUTS = {"grey": Cut(0.3, 0.1, 6), "network": Cut(0.0, 0.1, 6)}


class Bright(torch.nn.Module):
    """A network that calls an object what is brighter than the middle."""

    def __init__(self):
        super().__init__()
        self.slope = torch.nn.Parameter(torch.tensor(20.0))

    def forward(self, image):
        return self.slope * (image - image.mean())


@pytest.fixture(scope="module")
def scenes():
    return {c: leak_scene(Bright(), 24, 0, 40_000, c, CUTS) for c in (0.0, 1.0)}


def test_only_the_lookalikes_change(scenes):
    same, other = scenes.values()
    assert torch.equal(same.truth, other.truth) and torch.equal(same.marks, other.marks)
    moved = (same.image - other.image).abs() > 0.1
    assert moved.any() and not moved[same.truth].any()


def test_contrast_helps_the_cut_by_grey_values(scenes):
    assert scenes[1.0].score["grey"] > scenes[0.0].score["grey"] + 0.05


def test_a_scene_holds_what_it_says(scenes):
    scene = scenes[0.0]
    assert set(scene.score) == set(scene.labels) == set(scene.prob) == {"grey", "network"}
    assert scene.image.shape == scene.truth.shape == scene.marks.shape == (24, 24)
    assert scene.truth.any() and all(0 <= x <= 1 for x in scene.score.values())
    inside = scene.marks == 255  # λ = 0: elsewhere the network's own opinion
    expected = (scene.prob["network"] > 0.5).long()
    assert torch.equal(scene.labels["network"][inside], expected[inside])
