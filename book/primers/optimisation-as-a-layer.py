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
# - **Task:** let a network's last step solve an optimisation problem with constraints, and train it.
# - **Idea:** at the solution, forces balance. These few equations say what the answer is and,
#   differentiated once, how it moves.
# - **Afterwards you can** pool a column by hand, and write an interior-point solver and its backward
#   pass in some thirty lines.
# - **Before:** autograd, linear equations. **Time:** seconds. **Used by:**
#   [surfaces in order](../surfaces-and-structure/ipm-surfaces).
# :::

# %% mystnb={"code_prompt_show": "Parameters"} tags=["parameters", "hide-input"]
scale: str = "lesson"  # smoke | lesson | paper: how many random columns and predictions
seed: int = 0  # all random numbers follow from it
device: str = "auto"  # auto | cpu | cuda | cuda:1 | mps (the columns here are few: cpu is fine)
data_dir: str = None  # not used: this page needs no data
extended: bool = False  # not used: nothing here needs a GPU
overrides: dict = {}  # settings to change, for example {"n_surfaces": 5}

# %% mystnb={"code_prompt_show": "Set-up: imports and the three scales"} tags=["hide-input"]
import itertools
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import isotonic_regression

from medseg_book.page import exercises, plotting, scales, sources, widgets
from medseg_book.page.plotting import BASELINES, PALETTE, ROLES, WIDTH
from medseg_core import rng
from medseg_core.solvers import surface_qp


@dataclass(frozen=True)
class Settings:
    n_draws: int  # noisy predictions of the opening example
    n_columns: int  # random columns of the checks
    n_surfaces: int = 9  # surfaces per random column
    expected: str = "seconds"


table = {"smoke": Settings(5, 64), "lesson": Settings(100, 512), "paper": Settings(400, 4096)}
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
METHOD, PUSH, SURFACE = ROLES["method"], BASELINES[0], plotting.ON_IMAGE[:3]
F8, POINTS = torch.float64, "offset points"

# %% [markdown]
# ## The problem


# %% mystnb={"code_prompt_show": "The strip, and what a network might predict"} tags=["hide-input"]
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


# %% mystnb={"code_prompt_show": "The figure", "image": {"alt": "Two copies of a grey strip of layers. Left, three predicted surfaces with bands of uncertainty that cross near a thin place and in a dark shadow. Right, the ordered solution: the surfaces touch where they crossed, and the more certain one has moved less."}} tags=["thumbnail", "hide-input"]
draws = (strip(1000 * run.seed + draw) for draw in itertools.count())
truth, mu_strip, sigma_strip = next(d for d in draws if (np.diff(d[1], axis=0) < 0).sum() >= 8)
fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.9), sharey=True)
answers = {"predicted, ± σ": mu_strip, "most likely in order": project(mu_strip, sigma_strip)}
at = np.flatnonzero((np.diff(mu_strip, axis=0) < 0).any(0))
for ax, (name, rows) in zip(axes, answers.items(), strict=True):
    ax.imshow(picture(truth, run.seed), vmin=0, vmax=1.1, aspect="auto")
    for i, colour in enumerate(SURFACE):
        ax.plot(rows[i], color=colour, label=f"$s_{i + 1}$" if rows is mu_strip else None)
        if rows is mu_strip:
            band = rows[i] - sigma_strip[i], rows[i] + sigma_strip[i]
            ax.fill_between(np.arange(len(rows[i])), *band, color=colour, alpha=0.25, linewidth=0)
    ax.plot(at, np.full(len(at), 42), "|", color=PUSH, markersize=9, markeredgewidth=2)
    ax.set(xlabel="column", ylabel="row", title=name, ylim=(43.5, 0))
    ax.grid(False)
fig.legend(loc="outside upper center", ncols=3, fontsize=9)
plotting.show(
    fig,
    caption="A strip of retinal layers: near column 26 two surfaces nearly meet, near 70 a blood "
    "vessel throws its shadow. Left, the predicted rows with one standard deviation; ticks below "
    "mark columns that cross. Right, the most likely rows among those in order.",
)

