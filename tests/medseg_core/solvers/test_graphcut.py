import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_core.rng import numpy_rng
from medseg_core.solvers.graphcut import binary_mrf_map, contrast_weights, offsets
from medseg_core.solvers.grid_cut import GridCut

INF = math.inf
NDIM = {4: 2, 8: 2, 6: 3, 26: 3}


def pair_list(size, connectivity):
    """Each neighbouring pair once, pixel by pixel: (offset's number, p, q)."""
    steps = offsets(connectivity).tolist()
    pairs = []
    for p in np.ndindex(*size):
        for o, step in enumerate(steps):
            q = tuple(a + b for a, b in zip(p, step, strict=True))
            if all(0 <= a < n for a, n in zip(q, size, strict=True)):
                pairs.append((o, p, q))
    return pairs


def all_energies(unary, pairwise, connectivity):
    """All labellings (2^P,*S) and their energies, independent of the package."""
    size = unary.shape[1:]
    y = np.array(list(itertools.product((0, 1), repeat=math.prod(size)))).reshape(-1, *size)
    flat = y.reshape(len(y), -1)
    forced = np.isneginf(unary)
    cost = np.where(forced[::-1], INF, np.where(forced, 0, unary)).reshape(2, -1)
    energy = np.where(flat == 1, cost[1], cost[0]).sum(1)
    for o, p, q in pair_list(size, connectivity):
        energy = energy + pairwise[(o, *p)] * (y[(slice(None), *p)] != y[(slice(None), *q)])
    return y, energy


def problem(rng, connectivity, *, whole, size=None, hard=0.0):
    """A random grid; whole numbers give ties, ±inf at a share `hard` of the pixels."""
    if size is None:
        most = (3, 4) if NDIM[connectivity] == 2 else (2, 2, 3)
        size = tuple(int(rng.integers(1, n + 1)) for n in most)
    unary = rng.normal(0, 2, (2, *size))
    pairwise = rng.exponential(1, (len(offsets(connectivity)), *size))
    pairwise *= rng.random(pairwise.shape) < 0.8
    if whole:
        unary, pairwise = unary.round(), pairwise.round()
    kind = rng.random(size)
    for share, label, value in ((1, 0, INF), (2, 1, INF), (3, 0, -INF), (4, 1, -INF)):
        unary[label][(kind < hard * share / 4) & (kind >= hard * (share - 1) / 4)] = value
    return unary, pairwise


def cut(unary, pairwise, connectivity):
    labels, energy = binary_mrf_map(
        torch.from_numpy(unary)[None], torch.from_numpy(pairwise)[None], connectivity
    )
    return labels[0].numpy(), float(energy)


def energy_of(labels, unary, pairwise, connectivity):
    """Of one labelling (*S), term by term."""
    forced = np.isneginf(unary)
    cost = np.where(forced[::-1], INF, np.where(forced, 0, unary))
    cut = [
        pairwise[(o, *p)]
        for o, p, q in pair_list(labels.shape, connectivity)
        if labels[p] != labels[q]
    ]
    return float(np.where(labels == 1, cost[1], cost[0]).sum() + sum(cut))


@pytest.mark.parametrize("connectivity", NDIM)
def test_offsets_are_half_of_the_neighbourhood(connectivity):
    half = [tuple(step) for step in offsets(connectivity).tolist()]
    both = {*half, *(tuple(-k for k in step) for step in half)}
    assert len(half) == connectivity // 2 and len(both) == connectivity
    near = 1 if connectivity in (4, 6) else NDIM[connectivity]
    steps = itertools.product((-1, 0, 1), repeat=NDIM[connectivity])
    assert both == {step for step in steps if 0 < sum(map(abs, step)) <= near}


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("connectivity", NDIM)
def test_equals_brute_force(connectivity, whole):
    rng = numpy_rng(3, connectivity, "brute force")
    for turn in range(80):
        hard = 0.4 if turn % 2 else 0.0
        unary, pairwise = problem(rng, connectivity, whole=whole, hard=hard)
        found, energy = cut(unary, pairwise, connectivity)
        y, energies = all_energies(unary, pairwise, connectivity)
        assert energy == pytest.approx(energies.min(), abs=1e-9)
        assert energy_of(found, unary, pairwise, connectivity) == pytest.approx(energy, abs=1e-9)
        if whole:  # ties: the fewest pixels with label 1, one set that all optima contain
            np.testing.assert_array_equal(found, y[energies == energies.min()].min(0))
        else:
            np.testing.assert_array_equal(found, y[energies.argmin()])


