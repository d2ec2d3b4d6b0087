"""Circular dynamic programming against the published algorithm: ratios, and growth with the size.

python benchmarks/star_dp.py [--repeats 21] [--device cpu]
"""

import argparse

import torch
from timing import seconds

from medseg_core.solvers.star_dp import (
    algorithm1,
    circular_dp,
    circular_dp_energy,
    perturbed_indices,
    soft_circular_dp,
)

PAPER = {"B": 10, "N": 50, "M": 65, "delta": 2}


def maps(device, B, N, M, delta):
    gen = torch.Generator().manual_seed(0)
    return torch.randn(B, N, M + 1, generator=gen).to(device), delta


def against_algorithm_1(device, repeats):
    g, delta = maps(device, **PAPER)
    ours, theirs = circular_dp(g, delta), algorithm1(g, delta)
    torch.testing.assert_close(
        circular_dp_energy(g, ours, delta), circular_dp_energy(g, theirs, delta)
    )
    fast, slow = seconds(
        device, repeats, lambda: circular_dp(g, delta), lambda: algorithm1(g, delta)
    )
    print(f"  circular_dp {1e3 * fast:.2f} ms, algorithm1 {1e3 * slow:.1f} ms, same energies")
    print(f"  ratio {slow / fast:.1f}x")


def growth(device, repeats):
    for name, sizes in {"M": (32, 65, 130), "N": (25, 50, 100), "B": (1, 10, 100)}.items():
        calls = []
        for size in sizes:
            g, delta = maps(device, **{**PAPER, name: size})
            calls.append(lambda g=g, delta=delta: circular_dp(g, delta))
        times = seconds(device, repeats, *calls)
        print(
            f"  {name}: "
            + ", ".join(f"{s}: {1e3 * t:.2f} ms" for s, t in zip(sizes, times, strict=True))
        )
    calls = [lambda d=d: circular_dp(maps(device, **PAPER)[0], d) for d in (1, 2, 5, 10)]
    times = seconds(device, repeats, *calls)
    print(
        "  δ: "
        + ", ".join(f"{d}: {1e3 * t:.2f} ms" for d, t in zip((1, 2, 5, 10), times, strict=True))
    )


def other_ways(device, repeats):
    g, delta = maps(device, **PAPER)
    gen = torch.Generator(device=device).manual_seed(0)
    names = ("hard", "soft with marginals", "perturbed, 10 draws")
    times = seconds(
        device,
        max(3, repeats // 4),
        lambda: circular_dp(g, delta),
        lambda: soft_circular_dp(g, delta, 1.0),
        lambda: perturbed_indices(g, delta, 1.0, 10, gen),
    )
    for name, t in zip(names, times, strict=True):
        print(f"  {name}: {1e3 * t:.1f} ms ({t / times[0]:.1f}x)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--device", help="cpu or cuda; default: both where there is a GPU")
    options = parser.parse_args()
    devices = [options.device] if options.device else ["cpu"]
    if not options.device and torch.cuda.is_available():
        devices.append("cuda")
    for device in map(torch.device, devices):
        threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
        print(f"{device}{threads}, torch {torch.__version__}")
        print(f"Against the published algorithm, {PAPER}:")
        against_algorithm_1(device, options.repeats)
        print("Growth of circular_dp, other sizes as above:")
        growth(device, options.repeats)
        print("Ways through the argmin:")
        other_ways(device, options.repeats)
