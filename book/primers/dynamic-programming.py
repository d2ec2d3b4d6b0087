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
# # Dynamic programming on images
#
# :::{admonition} At a glance
# :class: tip
#
# - **Task:** find the best path through an image, or the best closed contour around an object.
# - **Idea:** the best path to a pixel comes by the best path to a neighbour: one sweep, and exact.
# - **Afterwards you can** write the recursion for open and closed paths, say what it costs, and
#   train a network through it although it has no gradient.
# - **Before:** NumPy, gradients. **Time:** seconds. **Used by:**
#   [EDPCNN](../surfaces-and-structure/edpcnn).
# :::

# %% mystnb={"code_prompt_show": "Parameters"} tags=["parameters", "hide-input"]
scale: str = "lesson"  # smoke | lesson | paper: how many random draws
seed: int = 0  # all random numbers follow from it
device: str = "auto"  # auto | cpu | cuda | cuda:1 | mps (the maps here are small: cpu is fine)
data_dir: str = None  # not used: this page needs no data
extended: bool = False  # not used: nothing here needs a GPU
overrides: dict = {}  # settings to change, for example {"delta": 1}

# %% mystnb={"code_prompt_show": "Set-up: imports and the three scales"} tags=["hide-input"]
import functools
import itertools
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import torch

from medseg_book.page import exercises, plotting, scales, sources, widgets
from medseg_book.page.plotting import BASELINES, ROLES, WIDTH
from medseg_core import rng
from medseg_core.physics import shapes
from medseg_core.solvers import star_dp, star_pattern


@dataclass(frozen=True)
class Settings:
    n_draws: int  # random draws of the perturbed optimiser, all that the scales change
    delta: int = 2  # largest step between neighbouring lines
    expected: str = "seconds"


