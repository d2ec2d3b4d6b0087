# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: -jupytext.text_representation
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Graph cuts
#
# :::{admonition} At a glance
# :class: tip
#
# - **Task:** label every pixel of an image as object or background, so that the labels fit the image
#   *and* each other. With 64 × 64 pixels there are $2^{4096}$ candidates.
# - **Idea:** build a network of pipes whose cheapest cut is the best labelling. The cheapest cut is
#   as large as the largest flow through the pipes, and flows are easy to find. So the answer is
#   exact.
# - **Afterwards you can** write the energy of a binary Markov random field, cut a small grid by hand,
#   say at a glance whether an energy can be cut, and use cuts with scribbles, in three dimensions,
#   and again and again.
# - **Before:** NumPy, and what a likelihood is.
# - **Time:** seconds at every scale.
# - **Used by:** [](../surfaces-and-structure/max-margin-crf) and
#   [](../weak-and-interactive-supervision/bifseg-interactive).
# :::
#
# {cite:t}`greig1989exact` cleaned binary images this way, exactly, long before the method became
# popular. {cite:t}`boykov2001interactive` brought it to medical images, with the user's scribbles.

# %% tags=["parameters"]
scale: str = "lesson"  # smoke | lesson | paper: how many random checks, how large the timed grids
seed: int = 0  # all random numbers follow from it
device: str = "auto"  # auto | cpu | cuda | cuda:1 | mps (not used: cuts run on the CPU)
data_dir: str = None  # not used: this page needs no data
extended: bool = False  # not used: nothing here needs a GPU
overrides: dict = {}  # settings to change, for example {"noise": 0.3}

# %% [markdown]
# One solver of the book's package is at work, `graphcut`. `shapes` draws, `widgets` makes the sliders.

# %%
import itertools
import time
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from medseg_book.page import plotting, scales, sources, widgets
from medseg_book.page.plotting import PALETTE, WIDTH
from medseg_core import rng
from medseg_core.physics import shapes
from medseg_core.solvers import graphcut, grid_cut

# %% [markdown]
# The scales differ in how often something is drawn and in the sizes that are timed, nothing else.


# %%
@dataclass(frozen=True)
class Settings:
    """What the three scales change."""

    n_draws: int  # random problems of the checks
    n_images: int  # noisy images of the last exercise
    timed: tuple[int, ...]  # sides of the timed squares
    noise: float = 0.2  # of the opening image, whose two greys differ by 0.3
    expected: str = "seconds"


table = {
    "smoke": Settings(n_draws=20, n_images=1, timed=(32, 64)),
    "lesson": Settings(n_draws=200, n_images=4, timed=(64, 128, 256, 512)),
    "paper": Settings(n_draws=1000, n_images=20, timed=(64, 128, 256, 512, 1024)),
}
run = scales.begin(
    "graph-cuts",
    table,
    scale=scale,
    seed=seed,
    device=device,
    overrides=overrides,
    data_dir=data_dir,
    extended=extended,
)
s = run.s
plotting.style()

# %% [markdown]
# ## A noisy image, and labels that agree
#
# An organ with a thin vessel, brighter than what surrounds it, under noise not much smaller than the
# difference. If we know the two greys $\mu_0,\mu_1$ and the noise $\sigma$, then each pixel has a
# price for either label, minus the logarithm of its likelihood (constants left out):
#
# $$u_p(k)=\frac{(I_p-\mu_k)^2}{2\sigma^2},\qquad k=0\ \text{(background)},\ 1\ \text{(object)}.$$


# %%
GREYS = (0.35, 0.65)


def organ(size: int = 64) -> np.ndarray:
    """The truth (H, W), bool: an ellipse, a bay, and a vessel of three pixels."""
    r, c = np.mgrid[:size, :size] * (64 / size)
    ellipse = ((r - 36) / 17) ** 2 + ((c - 24) / 14) ** 2 < 1
    bay = (r - 36) ** 2 + (c - 9) ** 2 < 8**2
    vessel = (abs(r - 40 + 0.55 * (c - 30)) < 1.8) & (c > 30) & (c < 60)
    return (ellipse & ~bay) | vessel


def picture(seed: int, noise: float, truth: np.ndarray) -> torch.Tensor:
    """A noisy image of it (1, 1, H, W)."""
    draw = rng.numpy_rng(seed, stream="noise").normal(0, noise, truth.shape)
    return torch.tensor(np.where(truth, GREYS[1], GREYS[0]) + draw)[None, None]


def likelihood_costs(image: torch.Tensor, noise: float) -> torch.Tensor:
    """The prices u of both labels (1, 2, H, W)."""
    return torch.cat([(image - grey) ** 2 for grey in GREYS], 1) / (2 * noise**2)


def potts(size: tuple[int, ...], connectivity: int, weight: float) -> torch.Tensor:
    """The same price for each cut pair, divided by its distance (1, O, *S)."""
    return graphcut.contrast_weights(
        torch.zeros(1, 1, *size), connectivity, lam=weight, sigma=1.0
    ).double()


truth = organ()
image = picture(run.seed, s.noise, truth)
unary = likelihood_costs(image, s.noise)

# %% [markdown]
# Each pixel for itself takes the cheaper label: salt and pepper. One can blur the image first (below,
# with the best of three widths): that averages the noise away, and smears every border as well. Or one
# can ask for labels that *agree*: neighbours with different labels pay a price too, and we want the
# labelling with the smallest sum.

