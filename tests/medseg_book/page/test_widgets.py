import io
import itertools

import ipywidgets as W
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient
from PIL import Image

from medseg_book.page import widgets


def grey(value=0.5, size=(8, 12)):
    return np.full(size, value)


def pixel(image):
    """The mean grey value that a stored frame shows."""
    return np.asarray(Image.open(io.BytesIO(image.value)).convert("L")).mean() / 255


def shown(box):
    """The image that the nested stacks show now."""
    widget = box.children[-1]
    while isinstance(widget, W.Stack):
        widget = widget.children[widget.selected_index]
    return widget


def follow_links(box, links):
    """Do in Python what the browser does: copy each slider's index to its stacks."""
    for link in links:
        (source, name), (target, trait) = link.source, link.target
        setattr(target, trait, getattr(source, name))


@pytest.fixture
def links(monkeypatch):
    made, real = [], W.jslink
    monkeypatch.setattr(W, "jslink", lambda *a: made.append(real(*a)))
    return made


@pytest.mark.parametrize("axes", [{"a": 3}, {"a": 2, "b": 3}, {"a": 2, "b": 3, "c": 4}])
def test_every_position_shows_its_own_picture(axes, links):
    total = int(np.prod(list(axes.values())))
    calls = []

    def render(**values):
        calls.append(tuple(values.values()))
        return grey(np.ravel_multi_index(calls[-1], tuple(axes.values())) / total)

    box = widgets.frames(render, **{name: range(n) for name, n in axes.items()})
    assert len(calls) == len(set(calls)) == total  # each combination once
    *sliders, _ = box.children
    for at in itertools.product(*map(range, axes.values())):
        for slider, index in zip(sliders, at, strict=True):
            slider.index = index
        follow_links(box, links)
        want = np.ravel_multi_index(at, tuple(axes.values())) / total
        assert pixel(shown(box)) == pytest.approx(want, abs=0.02)


def test_start_labels_and_alternative_text(links):
    box = widgets.frames(
        lambda delta, end_to_end: grey(delta / 10),
        delta=[1, 2, 5],
        end_to_end={"U-Net": False, "EDPCNN": True},
        start={"delta": 5, "end_to_end": "EDPCNN"},
        labels={"delta": "band δ"},
        alt="A contour",
    )
    delta, arm, _ = box.children
    assert (delta.description, arm.description) == ("band δ", "end to end")
    assert (delta.index, arm.index, arm.label) == (2, 1, "EDPCNN")
    assert shown(box).tooltip == "A contour; band δ 5, end to end EDPCNN"
    assert shown(box).format == "webp" and shown(box).layout.max_width == "100%"


def test_labels_of_values():
    values = [True, None, 0.1 + 0.2, -2, 1e-5, 20_000, (64, 48), "x", np.float32(0.5)]
    want = ["yes", "none", "0.3", "−2", "1e-05".replace("-", "−"), "20\u202f000", "64 × 48"]
    assert [widgets.label_of(v) for v in values] == [*want, "x", "0.5"]


def test_figures_are_closed_and_tensors_and_images_are_taken():
    def figure(a):
        fig, ax = plt.subplots(figsize=(2, 1))
        ax.plot([0, a])
        return fig

    box = widgets.frames(figure, a=[1, 2])
    assert not plt.get_fignums()
    assert shown(box).layout.width == "200px"
    for render in (
        lambda a: torch.full((8, 8), 0.5),
        lambda a: Image.new("RGB", (30, 20)),
        lambda a: np.zeros((8, 8, 3), np.uint8),
        lambda a: np.eye(8) > 0,
    ):
        assert len(widgets.frames(render, a=[1, 2]).children[-1].children) == 2


def test_small_arrays_keep_square_pixels():
    image = Image.open(io.BytesIO(shown(widgets.frames(lambda a: np.eye(64), a=[1])).value))
    assert image.size == (320, 320)


