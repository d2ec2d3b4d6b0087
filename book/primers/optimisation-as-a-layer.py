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
# # Optimisation as a layer
#
# :::{admonition} At a glance
# :class: tip
#
# - **Task:** let a network's last step be the solution of an optimisation problem with constraints,
#   such as "the most likely surfaces that do not cross", and still train the network by gradients.
# - **Idea:** at the solution, forces balance. These few equations say what the answer is, and
#   differentiated once they say how it moves. The way by which a solver got there plays no part.
# - **Afterwards you can** read the optimality conditions of a constrained problem as a picture, pool a
#   column by hand, write an interior-point solver and its backward pass in some thirty lines, and
#   tell when you need one.
# - **Before:** PyTorch's autograd, the normal distribution, and what a system of linear equations is.
# - **Time:** seconds at every scale.
# - **Used by:** [](../surfaces-and-structure/ipm-surfaces).
# :::
#
# {cite:t}`boyd2004convex` is the textbook of the subject, and can be read for pleasure. The step
# from solver to layer was made popular by {cite:t}`amos2017optnet`.

# %% tags=["parameters"]
scale: str = "lesson"  # smoke | lesson | paper: how many random columns, how long the timed ones
seed: int = 0  # all random numbers follow from it
device: str = "auto"  # auto | cpu | cuda | cuda:1 | mps (the columns here are few: cpu is fine)
data_dir: str = None  # not used: this page needs no data
extended: bool = False  # not used: nothing here needs a GPU
overrides: dict = {}  # settings to change, for example {"n_surfaces": 5}

# %% [markdown]
# The package brings one solver, `surface_qp`, to check ours against. SciPy and scikit-learn serve
# as further judges.

# %%
import itertools
import time
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.ticker import MaxNLocator
from scipy.linalg import solveh_banded
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import isotonic_regression
from sklearn.isotonic import isotonic_regression as sklearn_isotonic

from medseg_book.page import plotting, scales, sources, widgets
from medseg_book.page.plotting import PALETTE, WIDTH
from medseg_core import rng
from medseg_core.solvers import surface_qp

# %% [markdown]
# The scales differ in how many random columns are solved and in the sizes that are timed.


# %%
@dataclass(frozen=True)
class Settings:
    """What the three scales change."""

    n_draws: int  # noisy predictions of the opening example
    n_columns: int  # random columns of the measurements
    timed: tuple[int, ...]  # surfaces per column in the timing figure
    n_surfaces: int = 9  # surfaces per random column
    expected: str = "seconds"


table = {
    "smoke": Settings(n_draws=5, n_columns=64, timed=(10, 20)),
    "lesson": Settings(n_draws=100, n_columns=512, timed=(10, 30, 100, 300, 1000)),
    "paper": Settings(n_draws=400, n_columns=4096, timed=(10, 30, 100, 300, 1000, 3000)),
}
run = scales.begin(
    "optimisation-as-a-layer",
    table,
    scale=scale,
    seed=seed,
    device=device,
    overrides=overrides,
    data_dir=data_dir,
    extended=extended,
)
cfg = run.s
plotting.style()
SURFACE = [PALETTE[c] for c in ("orange", "sky", "green")]

# %% [markdown]
# ## Surfaces that crossed
#
# An optical coherence tomogram (OCT) cuts through the retina like a knife through a cake, and
# shows its layers. Between them run *surfaces*, and in each image column a network shall say at
# which row each of them lies. Say that it answers with a mean $\mu_i$ and a variance $\sigma_i^2$
# per surface: it *knows* where it is unsure. Here is such a strip, drawn for this page. Towards
# the left two surfaces nearly meet, and at the right a blood vessel throws its shadow; there our
# imagined network gropes.


# %%
def strip(seed: int, n: int = 96) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True rows of three surfaces (3, W), what a network might predict for them, and its σ."""
    x = np.arange(n)
    top = 14 + 3 * np.sin(2 * np.pi * x / 110)
    thickness = 9 * (1 - 0.97 * np.exp(-(((x - 26) / 12) ** 2)))
    truth = np.stack([top, top + thickness, top + thickness + 7])
    shadow = np.exp(-(((x - 70) / 9) ** 4))
    sigma = np.array([[0.7], [2.0], [1.2]]) + np.array([[0.8], [5.0], [3.0]]) * shadow
    noise = rng.numpy_rng(seed, stream="prediction").normal(size=truth.shape)
    noise = gaussian_filter1d(noise, 1.5, axis=1)  # neighbours err alike
    return truth, truth + sigma * noise / noise.std(), sigma


def picture(truth: np.ndarray, seed: int, height: int = 44) -> np.ndarray:
    """The strip's image (H, W): one grey per layer, a shadow, and speckle."""
    rows = np.arange(height)[:, None, None]
    layer = 1 / (1 + np.exp(-2 * (rows - truth.T)))  # (H, W, 3): soft steps
    grey = 0.08 + layer @ np.array([0.6, -0.33, 0.42])
    grey *= 1 - 0.8 * np.exp(-(((np.arange(truth.shape[1]) - 70) / 9) ** 4))
    return grey * rng.numpy_rng(seed, stream="speckle").gamma(16, 1 / 16, grey.shape)


def project(mu: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """This page's subject, by the book's solver: the most likely surfaces in order, (N, W)."""
    columns = torch.tensor(mu)[None], torch.tensor(sigma**2)[None]  # (1, N, W)
    return surface_qp.ordered_surfaces(*columns)[0][0].numpy()


# %% [markdown]
# Retinal layers have an order, the surfaces must not cross, and in many columns they do. What can
# be done about it? One can **sort** each column. One can let each surface **push** all below it, a
# running maximum. Or one can look for the rows $s$ that are the most likely ones *among those in
# order*:
#
# $$\min_s\ \sum_{i=1}^N\frac{(s_i-\mu_i)^2}{2\sigma_i^2}\qquad\text{subject to}\qquad
# s_1\le s_2\le\dots\le s_N.$$
#
# That is a **quadratic program** (QP): a quadratic cost, linear constraints. Here is the first random
# prediction that crosses in eight places or more.

# %% mystnb={"image": {"alt": "Two copies of a grey strip of layers. Left, three predicted surfaces with bands of uncertainty that cross near a thin place and in a dark shadow. Right, the ordered solution: the surfaces touch where they crossed, and the more certain one has moved less."}}
draws = (strip(1000 * run.seed + draw) for draw in itertools.count())
truth, mu_strip, sigma_strip = next(d for d in draws if (np.diff(d[1], axis=0) < 0).sum() >= 8)
fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.8), sharey=True)
answers = {"predicted, ± σ": mu_strip, "most likely in order": project(mu_strip, sigma_strip)}
crossed = (np.diff(mu_strip, axis=0) < 0).any(0)
for ax, (name, rows) in zip(axes, answers.items(), strict=True):
    ax.imshow(picture(truth, run.seed), vmin=0, vmax=1.1, aspect="auto")
    for i, colour in enumerate(SURFACE):
        ax.plot(rows[i], color=colour, label=f"$s_{i + 1}$")
        if rows is mu_strip:
            band = rows[i] - sigma_strip[i], rows[i] + sigma_strip[i]
            ax.fill_between(np.arange(len(rows[i])), *band, color=colour, alpha=0.25, linewidth=0)
    at = np.flatnonzero(crossed)
    ax.plot(at, np.full(len(at), 42), "|", color=PALETTE["yellow"], markersize=9, markeredgewidth=2)
    ax.set(xlabel="column", title=name, ylim=(43.5, 0))
    ax.grid(False)
axes[0].set_ylabel("row")
axes[1].legend(ncols=3, loc="upper right", labelcolor="white")
plotting.show(fig)

# %% [markdown]
# Yellow marks show the columns in which the prediction broke the order. How far from the truth are
# the repairs there, over many noisy predictions of the same strip? And how often does a repair
# make a column *worse*, its squared errors weighted by $1/\sigma_i^2$?

# %%
repairs = {
    "none": lambda mu, sigma: mu,
    "sorted": lambda mu, sigma: np.sort(mu, axis=0),
    "running maximum": lambda mu, sigma: np.maximum.accumulate(mu, axis=0),
    "most likely in order": project,
    "the same, but σ ignored": lambda mu, sigma: project(mu, np.ones_like(sigma)),
}
errors, worse = {name: [] for name in repairs}, {name: [] for name in repairs}
for draw in range(cfg.n_draws):
    truth, mu, sigma = strip(1000 * run.seed + draw)
    broken = (np.diff(mu, axis=0) < 0).any(0)
    for name, repair in repairs.items():
        error, before = repair(mu, sigma) - truth, mu - truth
        errors[name].append(np.abs(error[:, broken]))
        grown = ((error**2 - before**2) / sigma**2).sum(0)[broken] > 1e-9
        worse[name].append(grown)
