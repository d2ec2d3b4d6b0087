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
# - **Images:** none, a signal. **Level:** introductory.
# - **Time:** seconds at every scale.
# :::
#
# :::{admonition} What we found
# :class: found c2
#
# On the book's page this box shows what came out of the stored run: one effect with its interval,
# the verdicts, and the weakest point. In a notebook, run it: they stand under **Claims**.
# :::

# %% mystnb={"code_prompt_show": "Parameters"} tags=["parameters", "hide-input"]
scale: str = "lesson"  # smoke | lesson | paper: how much is computed
seed: int = 0  # all random numbers follow from it
device: str = "auto"  # auto | cpu | cuda | cuda:1 | mps
data_dir: str = None  # folder of a real data set; None takes the phantom
extended: bool = False  # also what only a GPU has the time for
overrides: dict = {}  # settings to change, for example {"n_signals": 400}
level: float = 1.0  # the chapter's own parameter: the true level

# %% mystnb={"code_prompt_show": "Set-up: imports and settings"} tags=["hide-input"]
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np

from medseg_book.page import claims, exercises, plotting, scales, widgets
from medseg_core import rng


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
METHOD, BASELINE = plotting.ROLES["method"], plotting.BASELINES[0]
plotting.style()

# %% [markdown]
# ## The problem
#
# Show the data first, and where the obvious method fails. Here an artefact hits one measurement in
# five, always upwards, so that the mean is pulled away from the true level.


# %% mystnb={"code_prompt_show": "The phantom"} tags=["hide-input"]
def signals(seed: int, outliers: float = s.outliers) -> np.ndarray:
    """(n_signals, n_samples) measurements of `level`, some of them wrong."""
    size = (s.n_signals, s.n_samples)
    values = rng.numpy_rng(seed, stream="signal").normal(level, 0.3, size)
    artefact = rng.numpy_rng(seed, stream="artefact")  # the signals stay when it changes
    hit = artefact.random(size) < outliers
    return values + hit * artefact.uniform(1, 5, size)


# %% mystnb={"code_prompt_show": "The figure", "image": {"alt": "Measurements of one signal. Most lie around the true level, a few far above; the mean lies too high, the median on the level."}} tags=["thumbnail", "hide-input"]
signal = signals(run.seed)[0]
figure, axes = plt.subplots(figsize=(6, 3))
axes.plot(signal, "o", color="0.4", label="measurements")
axes.axhline(level, color="k", linestyle=":", label="true level")
axes.axhline(signal.mean(), color=BASELINE, label="mean")
axes.axhline(np.median(signal), color=METHOD, label="median")
axes.set(xlabel="measurement", ylabel="value")
figure.legend(loc="outside upper center", ncols=4)
plotting.show(
    figure,
    caption=f"One signal of {s.n_samples} measurements. Its mean ({signal.mean():.2f}) follows the "
    f"outliers, its median ({np.median(signal):.2f}) stays near the true level of {level:g}.",
)

# %% [markdown]
# ## The method
#
# First the intuition, then the field's notation. The mean solves $\min_m \sum_i (x_i - m)^2$, the
# median $\min_m \sum_i |x_i - m|$: the slope of the absolute value does not grow with the distance,
# so that a measurement pulls with its side alone.
#
# **Predict, then move.** Eight measurements lie near the level; the slider moves a ninth away from
# them. Which of the two lines follows, and how far does the other one go?


# %% mystnb={"code_prompt_show": "The slider"} tags=["hide-input"]
def moved(shift: float) -> plt.Figure:
    x = np.append(signals(run.seed, outliers=0.0)[0, :8], level + shift)
    figure, axes = plt.subplots(figsize=(6, 2))
    axes.plot(x, np.zeros_like(x), "o", color="0.4")
    axes.axvline(x.mean(), color=BASELINE, label="mean")
    axes.axvline(np.median(x), color=METHOD, label="median")
    axes.set(xlim=(level - 2, level + 11), yticks=[], xlabel="value")
    figure.legend(loc="outside upper center", ncols=2)
    return figure