table = {"smoke": Settings(200), "lesson": Settings(10_000), "paper": Settings(40_000)}
run = scales.begin(
    "dynamic-programming",
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
METHOD, RESULT = ROLES["method"], ROLES["result"]
DARK = {"loc": "outside upper center", "fontsize": 9, "frameon": True, "facecolor": "0.25"}
DARK["labelcolor"] = "white"  # for legends with yellow lines

# %% [markdown]
# ## The problem


# %% mystnb={"code_prompt_show": "The strip, and two methods for its border"} tags=["hide-input"]
def strip(seed: int, n_lines: int = 80, n_points: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """A noisy strip g (N, M+1), bright at small indices, and its true border v* (N,)."""
    n, i = np.arange(n_lines)[:, None], np.arange(n_points + 1)
    border = 19 + 5 * np.sin(2 * np.pi * n / 60) + np.sin(2 * np.pi * n / 17)
    fades = 1 - 0.6 * np.exp(-(((n - 36) / 8) ** 2))
    g = fades * (i < border) + (1 - fades) * 0.5
    streak = border[28] + 1.7 * (n - 28)
    g = np.where((i < streak) & (i > streak - 7) & (n >= 28) & (n < 42), 0.95, g)
    noise = rng.numpy_rng(seed, stream="noise").normal(0, 0.15, g.shape)
    return g + noise, np.ceil(border[:, 0])


g, truth = strip(run.seed)
h = np.diff(g, axis=1)  # h[n, i]: how the strip changes from row i to row i + 1 of column n


def follow(h: np.ndarray, delta: int) -> np.ndarray:
    """Greedy: start at the best row of column 1, then always take the best row within reach."""
    v = [h[0].argmin()]
    for cost in h[1:]:
        low = max(0, v[-1] - delta)
        v.append(low + cost[low : v[-1] + delta + 1].argmin())
    return np.array(v)


def cost(h: np.ndarray, paths: np.ndarray) -> np.ndarray:
    """Cost of a path (N,), or of many (..., N)."""
    return h[np.arange(len(h)), paths].sum(-1)


def exact_path(h: np.ndarray, delta: int) -> np.ndarray:
    """The book's solver. It closes paths, so the strip goes there and back, mirrored."""
    there_and_back = np.cumsum(np.pad(np.concatenate([h, h[::-1]]), ((0, 0), (1, 0))), axis=1)
    return star_dp.circular_dp(torch.tensor(there_and_back)[None], delta)[0, : len(h)].numpy() - 1


# %% mystnb={"code_prompt_show": "The figure", "image": {"alt": "A bright strip above a dark one with three lines along their border. The best row of each column jumps; the greedy line leaves the border along a bright streak; dynamic programming stays on the border through the faint part."}} tags=["thumbnail", "hide-input"]
paths = {
    "best row of each column": (h.argmin(1), BASELINES[4], ":"),
    "greedy": (follow(h, s.delta), BASELINES[0], "-"),
    "dynamic programming": (exact_path(h, s.delta), RESULT, "-"),
}


def draw_paths(ax: plt.Axes, paths: dict) -> None:
    ax.imshow(g.T, cmap="gray", aspect="auto")
    for name, (v, colour, line) in paths.items():
        # Answer i lies half-way between samples i and i + 1.
        width = 2.2 if line == "-" else 1.2
        ax.plot(v + 0.5, line, color=colour, label=name, linewidth=width)
    ax.set(xlabel="column n", ylabel="row i", xlim=(-0.5, len(g) - 0.5))
    ax.grid(False)


fig, ax = plt.subplots(figsize=(WIDTH, 3.2))
draw_paths(ax, paths)
fig.legend(ncols=3, **DARK)
plotting.show(
    fig,
    caption="A noisy strip whose border winds and fades half-way, where a bright streak branches "
    "off. Column by column the answer jumps; the greedy path takes the wrong turning; dynamic "
    "programming finds the best of all paths.",
)

# %% [markdown]
# A strip of tissue lies above a darker one, and half-way their border almost fades. For each of
# the $N$ columns we want one number, the row $v_n$ of the border.
#
# The border is where the strip *falls* most, so the cost of a row is the difference
# $h(n,i)=g(n,i)-g(n,i-1)$, very negative at a good place. There are two obvious methods. Take the
# best row of each column: noise makes it jump. Or be **greedy**: follow the edge, never further
# than $\delta$ rows a step, and take the wrong turning, since you cannot know until it is too
# late. The third line is this page's subject. In computer vision it is as old as the field;
# {cite:t}`felzenszwalb2011dp` survey it.

# %% mystnb={"code_prompt_show": "The table"} tags=["hide-input"]
rows = []
for name, (v, *_) in paths.items():
    numbers = cost(h, v), abs(v + 1 - truth).mean()
    rows.append([name, *(f"{x:.2f}" for x in numbers), f"{abs(np.diff(v)).max()}"])
plotting.Table(
    ["path", "cost", "mean error [rows]", "largest step [rows]"],
    rows,
    note=f"A step may be at most {s.delta} rows. The first method breaks that rule; among the "
    "paths that keep it, none is cheaper than that of dynamic programming.",
)

# %% [markdown]
# ## The method
#
# **Predict, then move.** The slider sets the **band** $\delta$, the largest step from column to
# column. At $\delta=0$ only straight lines are allowed. What does a very wide band do to each of
# the two paths?


# %% mystnb={"code_prompt_show": "The slider"} tags=["hide-input"]
def band_picture(delta: int) -> plt.Figure:
    found = {
        "greedy": (follow(h, delta), BASELINES[0], "-"),
        "dynamic programming": (exact_path(h, delta), RESULT, "-"),
    }
    fig, ax = plt.subplots(figsize=(6, 3))
    draw_paths(ax, found)
    costs = [f"{name} {cost(h, v):.1f}" for name, (v, *_) in found.items()]
    ax.set_title("cost: " + ", ".join(costs))
    return fig


widgets.frames(
    band_picture,
    delta=[0, 1, 2, 3, 5, 10, 47],
    start={"delta": 2},
    labels={"delta": "band δ"},
    alt="The strip with the greedy path and that of dynamic programming",
    caption="The greedy path (vermilion) and the best one (yellow) for one band. A wider band "
    "allows more paths, so the best cost can only fall; in the end nothing ties the columns "
    "together any more, and noise rules both.",
    target_bytes=110_000,
)

# %% [markdown]
# ### The recursion
#
# Let $V_n(j)$ be the cost of the cheapest path that *ends* at row $j$ of column $n$. Such a path
# comes from some row $i$ of the column before, at most $\delta$ away. Whatever comes later, its
# first part had better be the cheapest path to $i$, otherwise we could swap that part and win.
# Therefore
#
# $$V_1(j)=h(1,j),\qquad V_n(j)=h(n,j)+\min_{|i-j|\le\delta}V_{n-1}(i).$$
#
# Remember for each entry which $i$ won, start at the smallest entry of the last column, and walk
# back. Those are all the lines that exact optimisation takes here.


# %%
def best_path(h: np.ndarray, delta: int) -> tuple[np.ndarray, np.ndarray]:
    """The cheapest path through h (N, M) with steps of at most delta, and its table V."""
    V, came_from = h.copy(), np.zeros(h.shape, int)
    for n in range(1, len(h)):
        for j in range(h.shape[1]):
            low = max(0, j - delta)
            came_from[n, j] = low + V[n - 1, low : j + delta + 1].argmin()
            V[n, j] += V[n - 1, came_from[n, j]]
    v = [V[-1].argmin()]
    for n in range(len(h) - 1, 0, -1):
        v.append(came_from[n, v[-1]])
    return np.array(v[::-1]), V


# %%
v, V = best_path(h, s.delta)
assert np.array_equal(v, exact_path(h, s.delta)), "the path from scratch is not the package's"

# %% mystnb={"code_prompt_show": "The figure", "image": {"alt": "Two images side by side: the cost h of every row and column, and the table V with the path. In V a dark valley follows the border and widens to the right."}} tags=["hide-input"]
fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.9), sharey=True)
panels = (h, "cost h(n, i)"), (V - V.min(1, keepdims=True), "V, above its column's best")
for ax, (values, label) in zip(axes, panels, strict=True):
    shown = ax.imshow(values.T, cmap="cividis", aspect="auto")
    fig.colorbar(shown, ax=ax, label=label, location="top", aspect=30)
    ax.set(xlabel="column n")
    ax.grid(False)
