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
# # A chapter in small: the median against the mean
#
# Copy this page to start a chapter. It is a whole one, about the smallest method there is: the
# sample median as an estimate of a signal's level when some measurements are wrong. A real chapter
# cites its paper here, as {cite:t}`nguyen2019edpcnn` is in the first one.
#
# :::{admonition} At a glance
# :class: tip
#
# - **Task:** estimate the level of a signal from noisy measurements, some of which are outliers.
# - **Idea:** sort, and take the one in the middle: a wrong value counts by its side, not by its
#   size.
# - **Afterwards you can** say when to prefer the median, and write a chapter of this book.
# - **Before:** nothing but the mean and the standard deviation.
# - **Time:** seconds at every scale.
# :::

# %% tags=["parameters"]
scale: str = "lesson"  # smoke | lesson | paper: how much is computed
seed: int = 0  # all random numbers follow from it
device: str = "auto"  # auto | cpu | cuda | cuda:1 | mps
data_dir: str = None  # folder of a real data set; None takes the phantom
extended: bool = False  # also what only a GPU has the time for
overrides: dict = {}  # settings to change, for example {"n_signals": 400}
level: float = 1.0  # the chapter's own parameter: the true level

# %%
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np

from medseg_book.page import claims, plotting, scales, widgets
from medseg_core import rng

# %% [markdown]
# What the three scales change stands in one table; `run.s` is the chosen row, with what `overrides`
# changes in it.


# %%
@dataclass(frozen=True)
class Settings:
    """What the three scales change."""

    n_signals: int  # signals per seed
    n_samples: int  # measurements per signal
    outliers: float = 0.2  # share of wrong measurements
    n_seeds: int = 3
    expected: str = "seconds"


table = {
    "smoke": Settings(n_signals=20, n_samples=15),
    "lesson": Settings(n_signals=200, n_samples=25),
    "paper": Settings(n_signals=2000, n_samples=25),
}
run = scales.begin(
    "chapter-template",
    table,
    scale=scale,
    seed=seed,
    device=device,
    overrides=overrides,
    data_dir=data_dir,
    extended=extended,
)
s = run.s

# %% [markdown]
# ## The problem
#
# Show the data first, and where the obvious method fails. Here an artefact hits one measurement in
# five, always upwards, so that the mean is pulled away from the true level.


# %%
def signals(seed: int, outliers: float = s.outliers) -> np.ndarray:
    """(n_signals, n_samples) measurements of `level`, some of them wrong."""
    size = (s.n_signals, s.n_samples)
    values = rng.numpy_rng(seed, stream="signal").normal(level, 0.3, size)
    artefact = rng.numpy_rng(seed, stream="artefact")  # the signals stay when it changes
    hit = artefact.random(size) < outliers
    return values + hit * artefact.uniform(1, 5, size)


# %% mystnb={"image": {"alt": "Measurements of one signal. Most lie around the true level, a few far above; the mean lies too high, the median on the level."}} tags=["thumbnail"]
signal = signals(run.seed)[0]
figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
axes.plot(signal, "o", color="0.4", label="measurements")
axes.axhline(level, color="k", linestyle=":", label="true level")
axes.axhline(signal.mean(), color="#d55e00", label="mean")
axes.axhline(np.median(signal), color="#0072b2", label="median")
axes.set(xlabel="measurement", ylabel="value")
figure.legend(loc="outside upper center", ncols=4)
plotting.show(figure)

# %% [markdown]
# ## The method
#
# State the method in the field's notation. The mean solves $\min_m \sum_i (x_i - m)^2$, the median
# $\min_m \sum_i |x_i - m|$: the slope of the absolute value does not grow with the distance. Then
# comes the key step from scratch, on one screen, and after it the real one with a proof that they
# agree.


# %%
def median_from_scratch(x: np.ndarray) -> float:
    """Sort, and take the middle (the mean of the two middle ones, if there are two)."""
    x, half = sorted(x), len(x) // 2
    return x[half] if len(x) % 2 else (x[half - 1] + x[half]) / 2


agree = all(np.isclose(median_from_scratch(x), np.median(x)) for x in signals(run.seed))
assert agree, "the median from scratch is not NumPy's"
print("The two agree on every signal.")

# %% [markdown]
# ## Training
#
# Nothing is trained here. A real chapter shows its loop in the open where the loop is the paper's
# contribution, and calls the shared one otherwise; both arms of a comparison get the same updates,
# images and information.

# %% [markdown]
# ## Evaluation
#
# The paper's baselines, metrics and ablations, its numbers beside ours in columns of their own,
# and the best, the median and the worst case.


