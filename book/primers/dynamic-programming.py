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
# - **Task:** find the best path through an image, or the best closed contour around an object, out
#   of more candidates than there are atoms in a human body.
# - **Idea:** the best path to a pixel passes through a neighbour, and its first part is the best
#   path to that neighbour. So one sweep over the image is enough, and the answer is exact.
# - **Afterwards you can** write the recursion for open and closed paths, say what it costs and why,
#   and name three ways to train a network through it although it has no gradient.
# - **Before:** NumPy, and what a gradient is.
# - **Time:** seconds at every scale.
# - **Used by:** [](../surfaces-and-structure/edpcnn).
# :::
#
# In computer vision the method is as old as the field; {cite:t}`felzenszwalb2011dp` survey it.
# The closed contours below are those of {cite:t}`ray2012snake`, which {cite:t}`nguyen2019edpcnn`
# put behind a network.

# %% tags=["parameters"]
scale: str = "lesson"  # smoke | lesson | paper: how many random draws, how large the timed maps
seed: int = 0  # all random numbers follow from it
device: str = "auto"  # auto | cpu | cuda | cuda:1 | mps (the maps here are small: cpu is fine)
data_dir: str = None  # not used: this page needs no data
extended: bool = False  # not used: nothing here needs a GPU
overrides: dict = {}  # settings to change, for example {"delta": 1}

# %% [markdown]
# Three modules of the book's package are at work: `shapes` draws, `star_dp` solves, `widgets` makes
# the sliders.

# %%
import itertools
import time
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import torch

from medseg_book.page import plotting, scales, sources, widgets
from medseg_book.page.plotting import PALETTE, WIDTH
from medseg_core import rng
from medseg_core.physics import shapes
from medseg_core.solvers import star_dp, star_pattern

# %% [markdown]
# The scales differ in how often something is drawn and in the sizes that are timed, nothing else.


# %%
@dataclass(frozen=True)
class Settings:
    """What the three scales change."""

    n_draws: int  # random draws of the perturbed optimiser
    timed: tuple[int, ...]  # samples per line in the timing figure
    delta: int = 2  # largest step between neighbouring lines
    expected: str = "seconds"


table = {
    "smoke": Settings(n_draws=200, timed=(8, 16)),
    "lesson": Settings(n_draws=10_000, timed=(16, 32, 64, 128)),
    "paper": Settings(n_draws=40_000, timed=(16, 32, 64, 128, 256)),
}
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

# %% [markdown]
# ## An edge, followed and found
#
# Here is a strip of tissue above a darker one. Their border winds from left to right; half-way it
# almost fades, and just there a bright streak branches off and ends nowhere. For each of the
# $N$ columns we want one number, the row $v_n$ of the border.


# %%
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


# %% [markdown]
# The border is where the strip *falls* most, so the cost of a row is the difference
# $h(n,i)=g(n,i)-g(n,i-1)$, very negative at a good place. There are two obvious methods. Take the
# best row of each column: noise makes it jump. Or follow the edge, and never step further than
# $\delta$ rows: it takes the wrong turning, and cannot know until it is too late. The third line
# is this page's subject.


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


# %% [markdown]
# Those are all the lines that exact optimisation takes here. Before we look at why they work, look
# at what they find.

# %% mystnb={"image": {"alt": "A bright strip above a dark one with three lines along their border. The best row of each column jumps; the greedy line leaves the border along a bright streak; dynamic programming stays on the border through the faint part."}} tags=["thumbnail"]
paths = {
    "best row of each column": (h.argmin(1), PALETTE["sky"], ":"),
    "greedy": (follow(h, s.delta), PALETTE["vermilion"], "-"),
    "dynamic programming": (best_path(h, s.delta)[0], PALETTE["orange"], "-"),
}
fig, ax = plt.subplots(figsize=(WIDTH, 3.9))
ax.imshow(g.T, cmap="gray", aspect="auto")
for name, (v, colour, line) in paths.items():
    # Answer i lies half-way between samples i and i + 1.
    ax.plot(v + 0.5, line, color=colour, label=name, linewidth=2 if line == "-" else 1.2)
