import itertools
import json
import re

import nbformat
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from medseg_book.run import notebook
from medseg_book.run.errors import UsageError
from medseg_book.run.sweeps.grid import expand, parse_seeds, parse_values, point_name

from .conftest import CHAPTER, PARAMETERS


def read(tmp_path, cells):
    path = tmp_path / "tiny.py"
    path.write_text(cells)
    return notebook.read_source(path)


@pytest.fixture
def nb(tmp_path):
    return read(tmp_path, CHAPTER)


@pytest.mark.parametrize(
    "text, values",
    [
        ("10,20", [10, 20]),
        (" 1e-3 , true, null,x", [1e-3, True, None, "x"]),
        ("[10, 20],[40]", [[10, 20], [40]]),
        ("{a: 1, b: [2, 3]},{}", [{"a": 1, "b": [2, 3]}, {}]),
        ("'a,b',\"c, d\",'[',e", ["a,b", "c, d", "[", "e"]),
        ("['x,]', 1],2", [["x,]", 1], 2]),
        ("'10',10", ["10", 10]),
        ("one", ["one"]),
    ],
)
def test_commas_outside_of_brackets_and_quotes_separate(text, values):
    assert parse_values(text, "n") == values


@pytest.mark.parametrize("text", ["", " ", ",", "1,,2", "1,", "[1", "1],2", "'a,b", "{a: 1", "[1)"])
def test_values_that_cannot_be_read_are_refused_by_name(text):
    with pytest.raises(UsageError, match="n_train"):
        parse_values(text, "n_train")


@pytest.mark.parametrize(
    "text, seeds",
    [
        ("0..4", [0, 1, 2, 3, 4]),
        ("0..40..10", [0, 10, 20, 30, 40]),
        ("0..45..20", [0, 20, 40]),
        ("3,7", [3, 7]),
        ("0..1, 10 ,20..20", [0, 1, 10, 20]),
        ("7", [7]),
    ],
)
def test_seeds(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "4..0", "a", "1..", "0..4..0", "0..4..00", "-1", "1.5", "1,"])
def test_wrong_seeds_are_refused(text):
    with pytest.raises(UsageError, match="--seeds"):
        parse_seeds(text)


def test_parameters_stay_parameters_and_settings_become_overrides(nb):
    fixed = {"scale": "smoke", "overrides": {"act": "x"}}
    points = expand("tiny", nb, {"lr": [0.1, 1], "extended": [True, False]}, [0, 10], fixed)
    seen = [(p.given["overrides"]["lr"], p.given["extended"], p.given["seed"]) for p in points]
    assert seen == list(itertools.product([0.1, 1], [True, False], [0, 10]))
    assert all(p.given["overrides"]["act"] == "x" and p.given["scale"] == "smoke" for p in points)
    assert points[0].name == "lr=0.1,extended=true,seed=0" and points[0].slug == "tiny"
    assert fixed == {"scale": "smoke", "overrides": {"act": "x"}}  # nobody else's dict changes


def test_without_a_settings_class_any_name_is_a_setting(tmp_path):
    (point,) = expand("tiny", read(tmp_path, PARAMETERS), {"anything": [1]})
    assert point.given == {"overrides": {"anything": 1}}


@pytest.mark.parametrize(
    "grid, seeds, fixed, message",
    [
        ({"n_trian": [1]}, (), {}, "unknown parameter or setting 'n_trian'; .*'n_train'"),
        ({"sede": [1]}, (), {}, "unknown parameter or setting 'sede'; did you mean 'seed'"),
        ({"lr": [1, 2, 1]}, (), {}, "lr takes different values, got 1 twice"),
        ({"lr": [[1], [1]]}, (), {}, r"got \[1\] twice"),
        ({}, [0, 1, 0], {}, "seed takes different values, got 0 twice"),
        ({"seed": [1]}, [0], {}, "seed is swept twice"),
        ({"seed": [1]}, (), {"seed": 3}, r"seed is swept and fixed \(to 3\)"),
        ({}, [1], {"seed": 3}, r"seed is swept and fixed \(to 3\)"),
        ({"lr": [1]}, (), {"overrides": {"lr": 5}}, r"lr is swept and fixed \(to 5\)"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(nb, grid, seeds, fixed, message):
    with pytest.raises(UsageError, match=message):
        expand("tiny", nb, grid, seeds, fixed)


def test_names_are_readable_where_they_can_be():
    assert point_name({"n_train": 10, "seed": 0}) == "n_train=10,seed=0"
    assert point_name({"lr": 1e-5, "loss": "dice"}) == "lr=1e-05,loss=dice"
    assert re.fullmatch(r"n=10,20-[0-9a-f]{8}", point_name({"n": [10, 20]}))
    assert point_name({}) == "default"


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.sampled_from(["1", "true", "1,b=2", "NaN", "../x", "a/b", ".", "con", "ä", "x" * 300]),
    st.lists(st.integers() | st.text()),
    st.dictionaries(st.text(), st.integers()),
)


@given(VALUES, VALUES, VALUES, VALUES)
@example("1", 0, 1, 0)
@example("NaN", 0, float("nan"), 0)
@example("1,b=2", 3, 1, "2,b=3")
@example([10], 0, 10, 0)
@example("a b", 0, "a-b", 0)
def test_two_combinations_never_share_a_name(a, b, c, d):
    one, two = {"a": a, "b": b}, {"a": c, "b": d}
    same = json.dumps(one) == json.dumps(two)
    assert (point_name(one) == point_name(two)) == same


@given(VALUES, VALUES)
def test_a_name_is_a_file_name_everywhere(a, b):
    name = point_name({"a": a, "b": b})
    assert re.fullmatch(r"[A-Za-z0-9=,._+-]{1,120}", name) and name[0] not in ".-"
    assert len(f".{name}-host-123456-abcdef.partial.failed.ipynb") < 255


def test_settings_are_the_fields_of_the_class_settings(nb):
    assert notebook.settings(nb) == ["lr", "n_train", "act", "wait", "marks"]
    assert notebook.settings(nbformat.v4.new_notebook()) == []