def test_hand_computed():
    # costs of labels 0 and 1; the middle pixel would rather be 0, both neighbours pull it over
    unary = torch.tensor([[[[3.0, 1.0, 4.0]], [[0.0, 2.0, 0.0]]]])
    pairwise = torch.zeros(1, 2, 1, 3)
    pairwise[0, 0, 0] = torch.tensor([0.75, 0.5, 100.0])  # the last one has no neighbour
    labels, energy = binary_mrf_map(unary, pairwise)
    assert labels.tolist() == [[[1, 1, 1]]] and energy.tolist() == [2.0]
    labels, energy = binary_mrf_map(unary, 0.5 * pairwise)
    assert labels.tolist() == [[[1, 0, 1]]] and energy.tolist() == [1.625]
    assert labels.dtype == torch.int64 and energy.dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.int32])
def test_polarity_channel_one_is_the_cost_of_label_one(dtype):
    unary = torch.zeros(1, 2, 8, 8)
    unary[:, 1] = 2
    unary[:, :, 2:5, 3:7] = torch.tensor([3.0, 0.0])[:, None, None]
    labels, energy = binary_mrf_map(unary.to(dtype), torch.ones(1, 2, 8, 8).to(dtype))
    expected = torch.zeros(8, 8, dtype=torch.int64)
    expected[2:5, 3:7] = 1
    assert torch.equal(labels[0], expected) and energy.item() == 2 * (3 + 4)


@pytest.mark.parametrize("connectivity", NDIM)
def test_a_kept_grid_cuts_like_a_fresh_one(connectivity):
    rng = numpy_rng(7, connectivity, "kept")
    size = (9, 7) if NDIM[connectivity] == 2 else (4, 5, 3)
    for whole in (True, False):
        grid = GridCut(size, connectivity)
        unary, pairwise = problem(rng, connectivity, whole=whole, size=size, hard=0.1)
        grid.cut(unary, pairwise)
        for turn in range(40):
            other, weights = problem(rng, connectivity, whole=whole, size=size, hard=0.1)
            share = (0.03, 0.2, 0.6, 0.0)[turn % 4]  # few ties move, many, or none
            unary = np.where(rng.random(size) < share, other, unary)
            if turn % 7 == 6:
                pairwise = weights
                labels, energy = grid.cut(torch.from_numpy(unary), torch.from_numpy(pairwise))
            else:
                labels, energy = grid.cut(torch.from_numpy(unary))
            expected, least = cut(unary, pairwise, connectivity)
            np.testing.assert_array_equal(labels.numpy(), expected)
            assert energy == pytest.approx(least, abs=1e-9)


def test_a_grid_in_the_memory_of_another_one_is_empty():
    rng = numpy_rng(11, 0, "memory")
    for size, connectivity in (((9, 9, 9), 26), ((3, 4), 8), ((2, 2, 3), 6), ((3, 3), 4)):
        unary, pairwise = problem(rng, connectivity, whole=False, size=size)
        _, energy = GridCut(size, connectivity).cut(unary, pairwise)  # given up at once
        if len(unary[0].ravel()) < 20:
            energies = all_energies(unary, pairwise, connectivity)[1]
            assert energy == pytest.approx(energies.min())
    one, two = GridCut((3, 4), 4), GridCut((3, 4), 4)  # side by side: apart
    a, b = (problem(rng, 4, whole=False, size=(3, 4)) for _ in range(2))
    first = one.cut(*a)
    two.cut(*b)
    again = one.cut(a[0])
    assert torch.equal(first[0], again[0]) and first[1] == again[1]