# %% [markdown]
# An optical coherence tomogram (OCT) shows the layers of the retina. A network says at which row
# the *surfaces* between them lie, and how unsure it is. Layers have an order; its answers cross.
#
# Say that the network answers with a mean $\mu_i$ and a variance $\sigma_i^2$ per surface. One can
# **sort** each column that crosses. One can let each surface **push** all below it, a running
# maximum. Or one can look for the rows $s$ that are the most likely ones *among those in order*:
#
# $$\min_s\ \sum_{i=1}^N\frac{(s_i-\mu_i)^2}{2\sigma_i^2}\qquad\text{subject to}\qquad
# s_1\le s_2\le\dots\le s_N.$$
#
# That is a **quadratic program** (QP): a quadratic cost, linear constraints. How far from the truth
# are the repairs, in the columns that crossed, over many noisy predictions? And how often does a
# repair make a column *worse*, its squared errors weighted by $1/\sigma_i^2$?

# %% mystnb={"code_prompt_show": "Five repairs, and the table"} tags=["hide-input"]
repairs = {
    "none": lambda mu, sigma: mu,
    "sorted": lambda mu, sigma: np.sort(mu, axis=0),
    "running maximum": lambda mu, sigma: np.maximum.accumulate(mu, axis=0),
    "most likely in order": project,
    "the same, but σ ignored": lambda mu, sigma: project(mu, np.ones_like(sigma)),
}
rows = []
for name, repair in repairs.items():
    errors, worse = [], []
    for draw in range(cfg.n_draws):
        truth, mu, sigma = strip(1000 * run.seed + draw)
        broken = (np.diff(mu, axis=0) < 0).any(0)
        error, before = ((x - truth)[:, broken] for x in (repair(mu, sigma), mu))
        errors.append(np.abs(error))
        worse.append(((error**2 - before**2) / sigma[:, broken] ** 2).sum(0) > 1e-9)
    means = np.concatenate(errors, axis=1).mean(1)
    rows.append([name, *(f"{m:.2f}" for m in means), f"{np.concatenate(worse).mean():.1%}"])
header = ["mean error, columns that crossed", "s₁", "s₂", "s₃ [rows]", "made worse"]
plotting.Table(header, rows)

# %% [markdown]
# Sorting looks good in the middle, at a price: it hands a part of the unsure surface's error on to a
# neighbour that had been right. The optimum uses the network's own word on its doubts. And it never
# makes a column worse: it is the *projection* of $\mu$ onto the set of ordered columns, in the
# distance that $\sigma$ defines, and a step straight towards a convex set is a step nearer to each
# of its points. The truth is one of them. What does this projection look like, how is it computed,
# and how does a gradient get through it?
#
# {cite:t}`boyd2004convex` is the textbook of the subject; the step from solver to layer was made
# popular by {cite:t}`amos2017optnet`.
#
# ## The method
#
# ### One picture: ellipses and a half plane
#
# Take one column with two surfaces. A candidate $s=(s_1,s_2)$ is a point in a plane. Points of
# equal cost lie on ellipses around $\mu$, wide where $\sigma$ is large. The order $s_1\le s_2$
# allows the half plane above the diagonal. If $\mu$ lies inside, it is the answer. If not, let the
# ellipse grow until it touches the allowed half: where it *touches*, it is tangent to the border,
# and that point is the cheapest.
#
# In mechanics: each surface is a plate that hangs on a spring of stiffness $w_i=1/\sigma_i^2$ from
# the row $\mu_i$, and plates cannot pass through each other.
#
# **Predict, then move.** $\mu_2$ stays at row 4. From which $\mu_1$ on do the plates press on each
# other? And which of the two gives way if $\sigma_1$ is small?


# %% mystnb={"code_prompt_show": "The plane of two surfaces"} tags=["hide-input"]
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
        ax.contour(x, y, cost, levels=[touching], colors=METHOD, linewidths=1.5)
    arrow = {"width": 0.09, "head_width": 0.4, "length_includes_head": True, "zorder": 3}
    if force > 0:
        ax.arrow(*s, force, -force, color=METHOD, **arrow)
        ax.arrow(*s, -force, force, color=PUSH, **arrow)
    ax.plot(*mu, "o", color="black", markersize=5)
    ax.annotate("μ" if touching else "μ = s*", mu, (6, -8), textcoords=POINTS)
    ax.plot(*s, "o", color="white", markeredgecolor="black", markersize=6, zorder=4)
    ax.annotate("s*" if touching else "", s, (6, 4), textcoords=POINTS)
    ax.set(xlabel="$s_1$ [rows]", ylabel="$s_2$ [rows]", xlim=(0, 10), ylim=(0, 10), aspect=1)
    ax.grid(False)


