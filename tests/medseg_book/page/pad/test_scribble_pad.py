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

from medseg_book.page import display
from medseg_book.page.pad import scribble_pad
from medseg_book.page.pad.scribble_pad import ScribblePad
from medseg_book.page.pad.strokes import Strokes, View, largest_slice, outline, paint, zoom_of

BOX = np.zeros((6, 8, 10), bool)
BOX[2:5, 2:6, 3:8] = True


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
    strokes = Strokes((1, 4, 4))
    assert (strokes.map() == 255).all()
    strokes.add(np.array([[0, 1, 0], [0, 1, 1], [0, 1, 2]]), 1)
    strokes.add(np.array([[0, 0, 1], [0, 1, 1]]), 0)
    assert strokes.map()[0, 1].tolist() == [1, 0, 1, 255] and strokes.map()[0, 0, 1] == 0
    strokes.undo()
    assert strokes.map()[0, 1].tolist() == [1, 1, 1, 255] and strokes.map()[0, 0, 1] == 255
    strokes.undo()
    strokes.undo()
    assert (strokes.map() == 255).all()
    strokes.add(np.array([[0, 3, 3]]), 1)
    strokes.add(np.zeros((0, 3), int), 1)
    assert len(strokes.items) == 1
    strokes.clear()
    assert (strokes.map() == 255).all()
    with pytest.raises(ValueError, match="label must be 1"):
        strokes.add(np.array([[0, 0, 0]]), 255)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_view_finds_the_voxel_under_the_mouse(axis):
    volume = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    view = View(axis, 2, 10.0)
    row, column = view.pixel(x=35, y=12)  # the fourth column, the second row
    assert (round(row), round(column)) == (1, 3)
    voxels = view.voxels(np.array([[1, 3]]))
    assert view.slice(volume)[1, 3] == volume[tuple(voxels[0])]


def test_zoom_is_whole_where_it_can_be():
    assert zoom_of((40, 60, 60)) == 8
    assert zoom_of((64, 64, 64)) == 7
    assert zoom_of((10, 300, 40)) == 1.6
    assert zoom_of((960, 480, 10)) == 0.5


def test_the_slice_to_begin_with():
    assert largest_slice(BOX, 1) in range(2, 6)
    lopsided = BOX.copy()
    lopsided[4] = True
    assert largest_slice(lopsided, 0) == 4
    assert largest_slice(np.zeros((5, 4, 4)), 0) == 2


# -- the pad ---------------------------------------------------------------------------------------


IMAGE = torch.from_numpy(BOX + 0.1 * np.random.default_rng(0).normal(size=BOX.shape))
NOTHING, OBJECT = torch.zeros(BOX.shape, dtype=torch.int64), torch.from_numpy(BOX).long()


def pad_of(solve=None, *, image=IMAGE, labels=NOTHING, truth=OBJECT):
    return ScribblePad(image, labels, solve=solve, truth=truth)


def test_it_checks_its_arguments_before_anyone_draws():
    with pytest.raises(ValueError, match="image and labels must have one shape"):
        pad_of(labels=NOTHING[0])
    with pytest.raises(ValueError, match="image and truth must have one shape"):
        pad_of(truth=OBJECT[:, 1:])
    with pytest.raises(ValueError, match=r"image must have the shape \(D H W\)"):
        pad_of(image=IMAGE[None])
    with pytest.raises(ValueError, match="image must be finite"):
        pad_of(image=torch.where(OBJECT > 0, torch.nan, IMAGE))


def event(pad, name, x, y):
    message = {"event": name, "x": x, "y": y}
    pad._canvas.marks._handle_frontend_event(None, message, [])


def drag(pad, *places):
    event(pad, "mouse_down", *places[0])
    for place in places[1:]:
        event(pad, "mouse_move", *place)
    event(pad, "mouse_up", *places[-1])


def scribbles(pad):
    return torch.from_numpy(pad.strokes.map())