def test_drawings_stay_true_whatever_the_target():
    ramp = np.tile(np.arange(256, dtype=np.uint8), (64, 2))  # (64, 512): black to white, twice
    drawing = np.stack([ramp] * 3, -1)
    drawing[:, ::16] = (230, 159, 0)
    box = widgets.frames(lambda a: drawing, a=[1], target_bytes=1)
    got = np.asarray(Image.open(io.BytesIO(shown(box).value)).convert("RGB")).astype(int)
    assert np.abs(got - drawing).max() <= 8
    assert (got[:, 255] == 255).all()


def test_weight_is_adapted_then_refused(monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (80, 320, 3), dtype=np.uint8)

    def weight(**options):
        box = widgets.frames(lambda a: noise, a=[1, 2], **options)
        return sum(len(image.value) for image in box.children[-1].children)

    fine, coarse = weight(), weight(target_bytes=1)
    assert coarse < fine < widgets.MAX_BYTES
    assert weight(target_bytes=fine) == fine  # no worse than it must be
    monkeypatch.setattr(widgets, "MAX_BYTES", coarse - 1)
    with pytest.raises(ValueError, match=r"kB in 2 pictures of 320 x 80 pixels"):
        weight(target_bytes=1)


@pytest.mark.parametrize(
    ("message", "axes", "options"),
    [
        (r"at most 60 pictures, got 63 \(a: 7 x b: 9\)", {"a": range(7), "b": range(9)}, {}),
        ("at least one axis", {}, {}),
        ("a must hold at least one value", {"a": []}, {}),
        ("a must hold values that differ", {"a": [1, 1]}, {}),
        (r"start: a=3 is none of \[1, 2\]", {"a": [1, 2]}, {"start": {"a": 3}}),
        (r"start names \['z'\]", {"a": [1, 2]}, {"start": {"z": 3}}),
        (r"labels names \['z'\]", {"a": [1, 2]}, {"labels": {"z": "Z"}}),
    ],
)
def test_bad_axes(message, axes, options):
    with pytest.raises(ValueError, match=message):
        widgets.frames(lambda **_: grey(), **options, **axes)


def test_bad_pictures():
    with pytest.raises(ValueError, match="one size"):
        widgets.frames(lambda a: grey(size=(400, 400 + a)), a=[1, 2])
    with pytest.raises(TypeError, match="got NoneType"):
        widgets.frames(lambda a: None, a=[1])
    with pytest.raises(ValueError, match="finite"):
        widgets.frames(lambda a: grey(np.nan), a=[1])
    with pytest.raises(ValueError, match=r"\(8, 8, 2\)"):
        widgets.frames(lambda a: np.zeros((8, 8, 2)), a=[1])


def test_live_with_a_reader(monkeypatch):
    monkeypatch.setattr(widgets.display, "attended_shell", object)
    box = widgets.live(lambda n_lines, fast: None, n_lines=(1, 5), fast=True)
    lines, fast, _ = box.children
    assert (lines.description, lines.continuous_update, fast.value) == ("n lines", False, True)
    with pytest.raises(ValueError, match="cannot make a control of a="):
        widgets.live(lambda a: None, a=object())


def test_stored_notebook_keeps_frames_and_no_live_control():
    source = """
import numpy as np
from IPython.display import display
from medseg_book.page import widgets
display(widgets.frames(lambda a: np.full((8, 8), a / 2), a=[0, 1]))
display(widgets.live(lambda x: 1 / 0, x=(0, 3)))
"""
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    NotebookClient(nb, kernel_name="python3", timeout=60).execute()
    frames, hint = nb.cells[0].outputs
    assert "application/vnd.jupyter.widget-view+json" in frames.data
    assert "free controls" in hint.data["text/markdown"] and len(hint.data) == 2
    state = nb.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    models = [model["model_name"] for model in state.values()]
    assert models.count("ImageModel") == 2 and "LinkModel" in models
    assert not {"IntSliderModel", "OutputModel"} & set(models)


def test_a_caption_stands_under_the_pictures():
    box = widgets.frames(grey, value=[0.1, 0.9], caption="Two greys.")
    *_, stack, words = box.children
    assert isinstance(stack, W.Stack) and "Two greys." in words.value
    assert not any(
        isinstance(child, W.HTMLMath) for child in widgets.frames(grey, value=[1]).children
    )
