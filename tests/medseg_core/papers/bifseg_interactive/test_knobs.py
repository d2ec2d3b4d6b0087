"""The search on made-up scores whose optimum is known."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_core.papers.bifseg_interactive.crf import Cut
from medseg_core.papers.bifseg_interactive.knobs import Knobs, search
from medseg_core.papers.bifseg_interactive.refine import FineTuning

LAMS, SIGMAS = (0.1, 1.0, 10.0, 100.0, 1e3), (0.05, 0.1, 0.2, 0.5)
GRIDS = {"lam": LAMS, "sigma": SIGMAS}


def hill(lam, sigma):
    """A score that rises towards one place of the grid, along each knob; and its calls."""
    calls = []

    def score(knobs):
        calls.append(knobs)
        away = abs(LAMS.index(knobs.lam) - LAMS.index(lam))
        return -away - abs(SIGMAS.index(knobs.sigma) - SIGMAS.index(sigma)) / 8

    return score, calls


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(LAMS), st.sampled_from(SIGMAS))
def test_finds_the_top_of_any_hill_and_tries_nothing_twice(lam, sigma):
    score, calls = hill(lam, sigma)
    found = search(score, GRIDS, Knobs(lr=0.5))
    assert found.best == Knobs(lam, sigma, lr=0.5)
    assert len(calls) == len(set(calls)) == len(found.scores)
    assert max(found.scores.values()) == found.scores[found.best] == 0
    assert found.at_an_end == [
        name
        for name, value, grid in (("lam", lam, LAMS), ("sigma", sigma, SIGMAS))
        if value in (grid[0], grid[-1])
    ]


def test_the_order_and_the_ends():
    score, calls = hill(0.1, 0.2)
    found = search(score, GRIDS, Knobs())
    # every third value: λ of 1 and 1000, σ of 0.1; then λ up and down, then σ, until nothing moves
    assert [(k.lam, k.sigma) for k in calls[:4]] == [(1, 0.1), (1e3, 0.1), (0.1, 0.1), (10, 0.1)]
    assert str(found) == (
        f"lam 0.1, sigma 0.2: Dice 0.000, {len(calls)} tried (an end of the grid: lam)"
    )
    assert len(calls) < len(LAMS) * len(SIGMAS)


def test_a_tie_keeps_the_first_and_short_grids_have_no_ends():
    found = search(lambda knobs: 0.5, {"lr": (1e-3, 3e-3), "finetune": ("last", "all")}, Knobs())
    assert found.best == Knobs(lr=3e-3, finetune="all") and found.at_an_end == []
    assert str(found) == "lr 0.003, finetune all: Dice 0.500, 3 tried"


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6))
def test_no_neighbour_of_what_it_finds_is_better(seed):
    table = dict(zip(itertools.product(LAMS, SIGMAS), range(20), strict=True))
    scores = {place: math.sin(seed + 7.3 * i) for place, i in table.items()}  # any landscape
    best = search(lambda k: scores[k.lam, k.sigma], GRIDS, Knobs()).best
    i, j = LAMS.index(best.lam), SIGMAS.index(best.sigma)
    near = [(a, best.sigma) for a in LAMS[max(0, i - 1) : i + 2]]
    near += [(best.lam, b) for b in SIGMAS[max(0, j - 1) : j + 2]]
    assert all(scores[place] <= scores[best.lam, best.sigma] for place in near)


@pytest.mark.parametrize(
    ("grids", "match"),
    [
        ({}, "at least one knob"),
        ({"lam": ()}, "grid of lam must hold different values"),
        ({"lam": (1.0, 1.0)}, "grid of lam must hold different values"),
        ({"mu": (1.0,)}, "knob must be one of 'lam'.*got 'mu'"),
    ],
)
def test_refuses(grids, match):
    with pytest.raises(ValueError, match=match):
        search(lambda knobs: 0.0, grids, Knobs())


def test_refuses_a_score_that_is_no_number():
    with pytest.raises(ValueError, match=r"score of Knobs\(lam=1.0.*got nan"):
        search(lambda knobs: math.nan, GRIDS, Knobs())


def test_what_the_knobs_turn():
    knobs = Knobs(2.0, 0.3, 0.01, "all")
    assert knobs.cut(26) == Cut(2.0, 0.3, 26)
    assert knobs.tuning(2, 7) == FineTuning(rounds=2, steps=7, lr=0.01, finetune="all")