def test_draw_refine_undo():
    pytest.importorskip("ipycanvas")
    asked = []

    def solve(s):
        asked.append(s)
        return OBJECT

    pad = pad_of(solve)  # ten columns: zoom 48
    box, controls = pad.widget(), pad._controls
    assert pad.widget() is box and controls.index.value == 3  # nothing outlined: the middle
    assert "Dice 0.000" in controls.status.value
    controls.index.value = 4
    drag(pad, (168, 120), (312, 120))  # row 2, columns 3 to 6
    controls.label.value = 0
    drag(pad, (5, 5))
    want = torch.full(BOX.shape, 255)
    want[4, 2, 3:7], want[4, 0, 0] = 1, 0
    assert torch.equal(scribbles(pad), want)
    assert "2 strokes, 5 voxels" in controls.status.value

    controls.refine.click()
    assert torch.equal(asked[0], want) and asked[0].dtype == torch.int64
    assert torch.equal(pad.labels, OBJECT.bool())
    assert "Dice 1.000" in controls.status.value and "0.000" in controls.log.value
    first, row = pad.rounds
    assert (first["strokes"], first["voxels"], first["dice"]) == (0, 0, 0.0)
    assert (row["strokes"], row["voxels"], row["dice"]) == (2, 5, 1.0) and row["seconds"] >= 0

    controls.axis.value = 2  # columns: the largest slice, then strokes there join the others
    assert controls.index.value in range(3, 8) and controls.index.max == 9
    controls.index.value = 9
    drag(pad, (72, 168))
    want[3, 1, 9] = 0
    assert torch.equal(scribbles(pad), want)
    controls.undo.click()
    want[3, 1, 9] = 255
    assert torch.equal(scribbles(pad), want)
    controls.clear.click()
    assert (scribbles(pad) == 255).all()


def test_strokes_end_where_the_mouse_leaves_and_do_not_begin_outside_the_image():
    pytest.importorskip("ipycanvas")
    pad = pad_of()
    pad.widget()
    event(pad, "mouse_move", 240, 240)  # no button pressed
    event(pad, "mouse_down", 456, 72)
    event(pad, "mouse_out", 600, 72)
    event(pad, "mouse_move", 72, 72)
    event(pad, "mouse_down", 240, 400)  # below the image: 8 rows of 48 pixels
    event(pad, "mouse_up", 240, 200)
    drawn = scribbles(pad)[3]
    assert (drawn == 255).sum() == 79 and drawn[1, 9] == 1
    start = {"event": "touch_start", "touches": [{"x": 5, "y": 5}]}
    pad._canvas.marks._handle_frontend_event(None, start, [])
    pad._canvas.marks._handle_frontend_event(None, {"event": "touch_end", "touches": []}, [])
    assert scribbles(pad)[3, 0, 0] == 1
    pad._controls.thickness.value = 3
    drag(pad, (264, 264))
    assert (scribbles(pad) == 1).sum() == 1 + 1 + 9


def test_an_error_of_solve_is_shown_and_the_pad_lives_on():
    pytest.importorskip("ipycanvas")

    def solve(s):
        if (s == 255).all():
            raise RuntimeError("draw <something> first")
        return torch.zeros(3, 3)

    pad = pad_of(solve)
    pad.widget()
    refine, status = pad._controls.refine, pad._controls.status
    refine.click()
    assert "RuntimeError: draw &lt;something&gt; first" in status.value
    drag(pad, (5, 5))
    refine.click()
    assert "must have one shape" in status.value and "(3, 3)" in status.value
    assert not refine.disabled and len(pad.rounds) == 1
    assert torch.equal(pad.labels, NOTHING.bool())


def shown(monkeypatch, pad):
    out = []
    monkeypatch.setattr("IPython.display.display", out.append)
    pad._ipython_display_()
    return out[0]


def test_what_a_cell_shows(monkeypatch):
    pad = pad_of()
    assert "Open this chapter" in shown(monkeypatch, pad).data
    monkeypatch.setattr(display, "attended_shell", lambda: object())
    with monkeypatch.context() as m:
        m.setitem(sys.modules, "ipycanvas", None)  # as if it were not installed
        m.delitem(sys.modules, "medseg_book.page.pad.slice_canvas", raising=False)
        assert shown(m, pad).data == scribble_pad.MISSING
        with pytest.raises(ImportError, match=r"medseg-core\[live\]"):
            pad.widget()
    pytest.importorskip("ipycanvas")
    assert shown(monkeypatch, pad) is pad.widget()


def test_a_stored_notebook_keeps_one_line_of_text():
    source = """
import torch
from medseg_book.page.pad.scribble_pad import ScribblePad
x = torch.eye(8)[None]
ScribblePad(x, x.long(), solve=lambda s: 1 / 0, truth=x > 0)
"""
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    NotebookClient(nb, kernel_name="python3", timeout=60).execute()
    (out,) = nb.cells[0].outputs
    assert "a pad for your scribbles" in out.data["text/markdown"]
    assert "widgets" not in nb.metadata
