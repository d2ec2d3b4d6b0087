import numpy as np
import pytest
import torch

from medseg_core.papers.selected_dimensions_oct.fading import (
    faded_columns,
    steepest_borders,
    stretches,
)


def test_a_bright_slab_has_its_borders_where_it_begins_and_ends():
    image = torch.zeros(2, 1, 40, 16)
    image[0, 0, 10:30] = 1
    image[1, 0, 5:20] = 1
    rows = steepest_borders(image)
    assert rows.shape == (2, 2, 16)
    assert (rows[0] == torch.tensor([[9.5], [29.5]])).all()  # between rows 9 and 10, 29 and 30
    assert (rows[1] == torch.tensor([[4.5], [19.5]])).all()


def scans(**more):
    surfaces = torch.tensor([10.0, 30.0, 32.0]).view(1, 3, 1).repeat(1, 1, 20)
    surfaces[0, 1, 3:6] = 25.0  # a druse lifts RPEDC
    valid = torch.ones(1, 20).bool()
    return {"image": torch.zeros(1, 1, 64, 20), "surfaces": surfaces, "valid": valid} | more


def test_faded_are_drusen_shadows_and_the_band():
    assert faded_columns(scans())[0].nonzero()[:, 0].tolist() == [3, 4, 5]
    params = {"shadows": [(10, 3.0, 0.2)], "band": (15.0, 1.0, 0.3)}
    got = faded_columns(scans(params=[params]))[0].nonzero()[:, 0].tolist()
    assert got == [3, 4, 5, 9, 10, 11, 15]
    without = params | {"band": None}
    assert 15 not in faded_columns(scans(params=[without]))[0].nonzero()[:, 0]


def test_stretches_end_with_their_row():
    mask = torch.tensor([[1, 1, 0, 1], [1, 1, 1, 0], [0, 0, 0, 0]]).bool()
    assert stretches(mask).tolist() == [2, 1, 3]
    assert stretches(torch.zeros(2, 3).bool()).size == 0
    assert isinstance(stretches(mask), np.ndarray)


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="image"):
        steepest_borders(torch.zeros(2, 40, 16))
    with pytest.raises(ValueError, match="mask"):
        stretches(torch.zeros(4).bool())