def test_huge_preferences_leave_nothing_behind_in_a_kept_grid():
    rng = numpy_rng(13, 0, "huge")
    unary, pairwise = problem(rng, 4, whole=False, size=(6, 6))
    grid = GridCut((6, 6), 4)
    plain = grid.cut(unary, pairwise)
    for size in (1e6, 1e18, 1e300, INF):
        wall = unary.copy()
        wall[1, :, :2], wall[0, :, 4:] = size, size
        labels, _ = grid.cut(wall)
        assert (labels[:, :2] == 0).all() and (labels[:, 4:] == 1).all()
    again = grid.cut(unary)
    assert torch.equal(again[0], plain[0]) and again[1] == pytest.approx(plain[1], abs=1e-12)


def test_a_batch_is_its_images_one_by_one():
    rng = numpy_rng(17, 0, "batch")
    parts = [problem(rng, 8, whole=False, size=(5, 6)) for _ in range(3)]
    unary, pairwise = (torch.from_numpy(np.stack(x)) for x in zip(*parts, strict=True))
    labels, energy = binary_mrf_map(unary, pairwise, 8)
    for i, (u, w) in enumerate(parts):
        one, least = cut(u, w, 8)
        np.testing.assert_array_equal(labels[i], one)
        assert energy[i] == least
    nothing = binary_mrf_map(unary[:0], pairwise[:0], 8)
    assert nothing[0].shape == (0, 5, 6) and nothing[1].shape == (0,)


def test_arguments_are_not_changed():
    unary, pairwise = problem(numpy_rng(19), 4, whole=False, size=(4, 4), hard=0.3)
    before = unary.copy(), pairwise.copy()
    grid = GridCut((4, 4), 4)
    first = grid.cut(unary, pairwise)
    np.testing.assert_array_equal(unary, before[0])
    np.testing.assert_array_equal(pairwise, before[1])
    pairwise[:] = 0  # the grid keeps its own weights
    assert grid.cut(unary)[1] == first[1]


seeds = st.integers(0, 10_000)
neighbourhoods = st.sampled_from(list(NDIM))


@settings(deadline=None, max_examples=30)
@given(seeds, neighbourhoods)
def test_a_constant_for_both_labels_changes_the_energy_alone(seed, connectivity):
    rng = numpy_rng(seed, 1, "property")
    unary, pairwise = problem(rng, connectivity, whole=True)
    shift = rng.integers(-9, 10, unary.shape[1:])
    labels, energy = cut(unary, pairwise, connectivity)
    moved, other = cut(unary + shift, pairwise, connectivity)
    np.testing.assert_array_equal(moved, labels)
    assert other == pytest.approx(energy + shift.sum())


@settings(deadline=None, max_examples=30)
@given(seeds, neighbourhoods)
def test_swapped_costs_swap_the_labels(seed, connectivity):
    unary, pairwise = problem(numpy_rng(seed, 2, "property"), connectivity, whole=False, hard=0.2)
    labels, energy = cut(unary, pairwise, connectivity)
    swapped, other = cut(unary[::-1].copy(), pairwise, connectivity)
    np.testing.assert_array_equal(swapped, 1 - labels)
    assert other == pytest.approx(energy, abs=1e-9)


@settings(deadline=None, max_examples=30)
@given(seeds, neighbourhoods, st.floats(1, 8))
def test_more_smoothness_never_buys_a_dearer_boundary(seed, connectivity, factor):
    size = (7, 8) if NDIM[connectivity] == 2 else (4, 3, 5)
    unary, pairwise = problem(numpy_rng(seed, 3, "property"), connectivity, whole=False, size=size)
    nothing = np.zeros_like(unary)
    rough, _ = cut(unary, pairwise, connectivity)
    smooth, _ = cut(unary, factor * pairwise, connectivity)
    dear, cheap = (energy_of(y, nothing, pairwise, connectivity) for y in (rough, smooth))
    assert cheap <= dear + 1e-9


@settings(deadline=None, max_examples=30)
@given(seeds, neighbourhoods)
def test_a_cheaper_object_only_grows(seed, connectivity):
    rng = numpy_rng(seed, 4, "property")
    size = (7, 8) if NDIM[connectivity] == 2 else (4, 3, 5)
    unary, pairwise = problem(rng, connectivity, whole=True, size=size)
    labels, _ = cut(unary, pairwise, connectivity)
    unary[1] -= rng.integers(0, 3, size)
    more, _ = cut(unary, pairwise, connectivity)
    assert (more >= labels).all()