axes[0].set_ylabel("row i")
axes[1].plot(v, color=RESULT, linewidth=1.5)
plotting.show(
    fig,
    caption="Left: what each row of each column costs by itself. Right: the table V, which is all "
    "that the recursion ever knows, with the best path (yellow). Each column sums up everything "
    "to its left.",
)

# %% [markdown]
# An exact method can be checked against *all* candidates where there are few enough. Five columns
# of five rows have at most 3125 paths.


# %%
def every_path(n_lines: int, n_points: int, delta: int, closed: bool = False) -> np.ndarray:
    """All paths (count, N) with steps of at most delta; closed: also from last to first."""
    paths = np.array(list(itertools.product(range(n_points), repeat=n_lines)))
    steps = abs(np.diff(paths, axis=1, append=paths[:, :1] if closed else paths[:, -1:]))
    return paths[(steps <= delta).all(1)]


small = rng.numpy_rng(run.seed, stream="checks").normal(size=(20, 5, 5))
for delta in range(5):
    candidates = every_path(5, 5, delta)
    for x in small:
        assert np.isclose(cost(x, best_path(x, delta)[0]), cost(x, candidates).min())

# %% [markdown]
# ### Minimum and plus: another algebra
#
# Put the costs of one step into a matrix, $W_n(i,j)=h(n,i)$ if $|i-j|\le\delta$ and $\infty$
# otherwise. The recursion is then a vector times these matrices, in an algebra where *plus* became
# *minimum* and *times* became *plus*:
#
# $$(A\otimes B)(i,j)=\min_k\,[A(i,k)+B(k,j)].$$
#
# Like the ordinary product it is associative: halves of an image can be solved apart and joined.
# It also says at once what a *closed* path is. $(W_1\otimes\dots\otimes W_N)(i,j)$ is the cheapest
# way from $i$ around all lines to $j$, so the best closed path is the smallest entry of the
# **diagonal**. And other operations in the same loop answer other questions:
#
# | sum | product | the diagonal then gives |
# |:--|:--|:--|
# | $\min$ | $+$ | the cost of the best closed path |
# | $+$ | $\times$ | the number of closed paths, if the entries are 1 and 0 |
# | $-\gamma\log\sum e^{-\cdot/\gamma}$ | $+$ | a smooth version of the best cost (further below) |


