"""Quality of the gradient, the clock, and what is drawn."""

import time

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from medseg_core import rng
from medseg_core.papers.edpcnn import experiment, stopwatch
from medseg_core.papers.edpcnn.drawing import draw_contour, draw_warped
from medseg_core.papers.edpcnn.gradient_quality import cosines
from medseg_core.solvers.star_dp import perturbed_gradient


def test_cosines_of_the_estimate_itself_of_its_opposite_and_of_noise(bench):
    s = bench.s
    g = torch.randn(4, s.n_lines, s.n_points + 1, generator=rng.generator(0))
    v_star = torch.randint(1, s.n_points, (4, s.n_lines), generator=rng.generator(1))
    gen = rng.generator(7)
    good = perturbed_gradient(g, s.delta, v_star.float(), float(g.std()), 400, gen, width=s.smooth)
    noise = torch.randn(g.shape, generator=rng.generator(2))
    seen = [{"g": g, "v_star": v_star, "gradient": x} for x in (good, -good, noise)]
    found = cosines(seen, s, 200, seed=0)
    assert found.shape == (3, 2) and (np.abs(found) <= 1).all()
    (same, opposite, random), truth = found[:, 0], found[:, 1]
    assert same > 0.2 and opposite < -0.2 and abs(random) < 0.1
    assert truth.min() > 0.3
    np.testing.assert_array_equal(found, cosines(seen, s, 200, seed=0))


def test_seconds_is_the_median_and_leaves_the_first_call_out():
    waits = iter([0.2, 0.0, 0.02, 0.02, 0.02, 0.3])
    found = stopwatch.seconds(lambda: time.sleep(next(waits)), torch.device("cpu"))
    assert 0.02 <= found < 0.1 and next(waits, None) is None


def test_slower_relates_the_solvers_time_to_the_components(bench, monkeypatch):
    times = iter([3.0, 2.0])
    monkeypatch.setattr(
        stopwatch, "seconds", lambda action, device: action() is None or next(times)
    )
    state = experiment.network(bench.s).state_dict()
    assert stopwatch.slower(state, bench)() == pytest.approx(0.5)


def test_a_contour_is_closed_and_an_answer_stands_half_a_sample_before_its_number():
    figure, axes = plt.subplots(1, 2)
    draw_contour(axes[0], torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 0.0]]), "red")
    x, y = axes[0].lines[0].get_data()
    assert list(x) == [1, 3, 0, 1] and list(y) == [0, 2, 4, 0]
    draw_warped(axes[1], torch.zeros(2, 5), torch.tensor([3, 1]), "red", "a map")
    x, y = axes[1].lines[0].get_data()
    assert list(x) == [2.5, 0.5] and list(y) == [0, 1] and axes[1].get_title() == "a map"
    plt.close(figure)
