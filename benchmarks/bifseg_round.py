"""One round of BIFSeg on one crop: cut, weight map, fine-tuning, cut. How long the user waits.

python benchmarks/bifseg_round.py [--sizes 40 64] [--repeats 1] [--write]

The network of the chapter's lesson (width 8, depth 3) is trained for a moment, so that its
probabilities are no noise; the crop and the scribbles are the phantom's and the robot's. The
variants do the same steps on the same crop, in turns; times are the fastest of the turns.
--write puts the tables into benchmarks/results/bifseg_round.md.
"""

import argparse

import torch
from monai.losses import DiceLoss
from timing import machine, milliseconds, publish, seconds, table
from torch import nn

from medseg_core.models.isensee import IsenseeUNet
from medseg_core.papers.bifseg_interactive.crf import Cut, crf_graphcut, crf_links, crf_unary
from medseg_core.papers.bifseg_interactive.refine import FineTuning, bifseg_refine
from medseg_core.papers.bifseg_interactive.weight_map import Doubt, uncertainty_weights
from medseg_core.phantoms import organ_in_context, scribble_robot
from medseg_core.rng import generator, seed_all
from medseg_core.solvers.geodesic import geodesic_distance
from medseg_core.solvers.grid_cut import GridCut
from medseg_core.training.fit import fit
from medseg_core.training.samplers import batches

CUT = Cut(lam=1.0, sigma=0.1)
STEPS = 20
DOUBT = Doubt(eps=0.05)


class EveryStep(nn.Module):
    """The same fine-tuning of the last block with nothing kept: features anew at every step."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def features(self, x):
        return x

    def head(self, x):
        with torch.no_grad():
            features = self.model.features(x)
        return self.model.head(features)


def trained(steps):
    seed_all(0)
    model = IsenseeUNet(3, 1, 1, width=8, depth=3)
    data = organ_in_context(6, 32, kind=(0, 1, 2))
    data = {"image": data["image"], "mask": data["mask"].float()}
    loss = DiceLoss(sigmoid=True)
    fit(
        model,
        batches(data, 2, steps=steps, seed=0),
        lambda m, batch: loss(m(batch["image"]), batch["mask"]),
        steps=steps,
        lr=3e-3,
    )
    return model


def session(model, size, n_scribbles=4):
    """A crop of an unseen organ, P(object), and the robot's scribbles on the cut."""
    crop = organ_in_context(1, size, kind=3)
    image, truth = crop["image"], crop["mask"][0, 0]
    with torch.no_grad():
        prob = model(image).sigmoid()
    scribbles = torch.full((1, *truth.shape), 255)
    gen = generator(0, stream="annotation")
    for _ in range(n_scribbles):
        labels = crf_graphcut(prob, image, CUT, scribbles)
        place, label = scribble_robot(labels[0] > 0, truth, gen)
        scribbles[(0, *place.T)] = label
    return image, prob, scribbles


def rounds(model, size, repeats):
    """One row per variant: its parts, the whole, and how many times the first row's."""
    image, _, scribbles = session(model, size)
    variants = {
        "last block, 6 neighbours": (model, 6, "last"),
        "last block, 26 neighbours": (model, 26, "last"),
        "last block, features anew at each step": (EveryStep(model), 6, "last"),
        "all weights": (model, 6, "all"),
    }
    found = {name: [] for name in variants}

    def call(name):
        network, neighbours, weights = variants[name]
        cut = Cut(CUT.lam, CUT.sigma, neighbours)
        tuning = FineTuning(rounds=1, steps=STEPS, finetune=weights)
        found[name].append(bifseg_refine(network, image, scribbles, cut, tuning, DOUBT))

    seconds(torch.device("cpu"), repeats, *(lambda n=name: call(n) for name in variants), pick=min)
    kept, anew = (found[name][-1] for name in list(variants)[::2][:2])
    assert (kept.labels != anew.labels).float().mean() < 1e-3, "the same steps, other answers"
    rows, first = [], None
    for name, all_turns in found.items():
        best = min(all_turns, key=lambda r: r.seconds)
        parts = best.history[0].seconds
        start = best.seconds - sum(parts.values())  # features, P, distances and the first cut
        first = first or best.seconds
        times = [start, parts["weights"], parts["network"], parts["cut"], best.seconds]
        rows.append([f"{size}³", name, *map(milliseconds, times), f"{best.seconds / first:.1f}"])
    return rows


def solvers(model, size, repeats):
    """The parts that are not the network's, each against the same without what is kept."""
    image, prob, scribbles = session(model, size)
    more = scribbles.clone()
    more[0, size // 2, size // 2, size // 2] = 1
    links, neighbours = crf_links(image, CUT)
    grid = GridCut(image.shape[2:], neighbours)
    grid.cut(crf_unary(prob, scribbles)[0], links[0])
    turn = [scribbles, more]

    def kept():
        turn.reverse()  # a scribble more, a scribble less
        grid.cut(crf_unary(prob, turn[0])[0])

    seeds = (scribbles == 0)[:, None]
    calls = {
        "cut after another scribble: kept flow": kept,
        "cut after another scribble: new grid": lambda: crf_graphcut(prob, image, CUT, more),
        f"geodesic distance up to ε = {DOUBT.eps}": lambda: geodesic_distance(
            image, seeds, limit=DOUBT.eps
        ),
        "geodesic distance everywhere": lambda: geodesic_distance(image, seeds),
        "weight map": lambda: uncertainty_weights(prob, image, scribbles, DOUBT),
    }
    times = seconds(torch.device("cpu"), max(repeats, 5), *calls.values(), pick=min)
    return [[f"{size}³", name, milliseconds(t)] for name, t in zip(calls, times, strict=True)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[40, 64], help="sides of the crop")
    parser.add_argument("--repeats", type=int, default=1, help="turns after two to warm up")
    parser.add_argument("--training", type=int, default=40, help="updates of the network")
    parser.add_argument("--write", action="store_true", help="store the tables in results")
    options = parser.parse_args()
    model = trained(options.training)
    whole, parts = [], []
    for size in options.sizes:
        parts += solvers(model, size, options.repeats)
        whole += rounds(model, size, options.repeats)
        print(*parts, *whole, sep="\n", flush=True)
    header = ["crop", f"fine-tuning, {STEPS} steps", "start and first cut", "weight map"]
    header += ["network", "second cut", "in all", "ratio"]
    text = f"{machine(torch.device('cpu'))}\n\n{table(header, whole)}\n\n"
    text += f"{table(['crop', 'part', 'time'], parts)}\n"
    publish("bifseg_round", text, options.write)


if __name__ == "__main__":
    main()
