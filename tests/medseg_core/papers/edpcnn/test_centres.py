import math

import pytest
import torch

from medseg_core import rng
from medseg_core.papers.edpcnn.centres import (
    dice_off_centre,
    jittered_centres,
    random_centres,
)
from medseg_core.papers.edpcnn.evaluation import disc


def ring(n=1):
    """A ring around (10, 10): its centre of mass lies outside of it."""
    centre = torch.tensor([[10.0, 10.0]])
    return (disc(centre, 8, 21) & ~disc(centre, 4, 21)).expand(n, 1, 21, 21)


def test_random_centres_lie_on_the_object_anywhere():
    mask = ring(500)
    centre, angle = random_centres(mask, rng.generator(0))
    row, column = centre.long().unbind(1)
    assert torch.equal(centre, centre.round()) and mask[0, 0, row, column].all()
    seen = set(map(tuple, centre.tolist()))
    assert len(seen) > 0.8 * int(mask[0].sum())  # 500 draws from some 148 pixels
    assert angle.min() >= -math.pi and angle.max() < math.pi
    assert angle.min() < -3 and angle.max() > 3 and abs(angle.mean()) < 0.3


def test_centres_that_are_not_moved_are_centres_of_mass_under_the_same_angles():
    centre, angle = random_centres(ring(3), rng.generator(0), move=False)
    torch.testing.assert_close(centre, torch.full((3, 2), 10.0))
    assert torch.equal(angle, random_centres(ring(3), rng.generator(0))[1])


def test_an_empty_object_has_no_centre():
    with pytest.raises(RuntimeError):
        random_centres(torch.zeros(1, 1, 5, 5, dtype=torch.bool), rng.generator(0))


def big_disc(n):
    centre = torch.full((n, 2), 10.0)
    return {"mask": disc(centre, 6, 21), "centre": centre}


def test_displacements_reach_up_to_the_bound_and_no_further():
    data = big_disc(300)
    moved = jittered_centres(data, 0.5, seed=0)
    far = (moved - data["centre"]).norm(dim=1)
    # The centre's distance to the nearest pixel outside is between 6 and 7.
    assert 2.5 < far.max() <= 3.5 and far.min() > 0 and 0.8 < far.mean() < 2.5
    assert torch.equal(moved, jittered_centres(data, 0.5, seed=0))
    assert not torch.equal(moved, jittered_centres(data, 0.5, seed=1))


def test_level_zero_and_a_centre_outside_of_its_object_stay():
    data = big_disc(2)
    assert torch.equal(jittered_centres(data, 0.0, seed=0), data["centre"])
    outside = {"mask": ring(), "centre": torch.tensor([[10.0, 10.0]])}
    assert torch.equal(jittered_centres(outside, 0.5, seed=0), outside["centre"])
    assert torch.equal(data["centre"], torch.full((2, 2), 10.0))  # the argument is left alone


@pytest.mark.parametrize("level", [-0.1, 1.1, math.nan])
def test_other_levels_are_refused(level):
    with pytest.raises(ValueError, match="level"):
        jittered_centres(big_disc(1), level, seed=0)


def test_dice_off_centre_is_the_mean_over_the_draws_and_level_zero_needs_one():
    data, asked = big_disc(2), []

    def segment(maps, data, centre):
        asked.append(centre)
        return data["mask"] if len(asked) != 2 else ~data["mask"]

    found = dice_off_centre(segment, torch.zeros(2, 1, 21, 21), data, (0.0, 0.4), 4)
    assert found == pytest.approx([1, 3 / 4])
    assert len(asked) == 5 and torch.equal(asked[0], data["centre"])
    assert torch.equal(asked[3], jittered_centres(data, 0.4, 2))
