"""Max-margin learning of a CRF: where Algorithm 1 spends its time, and what a gradient costs.

python benchmarks/max_margin.py [--repeats 9] [--write]

Synthetic ellipses of 96 × 96 pixels whose logits carry correlated noise, ε = 1 pixel. That both
gradients agree and that both ways of Algorithm 1 reach the same γ is checked.
--write puts the tables into benchmarks/results/max_margin.md.
"""

import argparse

import torch
from timing import machine, milliseconds, publish, seconds, table

from medseg_core.papers.max_margin_crf.crf import MaxMarginCRF
from medseg_core.papers.max_margin_crf.gradient import (
    envelope_gradient,
    kkt_gradient,
    kkt_matrix,
)
from medseg_core.physics.noise import gaussian_field
from medseg_core.rng import generator

SIZE, EPS = 96, 1.0


def ellipses(n, seed=0):
    """Image and logits ``(n,1,96,96)`` and truth ``(n,96,96)``; every sample its own place."""
    image, logits, target = [], [], []
    axis = torch.arange(SIZE) - (SIZE - 1) / 2
    for i in range(n):
        gen = generator(seed, i, "benchmark")
        y, x, a, b = torch.rand(4, generator=gen).mul(2).sub(1).tolist()
        inside = ((axis[:, None] - 8 * y) / (26 + 6 * a)) ** 2 + (
            (axis - 8 * x) / (14 + 4 * b)
        ) ** 2
        truth = inside < 1
        sign = 2.0 * truth - 1
        target.append(truth.long())
        image.append(0.5 + 0.2 * sign + 0.1 * gaussian_field((SIZE, SIZE), gen, sigma_px=0.5))
        logits.append(1.5 * sign + 2 * gaussian_field((SIZE, SIZE), gen, sigma_px=1.5))
    return torch.stack(image)[:, None], torch.stack(target), torch.stack(logits)[:, None]


def learning(n, repeats):
    """Rows of both tables for n images."""
    image, target, logits = ellipses(n)
    crf = MaxMarginCRF.from_images(image, target)
    fits = {"round": [], "image": []}

    def fit(solve_after):
        crf.reset()
        fits[solve_after].append(crf.fit(logits, eps=EPS, solve_after=solve_after))

    def spent(found):
        return sum(r.seconds_cut + r.seconds_qp for r in found.trace)

    device = torch.device("cpu")
    once, each = seconds(device, repeats, lambda: fit("round"), lambda: fit("image"), pick=min)
    found, other = (min(fits[key], key=spent) for key in ("round", "image"))
    assert found.converged and other.converged
    assert abs(found.gamma - other.gamma) <= crf.C * EPS, (found.gamma, other.gamma)
    cut = sum(r.seconds_cut for r in found.trace)
    qp = sum(r.seconds_qp for r in found.trace)
    cuts = n * len(found.trace)
    first = [
        n,
        found.rounds,
        f"{len(found.multipliers)}, {int((found.multipliers > 0).sum())}",
        milliseconds(once),
        f"{cuts} cuts, {milliseconds(cut / cuts)} each",
        f"{qp / (cut + qp):.0%}",
        f"{other.rounds} rounds, {milliseconds(each)} ({each / once:.1f}×)",
    ]
    gradients = {f: f(found, logits.double()) for f in (envelope_gradient, kkt_gradient)}
    largest = float(gradients[envelope_gradient].abs().max())
    off = float((gradients[kkt_gradient] - gradients[envelope_gradient]).abs().max()) / largest
    assert off < 1e-6, off
    envelope, kkt = seconds(
        device,
        repeats,
        lambda: envelope_gradient(found, logits),
        lambda: kkt_gradient(found, logits),
        pick=min,
    )
    second = [
        n,
        len(kkt_matrix(found)),
        milliseconds(envelope),
        f"{milliseconds(kkt)} ({kkt / envelope:.0f}×)",
        f"{off:.0e}",
        f"{envelope / once:.1%}, {kkt / once:.1%}",
    ]
    return first, second


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--write", action="store_true", help="store the tables in results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    parts = []
    for n in (1, 10, 33):
        parts.append(learning(n, options.repeats))
        print(*parts[-1][0], *parts[-1][1][1:], sep=" | ", flush=True)
    learnt, gradients = zip(*parts, strict=True)
    first = [
        "images of 96 × 96",
        "rounds",
        "labellings found, with λ > 0",
        "Algorithm 1",
        "its cuts",
        "its share of QPs",
        "with a QP after every image",
    ]
    second = [
        "images of 96 × 96",
        "equations",
        "envelope",
        "optimality conditions",
        "largest difference, relative",
        "share of Algorithm 1",
    ]
    where = f"{machine(torch.device('cpu'))}; the fastest of {options.repeats} turns"
    text = f"{where}\n\n{table(first, learnt)}\n\n{table(second, gradients)}\n"
    publish("max_margin", text, options.write)


if __name__ == "__main__":
    main()
