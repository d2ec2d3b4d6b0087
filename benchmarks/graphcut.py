"""Minimum cuts of pixel grids against PyMaxflow as its users call it, and against numpymaxflow.

python benchmarks/graphcut.py [--repeats 15] [--quick] [--write]
OMP_NUM_THREADS=1 python benchmarks/graphcut.py    # one core: steadier on a busy machine

numpymaxflow was built for numpy 1, so it needs an environment of its own; where it is missing, its
column stays empty.
    python -m venv peers
    peers/bin/pip install torch==2.13.0 "numpy<2" PyMaxflow numpymaxflow scipy
    peers/bin/pip install -e . --no-deps
    OMP_NUM_THREADS=1 peers/bin/python benchmarks/graphcut.py --write

Every pair of calls solves the same problems, in turns, and their labels are compared. Ratios are
medians over the turns. --write puts the tables into benchmarks/results/graphcut.md.
"""

import argparse
import itertools
import math
import statistics

import numpy as np
import torch
from maxflow import GraphFloat
from scipy.ndimage import gaussian_filter
from timing import machine, milliseconds, publish, seconds, table

from medseg_core.rng import numpy_rng
from medseg_core.solvers.graphcut import binary_mrf_map, contrast_weights, offsets
from medseg_core.solvers.grid_cut import GridCut, pair_slices

try:
    import numpymaxflow
except ImportError:
    numpymaxflow = None

CASES = (((512, 512), 4), ((512, 512), 8), ((96, 96, 64), 6))
QUICK = (((96, 96), 4), ((64, 64), 8), ((24, 24, 16), 6))
KINDS = {
    "network": "a confident network's output with blobs of doubt, λ = 3 (as in "
    "`bifseg-interactive`)",
    "augmented": "weak logits, the truth's label made dearer by one at each pixel, w₂ + w₃e "
    "(as in `max-margin-crf`)",
    "noise": "a coin at each pixel, slightly biased, under strong smoothing: the hard case",
}


def blobs(rng, size, sigma=4.0):
    """Smooth noise of unit variance."""
    field = gaussian_filter(rng.normal(size=size), sigma)
    return field / field.std()


def problem(kind, size, connectivity, seed=0):
    """Image and logits (1,1,*S), weights (1,O,*S), as float32; their λ, σ and constant."""
    rng = numpy_rng(seed, 0, "benchmark")
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in size), indexing="ij")
    radius = sum((x / (0.45 + 0.15 * i)) ** 2 for i, x in enumerate(axes))
    truth = radius < 1 + 0.2 * np.sin(3 * np.arctan2(axes[0], axes[1]))
    image = np.where(truth, 0.65, 0.4) + 0.1 * rng.normal(size=size)
    sign = np.where(truth, 1.0, -1.0)
    lam, sigma, constant = {"network": (3, 0.1, 0), "augmented": (2, 0.15, 1), "noise": (2, 1, 1)}[
        kind
    ]
    if kind == "network":
        logits = 6 * gaussian_filter(sign, 3) + 2.5 * blobs(rng, size)
    elif kind == "augmented":
        logits = 2 * (2 * gaussian_filter(sign, 3) + 1.5 * blobs(rng, size)) - sign
    else:
        logits = 0.6 * sign + rng.normal(size=size)
    tensors = [torch.from_numpy(x.astype(np.float32))[None, None] for x in (image, logits)]
    weights = contrast_weights(
        tensors[0], connectivity, lam=lam, sigma=sigma, constant=float(constant)
    )
    return *tensors, weights, (float(lam), float(sigma), constant)


def costs(logits):
    """Unaries (1,2,*S) = −log of both labels' probabilities."""
    return torch.nn.functional.softplus(torch.cat([logits, -logits], 1))


def usual(unary, pairwise, connectivity):
    """PyMaxflow called as its manual does: grid nodes, one call of grid edges per direction."""
    graph = GraphFloat()
    nodes = graph.add_grid_nodes(unary.shape[1:])
    for weight, step in zip(pairwise, offsets(connectivity).tolist(), strict=True):
        structure = np.zeros((3,) * nodes.ndim)
        structure[tuple(1 + k for k in step)] = 1
        graph.add_grid_edges(nodes, weights=weight, structure=structure, symmetric=True)
    graph.add_grid_tedges(nodes, unary[1], unary[0])
    graph.maxflow()
    return graph.get_grid_segments(nodes)


def compare(repeats, *calls):
    """Median seconds of each call, and the median ratio of each call's time to the first one's."""
    times = seconds(torch.device("cpu"), repeats, *calls, pick=list)
    ratios = [
        statistics.median(t / own for own, t in zip(times[0], other, strict=True))
        for other in times
    ]
    return [statistics.median(t) for t in times], ratios