# %% mystnb={"code_prompt_show": "The plates on springs, and the sliders"} tags=["hide-input"]
def draw_springs(ax: plt.Axes, mu: np.ndarray, sigma: np.ndarray) -> None:
    """Two plates on springs; thick springs are stiff. Rows count downward, as in an image."""
    s, force = pair(mu, sigma)
    for i in range(2):
        row = s[i] + (0.16 if i else -0.16) * (force > 0)  # plates have a thickness
        turns = np.linspace(mu[i], row, 16)
        side = 0.05 * np.r_[0, np.tile([1, -1], 7), 0]
        ax.plot(0.25 + 0.5 * i + side, turns, color="0.45", linewidth=min(1.6 / sigma[i], 3))
        ax.plot(0.25 + 0.5 * i, mu[i], "s", color="black", markersize=6)
        ax.annotate(f"$\\mu_{i + 1}$", (0.25 + 0.5 * i, mu[i]), (9, -3), textcoords=POINTS)
        ax.plot([0.02, 0.98], [row, row], color=SURFACE[i], linewidth=4, solid_capstyle="butt")
    ax.set(xlim=(0, 1), ylim=(10, 0), xticks=[], ylabel="row")
    ax.set_title(f"contact force λ = {max(force, 0):.2f}")
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
    mu1=[2.0, 3.5, 5.0, 7.0, 9.0],
    sigma1=[0.5, 0.7, 1.0, 1.5, 2.5],
    start={"mu1": 7.0, "sigma1": 1.0},
    labels={"mu1": "mean μ₁", "sigma1": "spread σ₁"},
    alt="Two plates on springs, and the plane with ellipses, allowed half and the two forces",
    caption="One column. Left: plates on springs, thick ones stiff. Right: lines of equal cost, "
    "allowed half (green), answer s* (white), pull of the cost (blue), push (vermilion).",
    target_bytes=110_000,
)

# %% [markdown]
# A crossed pair meets on the diagonal, so $s_1=s_2$, and the best common row is the mean with the
# weights $w_i$. The surer surface moves less. Nobody sorted, and nobody decided which one was wrong.
#
# ### A balance of forces
#
# The arrows say when a point is optimal. The pull of the cost, $-\nabla f$, points straight out of
# the allowed half, so that every move which still goes down is forbidden. The wall pushes back, at
# right angles to itself, exactly as hard as it is pushed. The **multiplier** $\lambda$ is this
# *contact force*.
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
# is only one. A constraint with $g_i=0$ is called **active**.
#
# ### Pooling, by hand
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
# **Step through it, and guess before each step whether the next surface pools.**


# %% mystnb={"code_prompt_show": "The slider"} tags=["hide-input"]
MU8, W8 = np.array([3, 6, 4, 12, 8, 10, 17, 15.0]), np.array([4, 1, 1, 0.3, 4, 1, 0.5, 4])
history = list(pool(MU8, W8))


def pooling_picture(step: int) -> plt.Figure:
    blocks = history[step - 1]
    seen = sum(size for *_, size in blocks)
    fig, ax = plt.subplots(figsize=(5.4, 2.8))
    i = np.arange(1, 9)
    ax.scatter(i, MU8, 40 * W8, color=["0.3"] * seen + ["0.8"] * (8 - seen))
    first = 1
    for row, _, size in blocks:
        colour = METHOD if size > 1 else "0.3"
        ax.hlines(row, first - 0.35, first + size - 0.65, color=colour, linewidth=4)
        first += size
    ax.set(xlabel="surface i", ylabel="row", ylim=(19, 1), xlim=(0.4, 8.6), xticks=i)
    ax.set_title(f"surfaces added: {seen} of 8, blocks: {len(blocks)}")
    return fig


widgets.frames(
    pooling_picture,
    step=list(range(1, len(history) + 1)),
    start={"step": 5},
    alt="Means as dots and blocks as bars while surfaces are added and pooled from the left",
    caption="Dots are the means, large ones have a large weight, grey ones have not come yet. Bars "
    "are blocks, blue where several surfaces were pooled. Row 0 is at the top.",
)