# %% mystnb={"image": {"alt": "Four panels of a bright organ with a thin vessel. The noisy image; each pixel for itself, which is full of speckles; blurred and thresholded, with a ragged vessel; and the minimum cut, with smooth outlines."}} tags=["thumbnail"]
WEIGHT = 0.6
labels, energy = graphcut.binary_mrf_map(unary, potts(truth.shape, 8, WEIGHT), 8)
blurred = [gaussian_filter(image[0, 0].numpy(), b) > np.mean(GREYS) for b in (1, 1.5, 2)]
answers = {
    "each pixel for itself": (unary[0, 1] < unary[0, 0]).numpy(),
    "blurred, then the same": min(blurred, key=lambda y: (y != truth).sum()),
    "minimum cut": labels[0].numpy() == 1,
}
fig, axes = plt.subplots(1, 4, figsize=(WIDTH, 2.1))
plotting.overlay(image[0, 0], ax=axes[0])
axes[0].set_title("image")
for ax, (name, answer) in zip(axes[1:], answers.items(), strict=True):
    plotting.errors(image[0, 0], answer, truth, ax=ax)
    ax.set_title(name)
plotting.show(fig)
for name, answer in answers.items():
    print(f"{name:<24} {(answer != truth).sum():4d} wrong pixels")

# %% [markdown]
# Green is right, vermilion too much, blue too little. In wrong pixels the last two are close. But the
# last one is not a filter that happened to suit: it is *the* minimum of the sum, proven, of $2^{4096}$
# candidates, and the sum can say whatever else we know, where edges are, what a network believes,
# what a user marked. How is it found?
#
# ## The energy
#
# Write $y_p\in\{0,1\}$ for the label of pixel $p$ and $\mathcal N$ for the pairs of neighbours.
# The sum that we minimised is
#
# $$E(y)=\sum_p u_p(y_p)+\sum_{(p,q)\in\mathcal N}w_{pq}\,[y_p\ne y_q],\qquad w_{pq}\ge0.$$
#
# The first sum, the **unary** terms, says how well each pixel's own data fit its label. They may come
# from a likelihood as here, or from a network: then $u_p(1)=-\log p_p$ and
# $u_p(0)=-\log(1-p_p)$. The second sum, the **pairwise** terms, measures the length of the border.
# $e^{-E}$ is a probability without its constant, a *Markov random field*, and its most probable
# labelling (maximum a posteriori, MAP) is the minimum of $E$.
#
# Only the difference $d_p=u_p(1)-u_p(0)$ matters for the labels: adding a constant to both prices
# of a pixel adds it to every candidate. So each pixel *votes*, with $d_p>0$ for background and with
# $d_p<0$ for object.
#
# ## Sixteen pixels by hand
#
# Here is a grid that one can work out on paper: votes $d_p$ in the circles, and $w=1$ for each of the
# 24 pairs. Two pixels are noisy: one inside the object votes for background, and one in the corner
# for the object.

# %%
VOTES = np.array([[3, 2, 3, -1], [2, -4, -3, 2], [3, -3, 1, 2], [3, -4, -4, 2]])
SIZE = VOTES.shape


def neighbours(size: tuple[int, int]) -> list[tuple]:
    """Each pair of neighbours once: right and below."""
    pixels = list(np.ndindex(*size))
    pairs = [(p, (p[0] + r, p[1] + c)) for p in pixels for r, c in ((0, 1), (1, 0))]
    return [(p, q) for p, q in pairs if q in pixels]


def energy_of(y: np.ndarray, votes: np.ndarray, w: float = 1) -> float:
    """Energy of one labelling, or of a stack of them (..., H, W), up to its constant."""
    border = sum(y[(..., *p)] != y[(..., *q)] for p, q in neighbours(votes.shape))
    return (votes * y).sum((-2, -1)) + w * border


every = np.array(list(itertools.product((0, 1), repeat=16))).reshape(-1, *SIZE)
energies = energy_of(every, VOTES)
best = every[energies.argmin()]
own = (VOTES < 0).astype(int)
print(
    f"{len(every)} labellings, {np.sum(energies == energies.min())} of them with the least energy"
)
print(f"energy of the votes alone {energy_of(own, VOTES)}, the least {energies.min()}")
print(best)

# %% [markdown]
# Trying all of them works for sixteen pixels. Now the trick. Think of water:
#
# - a **source** and a **sink** are added to the pixels;
# - a pixel that votes for background is tied to the source by a pipe of capacity $d_p$, one that votes
#   for object to the sink by a pipe of capacity $-d_p$;
# - neighbours are joined by pipes of capacity $w_{pq}$, in both directions.
#
# A **cut** splits the pixels into those on the source's side, labelled 0, and those on the sink's,
# labelled 1, and pays for every pipe that leads from the first to the second. Now compare. Two
# neighbours with different labels pay $w_{pq}$. A pixel labelled 1 against its vote pays
# $d_p$, and one labelled 0 against its vote $-d_p$. That is the energy, up to the constant
# $\sum_p\min(d_p,0)$: **every labelling is a cut, and its energy is the price of the cut**.
#
# And a cut can be found by pouring water. However we route it from source to sink, everything must
# pass the cut, *any* cut. So each flow is a lower bound on each cut, and when a flow has filled all
# pipes of some cut, then that cut is the cheapest. Pushing water along paths with room to spare,
# until there is none, ends just there. This is the theorem of {cite:t}`ford1956maximal`, and these
# are all the lines it takes.