# %%
def min_plus(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    return (A[:, :, None] + B[None]).min(1)


def band(n_points: int, delta: int) -> np.ndarray:
    i = np.arange(n_points)
    return abs(i[:, None] - i) <= delta


x = small[0]
steps = [np.where(band(5, 1), line[:, None], np.inf) for line in x]
best = functools.reduce(min_plus, steps).diagonal().min()
assert np.isclose(best, cost(x, every_path(5, 5, 1, closed=True)).min())
ones = band(30, 2).astype(object)  # Python's whole numbers do not overflow
count = np.trace(functools.reduce(np.dot, [ones] * 50))
print(f"Closed paths on 50 lines of 30 answers with δ = 2: {count:.1e}")

# %% [markdown]
# ### Paths that close
#
# An object that is more or less round becomes a strip when it is read along rays from its inside:
# line $n$ of the strip is ray $n$, and sample $i$ lies at radius $i\rho$. The border of the object
# is a path through the strip again, with one condition more. Line $N$ is the neighbour of line 1,
# so $|v_N-v_1|\le\delta$ must hold as well. An open path does not know that. (The band is *per
# line*: with twice as many lines the same $\delta$ lets a contour leave its radius twice as fast.)
#
# Below, a bright disc is joined to a second one, to the right of its centre, just where line 1
# begins (angle 0 points right, and the lines go round clockwise). The open path starts on the far
# edge of the second disc: it pays for the way down to the first disc, but nobody told it that it has
# to climb up again.


# %% mystnb={"code_prompt_show": "Two discs, and their strip of rays"} tags=["hide-input"]
def disc(radius: float, row: float, column: float, size: int = 64) -> torch.Tensor:
    """An image (H, W): 1 inside, 0 outside; row and column count from the middle."""
    r, c = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    middle = (size - 1) / 2
    return shapes.coverage(torch.hypot(r - middle - row, c - middle - column) - radius)


first_disc, second_disc = disc(13, 0, 0), disc(10, 8, 16)


def two_discs(seed: int, noise: float = 0.15) -> torch.Tensor:
    """Both discs and noise, (1, 1, H, W)."""
    gen = rng.generator(seed, stream="discs")
    image = torch.maximum(first_disc, second_disc)
    return (image + noise * torch.randn(image.shape, generator=gen))[None, None]


N_LINES, N_POINTS, RADIUS = 50, 30, 30.0
image, centre = two_discs(run.seed), torch.full((1, 2), 31.5)
points = star_pattern.star_pattern(centre, N_LINES, N_POINTS, RADIUS)
warped = star_pattern.warp(image, points)  # (1, N, M+1)
h_ring = np.diff(warped[0].double().numpy(), axis=1)

# %% [markdown]
# One repair suggests itself: keep the open path's first answer and make the path come back to it.
# That closes, but the first answer itself was chosen without knowing the price. Trying *all* first
# answers is exact ({cite:t}`ray2012snake`); each of them is an open problem that we can solve.


# %%
def closed_path(h: np.ndarray, delta: int, starts=None) -> tuple[float, np.ndarray]:
    """Cheapest closed path: fix each first answer in turn, forbid the ends that do not meet it."""
    best = np.inf, None
    for k in range(h.shape[1]) if starts is None else starts:
        tied = np.where(np.arange(h.shape[1]) == k, h[0], np.inf)
        ends = np.where(abs(np.arange(h.shape[1]) - k) <= delta, h[-1], np.inf)
        v, V = best_path(np.vstack([tied, h[1:-1], ends]), delta)
        best = min(best, (V[-1].min(), v), key=lambda pair: pair[0])
    return best


# %% mystnb={"code_prompt_show": "The figure", "image": {"alt": "Left: two touching bright discs and three contours. The open path starts on the outer edge of the second disc and ends on the first, so that it does not close; the repaired one closes around a part of the second disc; the closed one follows the first disc. Right: the same as paths through the strip."}} tags=["hide-input"]
v_open = best_path(h_ring, s.delta)[0]
answers = {
    "open": (v_open, BASELINES[0]),
    "open, made to close": (closed_path(h_ring, s.delta, v_open[:1])[1], BASELINES[4]),
    "closed": (closed_path(h_ring, s.delta)[1], RESULT),
}
fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.7))
left.imshow(image[0, 0])
right.imshow(warped[0].T, aspect="auto")
for name, (v, colour) in answers.items():
    corners = star_pattern.contour_points(centre, torch.tensor(v)[None] + 1, RADIUS / N_POINTS)[0]
    corners = corners if name == "open" else torch.cat([corners, corners[:1]])
    width = 5 if name == "open" else 1.8  # the others lie on top of it
    left.plot(corners[:, 1], corners[:, 0], color=colour, linewidth=width)
    right.plot(v + 0.5, color=colour, linewidth=width, label=name)
right.set(xlabel="line n", ylabel="sample i")
left.set(xticks=[], yticks=[])
right.grid(False)
fig.legend(ncols=3, **DARK)
price = {name: cost(h_ring, v) for name, (v, _) in answers.items()}
apart = abs(v_open[0] - v_open[-1])
plotting.show(
    fig,
    caption=f"Two discs, read along {N_LINES} rays (right: the strip of rays). The open path costs "
    f"{price['open']:.1f}, and its ends lie {apart} samples apart. Made to close from its own "
    f"start it costs {price['open, made to close']:.1f}; the best closed path costs "
    f"{price['closed']:.1f} and follows the first disc.",
)

# %% [markdown]
# ### All starts at once
#
# `closed_path` solves $M$ open problems, one for each first answer $k$. Nothing forces us to do
# so one after the other: give the table a second index, $V_n(k,j)$ = cheapest path from $k$ to $j$,
# and each step serves all $k$. Two observations keep it cheap.
#
# First, each unary cost $h$ appears on its own in the recursion, so a step is a **sliding minimum**
# over $2\delta+1$ neighbours followed by one addition. A general table of costs for pairs $(i,j)$
# would need all $M$ candidates for each of $M^2$ entries. This is where the published algorithm's
# $O(NM^3)$ becomes $O(NM^2\delta)$.
#
# Second, a sliding minimum need not look at all its $2\delta+1$ values: minima of two neighbours
# give minima of four, and so on, because taking a value twice changes no minimum. That is
# $O(NM^2\log\delta)$.


# %%
def sliding_min(x: np.ndarray, delta: int) -> np.ndarray:
    """Minimum over rows j − δ … j + δ, by windows that double."""
    x, width = np.pad(x, ((delta, delta), (0, 0)), constant_values=np.inf), 1
    while width < 2 * delta + 1:
        step = min(width, 2 * delta + 1 - width)
        x, width = np.minimum(x[:-step], x[step:]), width + step
    return x


