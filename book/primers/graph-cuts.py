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
# - **Task:** label each pixel as object or background, so that labels fit the image *and* each other.
# - **Idea:** build a network of pipes whose cheapest cut is the best labelling. The largest flow
#   through the pipes finds it, exactly.
# - **Afterwards you can** write the energy of a Markov random field, say which ones can be cut, and
#   use cuts with scribbles and in three dimensions.
# - **Before:** NumPy, likelihoods. **Time:** seconds. **Used by:**
#   [max-margin CRF](../surfaces-and-structure/max-margin-crf),
#   [BIFSeg](../weak-and-interactive-supervision/bifseg-interactive).
# :::

# %% mystnb={"code_prompt_show": "Parameters"} tags=["parameters", "hide-input"]
scale: str = "lesson"  # smoke | lesson | paper: how many random checks and noisy images
seed: int = 0  # all random numbers follow from it
device: str = "auto"  # auto | cpu | cuda | cuda:1 | mps (not used: cuts run on the CPU)
data_dir: str = None  # not used: this page needs no data
extended: bool = False  # not used: nothing here needs a GPU
overrides: dict = {}  # settings to change, for example {"noise": 0.3}

# %% mystnb={"code_prompt_show": "Set-up: imports and the three scales"} tags=["hide-input"]
import itertools
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from medseg_book.page import exercises, plotting, scales, sources, widgets
from medseg_book.page.plotting import BASELINES, ROLES, WIDTH
from medseg_core import rng
from medseg_core.physics import shapes
from medseg_core.solvers import graphcut, grid_cut


@dataclass(frozen=True)
class Settings:
    n_draws: int  # random problems of the checks
    n_images: int  # noisy images of the last exercise
    noise: float = 0.2  # of the opening image, whose two greys differ by 0.3
    expected: str = "seconds"


table = {"smoke": Settings(20, 1), "lesson": Settings(200, 4), "paper": Settings(1000, 20)}
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
OBJECT, BACKGROUND, METHOD = (ROLES[role] for role in ("object", "background", "method"))

# %% [markdown]
# ## The problem

# %% mystnb={"code_prompt_show": "The organ, its noisy image, prices of labels"} tags=["hide-input"]
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

# %% mystnb={"code_prompt_show": "The figure", "image": {"alt": "Four panels of a bright organ with a thin vessel. The noisy image; each pixel for itself, which is full of speckles; blurred and thresholded, with a ragged vessel; and the minimum cut, with smooth outlines."}} tags=["thumbnail", "hide-input"]
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
wrong = [f"{name} {(answer != truth).sum()}" for name, answer in answers.items()]
for ax, (name, answer) in zip(axes[1:], answers.items(), strict=True):
    plotting.errors(image[0, 0], answer, truth, ax=ax)
    ax.set_title(name)
plotting.show(
    fig,
    caption="A noisy image and three labellings: right in green, too much in vermilion, too little "
    f"in sky blue. Wrong pixels: {', '.join(wrong)}.",
)

# %% [markdown]
# An organ with a thin vessel, under noise not much smaller than the difference in grey. Each pixel
# for itself takes the label that its grey makes likelier: salt and pepper.
#
# One can blur the image first (here with the best of three widths): that averages the noise away,
# and smears every border as well. Or one can ask for labels that *agree*. In wrong pixels the last
# two are close. But the last one is not a filter that happened to suit: it is *the* minimum of a
# sum, proven, of the $2^{4096}$ labellings of 64 × 64 pixels, and the sum can say whatever else we
# know: where edges are, what a network believes, what a user marked.
#
# {cite:t}`greig1989exact` cleaned binary images this way long before the method became popular;
# {cite:t}`boykov2001interactive` brought it to medical images, with the user's scribbles.
#
# ## The method
#
# ### The energy
#
# We know the two greys $\mu_0,\mu_1$ and the noise $\sigma$. So each pixel has a price for either
# label, minus the logarithm of its likelihood (constants left out), and a pair of neighbours pays
# $w_{pq}$ if its labels differ. With $y_p\in\{0,1\}$ for the label of pixel $p$ and $\mathcal N$
# for the pairs, the sum is
#
# $$E(y)=\sum_p u_p(y_p)+\sum_{(p,q)\in\mathcal N}w_{pq}\,[y_p\ne y_q],\qquad
# u_p(k)=\frac{(I_p-\mu_k)^2}{2\sigma^2},\quad w_{pq}\ge0.$$
#
# **Predict, then move.** At weight 0 each pixel is alone. Raise $w$: what goes first, the speckles,
# the corners or the vessel? And does more noise call for a larger weight?


