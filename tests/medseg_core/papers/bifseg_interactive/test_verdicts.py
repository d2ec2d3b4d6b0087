"""The claims' texts, margins and values, from curves that are made up."""

import dataclasses

import numpy as np
import pytest

from medseg_core.papers.bifseg_interactive.experiment import SETTINGS
from medseg_core.papers.bifseg_interactive.knobs import Knobs
from medseg_core.papers.bifseg_interactive.sessions import scribbles_until
from medseg_core.papers.bifseg_interactive.verdicts import Measured, entries, figures, means, spread

S = dataclasses.replace(SETTINGS["lesson"], n_scribbles=3, tune_at=(1, 2), early=1, many=2)
CURVES = {  # one seed, two volumes, after 0 … 3 scribbles
    "BIFSeg": [[0.5, 0.7, 0.8, 0.9], [0.4, 0.5, 0.6, 0.5]],
    "BIFSeg, w = 1": [[0.5, 0.6, 0.8, 0.8], [0.4, 0.5, 0.6, 0.6]],
    "CRF + scribbles": [[0.5, 0.6, 0.7, 0.8], [0.4, 0.4, 0.4, 0.4]],
    "CRF, own scribbles": [[0.5, 0.6, 0.7, 0.9], [0.4, 0.4, 0.6, 0.7]],
    "BIFSeg, seen organs": [[0.8, 0.9, 0.9, 0.9], [0.7, 0.7, 0.9, 0.9]],
}


@pytest.fixture
def measured():
    return Measured(
        s=S,
        eps=0.2,
        curves={name: np.array([curve]) for name, curve in CURVES.items()},
        alone=np.array([[0.5, 0.4]]),
        initial={"CNN": [0.5, 0.4], "CNN + CRF": [0.52, 0.41]},
        cut=Knobs(),
        moved=0.01,
        shown_out=0.3,
        left_out={1: 0.2, 2: 0.4},
        areas=[0.1, 0.2],
        scratch=0.5,
    )


def by_id(measured):
    return {entry["id"]: (function, entry) for function, entry in entries(measured)}


def test_ids_and_margins_are_those_of_the_spec(measured):
    found = by_id(measured)
    assert list(found) == ["C1", "C2a", "C2b", "C3", "C4", "C5a", "C5b", "C6", "C7", "C8"]
    margins = {id: e["at_least"] for id, (f, e) in found.items() if f == "check"}
    expected = {"C1": 0.01, "C2a": 0.1, "C2b": 0, "C3": 0.02, "C4": 0.01, "C5b": 0, "C6": 0}
    assert margins == expected
    assert [found[id][0] for id in ("C5a", "C7", "C8")] == ["exact", "paper_only", "note"]
    assert all(entry.get("if_fails") for f, entry in found.values() if f in ("check", "exact"))


def test_values_by_hand(measured):
    found = {id: entry for id, (_, entry) in by_id(measured).items()}
    for id, expected in {
        "C1": [0.02, 0.01],
        "C2a": [[0.3, 0.2]],
        "C2b": [[0.1, -0.1]],
        "C3": [[0.1, 0.2]],
        "C4": [[0.1, 0.0]],
        "C5b": [[2, 2]],  # seen: 1 and 2; unseen: 3, and 4 for never
        "C6": [0.1, 0.2],
    }.items():
        np.testing.assert_allclose(found[id]["measured"], expected, atol=1e-12, err_msg=id)
    assert found["C5a"]["ok"] and "1.5 seen, 3.5 unseen" in found["C5a"]["detail"]
    assert found["C8"]["value"] == pytest.approx(0.05)
    assert figures(measured)["Dice, BIFSeg, 2 scribbles"] == pytest.approx(0.7)
    assert figures(measured)["Dice, CNN + CRF"] == pytest.approx(0.465)


def test_a_method_that_does_nothing_fails(measured):
    curves = measured.curves | {"BIFSeg": measured.curves["CRF + scribbles"]}
    found = by_id(dataclasses.replace(measured, curves=curves))
    assert (found["C3"][1]["measured"] == 0).all()
    same = measured.curves | {"BIFSeg, seen organs": measured.curves["BIFSeg"]}
    assert not by_id(dataclasses.replace(measured, curves=same))["C5a"][1]["ok"]


def test_words():
    assert spread([0.0123, -0.5]) == "−0.500 to +0.012"
    assert means([[0.1, 0.3], [-1.0]]) == "+0.200, −1.000"


def test_scribbles_until_the_goal():
    curves = np.array([[0.1, 0.85, 0.8, 0.9], [0.9, 0.1, 0.1, 0.1], [0.1, 0.2, 0.3, 0.4]])
    assert scribbles_until(curves, 0.85).tolist() == [1, 0, 4]