for name, values in errors.items():
    by_surface = np.concatenate(values, axis=1).mean(1).round(2)
    share = np.concatenate(worse[name]).mean()
    print(f"{name:<24} mean errors of s1, s2, s3: {by_surface} rows; worse in {share:5.1%}")

# %% [markdown]
# Sorting looks good in the middle, and at a price: it hands a part of the unsure surface's error
# on to a neighbour that had been right. The optimum uses what the others throw away, the network's
# own word on where it is unsure. And it never makes a column worse: it is the *projection* of
# $\mu$ onto the set of ordered columns, in the distance that $\sigma$ defines, and a step straight
# towards a convex set is a step nearer to each of its points. The truth is one of them. The rest
# of the page asks three questions about this projection. What does the solution look like? How is
# it computed? And how does a gradient get through it?
#
# ## One picture: ellipses and a half plane
#
# Take one column with two surfaces. A candidate $s=(s_1,s_2)$ is a point in a plane. Points of
# equal cost lie on ellipses around $\mu$, wide where $\sigma$ is large. The order $s_1\le s_2$
# allows the half plane above the diagonal. If $\mu$ lies inside, it is the answer. If not, let the
# ellipse grow until it touches the allowed half: where it *touches*, it is tangent to the border,
# and that point is the cheapest.


# %%
def pair(mu: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, float]:
    """Solution and contact force of the column with two surfaces."""
    w = 1 / sigma**2
    s = mu if mu[0] <= mu[1] else np.full(2, (w * mu).sum() / w.sum())
    return s, w[0] * (mu[0] - s[0])


def draw_plane(ax: plt.Axes, mu: np.ndarray, sigma: np.ndarray) -> None:
    """Level sets, allowed half, solution, and the two forces on it."""
    s, force = pair(mu, sigma)
    x, y = np.meshgrid(np.linspace(0, 10, 201), np.linspace(0, 10, 201))
    cost = np.hypot((x - mu[0]) / sigma[0], (y - mu[1]) / sigma[1])
    touching = np.hypot(*((s - mu) / sigma))
    ax.fill_between([0, 10], [0, 10], 10, color=PALETTE["green"], alpha=0.15, linewidth=0)
    ax.contour(x, y, cost, levels=[1, 2, 3, 4, 6, 8, 11], colors="0.7", linewidths=0.7)
    if touching:
        ax.contour(x, y, cost, levels=[touching], colors=PALETTE["blue"], linewidths=1.5)
    arrow = {"width": 0.09, "head_width": 0.4, "length_includes_head": True, "zorder": 3}
    if force > 0:
        ax.arrow(*s, force, -force, color=PALETTE["blue"], **arrow)
        ax.arrow(*s, -force, force, color=PALETTE["vermilion"], **arrow)
    ax.plot(*mu, "o", color="black", markersize=5)
    ax.annotate("μ" if touching else "μ = s*", mu, (6, -8), textcoords="offset points")
    ax.plot(*s, "o", color="white", markeredgecolor="black", markersize=6, zorder=4)
    ax.annotate("s*" if touching else "", s, (6, 4), textcoords="offset points")
    ax.text(0.5, 9.1, "$s_1\\leq s_2$", color="#00694d")
    ax.set(xlabel="$s_1$ [rows]", ylabel="$s_2$ [rows]", xlim=(0, 10), ylim=(0, 10), aspect=1)
    ax.set(xticks=[0, 5, 10], yticks=[0, 5, 10])
    ax.grid(False)


# %% [markdown]
# Three columns, each a picture:

# %% mystnb={"image": {"alt": "Three planes with axes s1 and s2. Ellipses surround the point mu. Left, mu lies in the allowed half above the diagonal and is the solution. Middle and right, mu lies below, and the solution is where an ellipse touches the diagonal; there two opposite arrows balance. Right, the ellipses are narrow in s1, so that s1 has moved less than s2."}} tags=["thumbnail"]
fig, axes = plt.subplots(1, 3, figsize=(WIDTH, 2.7))
cases = {
    "in order": (3, 6, 1, 1.4),
    "crossed": (7, 4, 1, 1),
    "crossed, $s_1$ is sure": (7, 4, 0.8, 2),
}
for ax, (name, (m1, m2, d1, d2)) in zip(axes, cases.items(), strict=True):
    draw_plane(ax, np.array([m1, m2], float), np.array([d1, d2], float))
    ax.set_title(name)
plotting.show(fig)

# %% [markdown]
# The solution of a crossed pair follows at once. It lies on the diagonal, so $s_1=s_2$, and the
# best common row is the mean with the weights $w_i=1/\sigma_i^2$. The surer surface moves less, by
# the ratio of the variances. Note what did *not* happen: nobody sorted, and nobody decided which
# of the two was wrong.
#
# ## A balance of forces
#
# The arrows say when a point is optimal. The blue one is the pull of the cost, $-\nabla f$ (the
# steepest way down, at right angles to the ellipse). At the solution it points straight out of the
# allowed half, so that every move which still goes down is forbidden. The red one is the answer of
# the constraint: a wall pushes back, at right angles to itself, exactly as hard as it is pushed.
#
# In mechanics: each surface is a plate that hangs on a spring of stiffness $w_i=1/\sigma_i^2$ from
# the row $\mu_i$, and plates cannot pass through each other. The **multiplier** $\lambda$ is the
# *contact force* between them.


# %%
def draw_springs(ax: plt.Axes, mu: np.ndarray, sigma: np.ndarray) -> None:
    """Two plates on springs; thick springs are stiff. Rows count downward, as in an image."""
    s, force = pair(mu, sigma)
    for i in range(2):
        row = s[i] + (0.16 if i else -0.16) * (force > 0)  # plates have a thickness
        turns = np.linspace(mu[i], row, 16)
        side = 0.05 * np.r_[0, np.tile([1, -1], 7), 0]
        ax.plot(0.25 + 0.5 * i + side, turns, color="0.45", linewidth=min(1.6 / sigma[i], 3))
        ax.plot(0.25 + 0.5 * i, mu[i], "s", color="black", markersize=6)
        label = {"textcoords": "offset points", "bbox": {"fc": "white", "ec": "none", "pad": 0.5}}
        ax.annotate(f"$\\mu_{i + 1}$", (0.25 + 0.5 * i, mu[i]), (9, -3), **label, zorder=4)
        ax.plot([0.02, 0.98], [row, row], color=SURFACE[i], linewidth=4, solid_capstyle="butt")
    ax.set(
        xlim=(0, 1),
        ylim=(10, 0),
        xticks=[],
        ylabel="row",
        title=f"contact force λ = {max(force, 0):.2f}",
    )
    ax.grid(False)


def balance(mu1: float, sigma1: float) -> plt.Figure:
    """Both pictures of one column: μ = (μ₁, 4), σ = (σ₁, 1)."""
    mu, sigma = np.array([mu1, 4.0]), np.array([sigma1, 1.0])
    fig, axes = plt.subplots(1, 2, figsize=(5.4, 2.8), width_ratios=(2, 3))
    draw_springs(axes[0], mu, sigma)
    draw_plane(axes[1], mu, sigma)
    return fig


widgets.frames(
    balance,
    mu1=[2.0, 5.0, 7.0, 9.0],
    sigma1=[0.5, 0.7, 1.0, 1.5, 2.5],
    start={"mu1": 7.0, "sigma1": 1.0},
    labels={"mu1": "mean μ₁", "sigma1": "spread σ₁"},
    alt="Two plates on springs, and the plane with ellipses, allowed half and the two forces",
    target_bytes=110_000,
)

