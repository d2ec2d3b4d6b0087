"""Ordered surfaces against general quadratic-programming layers: ratios, and growth with the size.

python benchmarks/surface_qp.py [--repeats 21] [--device cpu] [--write]

The peers are optional and want an environment of their own, because they bring old versions of
other packages with them:

    python3 -m venv peers
    peers/bin/pip install torch scipy qpth cvxpylayers PyMaxflow
    PYTHONPATH=. peers/bin/python benchmarks/surface_qp.py --write

A peer that is not there is left out. `--write` stores the tables in benchmarks/results, from where
the book shows them.
"""

import argparse
import functools
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import timing
import torch
from timing import RESULTS, machine, milliseconds, table

from medseg_core.solvers.surface_qp import interior_point, ordered_surfaces

WIDTHS = (8192, 16384, 32768, 65536)
SIZE = {"B": 4, "N": 9, "W": 128}

# The fastest turn: what others do on the machine only ever adds to a time.
seconds = functools.partial(timing.seconds, pick=min)


def columns(device, B, N, W):
    """About 68 % of the columns out of order, as an untrained network's are, when N = 9."""
    gen = torch.Generator().manual_seed(0)
    mu = 3 * torch.arange(N)[:, None] + 1.88 * torch.randn(B, N, W, generator=gen)
    sigma2 = 1 + 10 * torch.rand(B, N, W, generator=gen)
    return [x.double().to(device).requires_grad_() for x in (mu, sigma2)]


def run(solve, mu, sigma2, backward):
    mu.grad = sigma2.grad = None
    if backward:
        solve(mu, sigma2).square().sum().backward()
    else:
        with torch.no_grad():
            return solve(mu, sigma2)


def ours(**options):
    return lambda mu, sigma2: ordered_surfaces(mu, sigma2, **options)[0]


def stacked(mu):
    return mu.transpose(1, 2).flatten(0, 1)  # (B,N,W) to (B·W,N)


def images(s, mu):
    return s.unflatten(0, (mu.shape[0], mu.shape[2])).transpose(1, 2)


def qpth_layer(max_gap=None):
    from qpth.qp import QPFunction

    def solve(mu, sigma2):
        y, weight = stacked(mu), 1 / stacked(sigma2)
        eye = torch.eye(mu.shape[1], dtype=mu.dtype, device=mu.device)
        a = eye[:-1] - eye[1:]
        h = mu.new_zeros(len(a))
        if max_gap is not None:
            a, h = torch.cat([a, -a]), torch.cat([h, h + max_gap])
        none = mu.new_empty(0)
        s = QPFunction(verbose=-1)(torch.diag_embed(weight), -weight * y, a, h, none, none)
        return images(s, mu)

    return solve


def cvxpy_layer(n, max_gap=None):
    import cvxpy
    from cvxpylayers.torch import CvxpyLayer

    s, root, scaled = cvxpy.Variable(n), cvxpy.Parameter(n, nonneg=True), cvxpy.Parameter(n)
    limits = [cvxpy.diff(s) >= 0]
    if max_gap is not None:
        limits.append(cvxpy.diff(s) <= max_gap)
    objective = cvxpy.Minimize(cvxpy.sum_squares(cvxpy.multiply(root, s) - scaled))
    layer = CvxpyLayer(cvxpy.Problem(objective, limits), [root, scaled], [s])

    def solve(mu, sigma2):
        root = stacked(sigma2).rsqrt()
        return images(layer(root, root * stacked(mu))[0], mu)

    return solve


def scipy_loop(mu, sigma2):
    from scipy.optimize import isotonic_regression

    y, weight = stacked(mu).detach().cpu().numpy(), 1 / stacked(sigma2).detach().cpu().numpy()
    fit = [isotonic_regression(a, weights=w).x for a, w in zip(y, weight, strict=True)]
    return images(torch.from_numpy(np.stack(fit)).to(mu.device), mu)