ax.set(xlabel="column n", ylabel="row i")
ax.grid(False)
fig.legend(loc="outside upper center", ncols=3)
plotting.show(fig)
for name, (v, *_) in paths.items():
    steps = abs(np.diff(v)).max()
    print(
        f"{name:<24} cost {h[np.arange(len(h)), v].sum():7.2f}, largest step {steps:>2}, "
        f"mean error {abs(v + 1 - truth).mean():.2f} rows"
    )

# %% [markdown]
# Read the costs: the first method has the lowest, but its path breaks the rule. Among the paths
# that keep it, dynamic programming has the lowest possible, not merely a low one.
#
# ## The recursion
#
# Let $V_n(j)$ be the cost of the cheapest path that *ends* at row $j$ of column $n$. Such a path
# comes from some row $i$ of the column before, at most $\delta$ away. Whatever comes later, its
# first part had better be the cheapest path to $i$, otherwise we could swap that part and win.
# Therefore
#
# $$V_1(j)=h(1,j),\qquad V_n(j)=h(n,j)+\min_{|i-j|\le\delta}V_{n-1}(i).$$
#
# Remember for each entry which $i$ won, start at the smallest entry of the last column, and walk
# back. That is `best_path`. The table below is all it ever knows: each column's entries sum up
# everything to their left.

# %% mystnb={"image": {"alt": "Two images side by side: the cost h of every row and column, and the table V with the path. In V a dark valley follows the border and widens to the right."}}
v, V = best_path(h, s.delta)
fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.9), sharey=True)
relative = V - V.min(1, keepdims=True)
for ax, (values, label) in zip(
    axes, [(h, "cost h(n, i)"), (relative, "V, above its column's best")], strict=True
):
    shown = ax.imshow(values.T, cmap="cividis", aspect="auto")
    fig.colorbar(shown, ax=ax, label=label, location="top", aspect=30)
    ax.set(xlabel="column n")
    ax.grid(False)
axes[0].set_ylabel("row i")
axes[1].plot(v, color=PALETTE["vermilion"], linewidth=1.5)
plotting.show(fig)

# %% [markdown]
# An exact method can be checked against *all* candidates where there are few enough. Five columns
# of five rows have at most 3125 paths.


# %%
def every_path(n_lines: int, n_points: int, delta: int, closed: bool = False) -> np.ndarray:
    """All paths (count, N) whose steps are at most delta; closed: also from the last to the first."""
    paths = np.array(list(itertools.product(range(n_points), repeat=n_lines)))
    steps = abs(np.diff(paths, axis=1, append=paths[:, :1] if closed else paths[:, -1:]))
    return paths[(steps <= delta).all(1)]


def cost(h: np.ndarray, paths: np.ndarray) -> np.ndarray:
    return h[np.arange(len(h)), paths].sum(-1)


generator = rng.numpy_rng(run.seed, stream="checks")
small = generator.normal(size=(20, 5, 5))
for delta in range(5):
    candidates = every_path(5, 5, delta)
    equal = all(
        np.isclose(cost(x, best_path(x, delta)[0]), cost(x, candidates).min()) for x in small
    )
    print(f"δ = {delta}: {len(candidates):>4} paths, the recursion finds the best: {equal}")

# %% [markdown]
# ## Minimum and plus: another algebra
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
def around(matrices: list, product) -> np.ndarray:
    """The product of all matrices, whichever product that is."""
    total = matrices[0]
    for matrix in matrices[1:]:
        total = product(total, matrix)
    return total