widgets.frames(
    moved,
    shift=[0, 2, 4, 6, 8, 10],
    alt="Nine measurements on a line, one of them moved, with their mean and their median",
    caption="Nine measurements (dots), the last of them moved to the right. The mean takes a ninth "
    "of every step; the median takes one small step at most.",
)

# %% [markdown]
# Then comes the key step from scratch, in at most twenty lines, and after it the real call. An
# `assert` ties the two together: the chapter stops running the day they disagree.


# %%
def median_from_scratch(x: np.ndarray) -> float:
    """Sort, and take the middle (the mean of the two middle ones, if there are two)."""
    x, half = sorted(x), len(x) // 2
    return x[half] if len(x) % 2 else (x[half - 1] + x[half]) / 2


# %%
ours = np.array([median_from_scratch(x) for x in signals(run.seed)])
real = np.median(signals(run.seed), axis=1)
agree = np.allclose(ours, real)
assert agree, "the median from scratch is not NumPy's"

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


# %% mystnb={"code_prompt_show": "Errors of both arms, and the table"} tags=["hide-input"]
def errors(seed: int, estimate, outliers: float = s.outliers) -> np.ndarray:
    """(n_signals,) absolute error on each of one seed's signals."""
    return np.abs(estimate(signals(seed, outliers), axis=1) - level)


