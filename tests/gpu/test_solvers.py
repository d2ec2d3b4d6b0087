"""Every solver gives on CUDA what it gives on the CPU, gradients included."""

import ast
from pathlib import Path

import pytest
import torch

from medseg_core import solvers
from medseg_core.rng import generator
from medseg_core.solvers import (
    active_set,
    geodesic,
    graphcut,
    grid_cut,
    isotonic,
    star_dp,
    star_pattern,
    surface_cost,
    surface_graph,
    surface_ipm,
    surface_qp,
    tridiagonal,
)
from medseg_core.solvers import grid_checks as checked

SIDE = 12
DOUBLE = {"float64": "computed in double precision in every lane"}


def noise(*shape, seed=0, stream="gpu"):
    return torch.randn(shape, generator=generator(seed, stream=stream))


def picture(n=2, side=SIDE):
    """A bright disc with noise, ``(N,1,H,W)``."""
    axis = torch.arange(side) - (side - 1) / 2
    disc = (axis[:, None] ** 2 + axis**2 < (side / 3) ** 2).float()
    return (disc + 0.2 * noise(n, 1, side, side)).clamp(-1, 2)


def disc_and_prob():
    image = picture()
    return {"image": image, "prob": (4 * image - 2).sigmoid()}


def marked():
    scribbles = torch.full((2, SIDE, SIDE), 255)
    scribbles[:, SIDE // 2, SIDE // 2] = 1
    scribbles[:, 0] = 0
    return disc_and_prob() | {"scribbles": scribbles}


def star():
    return {"g": noise(3, 10, 9), "v": 1 + (noise(3, 10).abs() * 3).long().clamp(max=7)}


def columns():
    """Surfaces that cross: ``(N,C)`` in double precision."""
    mu = noise(5, 7).double() * 2 + torch.arange(5.0).double()[:, None]
    return {"mu": mu, "weight": noise(5, 7, seed=1).double().exp()}


def surfaces():
    mu = noise(2, 4, 6) * 2 + 3 * torch.arange(4.0)[:, None]
    return {"mu": mu, "sigma2": noise(2, 4, 6, seed=1).exp()}


def pairs():
    return {"unary": 3 * noise(2, 2, 6, 7), "pairwise": noise(2, 4, 6, 7, seed=1).abs()}


def cost():
    return {"cost": noise(2, 3, 16, 8), "surfaces": torch.tensor([3, 8, 12]).expand(2, 8, 3).mT}


def entry(call, inputs, **more):
    return {"call": call, "inputs": inputs, **more}


def crossing(function, **options):
    def call(mu, sigma2):
        return function(mu, sigma2, **options)[0]

    return entry(call, surfaces, tol=1e-3, wrt=("mu", "sigma2"))


def on_columns(function):
    def call(mu, weight):
        low = torch.full_like(mu[1:], 0.5)
        return function(mu, weight, low, low + 4)

    return {"call": call, "inputs": columns, "skip": DOUBLE}


def grid_checks(image, prob, scribbles):
    assert checked.checked_image(image, "image") == (SIDE, SIDE)
    assert checked.checked_connectivity(None, 2, (8, 6)) == 8
    return checked.checked_prob(prob, image), checked.checked_scribbles(scribbles, image)


def interior_columns(mu, weight, low, high):
    return surface_ipm.solve_columns(mu, weight, low, high, tol=1e-8, max_iter=60).s


def cut(unary, pairwise):
    grid = grid_cut.GridCut((6, 7), 8)
    labels, energy = grid.cut(unary[0], pairwise[0])
    assert grid.holds(pairwise[0])
    return labels, torch.full_like(unary[0, 0, 0], energy)


def number(value, like):
    return torch.full_like(like, value)


TABLE = {
    "active_set.finish": on_columns(
        lambda mu, weight, low, high: active_set.finish(
            torch.zeros_like(low, dtype=torch.int8), mu, weight, low, high
        )
    ),
    "geodesic.geodesic_distance": entry(
        lambda image: geodesic.geodesic_distance(image, image > 1.2),
        lambda: {"image": picture()},
    ),
    "graphcut.contrast_weights": entry(
        lambda image: graphcut.contrast_weights(image, 8, lam=2.0, sigma=0.5, constant=0.1),
        lambda: {"image": picture()},
        wrt=("image",),
    ),
    "graphcut.binary_mrf_map": entry(
        lambda unary, pairwise: graphcut.binary_mrf_map(unary, pairwise, 8), pairs
    ),
    "grid_checks.checked_image": entry(grid_checks, marked),
    "grid_cut.GridCut": entry(cut, pairs),
    "isotonic.isotonic_regression": entry(
        lambda mu, weight: isotonic.isotonic_regression(mu, weight), columns, skip=DOUBLE
    ),
    "isotonic.in_block": entry(lambda mu: isotonic.in_block(mu > 0), lambda: {"mu": noise(4, 7)}),
    "star_dp.circular_dp": entry(lambda g, v: star_dp.circular_dp(g, 2), star),
    "star_dp.circular_dp_energy": entry(
        lambda g, v: star_dp.circular_dp_energy(g, v), star, wrt=("g",)
    ),
    "star_dp.algorithm1": entry(lambda g, v: star_dp.algorithm1(g, 2), star),
    "star_dp.soft_circular_dp": entry(
        lambda g, v: star_dp.soft_circular_dp(g, 2, 0.7), star, wrt=("g",)
    ),
    "star_dp.perturbed_indices": entry(
        lambda g, v: star_dp.perturbed_indices(g, 2, 0.1, 8, generator(0)),
        star,
        skip={"float64": "the noise drawn in double precision is another one"},
    ),
    "star_dp.perturbed_gradient": entry(
        lambda g, v: star_dp.perturbed_gradient(g, 2, v, 0.1, 8, generator(0), width=3),
        star,
        skip={"float64": "the noise drawn in double precision is another one"},
    ),
    "star_pattern.star_pattern": entry(
        lambda centre: star_pattern.star_pattern(centre, 8, 5, 4.0, centre[:, 0]),
        lambda: {"centre": 6 + noise(2, 2)},
        wrt=("centre",),
    ),
    "star_pattern.warp": entry(
        lambda image, points: star_pattern.warp(image, points),
        lambda: {"image": picture(), "points": 6 + 4 * noise(2, 5, 6, 2)},
        wrt=("image",),
    ),
    "star_pattern.share_outside": entry(
        lambda points: number(star_pattern.share_outside(points, (12, 12)), points[0, 0, 0]),
        lambda: {"points": 6 + 4 * noise(2, 5, 6, 2)},
    ),
    "star_pattern.star_truth": entry(
        lambda image, points: star_pattern.star_truth(image > 0.5, points)[0],
        lambda: {"image": picture(), "points": 6 + 4 * noise(2, 5, 6, 2)},
    ),
    "star_pattern.smooth_indices": entry(
        lambda g, v: star_pattern.smooth_indices(v, 3).to(g), star
    ),
    "star_pattern.indices_to_radii": entry(
        lambda g, v: star_pattern.indices_to_radii(v, 0.5), star
    ),
    "star_pattern.contour_points": entry(
        lambda centre, v: star_pattern.contour_points(centre, v, 0.5),
        lambda: {"centre": noise(3, 2), "v": star()["v"]},
        wrt=("centre",),
    ),
    "star_pattern.contour_to_mask": entry(
        lambda points: star_pattern.contour_to_mask(points, (12, 12)),
        lambda: {"points": 6 + 3 * noise(2, 7, 2)},
    ),
    "surface_cost.gradient_cost": entry(
        lambda image: surface_cost.gradient_cost(image[:, 0], (1, -1), circular=True),
        lambda: {"image": picture()},
    ),
    "surface_cost.refine_subpixel": entry(
        lambda cost, surfaces: surface_cost.refine_subpixel(cost, surfaces),
        cost,
    ),
    "surface_graph.graph_search": entry(
        lambda cost, surfaces: surface_graph.graph_search(cost, min_gap=1), cost
    ),
    "surface_ipm.increasing_start": entry(
        lambda mu, weight: surface_ipm.increasing_start(mu), columns, skip=DOUBLE
    ),
    "surface_ipm.strictly_inside": on_columns(
        lambda mu, weight, low, high: surface_ipm.strictly_inside(mu, mu, weight, low, high)
    ),
    "surface_ipm.solve_columns": on_columns(interior_columns),
    "surface_qp.ordered_surfaces: order": crossing(surface_qp.ordered_surfaces),
    "surface_qp.ordered_surfaces: gaps": crossing(
        surface_qp.ordered_surfaces, min_gap=1.0, max_gap=4.0
    ),
    "surface_qp.ordered_surfaces: no polish": crossing(
        surface_qp.ordered_surfaces, min_gap=1.0, method="ipm", polish=False
    ),
    "surface_qp.interior_point": entry(
        lambda mu, sigma2: surface_qp.interior_point(mu, sigma2, min_gap=1.0)[0], surfaces
    ),
    "tridiagonal.solve_chain": entry(
        lambda mu, weight: tridiagonal.solve_chain(weight, weight[1:], mu),
        columns,
        skip=DOUBLE,
    ),
    "tridiagonal.links": entry(lambda mu: tridiagonal.links(mu > 0), lambda: {"mu": noise(4, 7)}),
}

INSIDE = "a part of surface_qp.ordered_surfaces, which is in the table"
LEFT_OUT = {
    "graphcut.offsets": "a constant: no tensor goes in",
    "grid_checks.checked_connectivity": "no tensors; called with grid_checks.checked_image",
    "grid_checks.checked_prob": "called with grid_checks.checked_image",
    "grid_checks.checked_scribbles": "called with grid_checks.checked_image",
    "grid_cut.check_size": "no tensors",
    "grid_cut.pair_slices": "no tensors",
    "grid_cut.as_array": "NumPy out",
    "surface_columns.Columns": INSIDE,
    "surface_columns.Answer": INSIDE,
    "surface_columns.solve": INSIDE,
    "surface_columns.OrderedSurfaces": INSIDE,
    "surface_columns.to_columns": INSIDE,
    "surface_columns.to_images": INSIDE,
    "surface_columns.to_maps": INSIDE,
    "surface_columns.result_dtype": INSIDE,
    "surface_cost.as_float64": "NumPy out",
    "surface_ipm.Point": INSIDE,
    "surface_qp.SurfaceInfo": "counts that ordered_surfaces returns beside its answer",
    "surface_qp.Trace": "the iterates that interior_point returns beside its answer",
}


def test_the_answer_of_the_cpu(entry, lane, agrees):
    agrees(entry, lane)


def test_no_solver_is_forgotten():
    folder = Path(solvers.__path__[0])
    found = {
        f"{path.stem}.{node.name}"
        for path in folder.glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    }
    tabled = {name.partition(":")[0] for name in TABLE}
    assert not tabled & set(LEFT_OUT)
    assert found == tabled | set(LEFT_OUT)


def test_a_tensor_made_on_the_cpu_is_found_out(agrees):
    careless = {
        "call": lambda x: x + torch.zeros(3),
        "inputs": lambda: {"x": torch.ones(3)},
    }
    agrees(careless, "float64")
    with pytest.raises(RuntimeError, match="device"):
        agrees(careless, "pretend")


def test_a_wrong_answer_and_a_wrong_gradient_are_found_out(agrees):
    for wrong in (
        lambda x: x * (1 + 1e-3 * (x.dtype == torch.float64)),
        lambda x: x + (x - x.detach()) * (x.dtype == torch.float64),
        lambda x: (x > 0).long() + (x.dtype == torch.float64),
    ):
        with pytest.raises(AssertionError):
            agrees({"call": wrong, "inputs": lambda: {"x": noise(3)}, "wrt": ("x",)}, "float64")