def min_plus(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    return (A[:, :, None] + B[None]).min(1)


def band(n_points: int, delta: int) -> np.ndarray:
    i = np.arange(n_points)
    return abs(i[:, None] - i) <= delta


x = small[0]
steps = [np.where(band(5, 1), line[:, None], np.inf) for line in x]
best = around(steps, min_plus).diagonal().min()
tried = cost(x, every_path(5, 5, 1, closed=True)).min()
print(f"Best closed path: {best:.4f} by min-plus products, {tried:.4f} by trying all")
ones = band(65, 2).astype(object)  # Python's whole numbers do not overflow
count = np.trace(around([ones] * 50, np.dot))
print(f"Closed paths on 50 lines of 65 samples with δ = 2: {count:.2e}")

# %% [markdown]
# ## Paths that close
#
# An object that is more or less round becomes a strip when it is read along rays from its inside:
# line $n$ of the strip is ray $n$, and sample $i$ lies at radius $i\rho$. The border of the object
# is a path through the strip again, with one condition more. Line $N$ is the neighbour of line 1,
# so $|v_N-v_1|\le\delta$ must hold as well. An open path does not know that.
#
# Below, a bright disc is joined to a second one, to the right of its centre, just where line 1
# begins (angle 0 points right, and the lines go round clockwise). The open path starts on the far
# edge of the second disc: it pays for the way down to the first disc, but nobody told it that it has
# to climb up again.


# %%
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


def closed_path(h: np.ndarray, delta: int, starts=None) -> tuple[float, np.ndarray]:
    """Cheapest closed path: fix each first answer in turn, forbid the ends that do not meet it."""
    best = np.inf, None
    for k in range(h.shape[1]) if starts is None else starts:
        tied = np.where(np.arange(h.shape[1]) == k, h[0], np.inf)
        ends = np.where(abs(np.arange(h.shape[1]) - k) <= delta, h[-1], np.inf)
        v, V = best_path(np.vstack([tied, h[1:-1], ends]), delta)
        best = min(best, (V[-1].min(), v), key=lambda pair: pair[0])
    return best


# %% [markdown]
# One repair suggests itself: keep the open path's first answer and make the path come back to it.
# That closes, but the first answer itself was chosen without knowing the price. Trying *all* first
# answers is exact; each of them is an open problem that we can solve.

# %% mystnb={"image": {"alt": "Left: two touching bright discs and three contours. The open path starts on the outer edge of the second disc and ends on the first, so that it does not close; the repaired one closes around a part of the second disc; the closed one follows the first disc. Right: the same as paths through the strip."}}
v_open = best_path(h_ring, s.delta)[0]
answers = {
    "open": (v_open, PALETTE["vermilion"]),
    "open, made to close": (closed_path(h_ring, s.delta, v_open[:1])[1], PALETTE["sky"]),
    "closed": (closed_path(h_ring, s.delta)[1], PALETTE["orange"]),
}
fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.5))
widths = {"open": 5}  # the others lie on top of it
left.imshow(image[0, 0])
right.imshow(warped[0].T, aspect="auto")
for name, (v, colour) in answers.items():
    corners = star_pattern.contour_points(centre, torch.tensor(v)[None] + 1, RADIUS / N_POINTS)[0]
    corners = corners if name == "open" else torch.cat([corners, corners[:1]])
    left.plot(corners[:, 1], corners[:, 0], color=colour, linewidth=widths.get(name, 1.8))
    right.plot(v + 0.5, color=colour, linewidth=widths.get(name, 1.8), label=name)
right.set(xlabel="line n", ylabel="sample i")
left.set(xticks=[], yticks=[])
for ax in (left, right):
    ax.grid(False)
fig.legend(loc="outside upper center", ncols=3)
plotting.show(fig)
for name, (v, _) in answers.items():
    gap = abs(v[0] - v[-1])
    print(f"{name:<20} cost {cost(h_ring, v):7.2f}, first and last answer {gap} apart")

# %% [markdown]
# ## All starts at once
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
    slow, fast = closed_path(h_ring, delta)[0], closed_cost(h_ring, delta)
    v = star_dp.circular_dp(warped.double(), delta)
    real = star_dp.circular_dp_energy(warped.double(), v, delta).item() / 2
    print(f"δ = {delta}: one by one {slow:.5f}, at once {fast:.5f}, medseg_core {real:.5f}")

