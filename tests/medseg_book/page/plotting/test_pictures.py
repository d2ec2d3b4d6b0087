import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from medseg_book.page import plotting

LABEL = np.zeros((12, 16), int)
LABEL[2:6, 3:9], LABEL[6:9, 3:9] = 1, 2


def rendered(fig):
    fig.canvas.draw()
    return np.asarray(fig.canvas.buffer_rgba())


@pytest.mark.parametrize(
    "image",
    [
        torch.rand(12, 16),
        torch.rand(1, 12, 16),
        torch.rand(1, 1, 12, 16),
        np.random.default_rng(0).random((3, 12, 16)),
        np.zeros((12, 16, 3), np.uint8),
        torch.rand(1, 3, 12, 16, requires_grad=True),
    ],
)
def test_one_image_of_any_layout(image):
    (ax,) = plotting.images(image).axes
    assert ax.images[0].get_array().shape[:2] == (12, 16)
    assert not ax.get_xticks().size and not ax.get_yticks().size and ax.get_aspect() == 1


def test_batches_and_lists_make_a_grid():
    for batch in (torch.rand(5, 1, 12, 16), torch.rand(5, 12, 16), [torch.rand(1, 12, 16)] * 5):
        fig = plotting.images(batch, titles=list("abcde"), columns=3)
        assert [ax.get_title() for ax in fig.axes] == list("abcde")
        assert fig.get_figwidth() <= plotting.WIDTH


def test_titles_fit_their_images():
    fig = plotting.images(torch.rand(4, 8, 8), titles=["a title far too long for one line"] * 4)
    rendered(fig)
    boxes = [ax.title.get_window_extent() for ax in fig.axes]
    assert all(a.x1 <= b.x0 for a, b in itertools.pairwise(boxes))
    assert all(b.x0 >= 0 and b.y1 <= fig.bbox.height for b in boxes)


def test_grey_limits():
    a, b = np.array([[0.0, 1.0]]), np.array([[2.0, 5.0]])
    own, shared = plotting.images([a, b]), plotting.images([a, b], vlim="shared")
    assert [ax.images[0].get_clim() for ax in own.axes] == [(0, 1), (2, 5)]
    assert [ax.images[0].get_clim() for ax in shared.axes] == [(0, 5), (0, 5)]
    fig = plotting.images([a, b], cmap="viridis", scale="speed (mm/s)")
    assert fig.axes[-1].get_ylabel() == "speed (mm/s)"
    assert fig.axes[0].images[0].get_clim() == (0, 5)


def test_overlay_tints_and_outlines_labels():
    label = LABEL.copy()
    label[0, 0] = 255
    fig = plotting.overlay(np.zeros((12, 16)), label, names={1: "wall", 2: "blood", 3: "absent"})
    tints = [image.get_array() for image in fig.axes[0].images[1:]]
    for value, tint in enumerate(tints, start=1):
        assert np.array_equal(tint[..., 3] > 0, label == value)
    assert len(tints) == 2  # neither background nor the ignored pixel
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["wall", "blood"]


def test_overlay_draws_closed_contours_in_row_column_order():
    points = torch.tensor([[1.0, 2.0], [1.0, 9.0], [7.0, 5.0]])
    fig = plotting.overlay(np.zeros((12, 16)), contours={"truth": points, "ours": points + 1})
    first, second = fig.axes[0].lines
    assert first.get_ydata().tolist() == [1, 1, 7, 1]
    assert first.get_xdata().tolist() == [2, 9, 5, 2]
    assert first.get_color() != second.get_color()
    assert len(plotting.overlay(np.zeros((12, 16)), contours=points).axes[0].lines) == 1
    images = torch.zeros(2, 1, 12, 16)
    fig = plotting.overlay(images, contours=[{"a": points}, [points, points]])
    assert [len(ax.lines) for ax in fig.axes] == [1, 2]


def test_errors_by_hand():
    pred = np.array([[1, 1, 0, 2, 0, 1]])
    ref = np.array([[1, 0, 1, 1, 0, 255]])
    fig = plotting.errors(np.zeros((1, 6)), pred, ref)
    seen = {}
    for image in fig.axes[0].images[1:]:
        for column in np.flatnonzero(image.get_array()[0, :, 3]):
            seen[int(column)] = tuple(image.get_array()[0, column, :3])
    want = dict(enumerate(plotting.ERRORS.values()))  # column i shows the i-th kind of error
    assert seen == {i: to_rgb(colour) for i, colour in want.items()}


def test_given_axes_are_used():
    fig, ax = plt.subplots()
    plt.close(fig)
    assert plotting.overlay(np.zeros((12, 16)), LABEL, ax=ax) is fig
    assert plotting.errors(np.zeros((12, 16)), LABEL, LABEL, ax=ax) is fig
    with pytest.raises(ValueError, match="ax takes one image"):
        plotting.overlay(np.zeros((2, 12, 16)), ax=ax)


def test_bad_input():
    image = np.zeros((12, 16))
    for call, message in (
        (lambda: plotting.images([]), "images must hold at least one"),
        (lambda: plotting.images(np.zeros((2, 4, 12, 16))), "must hold one image"),
        (lambda: plotting.images(image, titles=["a", "b"]), "titles must hold 1"),
        (lambda: plotting.images(image, cmap="viridis"), "label them with scale"),
        (lambda: plotting.images(image, vlim="all"), "vlim must be"),
        (lambda: plotting.overlay(image, LABEL[:5]), "image and label must have one shape"),
        (lambda: plotting.overlay([image, image], [LABEL]), "label must hold 2"),
        (lambda: plotting.errors(image, LABEL, LABEL[:5]), "pred and ref must have one shape"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="magnitude and phase"):
        plotting.images(np.zeros((4, 4), complex))
