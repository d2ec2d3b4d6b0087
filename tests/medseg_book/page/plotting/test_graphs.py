from dataclasses import dataclass, field

import numpy as np
import pytest

from medseg_book.page import plotting


@dataclass
class History:
    losses: list = field(default_factory=lambda: [3.0, 2.0, 1.0])
    validation: list = field(default_factory=lambda: [(1, 0.2), (3, 0.4)])
    best: tuple = (3, 0.4)


def test_curves_of_histories():
    loss, validation = plotting.curves({"a": History(), "b": History()}).axes
    assert loss.lines[0].get_ydata().tolist() == [3, 2, 1]
    assert validation.lines[0].get_xdata().tolist() == [1, 3]
    assert [t.get_text() for t in validation.get_legend().get_texts()] == ["a", "b"]
    (loss,) = plotting.curves(History(validation=[], best=None)).axes
    assert loss.get_legend() is None


def test_curves_with_bands():
    y = np.array([[1.0, 2.0], [3.0, 6.0]])
    for band, high in (("range", 6), ("sd", 4 + 8**0.5)):
        (ax,) = plotting.curves({"a": ([10, 40], y)}, band=band).axes
        assert ax.lines[0].get_ydata().tolist() == [2, 4]
        (patch,) = ax.collections
        assert patch.get_paths()[0].vertices[:, 1].max() == pytest.approx(high)
    assert not plotting.curves({"a": y}, band=None).axes[0].collections


def test_histograms_have_area_one():
    (ax,) = plotting.histograms(
        {"a": np.random.default_rng(0).normal(size=500), "b": [0.0, 1]}
    ).axes
    for patch in ax.patches[::2]:
        x, y = patch.get_xy().T
        assert abs(np.trapezoid(y, x)) == pytest.approx(1, abs=1e-6)


def test_bad_input():
    for call, message in (
        (lambda: plotting.curves({}), "at least one curve"),
        (lambda: plotting.curves({"a": ([1, 2], [1])}), "does not fit"),
        (lambda: plotting.curves({"a": [1]}, band="se"), "band must be one of"),
        (lambda: plotting.histograms({}), "at least one"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