# %% [markdown]
# The three agree. (The paper's energy counts every $h$ twice, once for each of the two neighbours
# that it has; hence the half.) The solver in `medseg_core` is the same recursion for a batch, with
# buffers that are used again. To save memory it keeps no tables: when the best start is known, one
# more sweep for that start alone finds the path. This is its inner part:

# %%
parts = [star_dp._closed_costs, star_dp._window_min]
sources.show(*parts)

# %% [markdown]
# How much is it worth? Both are timed in the same run, on this machine. The lines' slopes are the
# exponents of $M$; on small maps the fixed price of a step hides them.

# %% mystnb={"image": {"alt": "Time against the number of samples per line on logarithmic axes. The published algorithm rises about with the third power, the solver of this book much less steeply, and lies far below it."}}
gen = rng.generator(run.seed, stream="timing")


def median_time(call, repeats: int = 3) -> float:
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))


solvers = {
    "Algorithm 1, $O(NM^3)$": star_dp.algorithm1,
    "circular_dp, $O(NM^2\\log\\delta)$": star_dp.circular_dp,
}
times = {name: [] for name in solvers}
for n_points in s.timed:
    maps = torch.randn(2, N_LINES, n_points + 1, generator=gen)
    for name, solve in solvers.items():
        times[name].append(1e3 * median_time(lambda solve=solve, maps=maps: solve(maps, s.delta)))
fig, ax = plt.subplots(figsize=(4.8, 2.9))
for (name, values), marker in zip(times.items(), "os", strict=True):
    ax.loglog(s.timed, values, marker=marker, label=name)
ax.set(xlabel="samples per line M", ylabel="time for 2 maps [ms]")
ax.set_xticks(s.timed, [str(m) for m in s.timed], minor=False)
ax.minorticks_off()
ax.legend()
plotting.show(fig)

# %% [markdown]
# One can go further. Best paths of two different starts need never cross, so the path of a middle
# start bounds those on both sides of it, and dividing again and again gives $O(NM\log M)$. It
# takes many small steps where the above takes few large ones, so it can pay on large maps.
#
# ## What argmin does to a gradient
#
# Suppose that a network drew the map. Then we want to know how the map should change so that the
# contour moves towards the truth, the derivative of a loss with respect to $g$. Take one direction
# of change, turn a knob $t$ along it, and watch the loss. Here the knob brightens the second disc, and
# $v^*$ is the border of the first.

# %% mystnb={"image": {"alt": "Loss against the knob t. The hard solution is a staircase; the soft-min and the perturbed curves fall smoothly through it."}}
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
fig, ax = plt.subplots(figsize=(5.4, 3))
for name, values in curves.items():
    ax.plot(knob, values, drawstyle="steps-post" if name == "hard" else "default", label=name)
ax.set(xlabel="knob t", ylabel="mean |v − v*| [samples]")
ax.legend()
plotting.show(fig)

# %% [markdown]
# The hard loss is a **staircase**: a small change of the map moves no answer at all, so its slope
# is zero, until another path wins and the loss jumps. Gradient descent sees nothing. (It is not
# that the derivative is hard to compute. It exists almost everywhere and is useless.) There are
# three ways out, and all of them look at more than one path.
#
# **1. Soften the minimum.** Replace $\min$ by $-\gamma\log\sum e^{-\cdot/\gamma}$ in the recursion,
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
difference = abs(x.grad.numpy() - enumerated / weights.sum()).max()
print(f"Gradient and probabilities from all {len(candidates)} paths differ by {difference:.1e}")

# %% [markdown]
# **2. Perturb.** Solve the hard problem for many noisy maps $g+\sigma\varepsilon$ and average the
# answers {cite:p}`berthet2020perturbed`. The average is smooth in $g$, whatever the solver is, and
# its gradient can be had without differentiating the solver:
# $\nabla_g\,\mathbb E\,\ell(v(g+\sigma\varepsilon))=\mathbb E\,[(\ell-\bar\ell)\,\varepsilon]/\sigma$.
# In words: noise that made the loss smaller than usual points where the map should go. It works for
# anything, and pays for that with variance.
#
# Here is the gradient of the loss where the knob stands at 0.4 and the contour runs around both
# discs. Descent subtracts it (orange grows brighter, purple darker): it flattens the outer edge of
# the second disc and sharpens the border between the two. With few draws one sees mostly noise; with
# many, both ways draw nearly the same picture (the cosine compares each estimate with soft-min;
# the two smooth differently, so it does not tend to 1).