# %%
def network(votes: np.ndarray, w: float = 1) -> dict:
    """Capacity of each pipe, network[from][to]; 's' and 't' are the terminals."""
    pipes = {node: {} for node in ("s", "t", *np.ndindex(*votes.shape))}
    for p in np.ndindex(*votes.shape):
        pipes["s"][p], pipes[p]["s"] = max(votes[p], 0), 0
        pipes[p]["t"], pipes["t"][p] = max(-votes[p], 0), 0
    for p, q in neighbours(votes.shape):
        pipes[p][q] = pipes[q][p] = w
    return pipes


def find_path(room: dict) -> tuple[list, set]:
    """A shortest path from 's' to 't' through pipes with room, and all nodes that were reached."""
    came_from, queue = {"s": None}, ["s"]
    for p in queue:
        for q, left in room[p].items():
            if left > 0 and q not in came_from:
                came_from[q] = p
                queue.append(q)
    path = ["t"] if "t" in came_from else []
    while path and path[-1] != "s":
        path.append(came_from[path[-1]])
    return path[::-1], set(came_from)


def push(room: dict, path: list) -> float:
    """Fill the path; water may be sent back later, so the way back gains what this way loses."""
    steps = list(itertools.pairwise(path))
    amount = min(room[p][q] for p, q in steps)
    for p, q in steps:
        room[p][q] -= amount
        room[q][p] += amount
    return amount


# %% [markdown]
# In the pictures, a circle's number is what is left of its pipe to a terminal: orange to the source,
# blue to the sink. A line between two pixels shows what room is left in each direction (none:
# dotted). Push by push, the network fills up.


# %%
def draw(ax, room: dict, path: list, title: str, cut: set | None = None) -> None:
    """The network's room; the next path in vermilion, or the pixels beyond the cut in a square."""
    on_path = set(itertools.pairwise(path))
    for p, q in neighbours(SIZE):
        along = np.array([q[1] - p[1], q[0] - p[0]], float)
        across = 0.07 * along[::-1]
        for a, b, sign in ((p, q, 1), (q, p, -1)):
            start, stop = (
                np.array(n[::-1]) + sign * (across + f * along) for n, f in ((a, 0.3), (b, -0.3))
            )
            full = room[a][b] == 0
            used = (a, b) in on_path
            style = {
                "color": PALETTE["vermilion"] if used else "0.45" if full else "0.35",
                "linewidth": 2.6 if used else 1.2 if full else 1.1 * room[a][b],
                "linestyle": ":" if full else "-",
                "arrowstyle": "-" if full else "-|>",
                "mutation_scale": 7,
                "shrinkA": 0,
                "shrinkB": 0,
            }
            ax.annotate("", stop, start, arrowprops=style)
    for p in np.ndindex(*SIZE):
        source, sink = room["s"][p], room[p]["t"]
        colour = PALETTE["orange"] if source else PALETTE["sky"] if sink else "white"
        ends = p in (path[1], path[-2]) if path else False
        if cut is not None and p not in cut:
            ax.add_patch(plt.Rectangle((p[1] - 0.5, p[0] - 0.5), 1, 1, color="0.85", zorder=0))
        ax.plot(p[1], p[0], "o", markersize=17, color=colour, markeredgewidth=2,
                markeredgecolor=PALETTE["vermilion"] if ends else "0.4")  # fmt: skip
        ax.text(p[1], p[0], f"{source or sink:g}", ha="center", va="center_baseline", fontsize=9)
    ax.set(xlim=(-0.55, 3.55), ylim=(3.55, -0.55), aspect="equal", title=title)
    ax.axis("off")


# %%
def solve(votes: np.ndarray) -> list[tuple]:
    """Every state on the way to the largest flow: (room, next path, flow so far, reached)."""
    room, flow, states = network(votes), 0, []
    while True:
        path, reached = find_path(room)
        copy = {p: dict(pipes) for p, pipes in room.items()}
        states.append((copy, path, flow, reached))
        if not path:
            return states
        flow += push(room, path)


states = solve(VOTES)
room, _, flow, reached = states[-1]
by_hand = np.array([[(r, c) not in reached for c in range(4)] for r in range(4)]).astype(int)
votes_for_object = np.minimum(VOTES, 0).sum()
print(f"{len(states) - 1} pushes, flow {flow}; flow plus constant {flow + votes_for_object}")
print("the cut is the labelling with the least energy:", np.array_equal(by_hand, best))

# %% [markdown]
# Step through them. The first paths are short: a vote for background drowns the vote of a neighbour.
# At the end, whatever still has water to give (orange) is walled off by full pipes; the grey
# squares are the pixels that no water reaches any more, and they are the object. The speck in the
# corner is gone, the hole in the object is filled.


# %%
def push_picture(step: int) -> plt.Figure:
    room, path, flow, reached = states[step]
    fig, ax = plt.subplots(figsize=(4, 4.2))
    title = f"flow so far {flow:g}" + ("" if path else ": no path left, cut")
    draw(ax, room, path, title, None if path else reached)
    return fig


widgets.frames(
    push_picture,
    step=list(range(len(states))),
    labels={"step": "pushes"},
    alt="Four by four pixels with the room left in their pipes, and the next path",
    target_bytes=80_000,
)

# %% [markdown]
# The start, half-way, and the end once more side by side, with what the library says. It finds the
# same labels, and the same energy.