# %% mystnb={"code_prompt_show": "The sliders"} tags=["hide-input"]
def smoothness_picture(noise: float, weight: float) -> plt.Figure:
    image = picture(run.seed, noise, truth)
    prices = likelihood_costs(image, noise)
    y, _ = graphcut.binary_mrf_map(prices, potts(truth.shape, 8, weight), 8)
    y = y[0].numpy().astype(bool)
    fig, (left, right) = plt.subplots(1, 2, figsize=(6, 3.1))
    plotting.overlay(image[0, 0].clamp(-0.3, 1.3), ax=left)
    plotting.errors(image[0, 0].clamp(-0.3, 1.3), y, truth, ax=right)
    right.set_title(f"{(y != truth).sum()} wrong pixels")
    return fig


widgets.frames(
    smoothness_picture,
    noise=[0.05, 0.1, 0.2, 0.3, 0.4],
    weight=[0, 0.3, 0.6, 1.2, 2.5, 5],
    start={"noise": 0.2, "weight": 0.6},
    labels={"noise": "noise", "weight": "weight w"},
    alt="Noisy image of the organ and its minimum cut, right and wrong pixels in colours",
    caption="The organ under noise, and its minimum cut: right in green, too much in vermilion, "
    "too little in sky blue. First the speckles go, then corners are rounded, then the vessel "
    "breaks, and in the end the cheapest border is none at all.",
    target_bytes=95_000,
)

# %% [markdown]
# The first sum holds the **unary** terms, how well each pixel's own data fit its label. They may
# come from a network instead: then $u_p(1)=-\log p_p$ and $u_p(0)=-\log(1-p_p)$. The second sum,
# the **pairwise** terms, measures the length of the border. $e^{-E}$ is a probability without its
# constant, a *Markov random field*, and its most probable labelling (maximum a posteriori, MAP) is
# the minimum of $E$.
#
# Only the difference $d_p=u_p(1)-u_p(0)$ matters for the labels: adding a constant to both prices
# of a pixel adds it to every candidate. So each pixel *votes*, with $d_p>0$ for background and with
# $d_p<0$ for object.
#
# ### Sixteen pixels by hand
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
print(
    f"{np.sum(energies == energies.min())} of {len(every)} labellings has the least energy:\n{best}"
)

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


# %%
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
assert flow + np.minimum(VOTES, 0).sum() == energies.min(), "flow and energy do not agree"
assert np.array_equal(by_hand, best), "the cut is not the labelling with the least energy"
costs = torch.tensor(np.stack([0.0 * VOTES, VOTES]))[None]  # (1, 2, 4, 4)
ones = torch.ones(2, 4, 4, dtype=torch.float64)
found, _ = graphcut.binary_mrf_map(costs, ones[None], 4)
assert np.array_equal(found[0], by_hand), "the library finds another cut"

# %% [markdown]
# The flow plus the constant is the least energy, the cut is the labelling found by trying all, and
# the library agrees. **Now step through the pushes. Which path is the first that sends water back?**