def closed_cost(h: np.ndarray, delta: int) -> float:
    """The least cost of a closed path; V[j, k] is the cheapest path from k to j so far."""
    V = np.where(np.eye(h.shape[1], dtype=bool), h[0], np.inf)
    for line in h[1:]:
        V = sliding_min(V, delta) + line[:, None]
    return V[band(h.shape[1], delta)].min()


for delta in (0, 1, 2, 5):
    slow = closed_path(h_ring, delta)[0]
    v = star_dp.circular_dp(warped.double(), delta)
    real = star_dp.circular_dp_energy(warped.double(), v, delta).item() / 2
    assert np.allclose([closed_cost(h_ring, delta), real], slow), "the three do not agree"

# %% [markdown]
# The three agree. (The paper's energy counts every $h$ twice, once for each of the two neighbours
# that it has; hence the half.) The solver in `medseg_core` is the same recursion for a batch, with
# buffers that are used again. To save memory it keeps no tables: when the best start is known, one
# more sweep for that start alone finds the path. This is its inner part:

# %% tags=["hide-output"]
sources.show(star_dp._closed_costs, star_dp._window_min)

# %% [markdown]

# %% [markdown]
# One can go further. Best paths of two different starts need never cross, so the path of a middle
# start bounds those on both sides of it, and dividing again and again gives $O(NM\log M)$. It
# takes many small steps where the above takes few large ones, so it can pay on large maps. The
# [guide](../guide/solver-speed) measures what such steps are worth.
#
# ### What argmin does to a gradient
#
# Suppose that a network drew the map. Then we want to know how the map should change so that the
# contour moves towards the truth, the derivative of a loss with respect to $g$. Take one direction
# of change, turn a knob $t$ along it, and watch the loss. Here the knob brightens the second disc, and
# $v^*$ is the border of the first.

# %% mystnb={"code_prompt_show": "The losses and their figure", "image": {"alt": "Loss against the knob t. The hard solution is a staircase; the soft-min and the perturbed curves fall smoothly through it."}} tags=["hide-input"]
direction = star_pattern.warp(second_disc[None, None] * (1 - first_disc), points)
knob = torch.linspace(-1, 1, 61)
turned = warped + knob[:, None, None] * direction  # (T, N, M+1)
v_true = torch.full((1, N_LINES), 13)
distance = (torch.arange(1, N_POINTS + 1) - v_true[..., None]).abs().float()  # (1, N, M)
answer = star_dp.circular_dp(turned, s.delta)
curves = {"hard": (answer - v_true).abs().float().mean(1)}
for gamma in (0.3, 1.0):
    marginals = star_dp.soft_circular_dp(turned, s.delta, gamma)[1]
    curves[f"soft-min, γ = {gamma:g}"] = (marginals * distance).sum(-1).mean(1)
perturbed = []
for g_t in turned:  # the same noise at every t
    gen = rng.generator(run.seed, stream="perturbed")
    perturbed.append(star_dp.perturbed_indices(g_t[None], s.delta, 0.3, 200, gen))
curves["perturbed, σ = 0.3, 200 draws"] = (torch.cat(perturbed) * distance).sum(-1).mean(1)
fig, ax = plt.subplots(figsize=(5.4, 3.2))
looks = (BASELINES[0], "-"), (METHOD, "-"), (METHOD, "--"), (BASELINES[1], "-")
for (name, values), (colour, line) in zip(curves.items(), looks, strict=True):
    steps = "steps-post" if name == "hard" else "default"
    ax.plot(knob, values, line, color=colour, drawstyle=steps, label=name)
ax.set(xlabel="knob t", ylabel="mean |v − v*| [samples]")
fig.legend(loc="outside upper center", ncols=2, fontsize=9)
plotting.show(
    fig,
    caption="Error of the contour while the knob $t$ brightens the second disc. The exact answer "
    "(vermilion) is a staircase: flat, then a jump. Both ways of smoothing turn it into a slope.",
)

# %% [markdown]
# The hard loss is a **staircase**: a small change of the map moves no answer at all, so its slope
# is zero, until another path wins and the loss jumps. Gradient descent sees nothing. (It is not
# that the derivative is hard to compute. It exists almost everywhere and is useless.) There are
# three ways out, and all of them look at more than one path.
#
# **Soften the minimum.** Replace $\min$ by $-\gamma\log\sum e^{-\cdot/\gamma}$ in the recursion,
# the third row of the table above {cite:p}`mensch2018ddp`. Every contour $v$ now takes part with the
# weight $e^{-E(v)/\gamma}$, and something beautiful happens: the gradient of the smooth optimum
# with respect to the cost of an answer *is the probability of that answer*. In the open problem it
# takes one changed line, and automatic differentiation does the rest.