@pytest.mark.parametrize("connectivity", NDIM)
def test_degenerate_grids(connectivity):
    ndim, n_offsets = NDIM[connectivity], connectivity // 2
    for size in ((1,) * ndim, (1,) * (ndim - 1) + (5,), (5,) + (1,) * (ndim - 1)):
        unary = torch.zeros(1, 2, *size)
        weights = torch.ones(1, n_offsets, *size)
        labels, energy = binary_mrf_map(unary, weights, connectivity)  # all ties: background
        assert not labels.any() and energy.item() == 0
        unary[:, 0] = 1
        labels, energy = binary_mrf_map(unary, weights, connectivity)
        assert labels.all() and energy.item() == 0
    unary = torch.randn(1, 2, *(4,) * ndim, generator=torch.Generator().manual_seed(0))
    labels, energy = binary_mrf_map(unary, torch.zeros(1, n_offsets, *(4,) * ndim), connectivity)
    assert torch.equal(labels, (unary[:, 1] < unary[:, 0]).long())
    assert energy.item() == pytest.approx(unary.double().amin(1).sum().item())


def test_what_lies_outside_the_grid_is_ignored():
    unary, pairwise = problem(numpy_rng(23), 8, whole=False, size=(5, 5))
    expected = cut(unary, pairwise, 8)
    for value in (math.nan, -5.0, INF):
        junk = pairwise.copy()
        junk[0, :, -1] = junk[1, -1] = junk[2, -1] = junk[2, :, 0] = junk[3, -1] = value
        junk[3, :, -1] = value
        found = cut(unary, junk, 8)
        np.testing.assert_array_equal(found[0], expected[0])
        assert found[1] == expected[1]
        assert energy_of(found[0], unary, junk, 8) == pytest.approx(found[1])


def test_contrast_weights_hand_computed_with_spacing_and_channels():
    image = torch.tensor([[[0.0, 0.2], [0.1, 0.6]], [[1.0, 1.0], [0.7, 1.0]]])[None].double()
    kind = {"lam": 2.0, "sigma": 0.3, "constant": 0.5, "spacing": (3.0, 4.0)}
    w = contrast_weights(image, 8, **kind)[0]

    def price(squared, distance):
        return (0.5 + 2 * math.exp(-squared / (2 * 0.09))) / distance

    expected = torch.zeros(4, 2, 2, dtype=torch.float64)
    expected[0, 0, 0] = price(0.2**2, 4)  # (0,0)–(0,1)
    expected[0, 1, 0] = price(0.5**2 + 0.3**2, 4)  # (1,0)–(1,1)
    expected[1, 0, 0] = price(0.1**2 + 0.3**2, 3)  # (0,0)–(1,0)
    expected[1, 0, 1] = price(0.4**2, 3)
    expected[2, 0, 1] = price(0.1**2 + 0.3**2, 5)  # (0,1)–(1,0)
    expected[3, 0, 0] = price(0.6**2, 5)  # (0,0)–(1,1)
    torch.testing.assert_close(w, expected)
    flat = contrast_weights(torch.zeros(1, 1, 2, 2, 2), 26, lam=1.0, sigma=1.0, spacing=(1, 2, 2))
    at_origin = [1 / math.hypot(d, 2 * r, 2 * c) for d, r, c in offsets(26).tolist()]
    lies_inside = [min(step) >= 0 for step in offsets(26).tolist()]
    expected = torch.tensor(at_origin) * torch.tensor(lies_inside)
    torch.testing.assert_close(flat[0, :, 0, 0, 0], expected)


def test_contrast_weights_have_a_gradient():
    image = torch.rand(2, 2, 3, 4, generator=torch.Generator().manual_seed(1)).double()
    image.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: contrast_weights(x, 8, lam=1.5, sigma=0.4), image)


OK = (torch.zeros(1, 2, 3, 4), torch.ones(1, 2, 3, 4))