def one_cut(kind, size, connectivity, repeats):
    """Row: a single cut, all of it, from tensors to labels and energy."""
    image, logits, weights, (lam, sigma, constant) = problem(kind, size, connectivity)
    unary = costs(logits)
    u, w = unary[0].double().numpy(), weights[0].double().numpy()
    labels, energy = binary_mrf_map(unary, weights, connectivity)
    assert math.isclose(energy.item(), energy_of(labels, unary, weights, connectivity))
    same(unary, weights, labels, usual(u, w, connectivity), connectivity)
    calls = [
        lambda: binary_mrf_map(unary, weights, connectivity),
        lambda: usual(u, w, connectivity),
    ]
    if numpymaxflow is not None and not constant:  # it knows no constant term
        prob = torch.cat([(-logits).sigmoid(), logits.sigmoid()], 1)[0].numpy()
        picture = image[0].numpy()

        def peer():
            return numpymaxflow.maxflow(picture, prob, lam, sigma, connectivity)

        theirs = weights.clone()
        if connectivity == 8:  # it joins one of the two diagonals, at the price of an axis
            theirs[:, 2] = 0
            theirs[:, 3] *= math.sqrt(2)
        own, _ = binary_mrf_map(unary, theirs, connectivity)
        same(unary, theirs, own, np.asarray(peer()).reshape(size) > 0, connectivity)
        calls.append(peer)
    times, ratios = compare(repeats, *calls)
    cells = [f"{shape(size)}, {connectivity}", kind, milliseconds(times[0])]
    cells += [f"{milliseconds(t)} ({r:.1f}×)" for t, r in zip(times[1:], ratios[1:], strict=True)]
    if len(calls) == 3 and connectivity == 8:
        alike = [lambda: binary_mrf_map(unary, theirs, connectivity), peer]
        cells[-1] += f"; on its own graph {compare(repeats, *alike)[1][1]:.1f}×"
    return cells + ["–"] * (5 - len(cells))


def repeated(kind, size, connectivity, repeats):
    """Row: cuts of one grid with a change in between, against a graph built afresh each time."""
    _, logits, weights, _ = problem(kind, size, connectivity)
    rng = numpy_rng(1, 0, "benchmark")
    doubt = torch.from_numpy(blobs(rng, size).astype(np.float32)) * logits.abs().mean()
    maps = [costs(logits + step * doubt)[0] for step in (0, 0.1, -0.05, 0.07, -0.1, 0.02)]
    spots = [maps[0].clone() for _ in range(6)]  # a scribble more: some 40 pixels are held
    for turn, spot in enumerate(spots):
        place = rng.integers(0, math.prod(size) - 40)
        spot[turn % 2].view(-1)[place : place + 40] = math.inf
    scales = (1, 1.05, 0.97, 1.02, 0.95, 0.99)
    prices = [weights[0] * scale for scale in scales]

    def turns(unaries, pairwise):
        fixed = pairwise is None
        grid = GridCut(size, connectivity)
        grid.cut(unaries[0], weights[0])
        todo = [(u, None if fixed else w) for u, w in zip(unaries, pairwise or prices, strict=True)]
        fresh = [
            (u.double().clamp(max=1e4).numpy(), (weights[0] if w is None else w).double().numpy())
            for u, w in todo
        ]
        for ours, theirs in zip(todo, fresh, strict=True):
            labels = grid.cut(*ours)[0][None]
            price = (weights[0] if fixed else ours[1])[None]
            same(ours[0][None], price, labels, usual(*theirs, connectivity), connectivity)
        ours, theirs = itertools.cycle(todo), itertools.cycle(fresh)
        times, ratios = compare(
            repeats, lambda: grid.cut(*next(ours)), lambda: usual(*next(theirs), connectivity)
        )
        return f"{milliseconds(times[0])} ({ratios[1]:.1f}×)"

    row = [f"{shape(size)}, {connectivity}", kind]
    for change in ((maps, None), (spots, None), (maps, prices)):
        row.append(turns(*change))
    return row


def energy_of(labels, unary, weights, connectivity):
    """Of labels (1,*S), term by term."""
    energy = unary.double().gather(1, labels[:, None]).sum()
    for o, step in enumerate(offsets(connectivity).tolist()):
        here, there = ((..., *part) for part in pair_slices(step))
        energy += (weights[:, o][here].double() * (labels[here] != labels[there])).sum()
    return energy.item()


def same(unary, weights, labels, other, connectivity):
    """Two labellings must have one energy; single precision inside a peer is allowed for."""
    theirs = torch.from_numpy(np.asarray(other).astype(np.int64))[None]
    a, b = (energy_of(y, unary, weights, connectivity) for y in (labels, theirs))
    assert a <= b + 1e-9 * abs(b) and math.isclose(a, b, rel_tol=1e-5), (a, b)


def shape(size):
    return " × ".join(map(str, size))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="small grids: does the script run?")
    parser.add_argument("--write", action="store_true", help="store the tables in results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    grids = QUICK if options.quick else CASES
    tables = []
    for title, header, measure in (
        (
            "One cut, from tensors to labels and energy. In brackets: how many times the time of "
            "`binary_mrf_map`.",
            ["grid, neighbours", "input", "`binary_mrf_map`", "PyMaxflow", "numpymaxflow"],
            one_cut,
        ),
        (
            "Repeated cuts of one kept `GridCut`, after a change of all unaries, of 40 pixels held "
            "by a scribble, and of all unaries and all weights. In brackets: how much longer "
            "PyMaxflow takes (as a factor), built anew.",
            ["grid, neighbours", "input", "new unaries", "a scribble", "new unaries and weights"],
            repeated,
        ),
    ):
        rows = []
        for (size, connectivity), kind in itertools.product(grids, KINDS):
            rows.append(measure(kind, size, connectivity, options.repeats))
            print(*rows[-1], sep=" | ", flush=True)
        tables.append(f"{title}\n\n{table(header, rows)}\n")
    inputs = "".join(f"- *{name}*: {what};\n" for name, what in KINDS.items())
    text = "\n".join(
        [machine(torch.device("cpu")) + ".\n", *tables, "Inputs:\n\n" + inputs[:-2] + ".\n"]
    )
    publish("graphcut", text, options.write)


if __name__ == "__main__":
    main()