# %% mystnb={"code_prompt_show": "How the network is drawn"} tags=["hide-input"]
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
            style = {"mutation_scale": 7, "shrinkA": 0, "shrinkB": 0, "color": "0.35"}
            if room[a][b] == 0:
                style |= {"arrowstyle": "-", "linestyle": ":", "linewidth": 1.2}
            else:
                style |= {"arrowstyle": "-|>", "linewidth": 1.1 * room[a][b]}
            if (a, b) in on_path:
                style |= {"color": BASELINES[0], "linewidth": 2.6}
            ax.annotate("", stop, start, arrowprops=style)
    for p in np.ndindex(*SIZE):
        source, sink = room["s"][p], room[p]["t"]
        colour = BACKGROUND if source else OBJECT if sink else "white"
        ends = p in (path[1], path[-2]) if path else False
        if cut is not None and p not in cut:
            ax.add_patch(plt.Rectangle((p[1] - 0.5, p[0] - 0.5), 1, 1, color="0.85", zorder=0))
        edge = BASELINES[0] if ends else "0.4"
        ax.plot(p[1], p[0], "o", markersize=17, color=colour, mec=edge, mew=2)
        ax.text(p[1], p[0], f"{source or sink:g}", ha="center", va="center_baseline", fontsize=9)
    ax.set(xlim=(-0.55, 3.55), ylim=(3.55, -0.55), aspect="equal", title=title)
    ax.axis("off")


# %% mystnb={"code_prompt_show": "The slider"} tags=["hide-input"]
def push_picture(pushes: int) -> plt.Figure:
    room, path, flow, reached = states[pushes]
    fig, ax = plt.subplots(figsize=(4, 4.2))
    title = f"flow so far {flow:g}" + ("" if path else ": no path left, cut")
    draw(ax, room, path, title, None if path else reached)
    return fig


widgets.frames(
    push_picture,
    pushes=list(range(len(states))),
    alt="Four by four pixels with the room left in their pipes, and the next path",
    caption="A circle's number is what is left of its pipe to a terminal: sky blue to the source "
    "(votes for background), orange to the sink (for object). A line is the room in one direction "
    "(none: dotted), vermilion the next path. At last full pipes wall off the object (grey).",
    target_bytes=80_000,
)

# %% [markdown]
# The library is PyMaxflow, with the algorithm of {cite:t}`boykov2004comparison`: it grows search trees
# from both terminals and mends them instead of searching anew after each push. Our own part is what
# surrounds it:

# %% tags=["hide-output"]
sources.show(grid_cut.GridCut.cut, grid_cut.GridCut._build, grid_cut.GridCut._tie)

# %% [markdown]
# ### What can be cut
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


for theta in rng.numpy_rng(run.seed, stream="tables").normal(size=(s.n_draws, 2, 2)):
    a, b, c, kappa = rewrite(theta)
    again = [[a + b * p + c * q + kappa * (1 - p) * q for q in (0, 1)] for p in (0, 1)]
    assert np.allclose(again, theta), "the four numbers do not give the table back"

# %% mystnb={"code_prompt_show": "The table"} tags=["hide-input"]
tables = {
    "pay for being different": [[0, 1], [1, 0]],
    "pay for being alike": [[1, 0], [0, 1]],
    "object must not lie right of background": [[0, 9], [0, 0]],
    "the two rarely occur together": [[0, 0], [0, 5]],
}
kappas = {name: rewrite(np.array(theta))[3] for name, theta in tables.items()}
rows = [[name, f"{k:+d}", "yes" if k >= 0 else "no"] for name, k in kappas.items()]
plotting.Table(["pair", "κ", "can be cut"], rows)

# %% [markdown]
# The third table is not symmetric, and is fine: pipes have a direction. (The surfaces of
# [](../surfaces-and-structure/ipm-surfaces) can be found by cuts whose pipes are all of this kind.)
#
# What goes wrong with the second one? Take three pixels, each of which would like to differ from the
# other two. Two labels cannot do that, one pair is always disappointed. Wherever a pair is content, it
# pulls the third into a quarrel, so no local rule settles it, and with many such triangles the number of
# tries explodes. With the ordinary sign the three simply agree. All eight labellings:

# %%
triples = np.array(list(itertools.product((0, 1), repeat=3)))
unequal = sum(triples[:, i] != triples[:, j] for i, j in ((0, 1), (1, 2), (0, 2)))
assert np.sum(unequal == unequal.min()) == 2  # pay for being different: all alike, two ways
assert np.sum(3 - unequal == 1) == 6 and (3 - unequal).min() == 1  # pay for being alike: a quarrel

