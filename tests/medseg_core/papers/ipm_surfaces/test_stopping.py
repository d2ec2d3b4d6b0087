"""When the interior point stops, against the closed form."""

import pytest
import torch

from medseg_core.papers.ipm_surfaces import stopping


@pytest.fixture(scope="module")
def columns():
    gen = torch.Generator().manual_seed(0)
    mu = 30 * torch.rand(1, 6, 80, generator=gen, dtype=torch.float64)
    return mu, 10 ** (2 * torch.rand(1, 6, 80, generator=gen, dtype=torch.float64) - 1)


def test_only_columns_out_of_order_are_taken():
    mu = torch.tensor([[[1.0, 5.0, 1.0], [2.0, 3.0, 1.0]]])
    outs = [{"mu": mu, "sigma2": mu + 10}, {"mu": mu.flip(1), "sigma2": mu}]
    found, sigma2 = stopping.out_of_order(outs)
    assert found.dtype == torch.float64
    assert found[0].T.tolist() == [[5, 3], [2, 1]]
    assert sigma2[0].T.tolist() == [[15, 13], [1, 2]]


def test_the_printed_rule_stops_early_and_far_off(columns):
    found = stopping.stopping(*columns, 1e-8)
    (few, rough), (eight, _), (many, exact) = (
        found[rule] for rule in (stopping.AS_PRINTED, stopping.CAPPED, stopping.TIGHT)
    )
    assert few.max() <= 10 and rough.max() > 0.1
    assert (eight == 8).all() and many.max() > 8 and exact.max() < 1e-3


def test_one_column_on_its_way(columns):
    mu, sigma2 = columns
    found = stopping.measures(mu[0, :, 0], sigma2[0, :, 0])
    residual, gap, error = found.values()
    assert len(residual) == len(gap) == len(error) > 5
    assert residual[-1] < 1e-9 and gap[-1] < 1e-6 and error[-1] < 1e-3
    assert error[0] > 100 * error[-1]


def test_the_share_that_stops_in_time(columns):
    mu, sigma2 = columns
    out = {"mu": mu, "sigma2": sigma2}
    iterations = stopping.stopping(mu, sigma2, 1e-8)[stopping.AS_PRINTED][0].double()
    middle = int(iterations.median())
    share = (iterations <= middle).double().mean().item()
    assert stopping.share_within(out, middle) == share < 1
    assert stopping.share_within(out, 100) == 1
