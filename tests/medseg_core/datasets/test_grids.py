import numpy as np
import pytest
import torch

from medseg_core.datasets._grids import checked_index, checked_indices, on_grid, per_axis


def sample(size=8, spacing=(1.0, 1.0)):
    label = torch.zeros(1, size, size, dtype=torch.long)
    label[:, 2:4, 3:5] = 3
    return {"image": torch.rand(1, 1, size, size), "label": label, "spacing": spacing, "id": ["a"]}


def test_indices_of_every_kind_are_integers_in_range():
    for indices in ([0, 2, -1], np.array([0, 2, 4]), torch.tensor([0, 2, 4]), (0, 2, 4)):
        assert checked_indices(indices, 5) == [0, 2, 4]


@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        ([0, 5], IndexError, r"indices\[1\] must be in \[0, 4\], got 5"),
        ([-6], IndexError, "-6"),
        ([True, False], TypeError, "truth value"),
        (np.array([True, False]), TypeError, "truth value"),
        ([0.5], TypeError, "integer"),
        (3, TypeError, "sequence"),
        ([], ValueError, "empty"),
    ],
)
def test_bad_indices_are_refused(indices, error, message):
    with pytest.raises(error, match=message):
        checked_indices(indices, 5)


def test_one_bad_index():
    with pytest.raises(TypeError, match="index must be an integer"):
        checked_index("1", 5)


def test_on_grid_moves_image_label_and_centre_together():
    out = on_grid(sample(), 12, None, centre_of=3)
    assert out["centre"].tolist() == [[4.5, 5.5]] and out["label"].shape == (1, 12, 12)
    fine = on_grid(sample(), None, 0.5, centre_of=3)
    assert fine["spacing"] == (0.5, 0.5) and fine["image"].shape == (1, 1, 16, 16)
    # (2.5, 3.5) lies at (−1, 0) from the centre 3.5, that is (−2, 0) pixels of half the size.
    assert fine["centre"].tolist() == [[7.5 - 2, 7.5]]


def test_what_lies_on_the_image_moves_with_it():
    one = sample() | {"sector": torch.ones(1, 1, 8, 8, dtype=torch.bool)}
    cut = on_grid(one, (4, 12), None, fill=7)
    assert cut["sector"].dtype == torch.bool and cut["sector"].shape == (1, 1, 4, 12)
    assert (cut["image"][..., :2] == 7).all() and not cut["sector"][..., :2].any()
    assert torch.equal(cut["label"][..., 2:10], one["label"][:, 2:6]) and "centre" not in cut


def test_per_axis():
    assert per_axis(None, "size") is None
    assert per_axis(3, "size") == (3, 3) and per_axis((3, 4), "size") == (3, 4)
    assert per_axis(2.0, "spacing", 3) == (2.0, 2.0, 2.0)
    with pytest.raises(ValueError, match="size must be one number or 2"):
        per_axis((1, 2, 3), "size")
