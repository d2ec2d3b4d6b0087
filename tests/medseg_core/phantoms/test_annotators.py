import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medseg_core.phantoms import scribble_robot
from medseg_core.phantoms.annotators import BACKGROUND, NONE, OBJECT, add_scribble
from medseg_core.rng import generator

SIZE = (14, 20, 20)


def ball(centre, radius, size=SIZE):
    axes = [torch.arange(n) - c for n, c in zip(size, centre, strict=True)]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    return grid.square().sum(0) <= radius**2


def empty(size=SIZE):
    return torch.zeros(size, dtype=torch.bool)


def connected(coords):
    """Consecutive voxels are neighbours (diagonals included) and none comes twice."""
    steps = coords.diff(dim=0).abs().amax(1)
    return bool((steps == 1).all()) and len(coords.unique(dim=0)) == len(coords)


def test_a_missed_ball_gets_an_object_stroke_in_its_largest_slice():
    truth = ball((6, 10, 9), 5)
    coords, label = scribble_robot(empty(), truth, generator(0))
    assert label == OBJECT and coords.dtype == torch.int64
    assert set(coords[:, 0].tolist()) == {6}
    assert truth[tuple(coords.T)].all() and connected(coords)
    # Through the middle: a ball's skeleton is near its centre.
    assert float((coords[:, 1:].double().mean(0) - torch.tensor([10.0, 9.0])).norm()) <= 3


def test_a_leak_gets_a_background_stroke_and_the_larger_error_comes_first():
    truth = ball((6, 6, 6), 4)
    leak, missed = ball((6, 14, 14), 3), ball((6, 6, 6), 1)
    pred = (truth & ~missed) | leak
    coords, label = scribble_robot(pred, truth, generator(0))
    assert label == BACKGROUND and leak[tuple(coords.T)].all()
    corrected = pred & ~leak
    coords, label = scribble_robot(corrected, truth, generator(0))
    assert label == OBJECT and missed[tuple(coords.T)].all()


def test_a_bar_is_scribbled_along_its_middle_over_the_greatest_length():
    truth = empty()
    truth[3:6, 8:13, 1:19] = True
    for k in range(20):
        coords, _ = scribble_robot(empty(), truth, generator(0, k))
        assert len(coords) in (13, 14, 15) and connected(coords)
        assert coords[:, 0].tolist() == [3] * len(coords)  # the first of equal slices
        # The skeleton forks at its ends; but for them the stroke is beside the middle at most.
        assert set(coords[3:-3, 1].tolist()) <= {9, 10, 11}
        assert int(coords[:, 2].max() - coords[:, 2].min()) == len(coords) - 1
    rows = {scribble_robot(empty(), truth, generator(0, k))[0][3, 1].item() for k in range(20)}
    assert len(rows) > 1  # the hand is not steady


def test_a_plate_one_voxel_thick_across_the_slices_and_within_one():
    across = empty()
    across[:, 5:15, 7] = True  # a line in every slice: erosion leaves nothing
    coords, label = scribble_robot(empty(), across, generator(1))
    assert label == OBJECT and connected(coords) and len(coords) >= 8
    assert set(coords[:, 2].tolist()) == {7}
    within = empty()
    within[4, 2:18, 2:18] = True
    coords, _ = scribble_robot(empty(), within, generator(1))
    assert set(coords[:, 0].tolist()) == {4} and within[tuple(coords.T)].all()


def test_a_thin_shell_is_one_component_though_its_voxels_touch_by_corners():
    inner, outer = ball((6, 10, 10), 5), ball((6, 10, 10), 5.5)
    coords, label = scribble_robot(inner, outer, generator(0))
    assert label == OBJECT and (outer & ~inner)[tuple(coords.T)].all() and connected(coords)


def test_a_single_voxel_and_an_image():
    truth = empty()
    truth[2, 3, 4] = True
    coords, label = scribble_robot(empty(), truth, generator(0))
    assert coords.tolist() == [[2, 3, 4]] and label == OBJECT
    coords, label = scribble_robot(truth[2], empty()[2], generator(0))
    assert coords.tolist() == [[3, 4]] and label == BACKGROUND
    ring = ball((10, 10), 8, (20, 20)) & ~ball((10, 10), 4, (20, 20))
    coords, _ = scribble_robot(torch.zeros(20, 20, dtype=torch.bool), ring, generator(0))
    assert ring[tuple(coords.T)].all() and connected(coords) and len(coords) == 15