# %%
def errors(seed: int, estimate) -> float:
    """Mean absolute error over one seed's signals."""
    return float(np.abs(estimate(signals(seed), axis=1) - level).mean())


mean_error = np.array([errors(seed, np.mean) for seed in run.seeds])
median_error = np.array([errors(seed, np.median) for seed in run.seeds])
for name, error in (("mean", mean_error), ("median", median_error)):
    print(f"{name:<7} absolute error {error.mean():.3f} (SD over seeds {error.std(ddof=1):.3f})")

# %% [markdown]
# ## Explore
#
# At least two pictures that a reader can move, on the static page as well: every position is drawn
# once.


# %%
def histogram(outliers: float) -> plt.Figure:
    figure, axes = plt.subplots(figsize=(4, 2.6), layout="constrained")
    x = signals(run.seed, outliers)
    axes.hist(x.mean(axis=1), bins=20, range=(0, 4), alpha=0.7, color="#d55e00", label="mean")
    axes.hist(
        np.median(x, axis=1), bins=20, range=(0, 4), alpha=0.7, color="#0072b2", label="median"
    )
    axes.axvline(level, color="k", linestyle=":")
    axes.set(xlabel="estimate", ylabel="signals")
    axes.legend()
    return figure


widgets.frames(
    histogram,
    outliers=[0.0, 0.1, 0.2, 0.3, 0.4],
    start={"outliers": 0.2},
    alt="Histograms of the two estimates over all signals, with the true level",
)

# %% [markdown]
# Move one measurement away, and see which of the two follows.


# %%
def moved(shift: float) -> plt.Figure:
    x = np.append(signal[:8], level + shift)
    figure, axes = plt.subplots(figsize=(4, 1.8), layout="constrained")
    axes.plot(x, np.zeros_like(x), "o", color="0.4")
    axes.axvline(x.mean(), color="#d55e00", label="mean")
    axes.axvline(np.median(x), color="#0072b2", label="median")
    axes.set(xlim=(-1, 13), yticks=[], xlabel="value")
    axes.legend(loc="upper right")
    return figure


widgets.frames(
    moved,
    shift=[0, 2, 4, 6, 8, 10],
    alt="Nine measurements on a line, one of them moved, with their mean and their median",
)

# %% [markdown]
# ## Claims
#
# Each claim with its metric and its margin, fixed before the first run. One that fails stays, with
# the likely reason. `claims.metric` keeps what a table over many runs should have, and claims nothing.

# %%
claims.exact("C1", "The median from scratch equals NumPy's on every signal.", bool(agree))
claims.check(
    "C2",
    "With outliers the median's absolute error is lower than the mean's by at least 0.2.",
    mean_error - median_error,
    at_least=0.2,
    baseline=float(mean_error.mean()),
    if_fails="The share of outliers is too small to pull the mean away.",
)
claims.metric("absolute error, mean", mean_error.mean())
claims.metric("absolute error, median", median_error.mean())
claims.report()

# %% [markdown]
# ## Exercises
#
# ### Exercise 1 (think)
#
# From which share of outliers on does the median fail as well?
#
# :::{dropdown} Solution
# From one half: then the middle value can be an outlier itself. No estimate that follows a shift
# of the data can stand more.
# :::
#
# ### Exercise 2 (code)
#
# Write the trimmed mean, which leaves out the smallest and the largest tenth, and compare.


# %% tags=["hide-input"]
def trimmed(x: np.ndarray, axis: int = 1, share: float = 0.1) -> np.ndarray:
    x = np.sort(x, axis)
    cut = int(share * x.shape[1])
    return x[:, cut : x.shape[1] - cut].mean(axis)


print(f"trimmed mean: absolute error {np.mean([errors(i, trimmed) for i in run.seeds]):.3f}")

# %% [markdown]
# ### Exercise 3 (experiment)
#
# Without outliers, which of the two is better, and by how much? Run the chapter with `--set
# outliers=0.0`, or change one line here.

# %% tags=["hide-input"]
x = signals(run.seed, outliers=0.0)
for name, estimate in (("mean", np.mean), ("median", np.median)):
    print(f"{name:<7} absolute error {np.abs(estimate(x, axis=1) - level).mean():.3f}")

# %% [markdown]
# ## On real data
#
# The data set, its licence and its layout, the command that runs the chapter on it, what differs
# from the paper, and what to read next. For this page the command is
#
# ```bash
# medseg run chapter-template --scale paper
# ```