# %% mystnb={"image": {"alt": "Gradients of the loss with respect to the strip, three images: soft-min, perturbed with few draws, which is noise, and perturbed with many draws, which shows the same bands along the two edges as soft-min."}}
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
plotting.show(fig)

# %% [markdown]
# **3. Learn the gradient.** Train a small network to imitate the solver around the present map, and
# use *its* gradient. It, too, must be shown noisy maps, or it learns nothing about the solver's
# surroundings. These *synthetic gradients* {cite:p}`jaderberg2016synthetic` are the method of
# {cite:t}`nguyen2019edpcnn`, and the subject of [](../surfaces-and-structure/edpcnn).
#
# | | needs of the solver | price | error |
# |:--|:--|:--|:--|
# | soft-min | its recursion, rewritten | log-sum-exp over every window, tables kept for the way back | a bias that grows with $\gamma$ |
# | perturbation | only its answers | one solution per draw | a bias that grows with $\sigma$, and variance |
# | synthetic gradient | only its answers | a second network, trained all along | as good as the imitation |
#
# ## Explore
#
# **The band and the number of lines.** A narrow band ($\delta=0$) allows circles only, a wide one
# lets noise back in. The band is per line: with twice as many lines the same $\delta$ allows a
# contour to leave its radius twice as fast.


# %%
def contour_picture(delta: int, n_lines: int) -> plt.Figure:
    points = star_pattern.star_pattern(centre, n_lines, N_POINTS, RADIUS)
    g = star_pattern.warp(image, points)
    v = star_dp.circular_dp(g, delta)
    corners = star_pattern.contour_points(centre, v, RADIUS / N_POINTS)[0]
    fig, (left, right) = plt.subplots(1, 2, figsize=(6, 2.9))
    plotting.overlay(image[0, 0], contours={"contour": corners}, ax=left)
    right.imshow(g[0].T, aspect="auto")
    right.plot(v[0] - 0.5, color=PALETTE["orange"])
    right.set(xlabel="line n", ylabel="sample i")
    right.grid(False)
    return fig


widgets.frames(
    contour_picture,
    delta=[0, 1, 2, 5, 30],
    n_lines=[12, 25, 50],
    start={"delta": 2, "n_lines": 50},
    labels={"delta": "band δ", "n_lines": "lines N"},
    alt="Two discs with the closed contour found, and the same path in the strip of rays",
    target_bytes=200_000,
)

# %% [markdown]
# **From one path to all of them.** Move the strength of the smoothing; the knob of the staircase
# stands at 0.25, close to the jump. Near zero all the probability sits on the best contour. Then the
# runner-up appears, which passes the second disc on its other side, long before everything blurs:
# smoothing shows *which* other contour nearly won.


# %%
near_tie = warped + 0.25 * direction


def probability_picture(way: str, strength: float) -> plt.Figure:
    if way == "soft-min":
        p = star_dp.soft_circular_dp(near_tie, s.delta, strength)[1]
    else:
        gen = rng.generator(run.seed, stream="widget")
        p = star_dp.perturbed_indices(near_tie, s.delta, strength, 300, gen)
    fig, ax = plt.subplots(figsize=(6, 2.9))
    shown = ax.imshow(p[0].T.sqrt(), cmap="cividis", vmin=0, vmax=1, aspect="auto")
    ax.plot(star_dp.circular_dp(near_tie, s.delta)[0] - 1, color=PALETTE["orange"], linewidth=1)
    bar = fig.colorbar(shown, ax=ax, label="probability", ticks=[0, 0.1**0.5, 0.25**0.5, 1])
    bar.ax.set_yticklabels(["0", "0.1", "0.25", "1"])
    ax.set(xlabel="line n", ylabel="answer i", title=f"{way}, strength {strength:g}")
    ax.grid(False)
    return fig