# %% [markdown]
# Move $\mu_1$ up to 9 and watch λ: nothing, as long as the plates are apart; then it grows with
# the overlap. Make $\sigma_1$ small: the stiff spring hardly gives way, and $s^*$ slides along the
# diagonal.
#
# Now in symbols, for $N$ surfaces and limits on the gaps from both sides, $d^{\min}_i\le
# s_{i+1}-s_i\le d^{\max}_i$ (order alone: $d^{\min}=0$, $d^{\max}=\infty$). Write all constraints
# as $Bs\le b$ and their **slacks**, the room that is left, as $g=b-Bs\ge0$. Each constraint gets a
# multiplier. The **Lagrangian** adds them to the cost, with $Q=\mathrm{Diag}(1/\sigma^2)$:
#
# $$\mathcal L(s,\lambda)=\tfrac12(s-\mu)^TQ(s-\mu)+\lambda^T(Bs-b).$$
#
# The **Karush–Kuhn–Tucker (KKT) conditions** are the mechanics, line by line:
#
# | condition | in words |
# |:--|:--|
# | $Q(s-\mu)+B^T\lambda=0$ | springs and contacts balance on each plate |
# | $g=b-Bs\ge0$ | plates do not pass through each other |
# | $\lambda\ge0$ | contacts push, they do not glue |
# | $\lambda_ig_i=0$ for each $i$ | no force without contact (*complementary slackness*) |
#
# The cost is convex and the constraints are linear, so these lines are not only necessary:
# *whoever fulfils them is the optimum*, however he came by it. As $Q$ is positive definite, there
# is only one. We shall use that all the time, because it makes answers easy to check. A constraint
# with $g_i=0$ is called **active**.
#
# ## Pooling, by hand
#
# For the order alone the picture of the plates is nearly an algorithm. Add surfaces from the top.
# If a new plate lands above the one before it, the two stick together as one *block*: its spring
# is as stiff as both together, and its row is their weighted mean. If the block now lies above its
# predecessor, these pool as well, and so on. This is the *pool adjacent violators* algorithm (PAV)
# for **weighted isotonic regression** {cite:p}`best1990active,deleeuw2009isotone`.


# %%
def pool(mu: np.ndarray, w: np.ndarray):
    """Yields the blocks (row, weight, size) after each step; the last ones are the solution."""
    blocks = []
    for row, weight in zip(mu, w, strict=True):
        blocks.append((row, weight, 1))
        yield list(blocks)
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, u, m), (b, v, n) = blocks[-2:]
            blocks[-2:] = [((u * a + v * b) / (u + v), u + v, m + n)]
            yield list(blocks)


def rows_of(blocks: list) -> np.ndarray:
    return np.concatenate([np.full(size, row) for row, _, size in blocks])


# %% [markdown]
# Step through it. Dots are the $\mu_i$, large ones have a large weight, bars are blocks (row 0 is
# at the top). In the column *landslide* nothing happens for long, until the last surface, a sure
# one, takes most of the others along.

# %%
columns = {
    "sure and unsure": ([3, 6, 4, 12, 8, 10, 17, 15], [4, 1, 1, 0.3, 4, 1, 0.5, 4]),
    "landslide": ([4, 6, 8, 10, 12, 14, 16, 1], [1, 1, 1, 1, 1, 1, 1, 6]),
}


def pooling_picture(column: str, step: int) -> plt.Figure:
    mu, w = (np.array(v, float) for v in columns[column])
    history = list(pool(mu, w))
    blocks = history[min(step, len(history)) - 1]
    seen = sum(size for *_, size in blocks)
    fig, ax = plt.subplots(figsize=(5.4, 2.8))
    i = np.arange(1, len(mu) + 1)
    ax.scatter(i, mu, 40 * w, color=["0.3"] * seen + ["0.8"] * (len(mu) - seen))
    first = 1
    for row, _, size in blocks:
        ends = [first - 0.35, first + size - 0.65]
        colour = PALETTE["orange" if size > 1 else "blue"]
        ax.plot(ends, [row, row], color=colour, linewidth=4, solid_capstyle="butt")
        first += size
    ax.set(xlabel="surface i", ylabel="row", ylim=(22, -1), xlim=(0.4, 8.6), xticks=i)
    ax.set_title(f"surfaces added: {seen} of {len(mu)}, blocks: {len(blocks)}")
    return fig


widgets.frames(
    pooling_picture,
    column=list(columns),
    step=list(range(1, 14)),
    start={"column": "sure and unsure", "step": 5},
    alt="Means as dots and blocks as bars while surfaces are added and pooled from the left",
    target_bytes=110_000,
)

# %% [markdown]
# Every step of the inner loop removes a block, and only $N$ were ever added. Therefore the whole
# costs $O(N)$. The result can also be written as a formula, which looks at all runs $j\dots k$
# around $i$ at once and is easily done for a whole batch of columns:
#
# $$s_i=\max_{j\le i}\ \min_{k\ge i}\ \mathrm{avg}_w(\mu_j,\dots,\mu_k).$$
#
# And where are the contact forces? Cut the column below plate $i$. Everything above the cut is
# held by its springs and by one contact, so $\lambda_i=\sum_{k\le i}w_k(\mu_k-s_k)$: a cumulative
# sum. With these, the KKT conditions can be checked, and they need no second solver to judge the
# first.


