import base64
import io

import IPython.display
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from medseg_book.page import display as _display
from medseg_book.page import plotting


@pytest.fixture
def outputs(monkeypatch):
    """What a notebook's cell would store: one MIME bundle for each output."""
    stored = []

    def display(bundle, raw=False):
        assert raw
        stored.append(bundle)

    monkeypatch.setattr(_display, "in_notebook", lambda: True)
    monkeypatch.setattr(IPython.display, "display", display)
    return stored


def noise(colour=None):
    """Two noisy grey images, through the first of which a hairline runs."""
    fig = plotting.images(np.random.default_rng(0).random((2, 128, 128)))
    if colour is not None:
        fig.axes[0].axhline(40, color=colour, linewidth=0.6)
    return fig


def full(fig, dpi=130):
    """The figure's own PNG and its pixels, before anything is reduced."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue(), np.asarray(Image.open(buffer).convert("RGB")).astype(int)


def shown(bundle):
    png = base64.b64decode(bundle["image/png"])
    return png, Image.open(io.BytesIO(png))


@pytest.mark.parametrize("name", plotting.PALETTE)
def test_a_hairline_keeps_its_colour_among_greys(outputs, name):
    fig = noise(plotting.PALETTE[name])
    _, want = full(fig)
    plotting.show(fig)
    got = np.asarray(shown(outputs[0])[1].convert("RGB")).astype(int)
    colour = np.rint(255 * np.array(to_rgb(plotting.PALETTE[name])))
    line = np.abs(want - colour).max(-1) <= 1  # (H, W)
    assert line.sum() > 200
    assert np.abs(got[line] - colour).max() <= 8
    assert np.abs(got - want).max() <= 8  # nor does anything else change that an eye would see


def test_the_picture_is_of_few_colours_and_lighter(outputs):
    fig = noise(plotting.CYCLE[0])
    heavy, _ = full(fig)
    plotting.show(fig)
    plotting.show(fig, colours=128)
    plotting.show(fig, colours=16)
    weights = []
    for bundle, most in zip(outputs, (256, 128, 16), strict=True):
        png, image = shown(bundle)
        assert image.format == "PNG" and image.mode == "P"
        assert len(image.convert("RGB").getcolors()) <= most
        weights.append(len(png))
    assert weights[2] < weights[1] < 0.75 * len(heavy) and weights[0] < 0.9 * len(heavy)


def test_resolution_and_text(outputs):
    fig = noise()
    for dpi in (50, 100):
        plotting.show(fig, dpi=dpi)
    sizes = [shown(bundle)[1].size for bundle in outputs]
    assert sizes == [tuple(round(dpi * inches) for inches in fig.get_size_inches())
                     for dpi in (50, 100)]  # fmt: skip
    assert outputs[0]["text/plain"] == "<Figure of {} x {} pixels>".format(*sizes[0])


def test_a_figure_of_the_reader_s_own_is_closed(outputs):
    fig, _ = plt.subplots(figsize=(1, 1))
    assert plt.get_fignums()
    plotting.show(fig)
    assert not plt.get_fignums() and len(outputs) == 1


def test_a_terminal_gets_one_line_of_text(capsys):
    plotting.show(noise(), dpi=50)
    out = capsys.readouterr().out
    assert out.startswith("<Figure of ") and out.endswith(" pixels>\n") and out.count("\n") == 1


def test_a_caption_follows_its_picture(outputs):
    plotting.show(plotting.images(np.zeros((2, 8, 8))), caption="Two dark `x`, $a<b$.")
    picture, words = outputs
    assert "image/png" in picture and "image/png" not in words
    html = words["text/html"]
    assert 'class="medseg-caption' in html and "Two dark <code>x</code>, $a&lt;b$." in html
