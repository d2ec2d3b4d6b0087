import itertools
import sys

import nbformat
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nbclient import NotebookClient
from scipy import ndimage

from medseg_book.page import widgets
from medseg_book.page.pad import scribbles
from medseg_book.page.pad.scribbles import ScribblePad
from medseg_book.page.pad.strokes import Strokes, View, largest_slice, outline, paint, zooms

BOX = np.zeros((6, 8, 10), bool)
BOX[2:5, 2:6, 3:8] = True
IMAGE = BOX + 0.1 * np.random.default_rng(0).normal(size=BOX.shape)


def as_set(pixels):
    return set(map(tuple, pixels.tolist()))


# -- strokes ---------------------------------------------------------------------------------------


def test_strokes_by_hand():
    assert as_set(paint([(2.4, 3.6)], 1, (6, 6))) == {(2, 4)}
    assert as_set(paint([(1, 1), (1, 4)], 1, (6, 6))) == {(1, 1), (1, 2), (1, 3), (1, 4)}
    assert as_set(paint([(0, 0), (3, 3)], 1, (6, 6))) == {(0, 0), (1, 1), (2, 2), (3, 3)}
    cross = {(2, 2), (1, 2), (3, 2), (2, 1), (2, 3)}
    square = {(r, c) for r in (1, 2, 3) for c in (1, 2, 3)}
    assert as_set(paint([(2, 2)], 2, (6, 6))) == cross
    assert as_set(paint([(2, 2)], 3, (6, 6))) == square
    # out of the image: cut off, at the edge
    assert as_set(paint([(2, 4), (2, 9)], 1, (6, 6))) == {(2, 4), (2, 5)}
    assert as_set(paint([(-3, -3)], 3, (6, 6))) == {(0, 0), (0, 1), (1, 0), (1, 1)}


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.floats(-2, 12), st.floats(-2, 16)), min_size=1, max_size=6),
    st.integers(1, 9),
)
def test_a_stroke_is_the_disc_around_its_line_and_has_no_gaps(points, brush):
    size = (10, 14)
    mask = np.zeros(size, bool)
    mask[tuple(paint(points, brush, size).T)] = True
    stops = np.floor(np.array(points) + 0.5).clip(0, np.array(size) - 1)
    assert mask[tuple(stops.astype(int).T)].all()
    assert ndimage.label(mask, np.ones((3, 3)))[1] == 1
    # oracle: distance to the line, sampled densely
    ends = np.concatenate([stops, stops[-1:]])
    t = np.linspace(0, 1, 200)[:, None]
    line = np.concatenate([a + t * (b - a) for a, b in itertools.pairwise(ends)])
    pixels = np.stack(np.mgrid[:10, :14], -1).reshape(-1, 1, 2)
    distance = np.linalg.norm(pixels - line, axis=-1).min(1).reshape(size)
    assert mask[distance <= brush / 2 - 1e-6].all()
    assert not mask[distance > brush / 2 + 0.05].any()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000))
def test_the_outline_holds_every_edge_between_inside_and_outside_once(seed):
    mask = np.random.default_rng(seed).random((5, 7)) < 0.5
    edges = outline(mask)
    assert (np.abs(edges[:, 1] - edges[:, 0]).sum(-1) == 1).all()
    want = set()
    for r, c in np.argwhere(mask):
        for dr, dc, edge in (
            (-1, 0, ((r, c), (r, c + 1))),
            (1, 0, ((r + 1, c), (r + 1, c + 1))),
            (0, -1, ((r, c), (r + 1, c))),
            (0, 1, ((r, c + 1), (r + 1, c + 1))),
        ):
            r2, c2 = r + dr, c + dc
            if not (0 <= r2 < 5 and 0 <= c2 < 7 and mask[r2, c2]):
                want.add(tuple(tuple(map(int, p)) for p in edge))
    got = [tuple(map(tuple, e)) for e in edges.tolist()]
    assert len(got) == len(set(got)) and set(got) == want