# %%
def soft_best(h: torch.Tensor, delta: int, gamma: float) -> torch.Tensor:
    """Smoothed cost of the best open path: best_path with a soft minimum."""
    V = h[0]
    for line in h[1:]:
        reach = [V[max(0, j - delta) : j + delta + 1] for j in range(len(V))]
        V = line - gamma * torch.stack([(-r / gamma).logsumexp(0) for r in reach])
    return -gamma * (-V / gamma).logsumexp(0)


x = torch.tensor(small[0], requires_grad=True)
soft_best(x, 1, 0.5).backward()
candidates = every_path(5, 5, 1)
weights = np.exp(-cost(small[0], candidates) / 0.5)
enumerated = np.array([[weights[candidates[:, n] == i].sum() for i in range(5)] for n in range(5)])
assert np.allclose(x.grad, enumerated / weights.sum()), "the gradient is no probability"

# %% [markdown]
# **Perturb.** Solve the hard problem for many noisy maps $g+\sigma\varepsilon$ and average the
# answers {cite:p}`berthet2020perturbed`. The average is smooth in $g$, whatever the solver is, and
# its gradient can be had without differentiating the solver:
# $\nabla_g\,\mathbb E\,\ell(v(g+\sigma\varepsilon))=\mathbb E\,[(\ell-\bar\ell)\,\varepsilon]/\sigma$.
# In words: noise that made the loss smaller than usual points where the map should go. It works for
# anything, and pays for that with variance.
#
# Here is the gradient of the loss where the knob stands at 0.4 and the contour runs around both
# discs. (The cosine compares each estimate with soft-min; the two smooth differently, so it does
# not tend to 1.)