# %% mystnb={"image": {"alt": "Three states of the four by four network: full of room with a first path; half-way; and at the end, where the pixels of the object lie in grey squares, walled off by full pipes."}}
fig, axes = plt.subplots(1, 3, figsize=(WIDTH, 2.75))
for ax, step, title in zip(
    axes, (0, len(states) // 2, -1), ("start", "half-way", "end"), strict=True
):
    room, path, flow, reached = states[step]
    draw(ax, room, path, f"{title}, flow {flow:g}", None if path else reached)
plotting.show(fig)

votes = torch.tensor(VOTES, dtype=torch.float64)
costs = torch.stack([torch.zeros_like(votes), votes])[None]  # (1, 2, 4, 4)
found, least = graphcut.binary_mrf_map(costs, torch.ones(1, 2, 4, 4), 4)
print(f"graphcut: energy {least.item():g}, the same labels: {np.array_equal(found[0], by_hand)}")

# %% [markdown]
# The library is PyMaxflow, with the algorithm of {cite:t}`boykov2004comparison`: it grows search trees
# from both terminals and mends them instead of searching anew after each push. Our own part is what
# surrounds it:

# %% tags=["hide-output"]
sources.show(grid_cut.GridCut.cut, grid_cut.GridCut._build, grid_cut.GridCut._tie)

# %% [markdown]
# ## What can be cut
#
# Our pairs paid for being different. What about other pairwise terms, any table
# $\theta(y_p,y_q)$ of four prices? Rewrite it:
#
# $$\begin{aligned}\theta(y_p,y_q)&=a+b\,y_p+c\,y_q+\kappa\,(1-y_p)\,y_q,\\
# \kappa&=\theta(0,1)+\theta(1,0)-\theta(0,0)-\theta(1,1).\end{aligned}$$
#
# Four numbers for four prices, so it always works: $a=\theta(0,0)$,
# $b=\theta(1,0)-\theta(0,0)$, $c=\theta(1,1)-\theta(1,0)$. The terms with $b$ and $c$ are votes. The last
# is a pipe from $p$ to $q$, paid if $p$ is on the source's side and $q$ on the sink's. A pipe needs
# a capacity $\kappa\ge0$, hence the condition
#
# $$\theta(0,0)+\theta(1,1)\ \le\ \theta(0,1)+\theta(1,0):$$
#
# **agreeing must not cost more than disagreeing, on the whole**. Such terms are *submodular*. For
# energies of pairs the condition is not only sufficient but also necessary
# {cite:p}`kolmogorov2004what`: if one pair breaks it, then minimising such energies in general is as
# hard as any problem in NP.


# %%
def rewrite(theta: np.ndarray) -> tuple[float, float, float, float]:
    """(a, b, c, κ) of a table θ (2, 2)."""
    a, b, c = theta[0, 0], theta[1, 0] - theta[0, 0], theta[1, 1] - theta[1, 0]
    return a, b, c, theta[0, 1] + theta[1, 0] - theta[0, 0] - theta[1, 1]


generator = rng.numpy_rng(run.seed, stream="tables")
worst = 0.0
for theta in generator.normal(size=(s.n_draws, 2, 2)):
    a, b, c, kappa = rewrite(theta)
    again = [[a + b * p + c * q + kappa * (1 - p) * q for q in (0, 1)] for p in (0, 1)]
    worst = max(worst, abs(np.array(again) - theta).max())
print(f"{s.n_draws} random tables rewritten, largest error {worst:.0e}")
for name, theta in {
    "pay for being different": [[0, 1], [1, 0]],
    "pay for being alike": [[1, 0], [0, 1]],
    "object must not lie right of background": [[0, 9], [0, 0]],
    "the two rarely occur together": [[0, 0], [0, 5]],
}.items():
    kappa = rewrite(np.array(theta))[3]
    print(f"{name:<40} κ = {kappa:+d}  {'can be cut' if kappa >= 0 else 'cannot'}")

# %% [markdown]
# The third table is not symmetric, and is fine: pipes have a direction. (The surfaces of
# [](../surfaces-and-structure/ipm-surfaces) can be found by cuts whose pipes are all of this kind.)
#
# What goes wrong with the second one? Take three pixels, each of which would like to differ from the
# other two. Two labels cannot do that, one pair is always disappointed. Wherever a pair is content, it
# pulls the third into a quarrel, so no local rule settles it, and with many such triangles the number of
# tries explodes. With the ordinary sign the three simply agree. (Orange: the
# least energy.)

# %% mystnb={"image": {"alt": "Energies of the eight labellings of a triangle as bars. For the submodular pairs the two uniform labellings have the least energy. For the pairs that want to differ, six labellings share the least energy, and none has energy zero."}}
triples = np.array(list(itertools.product((0, 1), repeat=3)))
different = sum(triples[:, i] != triples[:, j] for i, j in ((0, 1), (1, 2), (0, 2)))
fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.3), sharey=True)
for ax, cost, title in (
    (axes[0], different, "each unequal pair pays 1: submodular"),
    (axes[1], 3 - different, "each equal pair pays 1: not submodular"),
):
    colours = [PALETTE["orange"] if e == cost.min() else "0.75" for e in cost]
    ax.bar(["".join(map(str, y)) for y in triples], cost, color=colours)
    for place in np.flatnonzero(cost == 0):  # a bar that cannot be seen
        ax.plot(place, 0, "o", color=PALETTE["orange"], clip_on=False)
    ax.set(xlabel="labels of the three pixels", title=title)
    ax.grid(False)