# %% [markdown]
# **More than two labels.** With $K$ labels and the price $w\,[y_p\ne y_q]$ (the *Potts* model) the
# problem is hard already for $K=3$. *Alpha expansion* {cite:p}`boykov2001fast` cuts anyway: let each
# pixel choose between its present label and one label $\alpha$, which is a binary problem and
# submodular, and go through all $\alpha$ until nothing improves. The result is at most twice as dear
# as the best one, counted for the Potts model, and usually much better. Labels in an *order*, such as
# the rows of a surface, are a different matter: those can be exact again, with one node per row.
#
# ### Length, and how a grid measures it
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


# %% mystnb={"code_prompt_show": "The figure", "image": {"alt": "Two squares whose frame is labelled along a slanting line. With four neighbours the border is a corner far from the line, with eight it has two straight parts close to it."}} tags=["hide-input"]
n, slope = 49, 0.4
rows, columns = np.mgrid[:n, :n] - n // 2
frame = (abs(rows) == n // 2) | (abs(columns) == n // 2)
below = rows > slope * columns
given = torch.tensor(np.where(frame & np.stack([below, ~below]), np.inf, 0.0))[None]
fig, axes = plt.subplots(1, 2, figsize=(5, 2.6))
for ax, neighbouring in zip(axes, (4, 8), strict=True):
    weights = potts((n, n), neighbouring, 1)
    y, _ = graphcut.binary_mrf_map(given, weights, neighbouring)
    plotting.overlay(0.9 - 0.3 * frame, y[0], ax=ax)
    ax.plot([0, n - 1], n // 2 * np.array([1 - slope, 1 + slope]), "k--", linewidth=1)
    ax.set_title(f"{neighbouring} neighbours")
plotting.show(
    fig,
    caption="The cheapest borders (edge of the tint) between the ends of the dashed line, which is "
    "the shortest way. Eight neighbours keep closer to it than four.",
)

# %% [markdown]
# ### The border where the image changes
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
# both. One stroke more in the second organ, and it goes through the narrow place between them.


# %% mystnb={"code_prompt_show": "Two organs and three strokes"} tags=["hide-input"]
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
first = scribble(no_votes, 1, (26.0, 22.0), (46.0, 22.0))
stages = [scribble(first, 0, (8.0, 4.0), (60.0, 4.0))]
stages.append(scribble(stages[0], 0, (20.0, 42.0), (30.0, 46.0)))

# %% [markdown]
# The image and its prices stay as they are while the user works, only unaries change. `GridCut` makes
# use of that: it keeps the network and the flow. A largest flow is still a flow when a pipe to a
# terminal becomes wider, and all that remains is to find what more can now be pushed
# {cite:p}`kohli2007dynamic`. The answer is the same as from scratch.

# %%
grid = grid_cut.GridCut((64, 64), connectivity=8)
grid.cut(no_votes, edges[0])
results = []
for held in stages:
    y, e = grid.cut(held)  # no weights: those of the last cut
    scratch, _ = graphcut.binary_mrf_map(held[None], edges, 8)
    assert torch.equal(y, scratch[0]), "the kept grid and a new one do not agree"
    results.append((held, y, e))

# %% mystnb={"code_prompt_show": "The figure", "image": {"alt": "Three panels of two bright organs that touch: the image; with a stroke in the first organ and one at the left edge the object is both organs; with another stroke in the second organ only the first one is left, cut off at the narrow place."}} tags=["hide-input"]
fig, axes = plt.subplots(1, 3, figsize=(WIDTH, 2.6))
plotting.overlay(organs[0, 0], titles=["image"], ax=axes[0])
for ax, (held, y, e) in zip(axes[1:], results, strict=True):
    plotting.overlay(organs[0, 0], y, ax=ax)
    for label, colour in ((1, OBJECT), (0, BACKGROUND)):
        r, c = torch.isinf(held[1 - label]).nonzero().T
        ax.plot(c, r, ".", color=colour, markersize=6, mec="black", mew=0.3)
    ax.set_title(f"least energy {e:.1f}")
plotting.show(
    fig,
    caption="Two organs of one grey that touch, and the cheapest border (tinted inside) between a "
    "stroke for the object (orange) and one for the background (sky blue). The second stroke for "
    "the background sends it through the narrow place.",
)

# %% [markdown]
# Each scribble can only make the least energy larger, since it takes candidates away. And note what
# the cut optimises: *length*, weighted. Without votes a small object around the stroke would be
# cheapest of all, were it not for the contrast. Cuts prefer short borders, and thin things suffer first
# (the **shrinking bias**). Votes are the remedy, which is why one trains a network for them.
#
# ### Three dimensions
#
# Nothing above asked how the pixels are arranged. In a volume each voxel has 6 or 26 neighbours, and
# scanners make voxels that are longer than wide. Below, slices lie 4 mm apart and pixels 1 mm. Cutting
# each slice for itself ignores what the next one knows; cutting the volume as if it were made of
# cubes trusts it too much; with `spacing`, pairs across slices count a quarter.

# %% mystnb={"code_prompt_show": "The volume, three cuts and the figure", "image": {"alt": "Three rows of five slices through a noisy ball: cut slice by slice, with ragged outlines and specks; cut as if of cubes, far too much in the outer slices and too little in the middle ones; cut with the spacing, with the fewest errors."}} tags=["hide-input"]
z, r, c = np.mgrid[:9, :40, :40]
z, r, c = 4.0 * (z - 4), r - 19.5, c - 19.5  # mm
ball = (z / 17) ** 2 + (r / 14) ** 2 + (c / 11 + 0.02 * z) ** 2 < 1
THREE_D, WEIGHT_3D = 0.45, 0.5
volume = picture(run.seed, THREE_D, ball)  # (1, 1, D, H, W)
prices = likelihood_costs(volume, THREE_D)
spacings = {"slice by slice": (1e9, 1, 1), "as cubes": (1, 1, 1), "with spacing": (4, 1, 1)}
kinds = {}
for name, spacing in spacings.items():
    weights = graphcut.contrast_weights(0 * volume, 6, lam=WEIGHT_3D, sigma=1.0, spacing=spacing)
    kinds[name] = graphcut.binary_mrf_map(prices, weights, 6)[0][0]
fig, axes = plt.subplots(3, 5, figsize=(WIDTH, 4.4))
for row, (name, y) in zip(axes, kinds.items(), strict=True):
    for ax, i in zip(row, (0, 2, 4, 6, 8), strict=True):
        plotting.errors(volume[0, 0, i], y[i], ball[i], ax=ax)
    row[0].set_ylabel(name)
wrong = [f"{name} {(y.numpy().astype(bool) != ball).sum()}" for name, y in kinds.items()]
plotting.show(
    fig,
    caption="Five of nine slices through a noisy ball, cut in three ways (green right, vermilion "
    f"too much, sky blue too little). Wrong voxels: {', '.join(wrong)}.",
)

# %% [markdown]
# ### What a cut costs
#
# On paper the algorithm has a bad worst case; on images the time grows little faster than the
# number of pixels. Where the votes are clear the water's paths are short, and where everything
# depends on the neighbours they are long. A kept grid with new votes has less to do than a new one
# (the [guide](../guide/solver-speed) measures it, and compares with other packages).

# %% [markdown]
# ## Explore
#
# **The contrast term.** Now with $\lambda$ and $\sigma$ on the two organs, with the last strokes,
# and with weak votes by grey, which take both organs for object. **From which $\lambda$ on does
# the stroke in the second organ win all of it?**


# %% mystnb={"code_prompt_show": "The sliders"} tags=["hide-input"]
grey_votes = 0.1 * likelihood_costs(organs.double(), 0.15)[0]
held = torch.where(torch.isinf(stages[-1]), torch.inf, grey_votes)


def contrast_picture(lam: float, sigma: float) -> plt.Figure:
    weights = graphcut.contrast_weights(organs, 8, lam=lam, sigma=sigma)
    y, _ = graphcut.binary_mrf_map(held[None], weights, 8)
    fig, (left, right) = plt.subplots(1, 2, figsize=(6, 3.1))
    left.imshow(weights[0, :, :-1, 1:-1].mean(0) / lam, cmap="cividis", vmin=0, vmax=0.85)
    left.set_title("price of a border / λ")
    left.set_axis_off()
    plotting.overlay(organs[0, 0], y[0], ax=right)
    return fig


widgets.frames(
    contrast_picture,
    lam=[0.03, 0.1, 0.3, 1, 3],
    sigma=[0.02, 0.05, 0.1, 0.2, 0.4],
    start={"lam": 1, "sigma": 0.1},
    labels={"lam": "λ", "sigma": "σ"},
    alt="Price of a border at each pixel, and the minimum cut of the two organs with the strokes",
    caption="Left: the price of a border, averaged over each pixel's pairs (dark: cheap). Right: "
    "the cut. A small σ takes noise for edges; with a large one little but length remains.",
    target_bytes=95_000,
)

# %% [markdown]
# ## Self-test
#
# Open the answer that you would give: it says whether it is right, and why.

# %% jupyter={"source_hidden": true} tags=["remove-input"]
exercises.quiz(
    {
        "Some flow is 7, and some cut costs 7. What do you know?": [
            (False, "there may be a cheaper cut", "It would have to let 7 through with less room."),
            (True, "the cut is a cheapest one", "All water passes every cut: none costs below 7."),
            (
                False,
                "there may be a larger flow",
                "It could not pass the cut, which has room for 7.",
            ),
        ],
        "Which pair of labels can a cut not pay for?": [
            (
                False,
                "one that charges more to the left than to the right",
                "Pipes have directions.",
            ),
            (True, "one that rewards neighbours for being different", "Then $\\kappa<0$."),
            (False, "one that costs nothing", "That is a pipe without room."),
        ],
        "What does a very large weight $w$ do without scribbles?": [
            (True, "it gives all pixels one label", "The cheapest border is none at all."),
            (False, "it draws a perfect circle", "A short border is dearer than none."),
        ],
    }
)

# %% [markdown]
# ## Exercises
#
# Write your part in the place of the dots and run the cell: `exercises.check` says how near you
# are.
#
# ### Exercise 1 (think)
#
# Some labels are known *before* any cut, whatever the neighbours do. For how many of the sixteen
# pixels by hand (`VOTES`, $w=1$) is this so?
#
# :::{dropdown} Hint
# Turn one pixel to the label it voted for. What does that gain, and what can it lose at most?
# :::

# %%
known = ...

exercises.check("ex1", known)

# %% [markdown] jupyter={"source_hidden": true} tags=["solution"]
# Turning the pixel to the label it voted for gains $|d_p|$ and loses at most all its weights. So
# from $|d_p|>\sum_q w_{pq}$ on it has its own way in every optimum. The same number serves as
# "infinity" for a scribble: a larger one changes nothing, and `GridCut` cuts unaries off there. A
# known pixel can be left out of the network: its pairs become votes of its neighbours, and some of
# *them* may now be known as well.

# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
ends = list(itertools.chain(*neighbours(SIZE)))
exercises.solution("ex1", sum(abs(VOTES[p]) > ends.count(p) for p in np.ndindex(*SIZE)))

# %% [markdown]
# ### Exercise 2 (code)
#
# How sure is a label? Compute for each pixel by how much the least energy rises if that pixel is
# *forced* to the other label (its *min-marginal* difference). `costs[0]` are the prices of the
# sixteen pixels, `ones` the weights of their pairs.
#
# :::{dropdown} Hint
# `grid = grid_cut.GridCut(size, connectivity)` keeps a network; `grid.cut(prices, weights)` gives
# labels and energy, and later `grid.cut(prices)` is cheap. Force a pixel by an infinite price.
# :::


# %%
def price_of_turning(prices: torch.Tensor, weights: torch.Tensor, connectivity: int):
    """(H, W) extra energy of turning each pixel, from prices (2, H, W)."""
    return ...


exercises.check("ex2", lambda: price_of_turning(costs[0], ones, 4), within=0.001)


# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
def turning(prices: torch.Tensor, weights: torch.Tensor, connectivity: int) -> np.ndarray:
    grid = grid_cut.GridCut(prices.shape[1:], connectivity)
    y, least = grid.cut(prices, weights)
    extra = np.zeros(y.shape)
    for p in np.ndindex(*y.shape):
        forced = prices.clone()
        forced[(int(y[p]), *p)] = torch.inf
        extra[p] = grid.cut(forced)[1] - least
    return extra


found = turning(costs[0], ones, 4)
for p in np.ndindex(*SIZE):  # by trying all, once more
    assert found[p] == energies[every[(..., *p)] != best[p]].min() - energies.min()
exercises.solution("ex2", found)

# %% [markdown] jupyter={"source_hidden": true} tags=["solution"]
# A cut gives one labelling and no probabilities, but it can be asked what another one would cost.
# Where turning a pixel is cheap, a user's scribble is best spent. On an image these are the pixels
# along the border and in the vessel: try `turning(unary[0], potts(truth.shape, 8, WEIGHT)[0], 8)`.

# %% [markdown]
# ### Exercise 3 (experiment)
#
# The likelihood knows the noise, so the votes are right as they are. Is there one weight that is
# best for all noise levels? `wrong_share(noise, weight)` is the mean share of wrong pixels over
# several draws. Guess first; then find the best of the weights in `trial` at noise 0.4.
#
# :::{dropdown} Hint
# Compare with the best weight at noise 0.15. In the sliders above, what goes wrong when the noise
# is large and the weight as well?
# :::


# %% mystnb={"code_prompt_show": "Trial weights and the share of wrong pixels"} tags=["hide-input"]
trial = [0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.2, 1.8, 2.5]


def wrong_share(noise: float, weight: float) -> float:
    images = [picture(run.seed + i, noise, truth) for i in range(s.n_images)]
    smooth = potts(truth.shape, 8, weight)
    cuts = [graphcut.binary_mrf_map(likelihood_costs(x, noise), smooth, 8)[0] for x in images]
    return float(np.mean([y[0].numpy().astype(bool) != truth for y in cuts]))


# %%
best_weight = ...  # of `trial`, at noise 0.4

exercises.check("ex3", best_weight)

# %% jupyter={"outputs_hidden": true, "source_hidden": true} mystnb={"image": {"alt": "Share of wrong pixels against the weight, one curve per noise level: each falls, has a flat minimum, and rises again; with more noise it lies higher and rises sooner."}} tags=["solution"]
fig, ax = plt.subplots(figsize=(5, 2.9))
for noise in (0.15, 0.25, 0.4):
    share = np.array([100 * wrong_share(noise, weight) for weight in trial])
    ax.plot(trial, share, marker="o", markersize=3, label=f"noise {noise:g}")
ax.set(xlabel="weight w", ylabel="wrong pixels [%]", yscale="log")
ax.yaxis.set_major_formatter("{x:g}")
fig.legend(loc="outside upper center", ncols=3, fontsize=9)
plotting.show(fig, caption="Wrong pixels against the weight, for three levels of noise.")
exercises.solution("ex3", trial[share.argmin()])

# %% [markdown] jupyter={"source_hidden": true} tags=["solution"]
# With likelihoods as votes the weight seems to say something about shapes alone. Yet with much
# noise the cut soon gives up the vessel, and then the organ: it returns the single most probable
# labelling, not the one with the fewest wrong pixels, and once votes are weak no border at all is
# the cheapest story. So the weight is tuned to the votes, or learned together with the network
# that casts them: [](../surfaces-and-structure/max-margin-crf). The chapter
# [](../weak-and-interactive-supervision/bifseg-interactive) lets the cut teach the network.

# %% [markdown]
# ## To take away
#
# - Every labelling is a cut and its energy the cut's price; the largest flow proves the cheapest.
# - A pair of labels is a pipe if agreeing costs no more than disagreeing, on the whole.
# - The weight decides what survives: speckles go first, thin vessels next, everything last.
# - Let borders be cheap where the image changes, divide by distances in millimetres, and use eight
#   neighbours (26 in a volume).
# - To use it, call `graphcut.binary_mrf_map(unary, weights)`, or keep a `grid_cut.GridCut` where a
#   user's scribbles come one after the other.
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