# %%
def max_min(mu: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The formula above, for one column, without a loop over it."""
    total, weight = np.cumsum(np.r_[0, w * mu]), np.cumsum(np.r_[0, w])
    j, k = np.indices((len(mu), len(mu)))
    valid = j <= k
    runs = (total[k + 1] - total[j]) / np.where(valid, weight[k + 1] - weight[j], 1)
    runs = np.where(valid, runs, np.inf)
    to_the_end = np.minimum.accumulate(runs[:, ::-1], axis=1)[:, ::-1]  # min over k ≥ i
    return np.where(valid, to_the_end, -np.inf).max(0)  # max over j ≤ i


# %% [markdown]
# Random columns, most of them out of order, serve as tests here and in all that follows.

# %%
random = rng.numpy_rng(run.seed, stream="columns")
mu_random = 4 * np.arange(cfg.n_surfaces) + random.normal(0, 5, (cfg.n_columns, cfg.n_surfaces))
sigma2_random = np.exp(random.uniform(np.log(1), np.log(64), mu_random.shape))
pav = np.array(
    [rows_of(list(pool(m, 1 / v))[-1]) for m, v in zip(mu_random, sigma2_random, strict=True)]
)
judges = {
    "max-min formula": lambda m, w: max_min(m, w),
    "scipy": lambda m, w: isotonic_regression(m, weights=w).x,
    "scikit-learn": lambda m, w: sklearn_isotonic(m, sample_weight=w),
}
for name, judge in judges.items():
    other = [judge(m, 1 / v) for m, v in zip(mu_random, sigma2_random, strict=True)]
    print(f"PAV and {name} differ by at most {np.abs(pav - other).max():.0e} rows")
force = np.cumsum((mu_random - pav) / sigma2_random, axis=1)
slack = np.diff(pav, axis=1)
print(f"smallest force {force[:, :-1].min():.0e}, smallest slack {slack.min():.0e}")
print(f"largest force x slack {np.abs(force[:, :-1] * slack).max():.0e}")
print(f"force below the last surface, at most {np.abs(force[:, -1]).max():.0e}")

# %% [markdown]
# A **minimum gap** changes nothing: measure each surface from a ladder of rungs,
# $s'_i=s_i-\sum_{k<i}d^{\min}_k$, and $s_{i+1}-s_i\ge d^{\min}_i$ becomes plain order again. So
# order and minimum gaps have a closed form. A **maximum gap** is a string between two plates that
# cannot be longer than $d^{\max}$. Now a plate may be pushed by one neighbour and pulled by the
# other, both at once, and no single sweep sorts that out.
#
# ## The road through the inside
#
# Which constraints are active? With that knowledge the rest would be linear algebra; but there are
# exponentially many guesses. An **interior-point method** does not guess. It replaces the hard
# walls by a soft repulsion, a **barrier** that grows without bound at the wall, and then turns it
# down:
#
# $$\min_s\ f(s)-\frac1t\sum_i\log g_i(s).$$
#
# For small $t$ the barrier wins, and the minimum lies well inside. For $t\to\infty$ only the walls
# are left. The minima in between form a smooth curve, the **central path**. To see it, take three
# surfaces and look at their two gaps; the common shift is free, and we minimise over it.

# %%
F8 = torch.float64
mu3, sigma3 = torch.tensor([[10.0, 6.5, 12.5]], dtype=F8), torch.tensor([[2.0, 3.0, 2.0]], dtype=F8)
D_MAX = 8.0
D = np.diff(np.eye(3), axis=0)  # gaps = D s
H = np.linalg.inv(D @ np.diag(sigma3[0] ** 2) @ D.T)  # the cost of a pair of gaps
g1, g2 = np.meshgrid(np.linspace(-4, 9.5, 271), np.linspace(-1.5, 9.5, 221))


def gap_cost(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    d = np.stack([x, y], -1) - D @ mu3[0].numpy()
    return 0.5 * np.einsum("...i,ij,...j", d, H, d)


def barrier(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """−log of the four slacks; NaN outside the box."""
    g = np.stack([x, y, D_MAX - x, D_MAX - y])
    return -np.log(np.where((g > 0).all(0), g, np.nan)).sum(0)


def draw_box(ax: plt.Axes) -> None:
    ax.fill([0, D_MAX, D_MAX, 0], [0, 0, D_MAX, D_MAX], color=PALETTE["green"], alpha=0.15)
    ax.plot(*(D @ mu3[0].numpy()), "o", color="black", markersize=5)
    ax.annotate("μ", D @ mu3[0].numpy(), (6, -3), textcoords="offset points")
    ax.set(xlabel="gap $s_2-s_1$ [rows]", xlim=(-5, 9), ylim=(-1, 9), aspect=1)
    ax.grid(False)


# %% [markdown]
# The cost of a pair of gaps is $f$ at the best shift, again a quadratic function. We look for the
# minimum on a fine grid, with no solver at all.

# %% mystnb={"image": {"alt": "Three panels over the plane of two gaps. A box is allowed. From left to right the barrier is turned down: the minimum of the contour lines moves from the middle of the box along a curve to the point on the box's edge where the cost is lowest."}}
fine = np.stack(np.meshgrid(np.linspace(0.002, 7.9, 800), np.linspace(0.002, 7.9, 800)), -1)
f, phi = gap_cost(*fine.transpose(2, 0, 1)), barrier(*fine.transpose(2, 0, 1))
path = [fine.reshape(-1, 2)[np.argmin(f * t + phi)] for t in np.logspace(-2.5, 4, 60)]
fig, axes = plt.subplots(1, 3, figsize=(WIDTH, 2.3), sharey=True)
for ax, t in zip(axes, (0.1, 3.0, 100.0), strict=True):
    draw_box(ax)
    total = gap_cost(g1, g2) + barrier(g1, g2) / t
    levels = np.nanmin(total) + np.array([0.02, 0.1, 0.3, 0.8, 2, 5, 12, 25]) * max(1, 0.3 / t)
    ax.contour(g1, g2, total, levels=levels, colors="0.6", linewidths=0.7, linestyles="solid")
    ax.plot(*np.transpose(path), color=PALETTE["blue"])
    best = fine.reshape(-1, 2)[np.argmin(f * t + phi)]
    ax.plot(*best, "o", color=PALETTE["vermilion"], zorder=3)
    ax.set_title(f"t = {t:g}")
axes[0].set_ylabel("gap $s_3-s_2$ [rows]")
plotting.show(fig)

# %% [markdown]
# What changes in the KKT conditions? Set the gradient of the barrier problem to zero and call
# $1/(t\,g_i)$ by the name $\lambda_i$. All four lines stay as they were, but for the last:
#
# $$Q(s-\mu)+B^T\lambda=0,\qquad \lambda_i\,g_i=\frac1t,\qquad \lambda,g>0 .$$
#
# A force at a distance: plates that come near already push each other, a little. The system is
# smooth, with as many equations as unknowns, so **Newton's method** applies: linearise, solve,
# step, and never step further than just short of the wall. A *primal-dual* method does not wait
# until it has reached the central path for one $t$: each step aims at a $t$ that is $\beta$ times
# larger than the present point deserves.
#
# Linearised, with the residuals $r_d=Q(s-\mu)+B^T\lambda$ and $r_c=\lambda g-1/t$, the unknown
# $\Delta\lambda$ can be eliminated, and one symmetric positive definite system remains:
#
# $$\underbrace{\bigl(Q+B^T\,\mathrm{Diag}(\lambda/g)\,B\bigr)}_{K}\,\Delta s=-r_d+B^T(r_c/g),
# \qquad \Delta\lambda=\frac{\lambda\,B\Delta s-r_c}{g}.$$
#
# Look at $K$: springs $Q$, plus a spring of stiffness $\lambda_i/g_i$ between neighbours, which is
# soft when they are apart and hard when they touch. Here is all of it, for a batch of columns.


# %%
def constraints(n: int, low: torch.Tensor, high: torch.Tensor | None) -> tuple:
    """B (M, N) and b (..., M) of Bs ≤ b for low ≤ s[i+1] − s[i] ≤ high; M is N−1 or 2(N−1)."""
    D = torch.diff(torch.eye(n, dtype=F8), dim=0)
    if high is None:
        return -D, -low
    return torch.cat([-D, D]), torch.cat([-low, high], dim=-1)


def inside(mu: torch.Tensor, sigma2: torch.Tensor, low: torch.Tensor, high=None) -> torch.Tensor:
    """A start with all slacks positive: the gaps of μ, moved inside, around the mean of μ."""
    room = 1.0 if high is None else (high - low) / 4
    gaps = torch.maximum(mu.diff(dim=-1), low + room)
    gaps = gaps if high is None else torch.minimum(gaps, high - room)
    s = torch.cat([torch.zeros_like(mu[..., :1]), gaps.cumsum(-1)], -1)
    return s + ((mu - s) / sigma2).sum(-1, True) / (1 / sigma2).sum(-1, True)


def newton_matrix(sigma2: torch.Tensor, lam: torch.Tensor, g: torch.Tensor, B: torch.Tensor):
    """K (P, N, N): springs of the surfaces, and springs between neighbours."""
    return torch.diag_embed(1 / sigma2) + B.T @ torch.diag_embed(lam / g) @ B


# %% [markdown]
# The method itself is a generator. Whoever uses it takes as many steps as it takes.


# %%
def interior_point(mu, sigma2, low, high=None, *, beta=10.0, t=None, floor=1e-9):
    """Yields s (P, N), λ and g (P, M) of P columns after each Newton step, without end.

    β: how much further down the central path each step aims; t: stay at this one point of it.
    A column whose duality gap has reached `floor` stays where it is.
    """
    B, b = constraints(mu.shape[-1], low, high)
    s = inside(mu, sigma2, low, high)
    lam = torch.ones_like(s @ B.T)
    while True:
        g = b - s @ B.T
        yield s, lam, g
        r_d = (s - mu) / sigma2 + lam @ B
        r_c = lam * g - (1 / t if t else (lam * g).mean(-1, True) / beta)
        K = newton_matrix(sigma2, lam, g, B)
        ds = torch.linalg.solve(K, -r_d + (r_c / g) @ B)
        dg = -ds @ B.T
        dlam = -(r_c + lam * dg) / g
        # The largest step that leaves all λ and g positive; 1 is Newton's own.
        reach = torch.cat([-dlam / lam, -dg / g], -1).amax(-1, True)
        step = 0.99 / reach.clamp(min=0.99)
        step = step * ((lam * g).sum(-1, True) > floor)
        s, lam = s + step * ds, lam + step * dlam


def after(steps: int, *args, **kwargs):
    """The iterate after so many Newton steps."""
    return next(itertools.islice(interior_point(*args, **kwargs), steps, None))


# %% [markdown]
# Against the exact solution, on the random columns from above, with all of them in one batch:

# %%
mu_r, sigma2_r = torch.tensor(mu_random), torch.tensor(sigma2_random)  # (P, N)
order = torch.zeros(cfg.n_surfaces - 1, dtype=F8)
for steps in (0, 5, 10, 15, 20):
    s, lam, g = after(steps, mu_r, sigma2_r, order)
    error = (s - torch.tensor(pav)).abs().max()
    print(
        f"{steps:>2} steps: largest error {error:.1e} rows, largest gᵀλ {(lam * g).sum(-1).max():.1e}"
    )

# %% [markdown]
# ### Why it converges so fast
#
# Two speeds play together. Near a point of the central path, Newton's method converges
# **quadratically**: each step squares the error, so the number of correct digits doubles (left;
# the curves bend down until they reach the rounding error). And each of the primal-dual steps goes
# down the path by about a factor of $\beta$ in the **duality gap** $g^T\lambda$ (right), a
# straight line on this axis. Neither depends much on how many surfaces there are.

# %% mystnb={"image": {"alt": "Left, the distance to a point of the central path against Newton steps, on a logarithmic axis: curves for three values of t bend down ever more steeply. Right, the duality gap against steps for three values of beta: nearly straight lines, steeper for larger beta."}}
high3 = torch.full((2,), D_MAX, dtype=F8)
column = mu3, sigma3**2, torch.zeros(2, dtype=F8), high3
fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.8))
for t, marker in zip((1.0, 10.0, 100.0), "os^", strict=True):
    target = after(40, *column, t=t)[0]
    path_t = itertools.islice(interior_point(*column, t=t), 14)
    distance = np.array([(s - target).abs().max().item() for s, *_ in path_t])
    left.semilogy(distance.clip(1e-16), marker=marker, markersize=4, label=f"t = {t:g}")
for beta, marker in zip((3.0, 10.0, 100.0), "os^", strict=True):
    path_b = itertools.islice(interior_point(*column, beta=beta, floor=1e-12), 17)
    gap = [(lam * g).sum().item() for _, lam, g in path_b]
    right.semilogy(gap, marker=marker, markersize=4, label=f"β = {beta:g}")
left.set(xlabel="Newton steps", ylabel="distance to s(t) [rows]", title="to one point of the path")
right.set(xlabel="Newton steps", ylabel="duality gap", title="down the path", ylim=(1e-14, 1e3))
for ax in (left, right):
    ax.legend()
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
plotting.show(fig)

# %% [markdown]
# ### When to stop
#
# The duality gap is more than a gauge. When the forces balance ($r_d=0$, which holds after the
# first full Newton step), the cost of the present point exceeds the optimum by *at most*
# $g^T\lambda$. And because the springs have a known stiffness, a bound on the cost is one on the
# position:
#
# $$\sum_i\frac{(s_i-s_i^*)^2}{2\sigma_i^2}\le f(s)-f(s^*)\le g^T\lambda
# \quad\Longrightarrow\quad |s_i-s^*_i|\le\sigma_i\sqrt{2\,g^T\lambda}.$$
#
# The **norm of the residuals** $(r_d,r_c)$ tells no such thing, although many codes stop on it. It
# adds $r_d$ in rows⁻¹ to $r_c$, a pure number; in a column with large variances all forces are
# small, and so is the norm, wherever the plates are. Worse, it is measured against the $t$ of the
# moment. It says how close you are to the central *path*, not how far down you have come. Below,
# each random column stops on its own as soon as $\lVert(r_d,r_c)\rVert<0.01$, or as soon as the
# gap promises an error below 0.01 rows.

# %% mystnb={"image": {"alt": "Histogram of the error in rows at which columns stop, on a logarithmic axis. Stopped on the norm of the residuals, most columns lie right of a dashed line at one hundredth of a row, by up to a factor of fifty. Stopped on the bound from the duality gap, all lie left of it, most of them far to the left."}}
EPS = 0.01
B, _ = constraints(cfg.n_surfaces, order, None)
stopped = {"norm of residuals": None, "bound from the duality gap": None}
previous = None  # 1/t at which the last step aimed
for k, (s, lam, g) in enumerate(itertools.islice(interior_point(mu_r, sigma2_r, order), 25)):
    r_d = (s - mu_r) / sigma2_r + lam @ B
    gap = (lam * g).sum(-1)
    aim = previous if k else gap / g.shape[-1]
    norm = torch.cat([r_d, lam * g - aim[:, None]], -1).norm(dim=-1)
    bound = (sigma2_r.amax(-1) * 2 * gap).sqrt() + r_d.abs().amax(-1)
    error = (s - torch.tensor(pav)).abs().amax(-1)
    for name, measure in zip(stopped, (norm, bound), strict=True):
        if stopped[name] is None:
            stopped[name] = [torch.full_like(error, torch.nan) for _ in range(2)]
        new = (measure < EPS) & stopped[name][0].isnan() & (k > 0)
        for store, value in zip(stopped[name], (error, torch.full_like(error, k)), strict=True):
            store[new] = value[new]
    previous = gap / g.shape[-1] / 10  # β = 10
fig, ax = plt.subplots(figsize=(5.6, 2.7))
for name, (error, steps) in stopped.items():
    ax.hist(error.clip(1.1e-7), np.logspace(-7, 0.5, 46), alpha=0.65, label=name)
    print(f"{name:<27} {steps.mean():.1f} steps, largest error {error.max():.4f} rows")
ax.axvline(EPS, color="black", linestyle="--", linewidth=1)
ax.set(xscale="log", ylabel="columns")
ax.set_xlabel("error when stopped [rows]; first bar: 10⁻⁷ or less")
fig.legend(loc="outside upper center", ncols=2)
plotting.show(fig)

# %% [markdown]
# A few more steps, and what is promised is kept. (The bound is generous: most columns are far
# better than it says.)
#
# ### Why it costs so little
#
# The $N\times N$ matrix $K$ couples each surface to its neighbours only: it is **tridiagonal**.
# Such a system is solved in one sweep down the column and one up, $O(N)$ operations in place of
# $O(N^3)$. A solver that knows nothing of the problem would have to find that out, and a general
# one for batches usually does not.

# %% mystnb={"image": {"alt": "Left, the matrix K of a column: only three diagonals are filled. Right, time of one linear solve against the number of surfaces on logarithmic axes: the dense solver rises steeply, the banded one slowly."}}
s, lam, g = after(6, mu_r[:1], sigma2_r[:1], order)
K = newton_matrix(sigma2_r[:1], lam, g, B)[0].numpy()
fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.6), width_ratios=(2, 3))
shown = left.imshow(
    np.ma.masked_equal(np.sign(K) * np.log10(1 + 100 * abs(K)), 0), cmap="PuOr", vmin=-4, vmax=4
)
left.set(title="K, its three diagonals", xticks=[], yticks=[])
left.grid(False)
times = {"dense, $O(N^3)$": [], "tridiagonal, $O(N)$": []}
for n in cfg.timed:
    x = rng.numpy_rng(run.seed, stream="timing").uniform(1, 2, (3, n))
    bands = np.stack([np.r_[0, -x[1, 1:]], x[0] + x[1] + np.r_[x[1, 1:], 0]])  # upper form
    dense = np.diag(bands[1]) + np.diag(bands[0, 1:], 1) + np.diag(bands[0, 1:], -1)
    solvers = (np.linalg.solve, dense), (solveh_banded, bands)
    for name, (solve, matrix) in zip(times, solvers, strict=True):
        spent = []
        for _ in range(6):
            start = time.perf_counter()
            solve(matrix, x[2])
            spent.append(1e6 * (time.perf_counter() - start))
        times[name].append(np.median(spent[1:]))
for (name, values), marker in zip(times.items(), "os", strict=True):
    right.loglog(cfg.timed, values, marker=marker, label=name)
right.set(xlabel="surfaces N", ylabel="time of one solve [µs]")
right.legend()
plotting.show(fig)

# %% [markdown]
# For nine surfaces it hardly matters on its own. For the thousands of columns of a batch of images
# it does, since the same sweep serves all columns at once, whereas many small dense matrices need
# memory and time.
#
# ## Differentiate the answer, not the iterations
#
# A network predicted $\mu$ and $\sigma^2$, the solver made $s^*$ of them, a loss $L(s^*)$ compares
# it with the truth. Which way should $\mu$ move? First: is there a gradient at all? In
# [](dynamic-programming) the answer was a staircase with useless slopes. Here $s^*$ is a
# *continuous* function of $\mu$, made of straight pieces. Turn $\mu_2$ of three surfaces from far
# above to far below the others:

# %% mystnb={"image": {"alt": "Left, three rows against the mean of the second surface: straight pieces that join without jumps; the surfaces touch, move together, and separate. Right, the slopes of the three rows are steps between 0 and 1; a barrier rounds them."}}
knob = torch.linspace(-2, 22, 241, dtype=F8)
mu_k = torch.stack([torch.full_like(knob, 6), knob, torch.full_like(knob, 12)], -1)  # (P, 3)
sigma2_k = torch.tensor([1.0, 2.0, 4.0], dtype=F8).expand_as(mu_k)
fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.8))
for t, line in ((None, "-"), (4.0, ":")):
    s, lam, g = after(30, mu_k, sigma2_k, torch.zeros(2, dtype=F8), t=t)
    K = newton_matrix(sigma2_k, lam, g, constraints(3, torch.zeros(2, dtype=F8), None)[0])
    slopes = torch.linalg.inv(K)[:, :, 1] / sigma2_k[:, 1:2]  # ds/dμ₂, derived below
    for i in range(3):
        name = f"$s_{i + 1}$" if t is None else None
        wide = 1.6 if i == 1 or t else 3.5  # the second lies on top of the others
        left.plot(
            knob, s[:, i], line, color=SURFACE[i], label=name, linewidth=wide, zorder=2 + i % 2
        )
        right.plot(knob, slopes[:, i], line, color=SURFACE[i], linewidth=wide, zorder=2 + i % 2)
left.set(xlabel="mean $\\mu_2$ [rows]", ylabel="$s_i$ [rows]", ylim=(15, 3))
right.set(xlabel="mean $\\mu_2$ [rows]", ylabel="slope $\\partial s_i/\\partial\\mu_2$")
right.plot([], [], "k-", label="exact")
right.plot([], [], "k:", label="central path, t = 4")
left.legend(loc="center left")
right.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
plotting.show(fig)

# %% [markdown]
# The slopes are informative nearly everywhere; only at the kinks, where a contact just begins, are
# there two. Where surfaces touch, each of them takes its *share* of the motion.
#
# One could get them by letting autograd run back through all Newton steps. It works, and it stores
# every step. The better way was there all along: the KKT conditions define $s^*$, so let us vary
# *them*. On the central path,
#
# $$Q(\mathrm ds-\mathrm d\mu)+B^T\mathrm d\lambda=0,\qquad g\,\mathrm d\lambda-\lambda\,B\,\mathrm ds=0
# \qquad\Longrightarrow\qquad K\,\mathrm ds=Q\,\mathrm d\mu .$$
#
# That is **implicit differentiation**, and the matrix is the one that every Newton step has solved
# already. So $\partial s/\partial\mu=K^{-1}Q$, and the backward pass needs one solve more:
#
# $$K\,x=\frac{\partial L}{\partial s},\qquad \frac{\partial L}{\partial\mu}=Qx,\qquad
# \frac{\partial L}{\partial\sigma_i^2}=x_i\,\frac{s_i-\mu_i}{\sigma_i^4},\qquad
# \frac{\partial L}{\partial b}=\frac{\lambda}{g}\,Bx .$$
#
# What does $K^{-1}Q$ look like? An inactive constraint has $\lambda/g\to0$: no spring, no
# coupling. An active one has $\lambda/g\to\infty$: a rigid rod. A chain of active constraints is
# thus *one rigid body*, and if one of its plates is pushed, all move alike, by the average.
# Maximum gaps make rods as well, only longer ones.

# %% mystnb={"image": {"alt": "Three matrices of partial derivatives of one column. Far up the central path the entries spread over a broad band; nearer to the optimum they gather into blocks; at the optimum there are sharp blocks with constant columns."}}
mu_b = torch.tensor([[4.0, 2.0, 8.0, 13.0, 12.0, 10.0, 20.0, 31.0]], dtype=F8)
sigma2_b = torch.tensor([[1.0, 3.0, 1.0, 1.0, 4.0, 1.0, 2.0, 1.0]], dtype=F8)
limits = torch.zeros(7, dtype=F8), torch.full((7,), 7.0, dtype=F8)
B_b, _ = constraints(8, *limits)
fig, axes = plt.subplots(1, 3, figsize=(WIDTH, 2.6), sharey=True)
for ax, t in zip(axes, (0.3, 10.0, None), strict=True):
    s, lam, g = after(40, mu_b, sigma2_b, *limits, t=t)
    J = torch.linalg.solve(newton_matrix(sigma2_b, lam, g, B_b), torch.diag_embed(1 / sigma2_b))[0]
    shown = ax.imshow(J, cmap="cividis", vmin=0, vmax=1)
    ax.set(title=f"t = {t:g}" if t else "the optimum", xlabel="mean j")
    ax.set_xticks(range(8), range(1, 9))
    ax.grid(False)
axes[0].set_yticks(range(8), range(1, 9))
axes[0].set_ylabel("surface i")
fig.colorbar(shown, ax=axes, label="$\\partial s_i/\\partial\\mu_j$")
plotting.show(fig)
print("sums of the rows:", J.sum(1).numpy().round(3))
touch = [(f"{i + 1}–{i + 2}", what) for i in range(7) for what, v in
         (("min", g[0, i]), ("max", g[0, 7 + i])) if v < 1e-4]  # fmt: skip
print("active gaps:", ", ".join(f"{pair} ({what})" for pair, what in touch))

# %% [markdown]
# In the plane of the first picture: the gradient that arrives at an inactive constraint passes
# through untouched. At an active one, its part *along* the border passes, shared out by the
# weights; its part *across* the border is lost, and rightly so, since no small change of $\mu$ can
# push $s^*$ through the wall or pull it off.

# %% mystnb={"image": {"alt": "Two planes of s1 and s2. Left, mu in the allowed half: the descent direction at s and that at mu are the same. Right, mu below the diagonal: the direction at s is split into a part across the border, which is lost, and a part along it, which moves mu."}}
wish = np.array([-2.6, 1.0])  # −∂L/∂s: where the loss wants s to go
fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.2))
arrow = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.012, "zorder": 3}
under = {"width": 0.03, "headwidth": 2, "headlength": 1.6, "alpha": 0.5}  # another lies on it
for ax, mu, name in zip(axes, ([4.0, 7.0], [7.5, 4.5]), ("inactive", "active"), strict=True):
    mu, sigma = np.array(mu), np.array([1.0, 1.4])
    s, _ = pair(mu, sigma)
    w = sigma**-2.0
    J = np.eye(2) if name == "inactive" else np.tile(w / w.sum(), (2, 1))
    ax.fill_between([0, 10], [0, 10], 10, color=PALETTE["green"], alpha=0.15, linewidth=0)
    passed = J.T @ wish  # −∂L/∂μ
    ax.quiver(
        *s,
        *wish,
        color=PALETTE["blue"],
        label="$-\\partial L/\\partial s$",
        **(arrow | under if name == "inactive" else arrow),
    )
    if name == "active":
        along = np.full(2, wish.mean())
        ax.quiver(*s, *(wish - along), color="0.65", label="its part across: lost", **arrow)
    ax.quiver(*mu, *passed, color=PALETTE["orange"], label="$-\\partial L/\\partial\\mu$", **arrow)
    for point, text in ((mu, "μ"), (s, "s*")) if name == "active" else ((mu, "μ = s*"),):
        ax.plot(*point, "o", color="white", markeredgecolor="black", markersize=6, zorder=4)
        ax.annotate(text, point, (7, -9), textcoords="offset points")
    ax.set(xlabel="$s_1$ [rows]", ylabel="$s_2$ [rows]", title=name, aspect=1)
    ax.set(xlim=(0, 10), ylim=(0, 10))
    ax.grid(False)
    ax.legend(loc="lower left")
plotting.show(fig)

# %% [markdown]
# ## A layer in thirty lines
#
# PyTorch lets us say what the backward pass is: a `torch.autograd.Function` with a forward and a
# backward. Forward runs the generator from above until gap and imbalance are small, backward is
# the one solve. (Autograd does not look inside `forward`, so nothing of the iterations is kept.)


# %%
class ColumnQP(torch.autograd.Function):
    """min ½ Σ (s−μ)²/σ² subject to low ≤ s[i+1] − s[i] ≤ high, for P columns.

    mu and sigma2 are (P, N), low and high (P, N−1), high may be None; returns s (P, N).
    """

    @staticmethod
    def forward(ctx, mu, sigma2, low, high=None, tol=1e-8, max_steps=50):
        B, _ = constraints(mu.shape[-1], low, high)
        steps = interior_point(mu, sigma2, low, high, floor=tol)
        for s, lam, g in itertools.islice(steps, max_steps + 1):
            imbalance = (s - mu) / sigma2 + lam @ B
            if (lam * g).sum(-1).max() <= tol and imbalance.abs().max() <= tol:
                break
        ctx.save_for_backward(mu, sigma2, s, lam, g, B)
        return s

    @staticmethod
    def backward(ctx, grad):  # ∂L/∂s
        mu, sigma2, s, lam, g, B = ctx.saved_tensors
        x = torch.linalg.solve(newton_matrix(sigma2, lam, g, B), grad)
        d_b = lam / g * (x @ B.T)
        n = mu.shape[-1] - 1
        d_low = -d_b[..., :n]
        d_high = d_b[..., n:] if B.shape[0] > n else None
        return x / sigma2, x * (s - mu) / sigma2**2, d_low, d_high, None, None


# %% [markdown]
# Is it right? `torch.autograd.gradcheck` compares it with differences of the output when each
# input moves by a millionth, in double precision, for $\mu$, $\sigma^2$ and both limits at once.
# This only makes sense away from the kinks, so we draw a few columns and keep those whose contacts
# are all clear: touching with a force, or clearly apart.


# %%
def clear_cut(mu, sigma2, low, high=None, margin: float = 0.01) -> torch.Tensor:
    """Which columns (P,) have no contact that is just about to begin or to end."""
    _, lam, g = after(30, mu, sigma2, low, high)
    return (torch.maximum(lam, g) > margin).all(-1)


low_r, high_r = torch.full_like(mu_r[:, 1:], 1.5), torch.full_like(mu_r[:, 1:], 6.0)
clear = clear_cut(mu_r, sigma2_r, low_r, high_r)
few = [x[clear][:4].clone().requires_grad_() for x in (mu_r, sigma2_r, low_r, high_r)]
passed = torch.autograd.gradcheck(ColumnQP.apply, few, atol=1e-4, rtol=1e-3)
print(f"{int(clear.sum())} of {len(clear)} columns are clear-cut; gradcheck: {passed}")

# %% [markdown]
# And does it agree with the solver in `medseg_core`, in value and gradient? That one takes whole
# images, (B, N, W); our $P$ columns are an image $P$ wide. The same random loss for both:

# %%
weights = torch.randn(mu_r.shape, generator=rng.generator(run.seed, stream="loss"), dtype=F8)


def value_and_gradients(solve, low, high) -> tuple[torch.Tensor, ...]:
    """s, ∂L/∂μ and ∂L/∂σ² for L = Σ weights · s, of the clear-cut columns."""
    keep = clear_cut(mu_r, sigma2_r, low, high)
    inputs = [x[keep].clone().requires_grad_() for x in (mu_r, sigma2_r)]
    gaps = [None if x is None else x[keep] for x in (low, high)]
    s = solve(*inputs, *gaps)
    return s.detach(), *torch.autograd.grad((weights[keep] * s).sum(), inputs)


def book(mu, sigma2, low, high):
    """The real one; (P, N) to (1, N, P) and back."""
    as_image = [None if x is None else x.T[None] for x in (mu, sigma2, low, high)]
    s, info = surface_qp.ordered_surfaces(
        as_image[0], as_image[1], min_gap=as_image[2], max_gap=as_image[3]
    )
    methods.append(info.method)
    return s[0].T


methods: list[str] = []
zero = torch.zeros_like(low_r)
kinds = {"order": (zero, None), "minimum gap": (low_r, None), "both gaps": (low_r, high_r)}
for name, gaps in kinds.items():
    ours, theirs = (value_and_gradients(solve, *gaps) for solve in (ColumnQP.apply, book))
    apart = [(a - b).abs().max().item() for a, b in zip(ours, theirs, strict=True)]
    print(
        f"{name:<12} (method {methods[-1]}): s differs by {apart[0]:.0e} rows, "
        f"its gradients in μ by {apart[1]:.0e}, in σ² by {apart[2]:.0e}"
    )

# %% [markdown]
# What remains is the toy's tolerance; the real one has none. It takes the closed form where there
# is one. Elsewhere an interior point, with a tridiagonal sweep in each step, finds out which
# constraints are active, and then the column is solved once more, exactly, with rigid rods in
# their place. It lets each column stop by itself, takes gaps in several shapes, and refuses limits
# that contradict each other. What it promises:

# %% tags=["hide-output"]
sources.show(surface_qp.ordered_surfaces)

# %% [markdown]
# ### Unrolled or implicit?
#
# Let autograd differentiate the generator itself, step by step, and compare: error of the
# gradient, bytes kept for the way back, and time, as functions of how many Newton steps were made.
# As the judge we take the limit itself, with rigid rods between surfaces that touch. Their forces
# $\varphi$ follow from the condition that a rod's ends move alike:
#
# $$(D\Sigma D^T)_{\text{touching}}\,\varphi=D\Sigma\frac{\partial L}{\partial s},\qquad
# \frac{\partial L}{\partial\mu}=\frac{\partial L}{\partial s}-D^T\varphi ,$$
#
# with $\Sigma=Q^{-1}$ and $D$ the differences of neighbours. Each contact takes from the gradient
# what it carries.


# %%
def limit_gradient(sigma2: torch.Tensor, touching: torch.Tensor, grad: torch.Tensor):
    """∂L/∂μ (P, N) at the optimum itself, from which gaps (P, N−1) are active."""
    D = torch.diff(torch.eye(grad.shape[-1], dtype=F8), dim=0)
    give = torch.where(touching, 0.0, 1e15)  # how a rod gives way: not at all, or altogether
    M = D @ torch.diag_embed(sigma2) @ D.T + torch.diag_embed(give)
    return grad - torch.linalg.solve(M, (sigma2 * grad) @ D.T) @ D


def kept_bytes(call) -> int:
    """The size of everything that autograd keeps for the way back of this call."""
    sizes, stored = {}, []

    def keep(x):
        sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        stored.append(x)  # else its memory, and so its address, could be used again
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        call()
    return sum(sizes.values())


# %% [markdown]
# Now the same loss through both, on the columns that are clear-cut:

# %%
keep = clear_cut(mu_r, sigma2_r, low_r, high_r)
fixed, loss = [x[keep] for x in (sigma2_r, low_r, high_r)], weights[keep]


def gradient(way: str, steps: int) -> tuple[torch.Tensor, int, float]:
    """∂L/∂μ after so many steps, bytes kept, seconds for forward and backward."""
    mu = mu_r[keep].clone().requires_grad_()
    solve = {
        "unrolled": lambda: after(steps, mu, *fixed, floor=1e-8)[0],
        "implicit": lambda: ColumnQP.apply(mu, *fixed, 1e-8, steps),
    }[way]
    spent = []
    for _ in range(5):
        start = time.perf_counter()
        (found,) = torch.autograd.grad((loss * solve()).sum(), mu)
        spent.append(time.perf_counter() - start)
    return found, kept_bytes(solve), float(np.median(spent))


# %% mystnb={"image": {"alt": "Three graphs against Newton steps. The error of both gradients falls alike on a logarithmic axis. The bytes kept rise in proportion for the unrolled way and stay constant for the implicit one. The time rises for both, more steeply for the unrolled one."}}
_, lam, g = after(30, mu_r[keep], *fixed)
n_gaps = cfg.n_surfaces - 1
touching = (lam > g)[:, :n_gaps] | (lam > g)[:, n_gaps:]
reference = limit_gradient(fixed[0], touching, loss)
counts = list(range(2, 19, 2))
fig, axes = plt.subplots(1, 3, figsize=(WIDTH, 2.6))
for way, marker in (("unrolled", "o"), ("implicit", "s")):
    found, size, seconds = zip(*(gradient(way, n) for n in counts), strict=True)
    distance = [(x - reference).abs().max().item() for x in found]
    axes[0].semilogy(counts, distance, marker=marker, label=way)
    axes[1].plot(counts, np.array(size) / 1e6, marker=marker, label=way)
    axes[2].plot(counts, 1e3 * np.array(seconds), marker=marker, label=way)
labels = "largest error of $\\partial L/\\partial\\mu$", "kept for the way back [MB]", "time [ms]"
for ax, label in zip(axes, labels, strict=True):
    ax.set(xlabel="Newton steps", title=label)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
axes[0].legend()
plotting.show(fig)

# %% [markdown]
# Implicit differentiation is exact for the problem, unrolling for the program. When the program has
# converged the two agree, up to an error that exercise 3 gets rid of. Before that, both give a
# gradient of something else: the implicit one of a point on the central path which is not quite
# reached.
#
# ## Which layer when
#
# | the problem | the tool | cost per column |
# |:--|:--|:--|
# | order, minimum gaps | the closed form, PAV or max-min; gradients are block averages | $O(N)$, exact |
# | maximum gaps too | an interior-point method with a tridiagonal $K$ | $O(N)$ per step, a dozen or two of steps |
# | a general QP, small and dense | qpth, the code of {cite:t}`amos2017optnet` | $O(N^3)$ per step, batched |
# | any convex problem that can be written down | cvxpylayers {cite:p}`agrawal2019differentiable` | general, and slower for it |
# | rows are whole numbers, any cost per row | [](dynamic-programming) or graph search | exact, but piecewise constant: no gradient |
#
# Ask for the structure first. The surface problem went from a general convex program to a weighted
# mean in three steps, and each of them was worth a factor.
# [](../surfaces-and-structure/ipm-surfaces) puts such a layer behind a U-Net and asks whether
# training *through* it is better than projecting afterwards.
#
# ## Explore
#
# **Steps down the path.** The interior-point method on the three surfaces from above. Few large
# steps or many small ones? With a small $\beta$ the iterates soon keep to the central path (blue).
# A large one cuts the corner. On the right, the true error stays below its bound.

# %%
reference3 = after(60, *column, floor=1e-13)[0]
histories = {
    beta: list(itertools.islice(interior_point(*column, beta=beta, floor=1e-12), 15))
    for beta in (2.0, 10.0, 100.0)
}


def newton_picture(beta: float, step: int) -> plt.Figure:
    history = histories[beta]
    fig, (left, right) = plt.subplots(1, 2, figsize=(6.4, 2.9))
    draw_box(left)
    left.plot(*np.transpose(path), color=PALETTE["blue"], linewidth=1)
    gaps = np.array([s[0].diff().numpy() for s, *_ in history[: step + 1]])
    left.plot(*gaps.T, "o-", color=PALETTE["vermilion"], markersize=4, linewidth=1)
    left.set(ylabel="gap $s_3-s_2$ [rows]", xticks=[-4, 0, 4, 8])
    error = [(s - reference3).abs().max().item() for s, *_ in history]
    bound = [(2 * 9 * (lam * g).sum()).sqrt().item() for _, lam, g in history]  # largest σ² is 9
    for values, name, colour in ((bound, "bound", "black"), (error, "true error", "vermilion")):
        right.semilogy(np.clip(values[: step + 1], 1e-9, None), "o-", color=PALETTE[colour],
                       markersize=4, label=name)  # fmt: skip
    right.set(
        xlabel="Newton steps",
        ylabel="rows",
        xlim=(-0.5, 14.5),
        ylim=(1e-9, 1e3),
        xticks=range(0, 15, 2),
    )
    right.legend(loc="upper right")
    return fig


widgets.frames(
    newton_picture,
    beta=list(histories),
    step=[0, 1, 2, 3, 4, 5, 6, 8, 10, 12],
    start={"beta": 10.0, "step": 4},
    labels={"beta": "factor β", "step": "Newton steps"},
    alt="Iterates in the plane of two gaps beside the central path, and error and bound by step",
    target_bytes=130_000,
)

# %% [markdown]
# ## Exercises
#
# ### Exercise 1 (think)
#
# A multiplier is a force. It is also a *price*: by how much does the smallest cost change if one
# gap limit is relaxed by a little? Derive it from the Lagrangian, without differentiating $s^*$.
# What does it say about a limit with $\lambda_i=0$? And why should one hesitate to let a network
# *learn* $d^{\max}$ from the cost $f(s^*)$ alone?
#
# :::{dropdown} Solution
# Let $f^*(b)$ be the smallest cost as a function of the limits. At the optimum $f^*=\mathcal
# L(s^*,\lambda^*)$, because $\lambda^Tg=0$. Vary $b$: $\mathcal L$ depends on it directly, by
# $-\lambda^T\mathrm db$, and through $s^*$ and $\lambda^*$. The first of these two indirect parts
# vanishes, since $\partial\mathcal L/\partial s=0$. The second is $-g^T\mathrm d\lambda$, and
# vanishes since an active constraint has $g_i=0$ and an inactive one keeps $\lambda_i=0$. So
# $\partial f^*/\partial b_i=-\lambda_i$: one row more of room is worth $\lambda_i$. A limit that
# presses nobody is worth nothing. As no price is ever negative, descent on $f(s^*)$ relaxes every
# limit until none is active, and the layer has argued itself away. The limits must be judged by
# something else, such as the distance of $s^*$ to the truth.
# :::
#
# ### Exercise 2 (code)
#
# For the order alone one needs no linear system at all to go backward. Write the backward pass of
# PAV: given $s^*$, $\sigma^2$ and $\partial L/\partial s$, return $\partial L/\partial\mu$ in
# $O(N)$, without a loop over the blocks. Compare with the layer. (`np.bincount` adds up by block.)


# %% tags=["hide-input"]
def pav_backward(s: np.ndarray, sigma2: np.ndarray, grad: np.ndarray) -> np.ndarray:
    """∂L/∂μ of one column: a block shares out the sum of its gradients by weight."""
    block = np.r_[0, np.cumsum(np.diff(s) > 1e-9)]  # number of the block of each surface
    w = 1 / sigma2
    return w * (np.bincount(block, grad) / np.bincount(block, w))[block]


keep = clear_cut(mu_r, sigma2_r, order).numpy()
_, by_layer, _ = value_and_gradients(ColumnQP.apply, zero, None)
rows = zip(pav[keep], sigma2_random[keep], weights.numpy()[keep], strict=True)
by_blocks = torch.tensor(np.array([pav_backward(*row) for row in rows]))
print(f"Gradients differ by at most {(by_layer - by_blocks).abs().max():.0e}")

# %% [markdown]
# A block with the total force $F=\sum\partial L/\partial s_k$ and the stiffness $W=\sum w_k$ gives
# each of its means the share $w_iF/W$. Two surfaces that touch and that the loss pulls in opposite
# directions with equal strength receive nothing.
#
# ### Exercise 3 (experiment)
#
# More steps are better, so why not iterate until the gap is zero to the last digit? Measure the
# error of the *gradient* against `pav_backward` while the solver's `floor` goes down to
# $10^{-11}$. Guess first: where does it turn, and which of the numbers in $K$ is to blame? Then
# find a system of equations without that number. (Look at `limit_gradient`.)

# %% mystnb={"image": {"alt": "Errors against the duality gap at which the solver stops, on logarithmic axes. The error of the rows falls as the gap shrinks. That of the gradient through K falls and then rises again; that of the gradient through the contact forces goes on falling."}} tags=["hide-input"]
floors = np.logspace(-2, -11, 10)
curves = {"rows s": [], "gradient, by K": [], "gradient, by contact forces": []}
inputs, loss = (mu_r[keep], sigma2_r[keep]), weights[keep]
D = torch.diff(torch.eye(cfg.n_surfaces, dtype=F8), dim=0)
for floor in floors:
    *_, (s, lam, g) = itertools.islice(interior_point(*inputs, order, floor=floor), 25)
    x = torch.linalg.solve(newton_matrix(inputs[1], lam, g, B), loss)
    M = D @ torch.diag_embed(inputs[1]) @ D.T + torch.diag_embed(g / lam)
    force = torch.linalg.solve(M, (inputs[1] * loss) @ D.T)
    found = s - torch.tensor(pav[keep]), x / inputs[1] - by_blocks, loss - force @ D - by_blocks
    for name, difference in zip(curves, found, strict=True):
        curves[name].append(difference.abs().max().item())
fig, ax = plt.subplots(figsize=(5.2, 2.8))
for (name, values), marker in zip(curves.items(), "os^", strict=True):
    ax.loglog(floors, values, marker=marker, label=name)
ax.set(xlabel="duality gap at the stop", ylabel="largest error")
ax.invert_xaxis()
ax.legend()
plotting.show(fig)

# %% [markdown]
# Where surfaces touch, $g\approx1/(t\lambda)$ is tiny and the stiffness $\lambda/g$ in $K$ is
# huge. The springs $1/\sigma^2$ are added to it, and most of their digits drown. The system for
# the contact forces, $D\Sigma D^T+\mathrm{Diag}(g/\lambda)$, holds the *inverse* of the stiffness;
# that a number goes to zero there harms nothing. It is tridiagonal too, so the cure costs nothing.
# (Much further down the slacks themselves, which are differences of nearly equal rows, round to
# zero, and the solver breaks down.) A tolerance has a right size, and "as small as possible" is
# not it.
#
# ## Words
#
# Active constraint
# : One whose limit is reached, $g_i=0$: the surfaces touch, or the string is taut.
#
# B-scan, column
# : An OCT image of one plane through the retina, depth downward. Each of its columns is one measurement along the beam
#   (an *A-scan*).
#
# Barrier
# : A penalty that grows without bound at the border of what is allowed, here $-\log g$.
#
# Central path
# : The minima for all strengths of the barrier; it ends at the solution.
#
# Duality gap
# : How far the cost may still be above the optimum; here $g^T\lambda$, once forces balance.
#
# Isotonic regression
# : The non-decreasing sequence nearest to a given one.
#
# KKT conditions
# : Balance of forces, allowed, pushing only, no force without contact. In convex problems they are the solution.
#
# Multiplier
# : The force $\lambda_i$ with which a constraint pushes; also the price of its limit.
#
# Primal, dual
# : The rows $s$ are the primal variables, the forces $\lambda$ the dual ones. A primal-dual method moves both.
#
# Quadratic program (QP)
# : Quadratic cost, linear constraints.
#
# Slack
# : The room $g_i$ that is left until a constraint becomes active.