axes[0].set_ylabel("energy")
plotting.show(fig)
try:
    graphcut.binary_mrf_map(costs, torch.full((1, 2, 4, 4), -1.0), 4)
except ValueError as error:
    print("refused:", error)

# %% [markdown]
# **More than two labels.** With $K$ labels and the price $w\,[y_p\ne y_q]$ (the *Potts* model) the
# problem is hard already for $K=3$. *Alpha expansion* {cite:p}`boykov2001fast` cuts anyway: let each
# pixel choose between its present label and one label $\alpha$, which is a binary problem and
# submodular, and go through all $\alpha$ until nothing improves. The result is at most twice as dear
# as the best one, counted for the Potts model, and usually much better. Labels in an *order*, such as
# the rows of a surface, are a different matter: those can be exact again, with one node per row.
#
# ## Length, and how a grid measures it
#
# The price of a border should be its length. But a grid knows only the directions of its neighbours.
# With four of them, a straight border of length $L$ at angle $\varphi$ costs
# $L(|\cos\varphi|+|\sin\varphi|)$, so a diagonal costs 41 % more than it should. Diagonal neighbours,
# at the price $1/\sqrt2$ because they are further apart, mend most of that; in general more
# neighbours come as close to the true length as one likes {cite:p}`boykov2003geodesics`. This is why
# `contrast_weights` divides by the distance, and with `spacing` by the distance in millimetres.
#
# Does it matter? Below, the labels of the frame are given, split by a slanting line, and the inside has
# no votes at all: the cut is simply the cheapest border from one end of the line to the other. With
# four neighbours every staircase between the ends costs the same, and of all those the rule for ties
# (background) picks one far from the line. With eight there are still ties, but all of them closer to it.
# That is the *metrication error*: the border follows the grid wherever the data do not hold it.


# %% mystnb={"image": {"alt": "Left, a polar plot: the price of a straight border by its direction, with deep dents along the axes for four neighbours, rounder for eight. Middle and right: a square whose frame is labelled along a slanting line. With four neighbours the border is a corner far from the line, with eight it has two straight parts close to it."}}
def price(angle: np.ndarray, connectivity: int) -> np.ndarray:
    """Price of a straight border by its direction, with weights 1 / distance; 1 on average."""
    total = 0
    for r, c in graphcut.offsets(connectivity).tolist():
        total = total + abs(r * np.cos(angle) - c * np.sin(angle)) / np.hypot(r, c)
    return total / np.mean(total)


