"""What the chapter looks into after training, on surfaces whose answers are known by hand."""

import math

import pytest
import torch

from medseg_core.papers.ipm_surfaces import published, recipes, studies
from medseg_core.papers.ipm_surfaces.scores import broken

TRUTH = torch.tensor([[[2.0, 2.0], [6.0, 6.0], [9.0, 9.0]]])  # (1,N=3,W=2)
DATA = {"surfaces": TRUTH, "valid": torch.ones_like(TRUTH, dtype=torch.bool)}


def said(mu, sigma2=1.0):
    """What a network says, as `experiment.predict` returns it."""
    mu = torch.as_tensor(mu)
    return {"mu": mu, "sigma2": torch.full_like(mu, sigma2), "xi": mu + 1, "gamma": mu - 1}


def test_the_errors_of_both_heads():
    found = studies.head_errors([said(TRUTH), said(TRUTH + 2)], DATA)
    assert found == {"mu": 1.0, "xi": 2.0, "gamma": 1.0}


class TestCrossings:
    mu = torch.tensor([[[2.0, 7.0], [6.0, 5.0], [9.0, 9.0]]])  # the second column crosses by two

    def test_by_hand(self):
        found = studies.crossings([said(self.mu), said(TRUTH)], DATA)
        assert (found.columns, found.median_depth, found.largest_depth) == (1, 2.0, 2.0)
        assert found.error == pytest.approx((5 + 1 + 0) / 3)
        assert found.error_ordered == pytest.approx((4 + 0 + 0) / 3)  # both at row 6
        assert str(found).startswith("1 columns are out of order; they cross by 2.00 rows")

    def test_none(self):
        found = studies.crossings([said(TRUTH)], DATA)
        assert found.columns == 0 and math.isnan(found.largest_depth)
        assert str(found) == "no column is out of order"

    def test_the_window_is_about_the_deepest_one(self):
        wide = torch.cat([TRUTH[0, :, :1].repeat(1, 10), self.mu[0, :, 1:]], 1).roll(-4, 1)  # W=11
        columns, rows = studies.around_crossing(wide, reach=3)
        assert columns == (2.5, 9.5) and rows == (10.5, 3.5)

    @pytest.mark.parametrize("place", [0, 10])
    def test_the_window_stays_inside_the_image(self, place):
        wide = TRUTH[0, :, :1].repeat(1, 11)
        wide[1, place] = 1.0
        columns, _ = studies.around_crossing(wide, reach=3)
        assert columns == ((-0.5, 6.5) if place == 0 else (3.5, 10.5))


def test_limits_on_the_gaps():
    mu = torch.tensor([[[5.0, 2.0, 2.0], [4.0, 3.0, 5.0], [9.0, 7.0, 12.0]]])
    truth = torch.zeros_like(mu)
    data = {"surfaces": truth, "valid": truth == 0}
    low, high = torch.tensor([2.0, 2.0]), torch.tensor([4.0, 4.0])
    found = studies.within_gaps([said(mu), said(mu)], data, low, high, 1e-8)
    shares = {name: row["outside"] for name, row in found.items()}
    assert shares["no IPM"] == [1.0, 1.0] and shares["minimum and maximum gaps"] == [0.0, 0.0]
    # Order alone leaves the small gap of two columns and the large one of the third.
    assert shares["order"] == [1.0, 1.0] and 0 < shares["order, minimum gaps"][0] < 1
    assert [row["solver"] for row in found.values()] == ["–", "pav", "pav", "ipm"]
    assert found["no IPM"]["masd"] == pytest.approx(mu.mean().item())


class TestLostGuesses:
    out = said(torch.arange(9.0)[None, :, None].repeat(20, 1, 30) * 10)

    def test_one_in_ten_is_lost_and_known_to_be(self):
        mu, sigma2 = studies.lost_guesses(self.out, 20.0, 0)
        lost = mu != self.out["mu"]
        assert lost.float().mean() == pytest.approx(0.1, abs=0.01)
        assert (mu - self.out["mu"])[lost].std() == pytest.approx(20.0, rel=0.1)
        assert (sigma2[lost] == 401).all() and (sigma2[~lost] == 1).all()

    def test_without_an_error_nothing_moves(self):
        assert torch.equal(studies.lost_guesses(self.out, 0.0, 0)[0], self.out["mu"])

    @pytest.mark.parametrize("name", list(studies.ORDERINGS)[1:])
    def test_every_way_puts_them_in_order(self, name):
        lost = studies.lost_guesses(self.out, 20.0, 0)
        assert broken(lost[0]).any()
        assert not broken(studies.ORDERINGS[name](*lost)).any()


def test_the_paper_s_tables_name_our_arms():
    assert set(published.RETINA) <= set(recipes.RECIPES | recipes.EXTENDED)
    assert all(len(row) == len(published.METRICS) for row in published.IVUS.values())
    assert all(claim["text"] for claim in published.CLAIMS.values())