def test_strokes_add_up_the_later_one_counts_and_undo_takes_it_back():
    strokes = Strokes((4, 4))
    assert (strokes.map() == 255).all()
    strokes.add(np.array([[1, 0], [1, 1], [1, 2]]), 1)
    strokes.add(np.array([[0, 1], [1, 1]]), 0)
    assert strokes.map()[1].tolist() == [1, 0, 1, 255] and strokes.map()[0, 1] == 0
    strokes.undo()
    assert strokes.map()[1].tolist() == [1, 1, 1, 255] and strokes.map()[0, 1] == 255
    strokes.undo()
    strokes.undo()
    assert (strokes.map() == 255).all()
    strokes.add(np.array([[3, 3]]), 1)
    strokes.add(np.zeros((0, 2), int), 1)
    assert len(strokes.items) == 1
    strokes.clear()
    assert (strokes.map() == 255).all()
    with pytest.raises(ValueError, match="label must be 1"):
        strokes.add(np.array([[0, 0]]), 255)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_view_finds_the_voxel_under_the_mouse(axis):
    volume = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    view = View(axis, 2, (10.0, 20.0))
    row, column = view.pixel(x=65, y=12)  # the fourth column, the second row
    assert (round(row), round(column)) == (1, 3)
    voxels = view.voxels(np.array([[1, 3]]))
    assert view.slice(volume)[1, 3] == volume[tuple(voxels[0])]


def test_zoom_is_isotropic_in_millimetres_and_whole_where_it_can_be():
    assert zooms((40, 60), (1, 1), 480) == (8, 8)
    assert zooms((64, 64, 64), (1, 1, 1), 480) == (7, 7, 7)
    assert zooms((10, 40, 40), (4, 1, 1), 400) == (40, 10, 10)
    assert zooms((960, 480), (1, 1), 480) == (0.5, 0.5)


def test_the_slice_to_begin_with():
    assert largest_slice(BOX, 1) in range(2, 6)
    lopsided = BOX.copy()
    lopsided[4] = True
    assert largest_slice(lopsided, 0) == 4
    assert largest_slice(np.zeros((5, 4, 4)), 0) == 2


# -- the pad ---------------------------------------------------------------------------------------


def test_it_checks_its_arguments_before_anyone_draws():
    def pad(image=IMAGE, labels=BOX, **options):
        return ScribblePad(image, labels, solve=lambda s: s, **options)

    pad(torch.from_numpy(IMAGE), torch.from_numpy(BOX)[None])
    with pytest.raises(ValueError, match=r"labels must have the shape \(6, 8, 10\)"):
        pad(labels=BOX[0])
    with pytest.raises(ValueError, match="truth must hold integers"):
        pad(truth=IMAGE)
    with pytest.raises(ValueError, match="axes of image"):
        pad(image=IMAGE[None])
    with pytest.raises(ValueError, match="image must be finite"):
        pad(image=np.where(BOX, np.nan, IMAGE))
    with pytest.raises(ValueError, match="spacing must be 3 positive numbers"):
        pad(spacing=(1, 1))


def event(pad, name, x, y):
    message = {"event": name, "x": x, "y": y}
    pad._canvas.marks._handle_frontend_event(None, message, [])


def drag(pad, *places):
    event(pad, "mouse_down", *places[0])
    for place in places[1:]:
        event(pad, "mouse_move", *place)
    event(pad, "mouse_up", *places[-1])


def buttons(box):
    W = pytest.importorskip("ipywidgets")
    found = [w for row in box.children if isinstance(row, W.HBox) for w in row.children]
    return {w.description: w for w in found if isinstance(w, W.Button)}


def test_draw_refine_undo_in_a_volume():
    pytest.importorskip("ipycanvas")
    asked = []

    def solve(s):
        asked.append(s)
        return torch.from_numpy(BOX)[None]

    pad = ScribblePad(IMAGE, np.zeros(BOX.shape, int), solve=solve, truth=BOX, side=100)
    box = pad.widget()
    assert pad.widget() is box and pad._index.value == 3  # nothing outlined: the middle
    pad._index.value = 4
    drag(pad, (35, 25), (65, 25))  # zoom 10: row 2, columns 3 to 6
    pad._brush.value = 0
    drag(pad, (5, 5))
    want = torch.full(BOX.shape, 255)
    want[4, 2, 3:7], want[4, 0, 0] = 1, 0
    assert torch.equal(pad.scribbles, want)
    assert "2 strokes, 5 voxels" in pad._status.value

    buttons(box)["Refine"].click()
    assert torch.equal(asked[0], want) and asked[0].dtype == torch.int64
    assert torch.equal(pad.labels, torch.from_numpy(BOX).long())
    assert "Dice 1.000" in pad._status.value and "0.000" in pad._log.value
    row = pad.history[0]
    assert (row["strokes"], row["voxels"], row["dice"]) == (2, 5, 1.0) and row["seconds"] >= 0

    pad._axis.value = 2  # columns: the largest slice, then strokes there join the others
    pad._index.value = 9
    drag(pad, (15, 35))
    want[3, 1, 9] = 0
    assert torch.equal(pad.scribbles, want)
    buttons(box)["Undo"].click()
    want[3, 1, 9] = 255
    assert torch.equal(pad.scribbles, want)
    buttons(box)["Clear"].click()
    assert (pad.scribbles == 255).all()