widgets.frames(
    probability_picture,
    way=["soft-min", "perturbed"],
    strength=[0.02, 0.05, 0.1, 0.2, 0.4, 0.8],
    start={"strength": 0.2},
    labels={"strength": "γ or σ"},
    alt="Probability of each sample of each line, with the best contour as a line",
)

# %% [markdown]
# ## Exercises
#
# ### Exercise 1 (think)
#
# The open path costs much less to find than the closed one. Its cost is a lower bound on that of the
# closed path: why? When is it the closed path itself? And how could one use open paths to leave most
# of the $M$ starts aside, and still be exact?
#
# :::{dropdown} Solution
# A closed path is an open path that fulfils one condition more, so the best open path can only be
# cheaper. If its ends happen to lie within $\delta$, it fulfils that condition as well and is the
# best closed path: done, without any table over starts. Otherwise compute, with one backward sweep,
# the best open path *from each start $k$*: a lower bound $b_k$ on the closed path from $k$. Solve
# the closed problem for the start with the smallest bound; its cost $c$ is an upper bound for the
# answer. Every start with $b_k>c$ is out. This is branch and bound; on a map with one clear
# contour a handful of starts remain, on a constant map all of them.
# :::
#
# ### Exercise 2 (code)
#
# How sure is the answer? Compute for every sample of the strip the cost of the best path **through**
# it, for all samples in two sweeps, and draw by how much it exceeds the optimum. (Use open paths. A
# sweep from the right is a sweep from the left on the strip turned round.)

# %% mystnb={"image": {"alt": "The price of forcing the path through each sample of the strip: a narrow valley along the border that widens where the border is faint, with a spur along the streak."}} tags=["hide-input"]
forward = best_path(h, s.delta)[1]
backward = best_path(h[::-1], s.delta)[1][::-1]
through = forward + backward - h  # h was counted by both
optimum = forward[-1].min()
print("Every column's best is the optimum:", np.allclose(through.min(1), optimum))
fig, ax = plt.subplots(figsize=(WIDTH, 3.2))
shown = ax.imshow((through - optimum).T, cmap="cividis", aspect="auto", vmax=3)
fig.colorbar(shown, ax=ax, label="extra cost of passing here", extend="max")
ax.set(xlabel="column n", ylabel="row i")
ax.grid(False)
plotting.show(fig)

# %% [markdown]
# The spur below the border is the streak: a detour along it costs little more. The valley is widest
# where the border is faint, and there the answer is least sure. Soft-min's probabilities show the
# same, with all paths in place of the best one.
#
# ### Exercise 3 (experiment)
#
# Whether the open path closes by luck depends on where line 1 lies. Turn the star pattern (`angle0`)
# through all directions, and count how often the open path closes, and how often the repaired path
# costs more than the best closed one. First guess: does more noise make it better or worse?

# %% tags=["hide-input"]
turns = torch.linspace(0, 2 * torch.pi, 26)[:-1]
for noise in (0.0, 0.1, 0.25, 0.5):
    noisy = two_discs(run.seed, noise=noise).expand(len(turns), -1, -1, -1)
    pattern = star_pattern.star_pattern(
        centre.expand(len(turns), -1), N_LINES, N_POINTS, RADIUS, turns
    )
    strips = np.diff(star_pattern.warp(noisy, pattern).double().numpy(), axis=2)
    closes = worse = 0
    for x in strips:
        v = best_path(x, s.delta)[0]
        closes += abs(v[0] - v[-1]) <= s.delta
        worse += closed_path(x, s.delta, v[:1])[0] > closed_cost(x, s.delta) + 1e-9
    print(f"noise {noise:.2f}: {closes} of {len(turns)} close, {worse} repairs are not the best")

# %% [markdown]
# Without noise seven directions fail, and one can say which: those in which line 1 lies on or beside
# the second disc. A little noise only decides the close cases among them. Much noise also makes
# other directions fail, at random. So a cut through a quiet place is a good habit, and no guarantee.
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