# %% [markdown]
# Every step of the inner loop removes a block, and only $N$ were ever added, so the whole costs
# $O(N)$. (A formula says the same for a whole batch at once,
# $s_i=\max_{j\le i}\min_{k\ge i}\mathrm{avg}_w(\mu_j,\dots,\mu_k)$.) And the contact forces? Cut the
# column below plate $i$. Everything above the cut is held by its springs and by one contact, so
# $\lambda_i=\sum_{k\le i}w_k(\mu_k-s_k)$. With these the KKT conditions can be checked; no second
# solver is needed to judge the first. Random columns, most of them out of order:

# %%
random = rng.numpy_rng(run.seed, stream="columns")
mu_random = 4 * np.arange(cfg.n_surfaces) + random.normal(0, 5, (cfg.n_columns, cfg.n_surfaces))
sigma2_random = np.exp(random.uniform(np.log(1), np.log(64), mu_random.shape))
pairs = list(zip(mu_random, 1 / sigma2_random, strict=True))
pav = np.array([rows_of(list(pool(mu, w))[-1]) for mu, w in pairs])
assert np.allclose(pav, [isotonic_regression(mu, weights=w).x for mu, w in pairs])
force = np.cumsum((mu_random - pav) / sigma2_random, axis=1)
slack = np.diff(pav, axis=1)
assert force.min() > -1e-9 and slack.min() > -1e-9, "contacts push, plates do not pass"
assert np.allclose(force[:, :-1] * slack, 0) and np.allclose(force[:, -1], 0)

# %% [markdown]
# A **minimum gap** changes nothing: measure each surface from a ladder of rungs,
# $s'_i=s_i-\sum_{k<i}d^{\min}_k$, and $s_{i+1}-s_i\ge d^{\min}_i$ becomes plain order again. So
# order and minimum gaps have a closed form. A **maximum gap** is a string between two plates that
# cannot be longer than $d^{\max}$. Now a plate may be pushed by one neighbour and pulled by the
# other, both at once, and no single sweep sorts that out.
#
# ### The road through the inside
#
# Which constraints are active? With that knowledge the rest would be linear algebra; but there are
# exponentially many guesses. An **interior-point method** does not guess. It replaces the hard
# walls by a soft repulsion, a **barrier** that grows without bound at the wall, and then turns it
# down:
#
# $$\min_s\ f(s)-\frac1t\sum_i\log g_i(s).$$
#
# For small $t$ the barrier wins, and the minimum lies well inside. For $t\to\infty$ only the walls
# are left. The minima in between form a smooth curve, the **central path**.
#
# What changes in the KKT conditions? Set the gradient of the barrier problem to zero and call
# $1/(t\,g_i)$ by the name $\lambda_i$. All four lines stay as they were, but for the last:
#
# $$Q(s-\mu)+B^T\lambda=0,\qquad \lambda_i\,g_i=\frac1t,\qquad \lambda,g>0 .$$
#
# Plates that come near already push each other, a little. The system is smooth, so **Newton's
# method** applies: linearise, solve, step, and stop just short of the wall. A *primal-dual* method does not wait
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
# The method itself is a generator; whoever uses it takes as many steps as it takes. Each step aims
# $\beta$ times further down the central path, or stays at one point $t$ of it. A column whose
# duality gap has reached `floor` stays where it is.


# %%
def interior_point(mu, sigma2, low, high=None, *, beta=10.0, t=None, floor=1e-9):
    """Yields s (P, N), λ and g (P, M) of P columns after each Newton step, without end."""
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
        step = 0.99 / reach.clamp(min=0.99) * ((lam * g).sum(-1, True) > floor)
        s, lam = s + step * ds, lam + step * dlam


def after(steps: int, *args, **kwargs):
    """The iterate after so many Newton steps."""
    return next(itertools.islice(interior_point(*args, **kwargs), steps, None))


# %% [markdown]
# Against the exact solution, on the random columns from above, all of them in one batch:

# %%
mu_r, sigma2_r = torch.tensor(mu_random), torch.tensor(sigma2_random)  # (P, N)
order = torch.zeros(cfg.n_surfaces - 1, dtype=F8)
s, lam, g = after(25, mu_r, sigma2_r, order)
distance = (s - torch.tensor(pav)).abs()
assert distance.max() < 0.001, "the interior point does not end at the solution by pooling"