# %% mystnb={"code_prompt_show": "The gradients and their figure", "image": {"alt": "Gradients of the loss with respect to the strip, three images: soft-min, perturbed with few draws, which is noise, and perturbed with many draws, which shows the same bands along the two edges as soft-min."}} tags=["hide-input"]
wrong = (warped + 0.4 * direction).requires_grad_()  # the knob at 0.4
marginals = star_dp.soft_circular_dp(wrong, s.delta, 0.5)[1]
(soft,) = torch.autograd.grad((marginals * distance).sum(-1).mean() / N_POINTS, wrong)
estimates = {"soft-min, γ = 0.5": soft}
for n in (max(50, s.n_draws // 100), s.n_draws):
    gen = rng.generator(run.seed, stream="gradient")
    estimate = star_dp.perturbed_gradient(wrong, s.delta, v_true, 0.3, n, gen)
    cosine = torch.cosine_similarity(soft.flatten(), estimate.flatten(), dim=0)
    estimates[f"σ = 0.3, {n} draws\n(cosine {cosine:.2f})"] = estimate
fig, axes = plt.subplots(1, 3, figsize=(WIDTH, 2.6), sharey=True)
for ax, (name, gradient) in zip(axes, estimates.items(), strict=True):
    limit = gradient.abs().max()
    shown = ax.imshow(gradient[0].T / limit, cmap="PuOr", vmin=-1, vmax=1, aspect="auto")
    ax.set(xlabel="line n", title=name)
    ax.grid(False)
axes[0].set_ylabel("sample i")
fig.colorbar(shown, ax=axes, label="gradient, of its largest")
plotting.show(
    fig,
    caption="How the strip should change, three estimates. Descent subtracts them (orange grows "
    "brighter, purple darker): it flattens the outer edge of the second disc and sharpens the "
    "border between the two. Few draws show mostly noise; many show what soft-min shows.",
)

# %% [markdown]
# **Learn the gradient.** Train a small network to imitate the solver around the present map, and
# use *its* gradient. It, too, must be shown noisy maps, or it learns nothing about the solver's
# surroundings. These *synthetic gradients* {cite:p}`jaderberg2016synthetic` are the method of
# {cite:t}`nguyen2019edpcnn`, and the subject of [](../surfaces-and-structure/edpcnn).
#
# | | needs of the solver | price | error |
# |:--|:--|:--|:--|
# | soft-min | its recursion | log-sum-exp, tables kept | bias grows with $\gamma$ |
# | perturbation | its answers | one solution per draw | bias grows with $\sigma$; variance |
# | synthetic gradient | its answers | a second network | that of the imitation |
#
# ## Explore
#
# **From one path to all of them.** The knob of the staircase stands at 0.25, close to the jump, and
# the slider sets the strength of the smoothing. **Which contour shows up first beside the best one,
# before everything blurs?**


# %% mystnb={"code_prompt_show": "The slider"} tags=["hide-input"]
near_tie = warped + 0.25 * direction


def probability_picture(strength: float) -> plt.Figure:
    gen = rng.generator(run.seed, stream="widget")
    soft = star_dp.soft_circular_dp(near_tie, s.delta, strength)[1]
    perturbed = star_dp.perturbed_indices(near_tie, s.delta, strength, 300, gen)
    panels = {f"soft-min, γ = {strength:g}": soft, f"perturbed, σ = {strength:g}": perturbed}
    fig, axes = plt.subplots(1, 2, figsize=(6.4, 2.9), sharey=True)
    for ax, (name, p) in zip(axes, panels.items(), strict=True):
        shown = ax.imshow(p[0].T.sqrt(), cmap="cividis", vmin=0, vmax=1, aspect="auto")
        best = star_dp.circular_dp(near_tie, s.delta)[0] - 1
        ax.plot(best, color=BASELINES[0], linewidth=1)
        ax.set(xlabel="line n", title=name)
        ax.grid(False)
    axes[0].set_ylabel("answer i")
    bar = fig.colorbar(shown, ax=axes, label="probability", ticks=[0, 0.1**0.5, 0.25**0.5, 1])
    bar.ax.set_yticklabels(["0", "0.1", "0.25", "1"])
    return fig


widgets.frames(
    probability_picture,
    strength=[0.02, 0.05, 0.1, 0.2, 0.4, 0.8],
    start={"strength": 0.2},
    labels={"strength": "γ or σ"},
    alt="Probability of each answer on each line, by soft-min and by perturbation, with the best",
    caption="Probability of each answer on each line, with the best contour (vermilion). Between "
    "that one alone and a blur of all stands the runner-up: the contour that nearly won.",
    target_bytes=110_000,
)

# %% [markdown]
# ## Self-test
#
# Open the answer that you would give: it says whether it is right, and why.

# %% jupyter={"source_hidden": true} tags=["remove-input"]
exercises.quiz(
    {
        "Why may the recursion forget all paths to $i$ but the cheapest?": [
            (False, "It is a part of the best path", "Only if the best path passes through $i$."),
            (True, "What comes after $i$ costs the same for all", "No cost looks back further."),
            (False, "Longer paths cost more", "All paths have one row per column."),
        ],
        "The band $\\delta$ grows. What happens to the least cost?": [
            (False, "it grows", "More candidates cannot make the best one worse."),
            (True, "it falls, or stays", "All former paths are still allowed, and more are."),
        ],
        "Why does no useful gradient come through the exact solver?": [
            (
                True,
                "Its answer stands still, then jumps",
                "So the slope is zero nearly everywhere.",
            ),
            (False, "It is too expensive", "Zero costs nothing to compute. It is of no use."),
            (
                False,
                "The least cost jumps",
                "The *cost* does not. The *place* of the minimum does.",
            ),
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
# On the two discs you know three costs, `price["open"]`, `price["open, made to close"]` and
# `price["closed"]`. Suppose that the last one were not known yet. Between which two numbers must it
# lie, and why? Give the pair (low, high).
#
# :::{dropdown} Hint
# Is every closed path an open path? Is the repaired path a closed path?
# :::

# %%
bounds = (..., ...)

exercises.check("ex1", bounds, within=0.01)

# %% [markdown] jupyter={"source_hidden": true} tags=["solution"]
# A closed path is an open path that fulfils one condition more, so the best open path can only be
# cheaper. (If its ends happen to meet, it *is* the best closed path.) The repaired path is one of
# the closed ones, so the best of them is no dearer.
#
# This gives another search. One backward sweep yields, for each start $k$, the best open path from
# there, a lower bound $b_k$. Solve the closed problem for one start after the other, the smallest
# bound first, and stop when the next bound exceeds the best cost so far. That is *branch and
# bound*: it is worth its while where one start is clearly the best.

# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
lower = best_path(h_ring[::-1], s.delta)[1][-1]  # b_k
upper, solved = np.inf, 0
for k in lower.argsort():
    if lower[k] > upper:
        break
    upper, solved = min(upper, closed_path(h_ring, s.delta, [k])[0]), solved + 1
print(f"Branch and bound solves {solved} of {len(lower)} starts, and finds {upper:.2f}")
exercises.solution("ex1", (price["open"], price["open, made to close"]))

# %% [markdown]
# ### Exercise 2 (code)
#
# How sure is the answer? Compute for every row of every column of the first strip, `h`, the cost
# of the best open path **through** it, for all of them in two sweeps. How much dearer than the
# best path are they, on average?
#
# :::{dropdown} Hint
# `best_path(h, s.delta)[1]` holds the best way *to* each place. A sweep from the right is a sweep
# from the left on the strip turned round. Which cost do the two sweeps both count?
# :::


# %%
def through(h: np.ndarray, delta: int) -> np.ndarray:
    """(N, M) cost of the best path through each place."""
    return ...


exercises.check(
    "ex2",
    lambda: np.mean(through(h, s.delta) - best_path(h, s.delta)[1][-1].min()),
    within=0.001,
)

# %% jupyter={"outputs_hidden": true, "source_hidden": true} mystnb={"image": {"alt": "The price of forcing the path through each place of the strip: a narrow valley along the border that widens where the border is faint, with a spur along the streak."}} tags=["solution"]
forward = best_path(h, s.delta)[1]
backward = best_path(h[::-1], s.delta)[1][::-1]
extra = forward + backward - h - forward[-1].min()  # h was counted by both
assert np.allclose(extra.min(1), 0), "the best path passes through every column"
fig, ax = plt.subplots(figsize=(WIDTH, 3))
shown = ax.imshow(extra.T, cmap="cividis", aspect="auto", vmax=3)
fig.colorbar(shown, ax=ax, label="extra cost of passing here", extend="max")
ax.set(xlabel="column n", ylabel="row i")
ax.grid(False)
plotting.show(fig, caption="What a detour through each place costs. The spur is the streak.")
exercises.solution("ex2", extra.mean())

# %% [markdown] jupyter={"source_hidden": true} tags=["solution"]
# A detour along the streak costs little more. The valley is widest where the border is faint, and
# there the answer is least sure. Soft-min's probabilities show the same, with all paths in place
# of the best one.

# %% [markdown]
# ### Exercise 3 (experiment)
#
# Whether the open path closes by luck depends on where line 1 lies. `turned(noise)` gives the
# costs for 25 directions of line 1 all round. In how many of them does the best open path close
# (ends at most $\delta$ apart) without noise? Guess first. Then try more noise: better or worse?
#
# :::{dropdown} Hint
# `best_path(x, s.delta)[0]` is the path of one of them; compare its first and last answer.
# :::


# %% mystnb={"code_prompt_show": "The turned strips"} tags=["hide-input"]
def turned(noise: float) -> np.ndarray:
    """Costs (25, N, M) of the two discs; line 1 points in another direction in each."""
    angle0 = torch.linspace(0, 2 * torch.pi, 26)[:-1]
    noisy = two_discs(run.seed, noise=noise).expand(len(angle0), -1, -1, -1)
    middle = centre.expand(len(angle0), -1)
    points = star_pattern.star_pattern(middle, N_LINES, N_POINTS, RADIUS, angle0)
    return np.diff(star_pattern.warp(noisy, points).double().numpy(), axis=2)


# %%
count_closed = ...  # of turned(noise=0.0)

exercises.check("ex3", count_closed)

# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
rows = []
for noise in (0.0, 0.1, 0.25, 0.5):
    closes = worse = 0
    for x in turned(noise):
        v = best_path(x, s.delta)[0]
        closes += abs(v[0] - v[-1]) <= s.delta
        worse += closed_path(x, s.delta, v[:1])[0] > closed_cost(x, s.delta) + 1e-9
    rows.append([f"{noise:g}", f"{closes}", f"{worse}"])
exercises.solution("ex3", int(rows[0][1]))
plotting.Table(["noise", "close by luck, of 25", "repairs that are not the best"], rows)

# %% [markdown] jupyter={"source_hidden": true} tags=["solution"]
# Without noise the failing directions are those in which line 1 lies on or beside the second disc.
# A little noise only decides the close cases among them; much noise makes other directions fail
# too, at random. A cut through a quiet place is a good habit, and no guarantee.

# %% [markdown]
# ## To take away
#
# - The best path to a place goes through the best path to a neighbour: one sweep, exact, in
#   $O(NM\delta)$.
# - A closed path needs one condition more; trying all starts at once is exact, in
#   $O(NM^2\log\delta)$.
# - Minimum and plus are an algebra: change the two operations, and the same loop counts or smooths.
# - The place of the minimum has no useful gradient. Soften the minimum, perturb the map, or learn
#   the gradient.
# - To use it, call `star_dp.circular_dp(g, delta)`; when an answer matters, ask what the second
#   best one is.
#
# ## Words
#
# Argmin
# : The place of the minimum, not its value: here, the path.
#
# Band
# : The rule that neighbouring answers differ by at most $\delta$; hard, because a step of
#   $\delta+1$ costs $\infty$ and not just more.
#
# Marginal
# : The probability of one answer on one line, summed over all contours that have it.
#
# Short-axis view
# : A slice of the heart across its long axis, where the left ventricle is a bright, nearly round
#   pool of blood in a dark ring of muscle. The chapter on EDPCNN looks for its border.
#
# Star pattern
# : Rays from a centre inside the object with samples at equal distances, on which an object that
#   can be seen whole from that centre (*star-shaped*) has exactly one border per ray.
#
# Unary cost
# : A cost of one answer alone, as opposed to a cost of a pair of neighbours.