def at(tensor, place, value):
    tensor = tensor.clone()
    tensor[place] = value
    return tensor


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((at(OK[0], (0, 1, 2, 3), math.nan), OK[1]), r"unary must be finite, got nan.*1, 2, 3"),
        ((OK[0], at(OK[1], (0, 1, 1, 2), math.nan)), r"pairwise must be finite.*\[1, 1, 2\]"),
        ((OK[0], at(OK[1], (0, 1, 1, 2), INF)), r"pairwise must be finite, got inf"),
        ((OK[0], at(OK[1], (0, 0, 2, 1), -0.5)), r"pairwise must be at least 0, got -0.5.*0, 2, 1"),
        ((at(OK[0], (0, slice(None), 1, 2), INF), OK[1]), r"unary .*both forbidden.*\[1, 2\]"),
        ((at(OK[0], (0, slice(None), 1, 2), -INF), OK[1]), r"unary .*demanded.*\[1, 2\]"),
        ((*OK, 5), "connectivity must be one of 4, 8, 6, 26; got 5"),
        ((*OK, 6), "unary must have 3 axes of pixels for connectivity 6, got 2"),
        ((*OK, 8), "pairwise must have the shape"),
        ((OK[0], OK[1][..., :3]), "pairwise must have the shape"),
        ((OK[0][:, :1], OK[1]), "unary must have the shape"),
    ],
)
def test_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        binary_mrf_map(*arguments)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sigma": 0.0}, "sigma must be positive"),
        ({"sigma": math.nan}, "sigma must be positive"),
        ({"lam": -1.0}, "lam must be at least 0"),
        ({"lam": INF}, "lam must be finite"),
        ({"constant": -1.0}, "constant must be at least 0"),
        ({"spacing": (1.0, 0.0)}, "spacing must be 2 positive numbers"),
        ({"spacing": (1.0, -2.0)}, "spacing must be 2 positive numbers"),
        ({"spacing": (1.0, 1.0, 1.0)}, "spacing must be 2 positive numbers"),
        ({"connectivity": 26}, "image must have 3 axes"),
        ({"connectivity": 3}, "connectivity must be one of"),
        ({"image": torch.full((1, 1, 3, 4), math.nan)}, "image must be finite"),
    ],
)
def test_contrast_weights_refuse(change, words):
    kind = {"image": torch.zeros(1, 1, 3, 4), "connectivity": 4, "lam": 1.0, "sigma": 1.0}
    with pytest.raises(ValueError, match=words):
        contrast_weights(**{**kind, **change})


def test_a_grid_refuses_and_stays_usable():
    with pytest.raises(ValueError, match="pairwise must be given for the first cut"):
        GridCut((3, 4), 4).cut(OK[0][0])
    with pytest.raises(ValueError, match="size must have 2 axes"):
        GridCut((3, 4, 5), 4)
    with pytest.raises(ValueError, match="shortest side in size must be at least 1"):
        GridCut((3, 0), 4)
    with pytest.raises(TypeError, match="unary must be a tensor or an array, got list"):
        GridCut((3, 4), 4).cut([1, 2], OK[1][0])
    with pytest.raises(TypeError, match="image must be a floating-point tensor"):
        contrast_weights(torch.zeros(1, 1, 3, 4).long(), 4, lam=1.0, sigma=1.0)
    grid = GridCut((3, 4), 4)
    unary, pairwise = problem(numpy_rng(29), 4, whole=False, size=(3, 4))
    before = grid.cut(unary, pairwise)
    with pytest.raises(ValueError, match="pairwise must be at least 0"):
        grid.cut(unary, -pairwise)
    with pytest.raises(ValueError, match="unary must have the shape"):
        grid.cut(unary[:, :2])
    after = grid.cut(unary)
    assert torch.equal(before[0], after[0]) and before[1] == after[1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_answers_of_the_cpu():
    unary, pairwise = problem(numpy_rng(31), 8, whole=False, size=(20, 30))
    u, w = torch.from_numpy(unary)[None], torch.from_numpy(pairwise)[None]
    labels, energy = binary_mrf_map(u.cuda(), w.cuda(), 8)
    assert labels.is_cuda and energy.is_cuda
    expected, least = binary_mrf_map(u, w, 8)
    assert torch.equal(labels.cpu(), expected) and torch.equal(energy.cpu(), least)
