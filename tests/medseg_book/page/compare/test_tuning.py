import math
from types import SimpleNamespace

import pytest

from medseg_book.page import compare


def arm_of(score, updates=5):
    """A maker whose validation score is a function of the rate."""

    def make(rate):
        def arm(seed):
            best = (3, score(rate))
            history = SimpleNamespace(best=None if math.isinf(best[1]) else best)
            extras = {"history": history, "other": -rate}
            return {"dice": rate + seed, "updates": updates, "images": 50, "extras": extras}

        return arm

    return make


MAKERS = {"peak": arm_of(lambda r: -((r - 2) ** 2)), "rising": arm_of(lambda r: r)}


def test_each_arm_takes_its_best_value_by_hand():
    tuned = compare.tuned(MAKERS, [1.0, 2.0, 3.0], 7)
    assert tuned.scores == {
        "peak": {1.0: -1.0, 2.0: 0.0, 3.0: -1.0},
        "rising": {1.0: 1.0, 2.0: 2.0, 3.0: 3.0},
    }
    assert tuned.chosen == {"peak": 2.0, "rising": 3.0}
    assert tuned.at_an_end == ["rising"]


def test_the_chosen_trial_is_the_arm_s_run_of_that_seed():
    tuned = compare.tuned(MAKERS, [1.0, 2.0, 3.0], 7)
    assert [(r.arm, r.seed) for r in tuned.results.records] == [("peak", 7), ("rising", 7)]
    assert tuned.results.value("peak", 7, "dice") == 9.0
    assert len(tuned.trials.records) == 6


def test_the_first_wins_a_tie_and_nan_never_does():
    flat = compare.tuned({"a": arm_of(lambda r: 1.0)}, [3, 1, 2], 0)
    assert flat.chosen == {"a": 3}
    scores = {1: math.nan, 2: -5.0, 3: math.nan}
    assert compare.tuned({"a": arm_of(scores.get)}, [1, 2, 3], 0).chosen == {"a": 2}
    assert compare.tuned({"a": arm_of(lambda r: -math.inf)}, [1, 2], 0).chosen == {"a": 1}


def test_another_score_judges_the_same_trials():
    tuned = compare.tuned(MAKERS, [1.0, 2.0, 3.0], 0)
    other = tuned.rescored(lambda record: record.extras["other"])
    assert other.trials is tuned.trials
    assert other.chosen == {"peak": 1.0, "rising": 1.0}


def test_a_grid_per_arm_and_the_table():
    makers = MAKERS | {"pair": lambda pair: arm_of(float)(pair[1])}
    grid = {"peak": [2.0, 5.0], "pair": [("CE", 1e-3)]}
    makers.pop("rising")
    table = compare.tuned(makers, grid, 0, score=lambda record: 0.5).table(digits=1)
    assert table.header == ["validation", "2", "5", "CE 0.001"]
    assert table.rows == [["peak", "**0.5**", "0.5", "–"], ["pair", "–", "–", "**0.5**"]]
    assert table.note == ""  # two values have no inside
    assert "rising" in compare.tuned(MAKERS, [1.0, 2.0, 3.0], 0).table().note


def test_bad_grids_and_unequal_trials_are_refused():
    for grid in ([], [1.0, 1.0], {"peak": [], "rising": [1.0]}):
        with pytest.raises(ValueError, match="grid must hold different values for 'peak'"):
            compare.tuned(MAKERS, grid, 0)
    with pytest.raises(ValueError, match="look the same"):
        compare.tuned(MAKERS, [1.00001, 1.00002], 0)
    makers = {"a": arm_of(float), "b": arm_of(float, updates=6)}
    with pytest.raises(ValueError, match="unequal budgets"):
        compare.tuned(makers, [1.0], 0)
    assert compare.tuned(makers, [1.0], 0, budget="declared").chosen == {"a": 1.0, "b": 1.0}
