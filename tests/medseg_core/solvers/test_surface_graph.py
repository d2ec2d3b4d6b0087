"""Oracles: every set of surfaces, dynamic programming for one surface, a linear programme."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_core.solvers.star_dp import circular_dp
from medseg_core.solvers.surface_cost import gradient_cost, refine_subpixel
from medseg_core.solvers.surface_graph import graph_search


def random_cost(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def surface_energy(cost, s):
    """Σ cᵢ(sᵢ(x), x) of surfaces (N,W)."""
    n, w = s.shape
    return torch.as_tensor(cost)[torch.arange(n)[:, None], s, torch.arange(w)].sum()


def feasible(s, slope, least, most, circular):
    """Sets of surfaces (K,N,W) that meet the constraints, written once more: (K,) bool."""
    steps = np.abs(s - np.roll(s, 1, axis=2))[..., 0 if circular else 1 :]
    gaps = np.diff(s, axis=1)
    return (steps <= slope).all((1, 2)) & (gaps >= least).all((1, 2)) & (gaps <= most).all((1, 2))


def enumerate_all(n, h, w):
    return np.array(list(itertools.product(range(h), repeat=n * w))).reshape(-1, n, w)


ALL = {(n, h, w): enumerate_all(n, h, w) for n, h, w in [(1, 4, 4), (2, 4, 3), (3, 4, 2)]}


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_least_energy_of_all_surfaces_and_the_deepest_of_ties(data):
    n, h, w = data.draw(st.sampled_from(list(ALL)))
    number = st.one_of(st.integers(-3, 3), st.sampled_from([0, math.inf]))
    flat = data.draw(st.lists(number, min_size=n * h * w, max_size=n * h * w))
    cost = np.array(flat, float).reshape(n, h, w)
    slope, circular = data.draw(st.integers(0, 4)), data.draw(st.booleans())
    per = {"scalar": (), "surface": (n - 1,), "column": (n - 1, w)}[
        data.draw(st.sampled_from(["scalar", "surface", "column"]))
    ]

    def gap(lo, hi):
        size = math.prod(per)
        values = data.draw(st.lists(st.integers(lo, hi), min_size=size, max_size=size))
        return np.array(values).reshape(per)

    least = gap(0, 2)
    most = least + gap(0, 3)
    # (N-1,) needs a column axis of its own beside (K,N-1,W).
    shaped = [g[:, None] if len(per) == 1 else g for g in (least, most)]
    every = ALL[n, h, w]
    every = every[feasible(every, slope, *shaped, circular)]
    energy = cost[np.arange(n)[:, None], every, np.arange(w)].sum((1, 2))
    rules = {"max_slope": slope, "min_gap": least, "max_gap": most, "circular": circular}
    if len(every) == 0 or energy.min() == math.inf:
        with pytest.raises(ValueError, match="cost"):
            graph_search(cost, **rules)
        return
    s = graph_search(cost, **rules)
    assert s.dtype == torch.int64 and s.shape == (n, w)
    assert feasible(s[None].numpy(), slope, *shaped, circular).all()
    assert float(surface_energy(cost, s)) == energy.min()  # whole numbers: no rounding
    np.testing.assert_array_equal(s, every[energy == energy.min()].max(0))


def path(cost, slope):
    """Least energy of one open surface by dynamic programming: cost (H,W)."""
    value = cost[:, 0]
    for x in range(1, cost.shape[1]):
        reach = [value[max(0, z - slope) : z + slope + 1].min() for z in range(len(value))]
        value = np.array(reach) + cost[:, x]
    return value.min()


@pytest.mark.parametrize("slope", [0, 1, 3, 50])
def test_one_surface_by_dynamic_programming(slope):
    for seed in range(4):
        cost = random_cost(1, 30, 25, seed=seed)
        s = graph_search(cost, max_slope=slope)
        assert int(s.diff(dim=1).abs().max()) <= slope
        best = path(cost[0].numpy(), slope)
        torch.testing.assert_close(surface_energy(cost, s), torch.tensor(best))


@pytest.mark.parametrize("slope", [0, 1, 2])
def test_one_closed_surface_by_circular_dynamic_programming(slope):
    cost = random_cost(6, 1, 20, 17, seed=slope)
    s = graph_search(cost, max_slope=slope, circular=True)  # a batch
    h = cost[:, 0].transpose(1, 2)  # (B,W,H): lines and their points
    g = torch.cat([torch.zeros(6, 17, 1, dtype=h.dtype), h.cumsum(2)], 2)
    torch.testing.assert_close(s[:, 0], circular_dp(g, slope) - 1)


@pytest.mark.parametrize("circular", [False, True])
def test_several_surfaces_by_linear_programming(circular):
    """The closed set as Li et al. print it, node weights c(z) − c(z − 1), relaxed and solved."""
    from scipy.optimize import linprog
    from scipy.sparse import coo_matrix

    n, h, w, slope, least, most = 3, 11, 6, 1, [1, 2], [3, 5]
    cost = random_cost(n, h, w, seed=int(circular)).numpy()
    index = np.arange(n * h * w).reshape(n, h, w)
    weight = np.diff(cost, axis=1, prepend=0.0)  # choosing rows 0 … s pays c(s)
    arcs = []  # (a, b): a in the set implies b in the set

    def imply(i, x, j, y, shift):
        for z in range(h):
            if z + shift >= h:
                arcs.append((index[i, z, x], None))
            elif z + shift >= 0:
                arcs.append((index[i, z, x], index[j, z + shift, y]))

    for i, x in itertools.product(range(n), range(w)):
        imply(i, x, i, x, -1)
        for y in (x - 1, x + 1):
            if circular or 0 <= y < w:
                imply(i, x, i, y % w, -slope)
        if i + 1 < n:
            imply(i, x, i + 1, x, least[i])
            imply(i + 1, x, i, x, -most[i])
    bounds = np.tile([0.0, 1.0], (index.size, 1))
    bounds[index[:, 0].ravel(), 0] = 1  # every surface has a row
    bounds[[a for a, b in arcs if b is None], 1] = 0
    pairs = [(a, b) for a, b in arcs if b is not None]
    rows = np.repeat(np.arange(len(pairs)), 2)
    matrix = coo_matrix((np.tile([1, -1], len(pairs)), (rows, np.array(pairs).ravel())))
    shape = (len(pairs), index.size)
    matrix = coo_matrix((matrix.data, (matrix.row, matrix.col)), shape=shape)
    best = linprog(weight.ravel(), matrix.tocsr(), np.zeros(len(pairs)), bounds=bounds)
    s = graph_search(cost, max_slope=slope, min_gap=least, max_gap=most, circular=circular)
    assert feasible(
        s[None].numpy(), slope, np.array(least)[:, None], np.array(most)[:, None], circular
    ).all()
    assert float(surface_energy(cost, s)) == pytest.approx(best.fun, abs=1e-7)


def test_hand_computed():
    cost = torch.ones(2, 5, 3)
    cost[0, 1] = 0.0  # surface 0 wants row 1,
    cost[0, 4, 1] = -9.0  # and row 4 in the middle, three rows away
    cost[1, 1] = 0.0  # surface 1 wants row 1 as well
    # Row 4 pulls surface 1 down as well, in that column alone: it pays 1 there.
    s = graph_search(cost, max_slope=3)
    assert s.tolist() == [[1, 4, 1], [1, 4, 1]]
    assert float(surface_energy(cost, s)) == -9 + 1
    # With steps of two it cannot come back to row 1, nor can surface 0: 4 is worth 1 elsewhere.
    s = graph_search(cost, max_slope=2)
    assert s.tolist() == [[4, 4, 4], [4, 4, 4]]
    assert float(surface_energy(cost, s)) == -9 + 2 + 3
    # Now they are apart by one row at least, so row 4 is out of reach for surface 0: all at 1.
    s = graph_search(cost, max_slope=3, min_gap=1, max_gap=1)
    assert s.tolist() == [[1, 1, 1], [2, 2, 2]]
    assert float(surface_energy(cost, s)) == 3


def test_the_upper_surface_leaves_room_for_the_gap_below_it():
    """Without the unreachable rows tied off, surface 0 would take its cheap last rows."""
    cost = torch.zeros(3, 10, 4)
    cost[0, 6:] = -5.0
    s = graph_search(cost, min_gap=3)
    assert s[0].max() <= 3 and (s.diff(dim=0) >= 3).all()


def test_gaps_per_column_and_fractions():
    cost = random_cost(2, 20, 6, seed=3)
    least = torch.tensor([[0.0, 2.0, 4.0, 6.0, 8.0, 10.0]])
    s = graph_search(cost, max_slope=20, min_gap=least, max_gap=least + 1)
    assert ((s.diff(dim=0) >= least) & (s.diff(dim=0) <= least + 1)).all()
    same = graph_search(cost, max_slope=20, min_gap=least - 0.3 * (least > 0), max_gap=least + 1.7)
    assert torch.equal(s, same)
    exact = graph_search(cost, max_slope=20, min_gap=[3], max_gap=[3])
    assert (exact.diff(dim=0) == 3).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 3), st.integers(0, 3), st.integers(0, 11))
def test_turning_shifting_scaling_and_mirroring(seed, slope, least, turn):
    cost = random_cost(3, 16, 12, seed=seed)
    rules = {"max_slope": slope, "min_gap": least, "max_gap": least + 3, "circular": True}
    s = graph_search(cost, **rules)
    assert torch.equal(graph_search(cost.roll(turn, 2), **rules), s.roll(turn, 1))
    offset = random_cost(3, 1, 12, seed=seed + 1)  # the same for all rows of a column
    assert torch.equal(graph_search(4 * cost + offset, **rules), s)
    assert torch.equal(graph_search(cost.flip(2), **rules), s.flip(1))
    upside_down = graph_search(cost.flip(0, 1), **rules)
    assert torch.equal(15 - upside_down.flip(0), s)


def test_no_constraint_is_the_best_row_of_each_column():
    cost = random_cost(1, 9, 7)
    assert torch.equal(graph_search(cost, max_slope=9), cost.argmin(1))
    assert graph_search(torch.zeros(1, 1, 1)).tolist() == [[0]]
    assert graph_search(torch.zeros(2, 3, 1), circular=True, max_slope=0).tolist() == [[2], [2]]
    assert graph_search(torch.zeros(0, 2, 5, 4)).shape == (0, 2, 4)


def test_batch_numpy_and_dtypes():
    cost = random_cost(3, 2, 12, 8)
    together = graph_search(cost, min_gap=1)
    for one, s in zip(cost, together, strict=True):
        assert torch.equal(graph_search(one, min_gap=1), s)
        assert torch.equal(graph_search(one.numpy(), min_gap=1), s)
    assert torch.equal(graph_search(cost.float().requires_grad_(), min_gap=1), together)
    assert graph_search(cost.bfloat16(), min_gap=1).shape == (3, 2, 8)


def image_with(surfaces, levels, height, noise=0.0, seed=0):
    row = torch.arange(height)[:, None].double()
    image = torch.full((height, surfaces.shape[1]), levels[0]).double()
    for s, step in zip(surfaces, np.diff(levels), strict=True):
        image = image + step * (0.5 + row - s).clamp(0, 1)
    return image + noise * random_cost(*image.shape, seed=seed)


def test_surfaces_of_an_image_to_a_fraction_of_a_row():
    x = torch.arange(48).double()
    surfaces = torch.stack([10 + 3 * (x / 8).sin(), 22 + 2 * (x / 7).cos(), 31 + x / 12])
    image = image_with(surfaces, [0.1, 0.8, 0.3, 0.7], 44, noise=0.05)
    cost = gradient_cost(image, [1, -1, 1], sigma=1.0)
    s = graph_search(cost, min_gap=4, max_gap=20)
    assert float((s - surfaces).abs().max()) <= 1.5
    fine = refine_subpixel(cost, s)
    assert float((fine - surfaces).abs().mean()) < 0.5 * float((s - surfaces).abs().mean())
    assert float((fine - s).abs().max()) <= 0.5


def test_gradient_cost_by_hand():
    image = torch.tensor([[0.0], [0.0], [1.0], [1.0]]).expand(4, 6)
    cost = gradient_cost(image, [1, -1], sigma=0.0)
    assert cost.shape == (2, 4, 6) and cost.dtype == torch.float32
    assert cost[0, :, 0].tolist() == [0.0, -0.5, -0.5, 0.0]
    assert torch.equal(cost[1], -cost[0])
    ring = random_cost(2, 20, 16)
    turned = gradient_cost(ring.roll(5, 2), [1], sigma=(1.0, 2.0), circular=True)
    torch.testing.assert_close(
        turned, gradient_cost(ring, [1], sigma=(1, 2), circular=True).roll(5, 3)
    )
    assert turned.shape == (2, 1, 20, 16)


def test_parabola_is_exact_for_a_quadratic_cost_and_keeps_the_order():
    row = torch.arange(12)[:, None].double()
    centre = torch.tensor([[3.3, 5.5, 0.2, 11.0]])
    cost = ((row - centre) ** 2)[None]  # (1,12,4)
    s = graph_search(cost, max_slope=12)
    # Row 0 and row 11 are at the border and stay.
    expected = torch.tensor([[3.3, 5.5, 0.0, 11.0]]).double()
    torch.testing.assert_close(refine_subpixel(cost, s), expected, atol=1e-6, rtol=0)
    crossing = torch.cat([((row - 5.4) ** 2)[None], ((row - 4.6) ** 2)[None]])
    assert refine_subpixel(crossing, torch.tensor([[5], [5]])).tolist() == [[5.4], [5.4]]
    held = refine_subpixel(
        cost, torch.tensor([[1, 9, 6, 6]])
    )  # far from the least cost: half a row
    assert held.tolist() == [[1.5, 8.5, 5.5, 6.5]]
    walled = cost.clone()
    walled[0, 2, 0] = math.inf
    assert float(refine_subpixel(walled, torch.tensor([[3, 5, 0, 11]]))[0, 0]) == 3


def test_infeasible_constraints_are_refused_before_the_cut(monkeypatch):
    from medseg_core.solvers import surface_graph

    monkeypatch.setattr(surface_graph, "_cut", lambda *_: pytest.fail("the cut was reached"))
    cost = torch.zeros(3, 8, 5)
    with pytest.raises(ValueError, match=r"at least 9 rows for the sum of min_gap, got 8"):
        graph_search(cost, min_gap=4)
    with pytest.raises(ValueError, match=r"at most max_gap .* 3 above 2 at index \[1, 0\]"):
        graph_search(cost, min_gap=[1, 3], max_gap=2)
    with pytest.raises(ValueError, match=r"at most max_gap in whole rows, got 3 above 2"):
        graph_search(cost, min_gap=2.1, max_gap=2.9)  # no whole number lies between
    jump = torch.zeros(2, 5)
    jump[:, 2] = 3.0  # each feasible for itself, not with slopes of 0 between columns
    with pytest.raises(ValueError, match=r"no 3 surfaces in its 8 rows .* in column"):
        graph_search(cost, min_gap=jump, max_gap=jump, max_slope=0)
    cost[1, :, 3] = math.inf
    with pytest.raises(ValueError, match=r"surface at index 1 in column 3"):
        graph_search(cost)


def test_bad_input_is_refused_by_name():
    cost = random_cost(2, 6, 4)
    for bad in (math.nan, -math.inf):
        broken = cost.clone()
        broken[1, 2, 3] = bad
        with pytest.raises(ValueError, match=r"cost must be finite, got .* at index \[1, 2, 3\]"):
            graph_search(broken)
    with pytest.raises(ValueError, match="cost must have the shape"):
        graph_search(cost[0])
    with pytest.raises(ValueError, match="size H of cost must be at least 1"):
        graph_search(torch.zeros(2, 0, 4))
    with pytest.raises(TypeError, match="cost must be a tensor or an array, got list"):
        graph_search([[[1.0]]])
    with pytest.raises(TypeError, match=r"max_slope must be an integer, got 1\.5"):
        graph_search(cost, max_slope=1.5)
    with pytest.raises(ValueError, match="max_slope must be at least 0"):
        graph_search(cost, max_slope=-1)
    with pytest.raises(ValueError, match="min_gap must be at least 0"):
        graph_search(cost, min_gap=-1)
    with pytest.raises(ValueError, match="min_gap must be finite, got nan"):
        graph_search(cost, min_gap=math.nan)
    with pytest.raises(ValueError, match=r"max_gap must be a number, \(1,\) or \(1, 4\)"):
        graph_search(cost, max_gap=[3, 4])
    with pytest.raises(ValueError, match=r"surfaces must be in \[0, 5\], got 6"):
        refine_subpixel(cost, torch.full((2, 4), 6))
    with pytest.raises(ValueError, match="surfaces must have the shape of cost without its rows"):
        refine_subpixel(cost, torch.zeros(2, 5, dtype=torch.int64))
    with pytest.raises(TypeError, match="whole rows"):
        refine_subpixel(cost, torch.zeros(2, 4))
    with pytest.raises(ValueError, match="polarity must be one of"):
        gradient_cost(torch.zeros(5, 5), [1, 0])
    with pytest.raises(ValueError, match="image must be"):
        gradient_cost(torch.zeros(1, 5), [1])
    with pytest.raises(ValueError, match="image must be finite"):
        gradient_cost(torch.full((4, 4), math.nan), [1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_answer_stands_where_the_cost_does():
    cost = random_cost(2, 12, 8)
    s = graph_search(cost.cuda(), min_gap=1)
    assert s.is_cuda and torch.equal(s.cpu(), graph_search(cost, min_gap=1))
    fine = refine_subpixel(cost.cuda(), s)
    torch.testing.assert_close(fine.cpu(), refine_subpixel(cost, s.cpu()))
    assert gradient_cost(torch.rand(8, 8).cuda(), [1]).is_cuda