n, slope = 49, 0.4
rows, columns = np.mgrid[:n, :n] - n // 2
frame = (abs(rows) == n // 2) | (abs(columns) == n // 2)
below = rows > slope * columns
given = np.where(frame & (below == np.arange(2)[:, None, None]), np.inf, 0.0)[::-1].copy()
angle = np.linspace(0, 2 * np.pi, 361)
fig = plt.figure(figsize=(WIDTH, 2.6))
ax = fig.add_subplot(131, projection="polar")
for connectivity, colour in ((4, PALETTE["vermilion"]), (8, PALETTE["blue"])):
    ax.plot(angle, price(angle, connectivity), color=colour, label=f"{connectivity} neighbours")
ax.set(yticks=[0.5, 1], yticklabels=[], xticklabels=[], ylim=(0, 1.2), title="price of a direction")
for place, connectivity in ((132, 4), (133, 8)):
    y, e = graphcut.binary_mrf_map(
        torch.tensor(given)[None], potts((n, n), connectivity, 1), connectivity
    )
    right = fig.add_subplot(place)
    plotting.overlay(0.9 - 0.3 * frame, y[0], ax=right)
    ends = np.array([0, n - 1])
    right.plot(ends, slope * (ends - n // 2) + n // 2, "--", color="black", linewidth=1)
    right.set_title(f"{connectivity} neighbours")
fig.legend(loc="outside lower left", ncols=1)
plotting.show(fig)

# %% [markdown]
# ## The border where the image changes
#
# A border is more plausible where the image changes. So let it be cheap there,
#
# $$w_{pq}=\frac{\lambda}{\text{distance}(p,q)}\,\exp\Big(-\frac{(I_p-I_q)^2}{2\sigma^2}\Big),$$
#
# with $\sigma$ about the size of differences that are only noise. This is the form of
# {cite:t}`boykov2001interactive`. It matters most where the votes say little, and the extreme case
# has no votes at all, only **scribbles**: a user marks some pixels as object and some as
# background, and the cut is the cheapest border between the two.
#
# A scribble is a *hard constraint*. In the network it is a pipe that no flow can fill; in the
# energy, an infinite price for the other label. Below, an organ touches another one of the same grey, so
# that no likelihood could tell them apart. After the first two strokes the cheapest border runs around
# both. One stroke more in the second organ, and it goes through the narrow place between them
# (vermilion strokes say object, blue ones background).


# %%
def two_organs(seed: int, noise: float, size: int = 64) -> torch.Tensor:
    """Two bright ellipses that touch, (1, 1, H, W)."""
    r, c = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    first = torch.hypot((r - 36) / 18, (c - 22) / 13) - 1
    second = torch.hypot((r - 25) / 12, (c - 41) / 12) - 1
    bright = shapes.coverage(12 * torch.minimum(first, second))
    draw = noise * torch.randn(size, size, generator=rng.generator(seed, stream="organs"))
    return (GREYS[0] + (GREYS[1] - GREYS[0]) * bright + draw)[None, None]


def scribble(unary: torch.Tensor, label: int, start: tuple, stop: tuple) -> torch.Tensor:
    """The costs (2, H, W) with a straight stroke held at a label: the other one is forbidden."""
    steps = torch.linspace(0, 1, 200)[:, None]
    stroke = torch.tensor(start) + steps * (torch.tensor(stop) - torch.tensor(start))
    rows, columns = stroke.round().long().T
    unary = unary.clone()
    unary[1 - label, rows, columns] = torch.inf
    return unary


organs = two_organs(run.seed, 0.05)
edges = graphcut.contrast_weights(organs, 8, lam=1.0, sigma=0.08)
no_votes = torch.zeros(2, 64, 64)
strokes = [(1, (26.0, 22.0), (46.0, 22.0)), (0, (8.0, 4.0), (60.0, 4.0))]
stages = [scribble(scribble(no_votes, *strokes[0]), *strokes[1])]
stages.append(scribble(stages[0], 0, (20.0, 42.0), (30.0, 46.0)))

# %% [markdown]
# The image and its prices stay as they are while the user works, only unaries change. `GridCut` makes
# use of that: it keeps the network and the flow. A largest flow is still a flow when a pipe to a
# terminal becomes wider, and all that remains is to find what more can now be pushed
# {cite:p}`kohli2007dynamic`. The answer is the same as from scratch.

# %% mystnb={"image": {"alt": "Three panels of two bright organs that touch: the image; with a stroke in the first organ and one at the left edge the object is both organs; with another stroke in the second organ only the first one is left, cut off at the narrow place."}}
grid = grid_cut.GridCut((64, 64), connectivity=8)
grid.cut(no_votes, edges[0])
fig, axes = plt.subplots(1, 3, figsize=(WIDTH, 2.6))
plotting.overlay(organs[0, 0], ax=axes[0])
axes[0].set_title("image")
for ax, held in zip(axes[1:], stages, strict=True):
    y, e = grid.cut(held)  # no weights: those of the last cut
    scratch, _ = graphcut.binary_mrf_map(held[None], edges, 8)
    plotting.overlay(organs[0, 0], y, ax=ax)
    for label, colour in ((1, PALETTE["vermilion"]), (0, PALETTE["blue"])):
        r, c = torch.isinf(held[1 - label]).nonzero().T
        ax.plot(c, r, ".", color=colour, markersize=3)
    same = "as" if torch.equal(y, scratch[0]) else "not as"
    ax.set_title(f"border {e:.1f}, {same} from scratch")
plotting.show(fig)

# %% [markdown]
# Each scribble can only make the least energy larger, since it takes candidates away. And note what
# the cut optimises: *length*, weighted. Without votes a small object around the stroke would be
# cheapest of all, were it not for the contrast. Cuts prefer short borders, and thin things suffer first
# (the **shrinking bias**). Votes are the remedy, which is why one trains a network for them.
#
# ## Three dimensions
#
# Nothing above asked how the pixels are arranged. In a volume each voxel has 6 or 26 neighbours, and
# scanners make voxels that are longer than wide. Below, slices lie 4 mm apart and pixels 1 mm. Cutting
# each slice for itself ignores what the next one knows; cutting the volume as if it were made of
# cubes trusts it too much; with `spacing`, pairs across slices count a quarter.

# %% mystnb={"image": {"alt": "Three rows of five slices through a noisy ball: cut slice by slice, with ragged outlines and specks; cut as if of cubes, far too much in the outer slices and too little in the middle ones; cut with the spacing, with the fewest errors."}}
D, H, W = 9, 40, 40
z, r, c = np.meshgrid(
    4.0 * (np.arange(D) - 4), np.arange(H) - 19.5, np.arange(W) - 19.5, indexing="ij"
)
ball = (z / 17) ** 2 + (r / 14) ** 2 + (c / 11 + 0.02 * z) ** 2 < 1
THREE_D, WEIGHT_3D = 0.45, 0.5
volume = picture(run.seed, THREE_D, ball)  # (1, 1, D, H, W)
prices = likelihood_costs(volume, THREE_D)
kinds = {
    "slice by slice": torch.stack(
        [
            graphcut.binary_mrf_map(prices[:, :, i], potts((H, W), 4, WEIGHT_3D), 4)[0][0]
            for i in range(D)
        ]
    )
}
for name, spacing in (("as cubes", (1, 1, 1)), ("with spacing", (4, 1, 1))):
    flat = graphcut.contrast_weights(
        torch.zeros_like(volume), 6, lam=WEIGHT_3D, sigma=1.0, spacing=spacing
    )
    kinds[name] = graphcut.binary_mrf_map(prices, flat, 6)[0][0]
fig, axes = plt.subplots(3, 5, figsize=(WIDTH, 4.4))
for row, (name, y) in zip(axes, kinds.items(), strict=True):
    for ax, i in zip(row, (0, 2, 4, 6, 8), strict=True):
        plotting.errors(volume[0, 0, i], y[i], ball[i], ax=ax)
    row[0].set_ylabel(name)
    print(f"{name:<15} {(y.numpy().astype(bool) != ball).sum()} wrong voxels of {ball.size}")
plotting.show(fig)

# %% [markdown]
# ## What a cut costs
#
# On paper the algorithm has a bad worst case; on images, the time grows little faster than the number
# of pixels. How much each pixel costs hangs on the problem: where the votes are clear the paths are
# short, and where everything depends on the neighbours they are long. A kept grid with new votes
# has less to do than a new one. (The [guide](../guide/solver-speed) compares with other packages.)


# %% mystnb={"image": {"alt": "Time per cut against the number of pixels, both logarithmic: lines that rise about as steeply as the dotted proportional line; clear votes lie lowest; of the weak votes' two lines the kept grid's is the lower one."}}
def median_ms(calls) -> float:
    """Median processor time of the calls in milliseconds, the first one left out."""
    times = []
    for call in calls:
        start = time.process_time()
        call()
        times.append(1e3 * (time.process_time() - start))
    return float(np.median(times[1:]))


def votes_at(noise: float, side: int, turn: int) -> torch.Tensor:
    """Costs (1, 2, H, W) of the organ under noise; each turn brightens another part of the image."""
    lamp = 0.02 * turn * torch.sin(torch.arange(side) / 9.0)
    return likelihood_costs(picture(run.seed, noise, organ(side)) + lamp, noise)


def timing(noise: float, side: int, keep: bool) -> float:
    smooth, grid = potts((side, side), 8, WEIGHT), grid_cut.GridCut((side, side), 8)
    turns = [votes_at(noise, side, turn) for turn in range(6)]
    grid.cut(turns[0][0], smooth[0])
    if keep:
        return median_ms([lambda u=u: grid.cut(u[0]) for u in turns])
    return median_ms([lambda u=u: graphcut.binary_mrf_map(u, smooth, 8) for u in turns])


curves = {
    "clear votes": [timing(0.08, side, False) for side in s.timed],
    "weak votes": [timing(0.35, side, False) for side in s.timed],
    "weak votes, kept grid": [timing(0.35, side, True) for side in s.timed],
}
fig, ax = plt.subplots(figsize=(5, 3))
pixels = np.array(s.timed) ** 2
for (name, values), marker in zip(curves.items(), "os^", strict=True):
    ax.loglog(pixels, values, marker=marker, label=name)
ax.loglog(
    pixels, curves["clear votes"][0] * pixels / pixels[0], ":", color="0.5", label="proportional"
)
ax.set(xlabel="pixels, 8 neighbours", ylabel="time for a cut [ms]")
ax.legend()
plotting.show(fig)

# %% [markdown]
# ## Explore
#
# **Smoothness and noise.** At weight 0 each pixel is alone. Raise it: first the speckles go, then
# corners are rounded, then the vessel breaks, and in the end the cheapest border is none at all. The
# more noise, the narrower the range in between.


# %%
def smoothness_picture(noise: float, weight: float) -> plt.Figure:
    image = picture(run.seed, noise, truth)
    prices = likelihood_costs(image, noise)
    y, _ = graphcut.binary_mrf_map(prices, potts(truth.shape, 8, weight), 8)
    y = y[0].numpy().astype(bool)
    fig, (left, right) = plt.subplots(1, 2, figsize=(6, 3.1))
    left.imshow(image[0, 0], cmap="gray", vmin=-0.3, vmax=1.3)
    plotting.errors(image[0, 0].clamp(-0.3, 1.3), y, truth, ax=right)
    left.set_title(f"noise {noise:g}")
    left.set_axis_off()
    right.set_title(f"{(y != truth).sum()} wrong pixels")
    return fig


widgets.frames(
    smoothness_picture,
    noise=[0.1, 0.2, 0.4],
    weight=[0, 0.3, 0.6, 1.2, 2.5, 5],
    start={"noise": 0.2, "weight": 0.6},
    labels={"noise": "noise", "weight": "weight w"},
    alt="Noisy image of the organ and its minimum cut, right and wrong pixels in colours",
    target_bytes=110_000,
)

# %% [markdown]
# **The contrast term.** Now with $\lambda$ and $\sigma$ on the two organs, with the last strokes, and
# with weak votes by grey, which take both organs for object. From which $\lambda$ on does the stroke
# in the second organ win all of it? On the left is the price of a border, averaged over each pixel's
# pairs (dark: cheap). A small $\sigma$ takes noise for edges; a large one sees hardly any edge, and little but
# length remains.


# %%
grey_votes = 0.1 * likelihood_costs(organs.double(), 0.15)[0]
held = torch.where(torch.isinf(stages[-1]), torch.inf, grey_votes)


def contrast_picture(lam: float, sigma: float) -> plt.Figure:
    weights = graphcut.contrast_weights(organs, 8, lam=lam, sigma=sigma)
    y, e = graphcut.binary_mrf_map(held[None], weights, 8)
    fig, (left, right) = plt.subplots(1, 2, figsize=(6, 3.1))
    left.imshow(weights[0, :, :-1, 1:-1].mean(0) / lam, cmap="cividis", vmin=0, vmax=0.85)
    left.set_title("price of a border / λ")
    left.set_axis_off()
    plotting.overlay(organs[0, 0], y[0], ax=right)
    right.set_title(f"least energy {e.item():.0f}")
    return fig


widgets.frames(
    contrast_picture,
    lam=[0.03, 0.1, 0.3, 1, 3],
    sigma=[0.02, 0.05, 0.1, 0.3],
    start={"lam": 1, "sigma": 0.1},
    labels={"lam": "λ", "sigma": "σ"},
    alt="Price of a border at each pixel, and the minimum cut of the two organs with the strokes",
    target_bytes=110_000,
)

# %% [markdown]
# ## Exercises
#
# ### Exercise 1 (think)
#
# A pixel has the vote $d_p$, and its pairs have the weights $w_{pq}$. From which $|d_p|$ on is its label
# known *before* any cut, whatever its neighbours do? Why does the same number serve as "infinity" for a
# scribble? And what may one do with pixels that are known?
#
# :::{dropdown} Solution
# Turning the pixel to the label it voted for gains $|d_p|$ and loses, at most, all its weights, if all
# neighbours have the other label. So from $|d_p|>\sum_q w_{pq}$ on, it has its own way in every
# optimum. A scribble of that size is obeyed, and a larger one changes nothing; `GridCut` cuts
# unaries off there, so that infinity never enters the flow. A known pixel can be left out of the network:
# its pairs become votes of its neighbours, $w_{pq}$ for its own label, and some of *them* may now
# be known as well. On confident maps this shrinks the network much. It is only worth while if finding
# those pixels is cheaper than cutting them, and with a fast cut it often is not.
# :::
#
# ### Exercise 2 (code)
#
# How sure is a label? Compute, for each pixel, by how much the least energy rises if that pixel is
# *forced* to the other label (its *min-marginal* difference), and draw it. A kept grid makes the
# many cuts cheap.

# %% mystnb={"image": {"alt": "Left, the noisy organ with its cut; right, the extra energy of forcing each pixel to the other label: small along the border and in the vessel, large inside and far outside."}} tags=["hide-input"]
crop = (slice(14, 60), slice(6, 62))
prices = unary[0][(slice(None), *crop)]
smooth = potts(prices.shape[1:], 8, WEIGHT)
grid = grid_cut.GridCut(prices.shape[1:], 8)
y, least = grid.cut(prices, smooth[0])
extra = np.zeros(y.shape)
for p in np.ndindex(*y.shape):
    forced = prices.clone()
    forced[(int(y[p]), *p)] = torch.inf
    extra[p] = grid.cut(forced)[1] - least
fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.9))
plotting.overlay(image[0, 0][crop], y, ax=left)
shown = right.imshow(extra, cmap="cividis", vmax=8)
fig.colorbar(shown, ax=right, label="extra energy", extend="max")
right.set_axis_off()
plotting.show(fig)
unsure = extra < 2
wrong = y.numpy().astype(bool) != truth[crop]
print(f"{unsure.mean():.0%} of the pixels are cheap to turn; {wrong[unsure].sum()} of the "
      f"{wrong.sum()} wrong ones are among them")  # fmt: skip

# %% [markdown]
# A cut gives one labelling and no probabilities, but it can be asked what another one would cost. Where
# turning a pixel is cheap, a user's scribble is best spent.
#
# ### Exercise 3 (experiment)
#
# The likelihood knows the noise, so the votes are right as they are. Is there one weight that is best for
# all noise levels? First guess; then count wrong pixels over weights, for three levels of noise and
# several draws.

# %% mystnb={"image": {"alt": "Share of wrong pixels against the weight, one curve per noise level: each falls, has a flat minimum, and rises again; with more noise it lies higher and rises sooner."}} tags=["hide-input"]
trial = np.array([0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.2, 1.8, 2.5])
fig, ax = plt.subplots(figsize=(5, 2.9))
for noise in (0.15, 0.25, 0.4):
    share = np.zeros((s.n_images, len(trial)))
    for i, j in np.ndindex(*share.shape):
        prices = likelihood_costs(picture(run.seed + i, noise, truth), noise)
        y, _ = graphcut.binary_mrf_map(prices, potts(truth.shape, 8, float(trial[j])), 8)
        share[i, j] = (y[0].numpy().astype(bool) != truth).mean()
    mean = share.mean(0)
    ax.plot(trial, 100 * mean, marker="o", markersize=3, label=f"noise {noise:g}")
    print(f"noise {noise:g}: {100 * mean.min():.1f} % wrong at weight {trial[mean.argmin()]:g}")
ax.set(xlabel="weight w", ylabel="wrong pixels [%]", yscale="log")
ax.yaxis.set_major_formatter("{x:g}")
ax.legend()
plotting.show(fig)

# %% [markdown]
# One might think so, for with likelihoods as votes the weight says something about shapes alone: how
# often neighbours differ. Yet with much noise the best weight is smaller, and soon after it the organ
# is gone altogether. The cut returns the single most probable labelling, not the one with the fewest
# wrong pixels; once votes are weak, giving up the whole vessel, and then the organ, is the cheapest
# of all stories. So the weight has to be tuned to the votes, and the more so if they come from a
# network that is surer than it should be; or it is learned together with the network, which is the
# subject of [](../surfaces-and-structure/max-margin-crf). The chapter
# [](../weak-and-interactive-supervision/bifseg-interactive) goes the other way and lets the cut teach
# the network, with a user's scribbles.
#
# ## Words
#
# Capacity
# : How much can flow through a pipe; the price of cutting it.
#
# Cut
# : A division of the nodes into the source's side and the sink's. Its price is the sum of the capacities
#   that lead from the first to the second.
#
# Markov random field
# : A probability of labellings in which a pixel depends on the rest through its neighbours only.
#
# Metrication error
# : The preference of a grid for borders along its own directions.
#
# Submodular
# : Agreeing costs no more than disagreeing, on the whole; the condition under which a pairwise term
#   is a pipe.
#
# Unary, pairwise
# : A price of one pixel's label, and of two neighbours' labels.