# %% [markdown]
# Why is it so fast? Near a point of the central path Newton's method converges **quadratically**,
# it doubles the number of correct digits; and each primal-dual step goes down the path by about a
# factor of $\beta$ in the **duality gap** $g^T\lambda$. Neither depends much on how many surfaces
# there are.
#
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
# So one stops when the gap is small enough for the accuracy wanted, each column by itself.

# %%
gap = (lam * g).sum(-1, keepdim=True)
assert (distance <= (2 * sigma2_r * gap).sqrt() + 1e-9).all(), "the bound does not hold"

# %% [markdown]
# The **norm of the residuals** $(r_d,r_c)$, on which many codes stop, promises no such thing. It adds
# forces to pure numbers, and it is measured against the $t$ of the moment: it says how close you are
# to the central *path*, not how far down you have come.
# [](../surfaces-and-structure/ipm-surfaces) measures what that costs.
#
# ### Why it costs so little
#
# The $N\times N$ matrix $K$ couples each surface to its neighbours only: it is **tridiagonal**. Such
# a system is solved in one sweep down the column and one up, $O(N)$ operations in place of $O(N^3)$,
# and the same sweep serves all columns of a batch of images (the [guide](../guide/solver-speed) has
# the times). A solver that knows nothing of the problem would have to find that out.
#
# ### Differentiate the answer, not the iterations
#
# A network predicted $\mu$ and $\sigma^2$, the solver made $s^*$ of them, a loss $L(s^*)$ compares
# it with the truth. Which way should $\mu$ move? First: is there a gradient at all? In
# [](dynamic-programming) the answer was a staircase with useless slopes. Here $s^*$ is a
# *continuous* function of $\mu$, made of straight pieces. Turn $\mu_2$ of three surfaces from far
# above to far below the others:

# %% mystnb={"code_prompt_show": "The figure", "image": {"alt": "Left, three rows against the mean of the second surface: straight pieces that join without jumps; the surfaces touch, move together, and separate. Right, the slopes of the three rows are steps between 0 and 1; a barrier rounds them."}} tags=["hide-input"]
knob = torch.linspace(-2, 22, 241, dtype=F8)
mu_k = torch.stack([torch.full_like(knob, 6), knob, torch.full_like(knob, 12)], -1)  # (P, 3)
sigma2_k = torch.tensor([1.0, 2.0, 4.0], dtype=F8).expand_as(mu_k)
fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.8))
for t, line in ((None, "-"), (4.0, ":")):
    s, lam, g = after(30, mu_k, sigma2_k, torch.zeros(2, dtype=F8), t=t)
    K = newton_matrix(sigma2_k, lam, g, constraints(3, torch.zeros(2, dtype=F8), None)[0])
    slopes = torch.linalg.inv(K)[:, :, 1] / sigma2_k[:, 1:2]  # ds/dμ₂, derived below
    for i in range(3):
        look = {"color": SURFACE[i], "linewidth": 1.6 if i == 1 or t else 3.5, "zorder": 2 + i % 2}
        left.plot(knob, s[:, i], line, label=None if t else f"$s_{i + 1}$", **look)
        right.plot(knob, slopes[:, i], line, **look)
left.set(xlabel="mean $\\mu_2$ [rows]", ylabel="$s_i$ [rows]", ylim=(15, 3))
right.set(xlabel="mean $\\mu_2$ [rows]", ylabel="slope $\\partial s_i/\\partial\\mu_2$")
fig.legend(loc="outside upper center", ncols=3, fontsize=9)
plotting.show(
    fig,
    caption="Three surfaces while the mean of the second goes from far above to far below the "
    "others. Left, their rows: straight pieces without jumps. Right, the slopes: where surfaces "
    "touch, each takes its share. A barrier (dotted, $t=4$) rounds the corners.",
)

