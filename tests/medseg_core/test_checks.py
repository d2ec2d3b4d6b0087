import numpy as np
import pytest
import torch

from medseg_core import checks

ARRAYS = [np.array, torch.tensor]


@pytest.mark.parametrize("make", ARRAYS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_finite_names_the_first_place(make, bad):
    x = make([[0.0, 1.0, 2.0], [3.0, bad, bad]])
    message = rf"image must be finite, got {bad} at index \[1, 1\] and at 1 more places"
    with pytest.raises(ValueError, match=message):
        checks.finite(x, "image")


@pytest.mark.parametrize("x", [np.arange(3), torch.ones(2, 2), [1, 2.5], 3, torch.ones(1) > 0, []])
def test_finite_returns_what_it_accepts(x):
    assert checks.finite(x, "x") is x


def test_finite_reads_complex_numbers_and_scalars():
    with pytest.raises(ValueError, match="k must be finite"):
        checks.finite(torch.tensor([1 + 1j, complex(0, float("nan"))]), "k")
    with pytest.raises(ValueError, match=r"lr must be finite, got nan$"):
        checks.finite(float("nan"), "lr")


@pytest.mark.parametrize("x", ["a", None, ["a"], {"a": 1}, True])
def test_finite_refuses_what_is_no_number(x):
    with pytest.raises(TypeError, match="x must be numeric"):
        checks.finite(x, "x")


@pytest.mark.parametrize("make", [np.zeros, torch.zeros])
def test_shape_returns_the_sizes(make):
    x = make((4, 1, 64, 48))
    assert checks.shape(x, "image", "N 1 H W") == {"N": 4, "H": 64, "W": 48}
    assert checks.shape(x, "image", "N 1 *S", N=4) == {"N": 4, "S": (64, 48)}
    assert checks.shape(x, "image", "*S W", S=[4, 1, 64]) == {"S": (4, 1, 64), "W": 48}
    assert checks.shape(x, "image", "N C H W *S") == {"N": 4, "C": 1, "H": 64, "W": 48, "S": ()}
    assert checks.shape(make(()), "loss", "") == {}


@pytest.mark.parametrize(
    ("spec", "known", "why"),
    [
        ("N 1 H", {}, "4 axes, not 3"),
        ("N 1 H W D *S", {}, "4 axes, not at least 5"),
        ("N 2 H W", {}, "1, not 2"),
        ("N 1 H H", {}, "H = 48, not 64"),
        ("N C H W", {"C": 3}, "C = 1, not 3"),
        ("N 1 *S", {"S": (64, 64)}, r"S = \(64, 48\), not \(64, 64\)"),
        ("*S 47", {}, "48, not 47"),
    ],
)
def test_shape_says_what_does_not_fit(spec, known, why):
    with pytest.raises(ValueError, match=rf"image .*got \(4, 1, 64, 48\): {why}"):
        checks.shape(np.zeros((4, 1, 64, 48)), "image", spec, **known)


def test_shape_refuses_what_has_none():
    with pytest.raises(TypeError, match=r"image must be an array .* got \[1, 2\] \(list\)"):
        checks.shape([1, 2], "image", "N")


def test_choice_suggests_a_near_match():
    assert checks.choice("lesson", "scale", ("smoke", "lesson")) == "lesson"
    message = r"scale must be one of 'smoke', 'lesson'; got 'leson' \(did you mean 'lesson'\?\)"
    with pytest.raises(ValueError, match=message):
        checks.choice("leson", "scale", ("smoke", "lesson"))
    with pytest.raises(ValueError, match=r"got 4$"):
        checks.choice(4, "connectivity", (8, 26))


@pytest.mark.parametrize("make", ARRAYS)
def test_between_names_the_first_place(make):
    assert checks.between(make([0.0, 1.0]), "prob", 0, 1) is not None
    with pytest.raises(ValueError, match=r"prob must be in \[0, 1\], got 1.5 at index \[1\]"):
        checks.between(make([0.0, 1.5]), "prob", 0, 1)
    with pytest.raises(ValueError, match="got nan"):
        checks.between(make([float("nan")]), "prob", 0, 1)


def test_between_takes_open_ends_and_scalars():
    assert checks.between(3, "n", 1, None) == 3
    with pytest.raises(ValueError, match=r"n must be at least 1, got 0$"):
        checks.between(0, "n", 1, None)
    with pytest.raises(ValueError, match=r"n must be at most 1, got 2$"):
        checks.between(2, "n", None, 1)
    with pytest.raises(TypeError, match="n must be numeric, got 'a'"):
        checks.between("a", "n", 0, 1)


def test_same_shape():
    checks.same_shape(np.zeros((2, 3)), torch.zeros(2, 3), ("pred", "ref"))
    with pytest.raises(ValueError, match=r"pred and ref .* \(2, 3\) and \(3, 2\)"):
        checks.same_shape(np.zeros((2, 3)), np.zeros((3, 2)), ("pred", "ref"))


@pytest.mark.parametrize("bad", [0, -1.0, float("inf"), float("nan")])
def test_positive(bad):
    assert checks.positive(1e-9, "lam") == 1e-9
    with pytest.raises(ValueError, match="lam must be positive and finite"):
        checks.positive(bad, "lam")


@pytest.mark.parametrize("bad", [(1.0,), (1.0, 2.0, 3.0), (1.0, 0.0), (1.0, float("nan"))])
def test_spacing(bad):
    assert checks.spacing(None, 3) == (1.0, 1.0, 1.0)
    assert checks.spacing([1, 2], 2) == (1.0, 2.0)
    with pytest.raises(ValueError, match="spacing must be 2 positive numbers"):
        checks.spacing(bad, 2)


def test_integer():
    assert checks.integer(np.int64(3), "n", 1, 3) == 3
    for bad in (2.0, "3", None, True, torch.tensor(1.5)):
        with pytest.raises(TypeError, match="n must be an integer, got"):
            checks.integer(bad, "n")
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        checks.integer(0, "n", 1)
    with pytest.raises(ValueError, match=r"n must be in \[0, 4\], got 5"):
        checks.integer(5, "n", 0, 4)


def test_floating_and_mask():
    x, m = torch.zeros(2), torch.zeros(2, dtype=torch.bool)
    assert checks.floating(x, "x") is x and checks.mask(m, "m") is m
    for bad, name in ((m, "torch.bool"), (x.long(), "torch.int64"), ([1.0], "list")):
        with pytest.raises(TypeError, match=f"x must be a floating-point tensor, got {name}"):
            checks.floating(bad, "x")
    for bad, name in ((x, "torch.float32"), (m.byte(), "torch.uint8"), (np.zeros(2, bool), "bool")):
        with pytest.raises(TypeError, match=f"m must be a bool tensor, got {name}"):
            checks.mask(bad, "m")