def test_strokes_end_where_the_mouse_leaves_and_do_not_begin_outside_the_image():
    pytest.importorskip("ipycanvas")
    pad = ScribblePad(IMAGE[0], BOX[0], solve=lambda s: s, side=100)
    pad.widget()
    event(pad, "mouse_move", 50, 50)  # no button pressed
    event(pad, "mouse_down", 95, 15)
    event(pad, "mouse_out", 120, 15)
    event(pad, "mouse_move", 15, 15)
    event(pad, "mouse_down", 50, 99)  # below the image: 8 rows of 10 pixels
    event(pad, "mouse_up", 50, 40)
    assert (pad.scribbles == 255).sum() == 79 and pad.scribbles[1, 9] == 1
    pad._canvas.marks._handle_frontend_event(
        None, {"event": "touch_start", "touches": [{"x": 5, "y": 5}]}, []
    )
    pad._canvas.marks._handle_frontend_event(None, {"event": "touch_end", "touches": []}, [])
    assert pad.scribbles[0, 0] == 1
    pad._thick.value = 3
    drag(pad, (55, 55))
    assert (pad.scribbles == 1).sum() == 1 + 1 + 9


def test_an_error_of_solve_is_shown_and_the_pad_lives_on():
    pytest.importorskip("ipycanvas")

    def solve(s):
        if (s == 255).all():
            raise RuntimeError("draw <something> first")
        return np.zeros((3, 3))

    pad = ScribblePad(IMAGE[0], BOX[0], solve=solve)
    refine = buttons(pad.widget())["Refine"]
    refine.click()
    assert "RuntimeError: draw &lt;something&gt; first" in pad._status.value
    drag(pad, (5, 5))
    refine.click()
    assert "labels must have the shape (8, 10)" in pad._status.value
    assert not refine.disabled and pad.history == []
    assert torch.equal(pad.labels, torch.from_numpy(BOX[0]).long())


def test_dice_leaves_out_what_the_truth_ignores():
    truth = BOX[3].astype(int)
    truth[0] = 255
    labels = BOX[3].copy()
    labels[0] = True
    pad = ScribblePad(IMAGE[3], labels, solve=None, truth=truth)
    assert pad._dice() == 1.0
    assert ScribblePad(IMAGE[3], BOX[0], solve=None, truth=BOX[0])._dice() == 1.0  # both empty
    assert ScribblePad(IMAGE[3], BOX[3], solve=None)._dice() is None


def shown(monkeypatch, pad):
    out = []
    monkeypatch.setattr("IPython.display.display", out.append)
    pad._ipython_display_()
    return out[0]


def test_what_a_cell_shows(monkeypatch):
    pad = ScribblePad(IMAGE, BOX, solve=lambda s: s)
    assert "Open this chapter" in shown(monkeypatch, pad).data
    monkeypatch.setattr(widgets, "interactive", lambda: True)
    with monkeypatch.context() as m:
        m.setitem(sys.modules, "ipycanvas", None)  # as if it were not installed
        m.delitem(sys.modules, "medseg_book.page.pad.slice_canvas", raising=False)
        assert shown(m, pad).data == scribbles.MISSING
        with pytest.raises(ImportError, match=r"medseg-core\[live\]"):
            pad.widget()
    pytest.importorskip("ipycanvas")
    assert shown(monkeypatch, pad) is pad.widget()


def test_a_stored_notebook_keeps_one_line_of_text():
    source = """
import numpy as np
from medseg_book.page.pad.scribbles import ScribblePad
ScribblePad(np.eye(8), np.eye(8, dtype=int), solve=lambda s: 1 / 0)
"""
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    NotebookClient(nb, kernel_name="python3", timeout=60).execute()
    (out,) = nb.cells[0].outputs
    assert "a pad for your scribbles" in out.data["text/markdown"]
    assert "widgets" not in nb.metadata