# %% [markdown]
# The slopes are informative nearly everywhere; only at the kinks, where a contact just begins, are
# there two.
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
#
# So the gradient that arrives at an inactive constraint passes through untouched. At an active one,
# its part *along* the border passes, shared out by the weights; its part *across* the border is
# lost, and rightly so, since no small change of $\mu$ can push $s^*$ through the wall.
#
# ### A layer in thirty lines
#
# PyTorch lets us say what the backward pass is: a `torch.autograd.Function` with a forward and a
# backward. Forward runs the generator from above until gap and imbalance are small, backward is
# the one solve. (Autograd does not look inside `forward`, so nothing of the iterations is kept.)


# %%
class ColumnQP(torch.autograd.Function):
    """s (P, N) of μ, σ² (P, N) and low ≤ s[i+1] − s[i] ≤ high (P, N−1); high may be None."""

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
assert torch.autograd.gradcheck(ColumnQP.apply, few, atol=1e-4, rtol=1e-3)

# %% [markdown]
# And does it agree with the solver in `medseg_core`, in value and gradient? That one takes whole
# images, (B, N, W); our $P$ columns are an image $P$ wide.


# %%
def book(mu, sigma2, low, high):
    """The real one; (P, N) to (1, N, P) and back."""
    mu, sigma2, low, high = (None if x is None else x.T[None] for x in (mu, sigma2, low, high))
    return surface_qp.ordered_surfaces(mu, sigma2, min_gap=low, max_gap=high)[0][0].T


def value_and_gradients(solve, low, high) -> tuple[torch.Tensor, ...]:
    """s, ∂L/∂μ and ∂L/∂σ² for L = Σ weights · s, of the clear-cut columns."""
    keep = clear_cut(mu_r, sigma2_r, low, high)
    inputs = [x[keep].clone().requires_grad_() for x in (mu_r, sigma2_r)]
    s = solve(*inputs, *(None if x is None else x[keep] for x in (low, high)))
    return s.detach(), *torch.autograd.grad((weights[keep] * s).sum(), inputs)


# %%
weights = torch.randn(mu_r.shape, generator=rng.generator(run.seed, stream="loss"), dtype=F8)
first_column = pav[0], sigma2_random[0], weights[0].numpy()
for gaps in ((torch.zeros_like(low_r), None), (low_r, None), (low_r, high_r)):
    ours, theirs = (value_and_gradients(solve, *gaps) for solve in (ColumnQP.apply, book))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-3, rtol=1e-3), "the layer is not the package's"

# %% [markdown]
# The toy stops at a tolerance; the real one has none. It takes the closed form where there
# is one. Elsewhere an interior point, with a tridiagonal sweep in each step, finds out which
# constraints are active, and then the column is solved once more, exactly, with rigid rods in
# their place. It lets each column stop by itself, takes gaps in several shapes, and refuses limits
# that contradict each other. What it promises:

# %% tags=["hide-output"]
sources.show(surface_qp.ordered_surfaces)

# %% [markdown]
# ### Which layer when
#
# | the problem | the tool | cost per column |
# |:--|:--|:--|
# | order, minimum gaps | closed form: PAV or max-min | $O(N)$, exact |
# | maximum gaps too | interior point, tridiagonal $K$ | $O(N)$ per step |
# | small, dense QP | qpth {cite:p}`amos2017optnet` | $O(N^3)$ per step |
# | any convex problem | cvxpylayers {cite:p}`agrawal2019differentiable` | general, slower |
# | rows are whole numbers | [](dynamic-programming) | exact, no gradient |
#
# Ask for the structure first. The surface problem went from a general convex program to a weighted
# mean in three steps, and each of them was worth a factor.
# [](../surfaces-and-structure/ipm-surfaces) puts such a layer behind a U-Net and asks whether
# training *through* it is better than projecting afterwards.
#
# ## Explore
#
# **Steps down the path.** The interior-point method on three surfaces, seen in the plane of their
# two gaps (the common shift is free). **Few large steps or many small ones: which $\beta$ follows
# the central path, and which arrives first?**


# %% mystnb={"code_prompt_show": "The sliders"} tags=["hide-input"]
column = torch.tensor([[10.0, 6.5, 12.5]], dtype=F8), torch.tensor([[4.0, 9.0, 4.0]], dtype=F8)
column += torch.zeros(2, dtype=F8), torch.full((2,), 8.0, dtype=F8)  # gaps from 0 to 8
path = [after(40, *column, t=t)[0][0].diff() for t in np.logspace(-2.5, 4, 40)]
best = after(60, *column, floor=1e-13)[0]