arms = {"mean": np.mean, "median": np.median}
error = {name: np.array([errors(i, arm) for i in run.seeds]) for name, arm in arms.items()}
mean_error, median_error = (error[name].mean(1) for name in arms)
rows = []
for name, found in error.items():
    ordered = np.sort(found[0])
    cases = ordered[0], ordered[len(ordered) // 2], ordered[-1]
    per_seed = found.mean(1)
    rows.append(
        [name, f"{per_seed.mean():.3f} ± {per_seed.std(ddof=1):.3f}", *(f"{c:.3f}" for c in cases)]
    )
plotting.Table(
    ["absolute error", "mean over signals", "best signal", "median signal", "worst signal"],
    rows,
    note=f"Mean ± SD over {len(run.seeds)} seeds; the three cases are of seed {run.seed}.",
)

# %% [markdown]
# ## Explore
#
# Pictures that a reader can move, on the static page as well: every position is drawn once. The
# question stands above: **from which share of outliers on does the median leave the level too?**


# %% mystnb={"code_prompt_show": "The slider"} tags=["hide-input"]
def histogram(outliers: float) -> plt.Figure:
    x = signals(run.seed, outliers)
    figure, axes = plt.subplots(figsize=(6, 2.8))
    look = {"bins": 30, "range": (level - 0.5, level + 3), "alpha": 0.7}
    axes.hist(x.mean(axis=1), **look, color=BASELINE, label="mean")
    axes.hist(np.median(x, axis=1), **look, color=METHOD, label="median")
    axes.axvline(level, color="k", linestyle=":", label="true level")
    axes.set(xlabel="estimate", ylabel="signals", ylim=(0, 0.6 * s.n_signals))
    figure.legend(loc="outside upper center", ncols=3)
    return figure


widgets.frames(
    histogram,
    outliers=[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
    start={"outliers": 0.2},
    labels={"outliers": "share of outliers"},
    alt="Histograms of the two estimates over all signals, with the true level",
    caption="The estimates of all signals, for the share of outliers that the slider sets. The "
    "mean moves from the first outlier on; the median holds out until about half are wrong.",
)

# %% [markdown]
# ## Claims
#
# Each claim with its metric and its margin, fixed before the first run. One that fails stays, with
# the likely reason. `claims.metric` keeps what a table over many runs should have, and claims
# nothing.

# %% mystnb={"code_prompt_show": "The claims and their margins"} tags=["hide-input"]
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
# ## Self-test
#
# Open the answer that you would give: it says whether it is right, and why.

# %% jupyter={"source_hidden": true} tags=["remove-input"]
exercises.quiz(
    {
        "One outlier moves twice as far away. What moves with it?": [
            (True, "the mean", "Every value counts by its size: $1/n$ of the step arrives."),
            (False, "the median", "The value stays on its side, so the middle stays where it was."),
            (False, "both", "Only one of the two looks at how far away a value is."),
        ],
        "Which of these does the median minimise?": [
            (False, "$\\sum_i (x_i - m)^2$", "Set the slope to zero: that is the mean."),
            (True, "$\\sum_i |x_i - m|$", "The slope counts who is left and who is right of $m$."),
            (False, "$\\max_i |x_i - m|$", "That is the middle between the two extremes."),
        ],
        "Without outliers, what does the median cost?": [
            (False, "nothing", "It uses the order alone, and the sizes hold information too."),
            (
                True,
                "some precision",
                "On normal noise its variance is about $\\pi/2$ times larger.",
            ),
            (False, "a bias", "Normal noise is symmetric: both are right on average."),
        ],
    }
)

# %% [markdown]
# ## Exercises
#
# Write your part in the place of the dots and run the cell: `exercises.check` says how near you
# are. The answers come from this run, so they follow your parameters.
#
# ### Exercise 1 (think)
#
# Which share of the measurements can an outlier-maker spoil at most before the median can be moved
# as far as he likes? Give the share from 0 to 1.
#
# :::{dropdown} Hint
# The median is the value in the middle. When can that one be a spoiled one?
# :::

# %%
share = ...

exercises.check("ex1", share, within=0.05)

# %% [markdown] jupyter={"source_hidden": true} tags=["solution"]
# One half: then the middle value itself can be an outlier. No estimate that follows a shift of the
# data can stand more. The run finds the same share by spoiling one measurement after the other,
# until the median goes away with them.

# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
clean = np.linspace(0, 1, 101)
spoiled = [np.median(np.append(clean[n:], np.full(n, 1e6))) > 1 for n in range(101)]
exercises.solution("ex1", spoiled.index(True) / 101)

# %% [markdown]
# ### Exercise 2 (code)
#
# Write the trimmed mean, which leaves out the smallest and the largest tenth of a signal. What is
# its mean absolute error on the signals of the first seed?
#
# :::{dropdown} Hint
# Sort along `axis`, cut `int(0.1 * n)` values off at both ends, and take the mean of the rest.
# :::


# %%
def trimmed(x: np.ndarray, axis: int = 1) -> np.ndarray:
    """Mean of each row without its smallest and its largest tenth."""
    return ...


exercises.check("ex2", lambda: errors(run.seed, trimmed).mean(), within=0.001)


# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
def trimmed_mean(x: np.ndarray, axis: int = 1) -> np.ndarray:
    x, n = np.sort(x, axis), x.shape[axis]
    cut = int(0.1 * n)
    return x[:, cut : n - cut].mean(axis)


exercises.solution("ex2", errors(run.seed, trimmed_mean).mean())

# %% [markdown] jupyter={"source_hidden": true} tags=["solution"]
# A tenth is less than the share of outliers, so some of them stay: the trimmed mean lies between
# the mean and the median.

# %% [markdown]
# ### Exercise 3 (experiment)
#
# Without outliers, which of the two has the smaller error? Predict, then run: write `"mean"` or
# `"median"`.
#
# :::{dropdown} Hint
# `errors(run.seed, np.mean, outliers=0.0)` gives the mean's errors on clean signals.
# :::

# %%
better = ...

exercises.check("ex3", better)

# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
clean_error = {name: errors(run.seed, arm, outliers=0.0).mean() for name, arm in arms.items()}
print(", ".join(f"{name} {found:.3f}" for name, found in clean_error.items()))
exercises.solution("ex3", min(clean_error, key=clean_error.get))

# %% [markdown] jupyter={"source_hidden": true} tags=["solution"]
# On clean normal noise the mean uses all that there is to know. Robustness has its price, and the
# share of outliers decides whether it is worth paying.

# %% [markdown]
# ## On real data
#
# The data set, its licence and its layout, the command that runs the chapter on it, what differs
# from the paper, and what to read next. For this page the command is
#
# ```bash
# medseg run chapter-template --scale paper
# ```
#
# ## To take away
#
# - The mean minimises squares and follows every outlier; the median minimises absolute values, and
#   does not.
# - A measurement pulls the median with its side alone: up to one half of them may be wrong.
# - The price is precision where nothing is wrong.
# - To use it, call `np.median(x, axis=1)`.
# - When you see outliers on one side, ask of every estimate in your pipeline what it minimises.
