"""Graph search for surfaces against the same minimum cut built in the textbook's way, and scipy's.

python benchmarks/surface_graph.py [--repeats 3] [--write]

All solve the same problem with whole-number costs and reach the same energy, which is checked.
--write puts the table into benchmarks/results/surface_graph.md.
"""

import argparse
import math

import numpy as np
import torch
from maxflow import GraphInt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import maximum_flow
from timing import machine, milliseconds, publish, seconds, table

from medseg_core.phantoms import ivus_polar
from medseg_core.rng import numpy_rng
from medseg_core.solvers.surface_cost import gradient_cost
from medseg_core.solvers.surface_graph import graph_search

SLOPE = 2


def layers(n, h, w, seed=0):
    """Cost ``(N,H,W)`` of a layered image with speckle, and the least and largest true gaps."""
    rng = numpy_rng(seed, 0, "benchmark")
    x = np.linspace(0, 2 * math.pi, w)
    rows = np.linspace(0.15, 0.8, n)[:, None] * h + 0.03 * h * np.sin(2 * x + rng.uniform(0, 6))
    rows = rows + 0.01 * h * np.sin(3 * x + rng.uniform(0, 6, (n, 1)))
    levels = rng.uniform(0.2, 1, n + 1)
    image = levels[(np.arange(h)[:, None] > rows[:, None]).sum(0)]
    image = image * rng.gamma(4, 0.25, image.shape)
    cost = gradient_cost(torch.from_numpy(image), np.sign(np.diff(levels)), sigma=1.0)
    gaps = np.diff(rows, axis=0)
    least = np.maximum(np.floor(gaps.min(1)) - 2, 0).astype(int)
    return cost, least, np.ceil(gaps.max(1)).astype(int) + 2, False


def vessel():
    """Lumen and media of one polar frame of intravascular ultrasound, closed in angle."""
    frame = ivus_polar(1, (96, 128), seed=0)
    cost = gradient_cost(frame["image"][0, 0].double(), [1, 1], sigma=2.0, circular=True)
    gap = frame["surfaces"][0].diff(dim=0)
    return cost, [int(gap.min()) - 2], [int(gap.max()) + 2], True


def textbook(cost, least, most, circular):
    """Node weights and arcs as Li et al. print them: (weights (n,), from, to, energy at row 0)."""
    n, h = cost.shape[:2]
    node = np.arange(cost.size).reshape(cost.shape)
    weight = np.diff(cost, axis=1, prepend=0)
    never = int(np.abs(weight).sum()) + 1
    offset = int(weight[:, 0].sum())
    weight[:, 0] = -never  # the base is always in the set
    arcs, banned = [], []

    def imply(a, b, shift):  # node arrays (H,…): a at z implies b at z + shift
        if shift >= 0:
            arcs.append((a[: h - shift], b[shift:]))
            banned.append(a[h - shift :].ravel())
        else:
            arcs.append((a[-shift:], b[:shift]))

    for i in range(n):
        imply(node[i], node[i], -1)
        ends = [(node[i, :, :-1], node[i, :, 1:])]
        ends += [(node[i, :, -1:], node[i, :, :1])] if circular else []
        for a, b in ends:
            imply(a, b, -SLOPE)
            imply(b, a, -SLOPE)
    for i in range(n - 1):
        imply(node[i], node[i + 1], int(least[i]))
        imply(node[i + 1], node[i], -int(most[i]))
    weight = weight.ravel()
    weight[np.concatenate(banned)] = never
    a, b = (np.concatenate([pair[k].ravel() for pair in arcs]) for k in (0, 1))
    return weight, a, b, never, offset


def textbook_cut(cost, least, most, circular):
    weight, a, b, never, offset = textbook(cost, least, most, circular)
    graph = GraphInt(len(weight), len(a))
    graph.add_nodes(len(weight))
    graph.add_grid_tedges(np.arange(len(weight)), np.maximum(-weight, 0), np.maximum(weight, 0))
    graph.add_edges(a, b, np.full(len(a), never), np.zeros_like(a))
    return graph.maxflow() + weight[weight < 0].sum() + never * base(cost) + offset


def scipy_cut(cost, least, most, circular):
    weight, a, b, never, offset = textbook(cost, least, most, circular)
    source, sink, nodes = len(weight), len(weight) + 1, np.arange(len(weight))
    down, up = weight < 0, weight > 0
    start = np.concatenate([a, np.full(down.sum(), source), nodes[up]])
    end = np.concatenate([b, nodes[down], np.full(up.sum(), sink)])
    capacity = np.concatenate([np.full(len(a), never), -weight[down], weight[up]])
    size = (len(weight) + 2,) * 2
    graph = coo_matrix((capacity.astype(np.int32), (start, end)), shape=size).tocsr()
    value = maximum_flow(graph, source, sink).flow_value
    return value + weight[down].sum() + never * base(cost) + offset


def base(cost):
    return cost.shape[0] * cost.shape[2]


def row(name, problem, repeats, textbook_limit, scipy_limit):
    cost, least, most, circular = problem
    whole = torch.round(2000 * cost)
    integers = whole.numpy().astype(np.int64)
    rules = {"max_slope": SLOPE, "min_gap": least, "max_gap": most, "circular": circular}
    calls = {
        "ours": lambda: graph_search(whole, **rules),
        "textbook": lambda: textbook_cut(integers, least, most, circular),
        "scipy": lambda: scipy_cut(integers, least, most, circular),
    }
    for peer, limit in (("textbook", textbook_limit), ("scipy", scipy_limit)):
        if whole.numel() > limit:
            del calls[peer]
    found = {peer: call() for peer, call in calls.items()}
    energy = float(whole.gather(1, found["ours"][:, None]).sum())  # (N,1,W) rows
    for peer in calls.keys() - {"ours"}:
        assert found[peer] == energy, (name, peer, found[peer], energy)
    device = torch.device("cpu")
    times = dict(zip(calls, seconds(device, repeats, *calls.values()), strict=True))
    cells = [name, milliseconds(times["ours"])]
    for peer in ("textbook", "scipy"):
        t = times.get(peer)
        cells.append(f"{milliseconds(t)} ({t / times['ours']:.1f}×)" if t else "not run")
    return cells


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--textbook-limit", type=int, default=80_000, help="pixels, at most")
    parser.add_argument("--scipy-limit", type=int, default=300_000, help="pixels, at most")
    parser.add_argument("--write", action="store_true", help="store the table in results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    problems = [("96 × 128 × 2, closed, ultrasound", vessel())]
    for h, w in ((64, 64), (128, 64), (128, 128), (128, 256), (256, 128)):
        problems.append((f"{h} × {w} × 9", layers(9, h, w)))
    rows = []
    for name, problem in problems:
        rows.append(
            row(name, problem, options.repeats, options.textbook_limit, options.scipy_limit)
        )
        print(*rows[-1], sep=" | ", flush=True)
    header = [
        "rows × columns × surfaces",
        "graph_search",
        "node weights, PyMaxflow",
        "node weights, scipy",
    ]
    text = f"{machine(torch.device('cpu'))}\n\n{table(header, rows)}\n"
    publish("surface_graph", text, options.write)


if __name__ == "__main__":
    main()