def newton_picture(beta: float, step: int) -> plt.Figure:
    history = list(itertools.islice(interior_point(*column, beta=beta, floor=1e-12), step + 1))
    fig, ax = plt.subplots(figsize=(5.4, 3.9))
    ax.fill([0, 8, 8, 0], [0, 0, 8, 8], color=PALETTE["green"], alpha=0.15)
    ax.plot(*torch.stack(path).T, color="0.4", linewidth=1)
    gaps = torch.stack([s[0].diff() for s, *_ in history])
    ax.plot(*gaps.T, "o-", color=METHOD, markersize=4, linewidth=1)
    ax.plot(*column[0][0].diff(), "ko", markersize=5)
    ax.set(xlabel="gap $s_2-s_1$ [rows]", ylabel="gap $s_3-s_2$ [rows]")
    s, lam, g = history[-1]
    bound = (2 * column[1].max() * (lam * g).sum()).sqrt()
    ax.set(xlim=(-5, 9), ylim=(-1, 9), aspect=1)
    ax.set_title(f"error {(s - best).abs().max():.1e} rows, bound {bound:.1e} rows")
    ax.grid(False)
    return fig


widgets.frames(
    newton_picture,
    beta=[2.0, 5.0, 10.0, 30.0, 100.0],
    step=[0, 1, 2, 3, 4, 5, 6, 8, 10, 12],
    start={"beta": 10.0, "step": 4},
    labels={"beta": "factor β", "step": "Newton steps"},
    alt="Iterates in the plane of two gaps beside the central path, with error and bound",
    caption="Allowed gaps (green), μ (black), central path (grey), iterates (blue). A small β "
    "keeps to the path, a large one cuts the corner; the error stays below its bound.",
    target_bytes=130_000,
)

# %% [markdown]
# ## Self-test
#
# Open the answer that you would give: it says whether it is right, and why.

