"""When the interior point stops, against the closed form."""

import pytest
import torch

from medseg_core.papers.ipm_surfaces import stopping


@pytest.fixture(scope="module")
def columns():
    gen = torch.Generator().manual_seed(0)
    mu = 30 * torch.rand(1, 6, 80, generator=gen, dtype=torch.float64)
    return mu, 4 + 60 * torch.rand(1, 6, 80, generator=gen, dtype=torch.float64)


def test_only_columns_out_of_order_are_taken():
    mu = torch.tensor([[[1.0, 5.0, 1.0], [2.0, 3.0, 1.0]]]).repeat(1, 1, 25)
    outs = [{"mu": mu, "sigma2": mu + 10}, {"mu": mu.flip(1), "sigma2": mu}]
    found, sigma2, whose = stopping.hard_columns(outs, (mu, mu))
    assert found.dtype == torch.float64 and "out of order" in whose
    assert found[0].T.tolist() == 25 * [[5, 3]] + 25 * [[2, 1]]
    assert sigma2[0].T.tolist() == 25 * [[15, 13]] + 25 * [[1, 2]]


def test_where_too_few_columns_are_out_of_order_others_take_their_place(columns):
    few = {"mu": torch.tensor([[[5.0], [3.0]]]).repeat(1, 1, 49)}
    few["sigma2"] = few["mu"]
    mu, sigma2, whose = stopping.hard_columns([few], columns)
    assert mu is columns[0] and sigma2 is columns[1] and whose == "random columns"


def test_the_printed_rule_stops_early_and_far_off(columns):
    found = stopping.stopping(*columns, 1e-8)
    (few, rough), (eight, _), (many, exact) = (
        found[rule] for rule in (stopping.AS_PRINTED, stopping.CAPPED, stopping.TIGHT)
    )
    assert few.max() <= 10 and rough.max() > 0.1
    assert eight.max() == 8 < many.max() and exact.max() < 1e-3


def test_the_column_that_the_printed_rule_leaves_furthest_off(columns):
    steps, off = stopping.stopping(*columns, 1e-8)[stopping.AS_PRINTED]
    way = stopping.hardest_way(*columns)
    assert way.stop == steps[off.argmax()]
    assert way.error[way.stop] == pytest.approx(off.max().item())
    residual, gap, error = way.measures.values()
    assert len(residual) == len(gap) == len(error) == len(way.surfaces) > way.stop
    assert residual[way.stop] < 0.01 <= residual[way.stop - 1]
    assert residual[-1] < 1e-9 and gap[-1] < 1e-6 and error[-1] < 1e-3


def test_a_surface_that_stays_is_not_shown():
    mu = torch.tensor([12.0, 10.0, 30.0], dtype=torch.float64)[None, :, None]
    way = stopping.hardest_way(mu, torch.ones_like(mu))
    assert way.guesses.tolist() == [12, 10]
    assert way.surfaces[-1] == pytest.approx([11, 11], abs=1e-3)
    assert way.window[0] > 12 and way.window[1] < 10  # rows run downwards


def test_the_share_that_stops_in_time(columns):
    mu, sigma2 = columns
    out = {"mu": mu, "sigma2": sigma2}
    iterations = stopping.stopping(mu, sigma2, 1e-8)[stopping.AS_PRINTED][0].double()
    middle = int(iterations.median())
    share = (iterations <= middle).double().mean().item()
    assert stopping.share_within(out, middle) == share < 1
    assert stopping.share_within(out, 100) == 1
