import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as oracle
from scipy.special import stdtrit

from medseg_core.metrics import stats

NUMBERS = st.lists(st.floats(-100, 100), min_size=2, max_size=12)


def test_t_interval_by_hand():
    # mean 2, s = 1, t(0.975, 2) = 4.302653
    mean, low, high = stats.t_interval([1, 2, 3])
    assert mean == 2
    assert np.allclose([low, high], 2 + np.array([-1, 1]) * 4.302653 / np.sqrt(3), atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(values=NUMBERS, ci=st.floats(0.5, 0.99))
def test_t_interval_by_the_quantile(values, ci):
    x = np.array(values)
    ours = stats.t_interval(values, ci=ci)
    half = stdtrit(len(x) - 1, (1 + ci) / 2) * x.std(ddof=1) / np.sqrt(len(x))
    want = [x.mean() - half, x.mean() + half]
    assert np.allclose([ours.low, ours.high], want, rtol=1e-12, atol=1e-12)


def test_constant_values_have_an_interval_of_width_zero():
    for interval in (stats.t_interval([0.1] * 5), stats.bootstrap_ci([0.1] * 5)):
        assert interval.low == pytest.approx(0.1, abs=1e-15)
        assert interval.high == pytest.approx(0.1, abs=1e-15)
    assert stats.bootstrap_ci([0.0, 0.0, 0.0]) == (0, 0, 0)


def test_bootstrap_is_close_to_scipys():
    x = np.random.default_rng(0).gamma(2.0, size=80)
    ours = stats.bootstrap_ci(x)
    theirs = oracle.bootstrap(
        (x,), np.mean, n_resamples=8000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert np.allclose([ours.low, ours.high], theirs, atol=0.05)
    assert ours.mean == x.mean()


def test_bootstrap_is_the_same_each_time():
    x = np.random.default_rng(0).normal(size=30)
    assert stats.bootstrap_ci(x) == stats.bootstrap_ci(x)


@settings(deadline=None, max_examples=20)
@given(values=NUMBERS, shift=st.floats(-10, 10))
def test_bootstrap_moves_with_its_values_and_holds_the_mean(values, shift):
    one, two = stats.bootstrap_ci(values), stats.bootstrap_ci(np.add(values, shift))
    assert np.allclose(np.array(one[:3]) + shift, two[:3])
    assert one.low <= one.mean + 1e-9 and one.mean - 1e-9 <= one.high


def test_images_of_one_patient_are_no_independent_evidence():
    gen = np.random.default_rng(0)
    patient = np.repeat(np.arange(10), 20)
    x = gen.normal(size=10)[patient] + 0.1 * gen.normal(size=200)
    by_case, by_patient = stats.bootstrap_ci(x), stats.bootstrap_ci(x, unit=patient)
    assert by_patient.high - by_patient.low > 2 * (by_case.high - by_case.low)
    # With equal groups it is the bootstrap of the patients' means.
    means = stats.bootstrap_ci(x.reshape(10, 20).mean(1))
    assert np.allclose(by_patient[:3], means[:3])


def test_groups_may_be_names_and_unequal():
    x = [0.0, 0.0, 0.0, 1.0]
    interval = stats.bootstrap_ci(x, unit=["a", "a", "a", "b"])
    assert interval[:3] == (0.25, 0.0, 1.0)
    # Half of the resamples draw both, and count each case once: (0 + 0 + 0 + 1) / 4.
    assert stats.bootstrap_ci(x, unit=["a", "a", "a", "b"], ci=0.4)[:3] == (0.25, 0.25, 0.25)


@pytest.mark.parametrize("kind", ["wilcoxon", "t"])
def test_paired_tests_find_a_shift_and_only_that(kind):
    gen = np.random.default_rng(0)
    a = gen.normal(size=30)
    assert stats.paired_test(a + 0.5, a + 0.1 * gen.normal(size=30), kind).p < 1e-4
    assert stats.paired_test(a, gen.permutation(a), kind).p > 0.05
    assert stats.paired_test(a, a, kind) == (0, 1, 30)


def test_signed_ranks_by_hand():
    # Five positive differences: 2 of the 32 sign patterns are as extreme.
    assert stats.paired_test([1, 2, 3, 4, 5.5], [0] * 5).p == pytest.approx(2 / 32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stats.t_interval([1.0]), "values must be a list of 2 or more numbers"),
        (lambda: stats.t_interval([[1.0, 2.0]]), r"shape \(1, 2\)"),
        (lambda: stats.t_interval([1.0, np.nan]), r"values must be finite, got nan at index \[1\]"),
        (lambda: stats.t_interval([1, 2], ci=95), "ci must lie between 0 and 1, got 95"),
        (lambda: stats.bootstrap_ci([]), "values must be a list"),
        (lambda: stats.bootstrap_ci([1, np.inf]), "values must be finite"),
        (lambda: stats.bootstrap_ci([1, 2], unit=[1]), r"unit must have one entry per value \(2\)"),
        (lambda: stats.paired_test([1, 2], [1, 2, 3]), "a and b must have one shape"),
        (lambda: stats.paired_test([1, 2], [1, 2], "anova"), "kind must be one of"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