def have(*names):
    return all(importlib.util.find_spec(name) for name in names)


def against_peers(device, repeats, max_gap):
    """Rows of a table: solver, forward, with backward, ratios, largest difference in px."""
    mu, sigma2 = columns(device, **SIZE)
    limit = {} if max_gap is None else {"max_gap": max_gap}
    solvers = {} if max_gap else {"`ordered_surfaces`, pav": ours(method="pav")}
    if max_gap:
        solvers["`ordered_surfaces`, auto"] = ours(**limit)
    solvers["`ordered_surfaces`, ipm"] = ours(method="ipm", **limit)
    slow = {}
    if have("qpth"):
        solvers["qpth"] = qpth_layer(max_gap)
    if have("cvxpylayers"):
        slow["cvxpylayers"] = cvxpy_layer(SIZE["N"], max_gap)
    if have("scipy") and not max_gap:
        slow["scipy, a loop over columns"] = scipy_loop
    exact = scipy_loop(mu, sigma2) if not max_gap else run(ours(**limit), mu, sigma2, False)
    times = {}
    for group, turns in ((solvers, repeats), (slow, max(3, repeats // 7))):
        for backward in (False, True):
            names = [n for n in group if not (backward and n.startswith("scipy"))]
            calls = [lambda f=group[n], b=backward: run(f, mu, sigma2, b) for n in names]
            for name, t in zip(names, seconds(device, turns, *calls), strict=True):
                times.setdefault(name, []).append(t)
    base = next(iter(times.values()))
    for name, (forward, *both) in times.items():
        answer = run({**solvers, **slow}[name], mu, sigma2, False)
        off = (answer - exact).abs().max().item()
        yield [
            name,
            milliseconds(forward),
            milliseconds(both[0]) if both else "–",
            f"{forward / base[0]:.1f}",
            f"{both[0] / base[1]:.1f}" if both else "–",
            f"{off:.0e}" if off else "0",
        ]


def iterations(device):
    """Rows: how far from the optimum each way of stopping leaves the raw iterate."""
    mu, sigma2 = (x.detach() for x in columns(device, **SIZE))
    exact, _ = ordered_surfaces(mu, sigma2)
    ways = {
        "algorithm 1 as printed, ‖r_t‖ < 0.01": {"stop": "residual"},
        "the same, ‖r_t‖ < 0.0001": {"stop": "residual", "tol": 1e-4},
        "the same, 8 iterations for every column": {
            "stop": "residual",
            "tol": 1e-13,
            "max_iter": 8,
        },
        "duality gap and stationarity < 1e-4": {"tol": 1e-4},
        "duality gap and stationarity < 1e-8": {"tol": 1e-8},
    }
    for name, options in ways.items():
        s, info = interior_point(mu, sigma2, **options)
        count = info.iterations.double()
        yield [name, f"{count.mean():.1f}", int(count.max()), f"{(s - exact).abs().max():.0e}"]


def growth(device, repeats):
    sizes = {
        "surfaces N": [{**SIZE, "N": n} for n in (3, 9, 27, 81)],
        "columns W": [{**SIZE, "W": w} for w in (128, 512, 2048, 8192)],
        "images B": [{**SIZE, "B": b} for b in (1, 4, 16, 64)],
    }
    for name, settings in sizes.items():
        for method in ("pav", "ipm"):
            calls = []
            for setting in settings:
                mu, sigma2 = columns(device, **setting)
                f = ours(method=method)
                calls.append(lambda f=f, mu=mu, sigma2=sigma2: run(f, mu, sigma2, True))
            times = seconds(device, max(3, repeats // 3), *calls)
            cells = [
                f"{setting[name[-1]]}: {milliseconds(t)}"
                for setting, t in zip(settings, times, strict=True)
            ]
            yield [f"{name}, {method}", *cells]


def peak(method, width):
    """MiB that a forward and backward pass needs beyond its input, in a fresh process (Linux)."""
    code = f"""
import sys
sys.path[:0] = ["benchmarks", "."]
import torch
import surface_qp as b

def status(key):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024

def once(width):
    parts = b.columns(torch.device("cpu"), 4, 9, width)
    open("/proc/self/clear_refs", "w").write("5")  # the peak starts again from here
    before = status("VmRSS")
    b.run(b.ours(method={method!r}), *parts, True)
    return status("VmHWM") - before

once(64)
print(once({width}))
"""
    root = RESULTS.parent.parent
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=True)
    return float(out.stdout)


def memory():
    for method in ("pav", "ipm"):
        yield [method, *(f"{peak(method, w):.0f} MiB" for w in WIDTHS)]


def graph(device, repeats):
    """The classical baseline: whole rows, smooth from column to column, one minimum cut."""
    if device.type != "cpu" or not have("maxflow", "medseg_core.solvers.surface_graph"):
        return
    from medseg_core.solvers.surface_graph import graph_search

    rows, width = 64, 64
    mu, sigma2 = (x.detach() for x in columns(device, 1, 9, width))
    mu = mu + 15
    z = torch.arange(rows)[:, None]
    cost = ((z - mu[0, :, None]) ** 2 / sigma2[0, :, None]).float()  # (N,H,W)
    cut, chain = seconds(
        device,
        max(3, repeats // 7),
        lambda: graph_search(cost, max_slope=2),
        lambda: ordered_surfaces(mu, sigma2),
    )
    yield [
        f"{rows}×{width}, 9 surfaces",
        milliseconds(cut),
        milliseconds(chain),
        f"{cut / chain:.0f}",
    ]


def report(device, repeats):
    mu, _ = columns(device, **SIZE)
    broken = (mu.diff(dim=1) < 0).any(1).double().mean().item()
    timed = [
        "solver",
        "forward",
        "with backward",
        "ratio forward",
        "ratio with backward",
        "largest difference, px",
    ]
    yield (
        f"Measured on {machine(device)}; {SIZE['B'] * SIZE['W']} columns of {SIZE['N']} surfaces, "
        f"{100 * broken:.0f} % of them out of order, float64, the fastest of {repeats} turns. "
        "Ratios are to the first row."
    )
    yield "**Order alone**\n\n" + table(timed, against_peers(device, repeats, None))
    yield "**Gaps between 0 and 5 px**\n\n" + table(timed, against_peers(device, repeats, 5.0))
    header = ["raw interior point stops at", "mean iterations", "most", "largest error, px"]
    yield table(header, iterations(device))
    yield "**Growth**, forward and backward\n\n" + table(
        ["with", "", "", "", ""], growth(device, repeats)
    )
    if device.type == "cpu" and Path("/proc/self/clear_refs").exists():
        header = ["W =", *map(str, WIDTHS)]
        yield "**Memory**, forward and backward, B = 4, N = 9\n\n" + table(header, memory())
    rows = list(graph(device, repeats))
    if rows:
        header = ["graph search over", "graph search", "`ordered_surfaces`", "ratio"]
        yield "**The classical baseline** (a harder problem: columns are tied)\n\n" + table(
            header, rows
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--device", help="cpu or cuda; default: both where there is a GPU")
    parser.add_argument("--write", action="store_true", help="store the tables for the book")
    options = parser.parse_args()
    devices = [options.device] if options.device else ["cpu"]
    if not options.device and torch.cuda.is_available():
        devices.append("cuda")
    for device in map(torch.device, devices):
        parts = []
        for part in report(device, options.repeats):
            print(part + "\n", flush=True)
            parts.append(part)
        if options.write:
            RESULTS.mkdir(exist_ok=True)
            path = RESULTS / f"surface_qp-{device.type}.md"
            path.write_text("\n\n".join(parts) + "\n")
            print(f"written to {path}")