def test_no_error_no_scribble():
    truth = ball((6, 10, 9), 5)
    assert scribble_robot(truth, truth.clone(), generator(0)) is None
    assert scribble_robot(empty(), empty(), generator(0)) is None


@given(
    st.integers(0, 10_000),
    st.sampled_from([(9, 11, 10), (16, 13)]),
    st.integers(1, 15),
    st.sampled_from([0.0, 0.7, 1.6]),
)
@settings(deadline=None, max_examples=80)
def test_any_scribble_lies_in_the_largest_error_and_is_true(seed, size, max_length, grain):
    noise = np.random.default_rng(seed)
    pred, truth = (
        torch.from_numpy(ndimage.gaussian_filter(noise.normal(size=size), grain) > 0)
        for _ in range(2)
    )
    coords, label = scribble_robot(pred, truth, generator(seed), max_length=max_length)
    at = tuple(coords.T)
    assert 1 <= len(coords) <= max_length and connected(coords)
    assert (truth[at] == bool(label)).all() and (pred[at] != truth[at]).all()
    errors = (truth & ~pred, pred & ~truth)
    found = [ndimage.label(e, np.ones((3,) * len(size))) for e in errors]
    largest = max(np.bincount(m.ravel())[1:].max(initial=0) for m, _ in found)
    number = found[1 - label][0][tuple(coords.numpy().T)]
    assert len(set(number)) == 1 and (found[1 - label][0] == number[0]).sum() == largest
    if len(size) == 3:
        area = (found[1 - label][0] == number[0]).sum((1, 2))
        assert set(coords[:, 0].tolist()) == {int(area.argmax())}
    again, same = scribble_robot(pred, truth, generator(seed), max_length=max_length)
    assert torch.equal(coords, again) and label == same


def test_a_session_never_contradicts_itself_and_ends():
    truth, pred = ball((6, 10, 9), 5), ball((7, 8, 12), 5)
    scribbles = torch.full(SIZE, NONE)
    for k in range(400):
        answer = scribble_robot(pred, truth, generator(0, k))
        if answer is None:
            break
        scribbles = add_scribble(scribbles, *answer)  # refuses a contradiction
        pred = torch.where(scribbles == NONE, pred, scribbles == OBJECT)
    assert torch.equal(pred, truth)


def test_add_scribble_by_hand():
    before = torch.full((3, 4), NONE)
    coords = torch.tensor([[0, 1], [1, 2]])
    once = add_scribble(before, coords, 1)
    assert once.tolist() == [[255, 1, 255, 255], [255, 255, 1, 255], [255] * 4]
    assert int(before.min()) == NONE
    assert torch.equal(add_scribble(once, coords, 1), once)
    with pytest.raises(ValueError, match=r"contradict.*\[1, 2\] has label 1.*got label 0"):
        add_scribble(once, torch.tensor([[2, 2], [1, 2]]), 0)
    for bad in ([[0, 4]], [[-1, 0]]):
        with pytest.raises(ValueError, match="inside"):
            add_scribble(once, torch.tensor(bad), 1)
    with pytest.raises(ValueError, match="label"):
        add_scribble(once, coords, 2)
    with pytest.raises(ValueError, match="coords"):
        add_scribble(once, torch.tensor([[0, 1, 2]]), 1)


@pytest.mark.parametrize(
    "pred, truth, options, error",
    [
        (empty(), empty((3, 4, 5)), {}, ValueError),
        (empty().float(), empty(), {}, TypeError),
        (empty(), empty().long(), {}, TypeError),
        (empty((4,)), empty((4,)), {}, ValueError),
        (empty()[None], empty()[None], {}, ValueError),
        (empty(), empty(), {"max_length": 0}, ValueError),
    ],
)
def test_refuses(pred, truth, options, error):
    with pytest.raises(error):
        scribble_robot(pred, truth, generator(0), **options)