# %% jupyter={"source_hidden": true} tags=["remove-input"]
exercises.quiz(
    {
        "Two surfaces cross. Which one moves more?": [
            (
                True,
                "the one with the larger $\\sigma$",
                "Its spring is softer, the force the same.",
            ),
            (False, "the one that is wrong", "Nobody knows which one that is."),
        ],
        "A constraint has $g_i=2$ rows of room at the solution. Its $\\lambda_i$ is": [
            (False, "two", "A force is not a distance."),
            (True, "zero", "No force without contact: $\\lambda_ig_i=0$."),
        ],
        "Why may backward forget the Newton steps?": [
            (False, "The last step is the largest", "It is the smallest."),
            (True, "The conditions at the end define $s^*$", "Differentiate these, not the way."),
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
# A multiplier is a force. It is also a *price*. The pair $\mu=(7,4)$, $\sigma=(1,1)$ must keep
# $s_1\le s_2$. By how much does the smallest cost change per row, if $s_1-s_2$ may exceed 0 by
# a little?
#
# :::{dropdown} Hint
# The least cost is $f^*(b)=\mathcal L(s^*,\lambda^*)$. Vary the limit $b$ in $s_1-s_2\le b$: what
# changes directly, and why do the indirect changes vanish? `pair` gives the force.
# :::

# %%
price = ...  # rate of change, with its sign

exercises.check("ex1", price, within=0.01)

# %% [markdown] jupyter={"source_hidden": true} tags=["solution"]
# $\mathcal L$ depends on $b$ directly, by $-\lambda^T\mathrm db$. Through $s^*$ it does not change,
# since $\partial\mathcal L/\partial s=0$; nor through $\lambda^*$, since an active constraint has
# $g_i=0$ and an inactive one keeps $\lambda_i=0$. So $\partial f^*/\partial b_i=-\lambda_i$: one row
# more of room is worth $\lambda_i$. As no price is ever negative, descent on $f(s^*)$ would
# relax every limit until none is active. Limits that a network *learns* must be judged by something else,
# such as the distance of $s^*$ to the truth.

# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
cost = [((7 - 4 - b) / 2) ** 2 for b in (-1e-4, 1e-4)]  # each plate gives half of what is left
assert np.isclose(np.diff(cost)[0] / 2e-4, -pair(np.array([7.0, 4.0]), np.ones(2))[1])
exercises.solution("ex1", -pair(np.array([7.0, 4.0]), np.ones(2))[1])

# %% [markdown]
# ### Exercise 2 (code)
#
# For the order alone one needs no linear system at all to go backward. Write the backward pass of
# PAV: given $s^*$, $\sigma^2$ and $\partial L/\partial s$ of one column, return
# $\partial L/\partial\mu$ in $O(N)$, without a loop over the blocks. (`first_column` is one.)
#
# :::{dropdown} Hint
# A block with the total force $F=\sum\partial L/\partial s_k$ and the stiffness $W=\sum w_k$ gives
# each of its means the share $w_iF/W$. `np.bincount(block, values)` adds up by block.
# :::


# %%
def pav_backward(s: np.ndarray, sigma2: np.ndarray, grad: np.ndarray) -> np.ndarray:
    """∂L/∂μ (N,) of one column."""
    return ...


exercises.check("ex2", lambda: pav_backward(*first_column), within=1e-6)


# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
def share_out(s: np.ndarray, sigma2: np.ndarray, grad: np.ndarray) -> np.ndarray:
    block = np.r_[0, np.cumsum(np.diff(s) > 1e-9)]  # number of the block of each surface
    w = 1 / sigma2
    return w * (np.bincount(block, grad) / np.bincount(block, w))[block]


rows = zip(pav, sigma2_random, weights.numpy(), strict=True)
found = np.array([share_out(*row) for row in rows])[clear_cut(mu_r, sigma2_r, order)]
_, by_layer, _ = value_and_gradients(ColumnQP.apply, torch.zeros_like(low_r), None)
assert np.allclose(by_layer, found, atol=1e-3)
exercises.solution("ex2", share_out(*first_column))

# %% [markdown] jupyter={"source_hidden": true} tags=["solution"]
# Two surfaces that touch and that the loss pulls in opposite directions with equal strength receive
# nothing.

# %% [markdown]
# ### Exercise 3 (experiment)
#
# Autograd could also run back through all Newton steps (*unrolling*). `kept_bytes(call)` measures
# what it keeps for the way back. How many times as much does unrolling 16 steps keep as
# `ColumnQP`? Guess first. And what becomes of the ratio with twice as many steps?
#
# :::{dropdown} Hint
# `after(16, mu, sigma2_r, low_r, high_r)[0]` makes 16 steps that autograd follows if `mu` wants a
# gradient; `ColumnQP.apply(mu, sigma2_r, low_r, high_r)` is the layer.
# :::


# %% mystnb={"code_prompt_show": "How much autograd keeps"} tags=["hide-input"]
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


mu = mu_r.clone().requires_grad_()

# %%
ratio = ...

exercises.check("ex3", ratio, within=1)

# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
layer = kept_bytes(lambda: ColumnQP.apply(mu, sigma2_r, low_r, high_r))
ways = {n: lambda n=n: after(n, mu, sigma2_r, low_r, high_r) for n in (8, 16, 32)}
found = {n: kept_bytes(way) / layer for n, way in ways.items()}
print(", ".join(f"{n} steps: {value:.1f} times" for n, value in found.items()))
exercises.solution("ex3", found[16])

# %% [markdown] jupyter={"source_hidden": true} tags=["solution"]
# Unrolling keeps every step, so its memory grows with their number; the layer keeps the solution.
# Implicit differentiation is exact for the *problem*, unrolling for the *program*; when the program
# has converged, the two agree.

# %% [markdown]
# ## To take away
#
# - At the optimum forces balance: springs pull, contacts push, and there is no force without contact.
# - Order and minimum gaps are pooling, $O(N)$ and exact; maximum gaps need an interior point.
# - Stop on the duality gap: it bounds the error in rows. The norm of residuals does not.
# - Differentiate the conditions, not the steps: one more solve with the same tridiagonal matrix.
# - To use it, call `surface_qp.ordered_surfaces(mu, sigma2, min_gap=..., max_gap=...)`.
#
# ## Words
#
# Active constraint
# : One whose limit is reached, $g_i=0$: the surfaces touch, or the string is taut.
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
# KKT conditions
# : Balance of forces, allowed, pushing only, no force without contact.
#
# Multiplier
# : The force $\lambda_i$ with which a constraint pushes; also the price of its limit.
