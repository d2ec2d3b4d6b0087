import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from medseg_book.page import plotting

IMAGE = torch.rand(1, 20, 12)
CURVES = torch.stack([torch.full((12,), 4.0), torch.full((12,), 9.5)])


def test_lines_lie_on_their_rows_and_the_image_keeps_its_frame():
    fig = plotting.surfaces(IMAGE, CURVES, names=["top", "bottom"])
    (ax,) = fig.axes
    assert [line.get_ydata()[0] for line in ax.lines] == [4.0, 9.5]
    assert ax.get_xlim() == (-0.5, 11.5) and ax.get_ylim() == (19.5, -0.5)
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["top", "bottom"]
    assert len({line.get_color() for line in ax.lines}) == 2


def test_named_sets_have_one_colour_each():
    fig = plotting.surfaces([IMAGE, IMAGE], [{"truth": CURVES, "ours": CURVES + 1}] * 2)
    lines = fig.axes[1].lines
    assert lines[0].get_color() == lines[1].get_color() != lines[2].get_color()
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["truth", "ours"]


def test_nan_is_a_gap_and_axes_may_be_given():
    curves = CURVES.clone()
    curves[0, 3:6] = np.nan
    fig, ax = plt.subplots()
    plotting.surfaces(IMAGE, curves, ax=ax)
    plt.close(fig)
    assert np.isnan(ax.lines[0].get_ydata()[3:6]).all()


@pytest.mark.parametrize(
    ("curves", "names", "message"),
    [
        (torch.zeros(2, 11), None, "12 columns"),
        (torch.zeros(12), None, "curves"),
        (CURVES, ["one"], "names must hold 2"),
    ],
)
def test_refuses(curves, names, message):
    with pytest.raises(ValueError, match=message):
        plotting.surfaces(IMAGE, curves, names=names)
