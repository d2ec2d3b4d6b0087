import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_book.run.errors import UsageError
from medseg_book.run.parameters import check, merge_overrides, parse_value

DECLARED = {
    "scale": {"inferred_type_name": "str"},
    "seed": {"inferred_type_name": "int"},
    "device": {"inferred_type_name": "str"},
    "data_dir": {"inferred_type_name": "str"},
    "extended": {"inferred_type_name": "bool"},
    "overrides": {"inferred_type_name": "dict"},
    "lr": {"inferred_type_name": "float"},
}


@pytest.mark.parametrize(
    "text, value",
    [
        ("3", 3),
        ("1e-3", 1e-3),  # text to YAML 1.1
        (".5", 0.5),
        ("010", 10),  # octal to YAML 1.1
        ("true", True),
        ("no", "no"),  # False to YAML 1.1
        ("None", None),
        ("2020-01-01", "2020-01-01"),
        ("cuda:1", "cuda:1"),
        ("~/data", "~/data"),
        ("~", "~"),
        ("{n_train: 20, lr: 1e-3, w: [8, 16]}", {"n_train": 20, "lr": 1e-3, "w": [8, 16]}),
        ('{"n_test": 120}', {"n_test": 120}),
    ],
)
def test_values_mean_what_a_reader_means(text, value):
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


@given(st.floats(allow_nan=False))
@settings(deadline=None, max_examples=60)
def test_every_float_survives(x):
    back = parse_value(repr(x).replace("inf", ".inf") if math.isinf(x) else repr(x))
    assert back == x


def test_unreadable_value_names_the_parameter():
    with pytest.raises(UsageError, match="overrides: cannot read"):
        parse_value("{n_train: 20", "overrides")


@pytest.mark.parametrize(
    "given, message",
    [
        ({"sed": 1}, "unknown parameter 'sed'; did you mean 'seed'"),
        ({"scale": "leson"}, "unknown scale 'leson'; did you mean 'lesson'"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"seed": "abc"}, "seed takes int, got 'abc'"),
        ({"seed": True}, "seed takes int, got True"),
        ({"seed": 1.5}, "seed takes int"),
        ({"seed": -1}, "seed takes an integer >= 0, got -1"),
        ({"extended": "yes"}, "extended takes bool, got 'yes'"),
        ({"overrides": 3}, "overrides takes dict, got 3"),
        ({"scale": None}, "unknown scale None"),
        ({"device": None}, "unknown device None"),
        ({"data_dir": "/no/such/folder"}, "data_dir: there is no folder /no/such/folder"),
    ],
)
def test_wrong_parameters_are_refused_by_name(given, message):
    with pytest.raises(UsageError, match=message):
        check(given, DECLARED)


def test_right_parameters_pass_and_data_dir_becomes_absolute(tmp_path, monkeypatch):
    (tmp_path / "acdc").mkdir()
    monkeypatch.chdir(tmp_path)
    ready = check({"data_dir": "acdc", "lr": 1, "device": "cuda:1"}, DECLARED)
    assert ready == {"data_dir": str(tmp_path / "acdc"), "lr": 1, "device": "cuda:1"}


def test_set_lies_over_overrides():
    merged = merge_overrides({"overrides": {"a": 1, "b": 2}}, [("b", 3)])
    assert merged == {"overrides": {"a": 1, "b": 3}}
    assert merge_overrides({"seed": 1}, []) == {"seed": 1}
