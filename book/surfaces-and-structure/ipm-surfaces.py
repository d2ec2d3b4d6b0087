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
# # Ordered surfaces: an interior point method as the last layer
#
# *A chapter on* {cite:t}`xie2020surfaces`.
#
# :::{admonition} At a glance
# :class: tip
#
# - **Task:** find nine boundaries in a scan of the retina, or the two walls of an artery, that never
#   cross each other.
# - **Idea in one sentence:** let a network say where each surface lies in every column of the image, and how
#   sure it is of that, and let an exact solver inside the network return the best surfaces that keep their
#   order.
# - **Afterwards you can** write down the column problem and its optimality conditions, solve it in two
#   ways, send gradients through it, and tell what such a layer gives to a network from what it only
#   repairs.
# - **Before:** U-Nets and gradient descent; the primer [](../primers/optimisation-as-a-layer).
# - **Time:** `smoke` about half a minute, `lesson` about five minutes on two CPU cores, `paper`
#   (seven levels, 128 × 1024 pixels, 50 epochs) many hours on a GPU.
# :::

# %% tags=["parameters"]
scale: str = "lesson"  # smoke | lesson | paper: how much is computed
seed: int = 0  # first seed; all random numbers follow from it
device: str = "auto"  # auto | cpu | cuda | cuda:1 | mps
data_dir: str = None  # folder of the real OCT data set; the phantom needs none
extended: bool = False  # also the ablations that want a GPU's time
overrides: dict = {}  # settings to change, for example {"steps": 500}
dataset: str = "phantom"  # phantom | jhu | spectralis
ivus_dir: str = None  # folder of the IVUS challenge's data set B; without it the phantom

# %% tags=["hide-input"]
import itertools
import time
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import display
from scipy import optimize

from medseg_book.page import claims, compare, plotting, scales, sources, widgets
from medseg_core import rng
from medseg_core.datasets import IVUS2011
from medseg_core.papers.ipm_surfaces import (
    classical,
    experiment,
    ivus_experiment,
    losses,
    recipes,
    scores,
)
from medseg_core.papers.ipm_surfaces.scores import broken, masd
from medseg_core.papers.ipm_surfaces.surface_net import (
    SurfaceNet,
    gradient_channels,
    region_boundaries,
    running_maximum,
)
from medseg_core.solvers import surface_ipm
from medseg_core.solvers.surface_qp import interior_point, ordered_surfaces
from medseg_core.training.samplers import batches

plotting.style()

# %%
run = scales.begin(
    "ipm-surfaces", experiment.SETTINGS, scale=scale, seed=seed, device=device,
    overrides=overrides, data_dir=data_dir, dataset=dataset, sources=experiment.SOURCES,
    extended=extended,
)  # fmt: skip
s = run.s
ivus_reader = None
if ivus_dir is not None:
    ivus_reader = scales.open_reader(IVUS2011, ivus_dir, "ivus_dir")

# %% tags=["hide-output"]
sources.show(experiment.Settings)

# %% [markdown]
# ## The problem
#
# **Optical coherence tomography** (OCT) measures how much light each depth of the retina, the light-sensitive
# tissue at the back of the eye, sends back. One position of the beam gives a column of the image, an
# *A-scan*; columns side by side make a *B-scan*. The retina is built of layers, and the boundaries between
# them are what doctors measure: some layers thin out in *glaucoma*, a disease of the optic nerve, others in
# *multiple sclerosis*, one of the brain that shows in the eye. Nine boundaries are drawn here, from the
# **ILM** (inner limiting membrane, the retina's surface) past the layers of nerve fibres (RNFL), ganglion
# cells (GCL), and the inner and outer plexiform and nuclear layers (IPL, INL, OPL, ONL), to the **ELM**
# (external limiting membrane), the light-sensitive cells' inner and outer segments (IS, OS), the pigment
# layer (RPE) and **BM** (Bruch's membrane, its floor). In the *fovea*, the pit of sharpest sight, the inner
# layers give way and their boundaries all but touch. Two things spoil the view: **speckle**, the grain of
# coherent light, and the shadows that blood vessels cast.
#
# The book's own B-scans are a phantom, [`oct_bscan`](../guide/phantoms-oct), drawn anew on your machine.
# `dataset` and `data_dir` put real ones in its place.

# %% [markdown]
# Real B-scans are wider than the lesson's images: they are cut into pieces. Whatever the source, an
# arm sees images in $[0,1]$, surfaces as rows counted from the top (pixel centres at integers), and a
# mask that says where the truth is known: a device leaves gaps.

# %% tags=["hide-input"]
NAMES = ("ILM", "RNFL–GCL", "IPL–INL", "INL–OPL", "OPL–ONL", "ELM", "IS–OS", "OS–RPE", "BM")
retina = experiment.load(run.dataset, s, run.seed, run.reader)
artery, mm_per_row = ivus_experiment.load(s, run.seed, ivus_reader)
train_set, test_set = retina.train, retina.test
n_surfaces = train_set["surfaces"].shape[1]
names = NAMES if n_surfaces == len(NAMES) else [f"surface {i + 1}" for i in range(n_surfaces)]
height = train_set["image"].shape[2]

# %% tags=["hide-output"]
sources.show(experiment.load, experiment.prepared)

# %% [markdown]
# A boundary is where the light changes, so the obvious first try takes for each surface the row where
# the smoothed image rises (or falls, as that surface does on average) most steeply, near the depth where
# that surface usually lies. Each surface is looked for by itself. (In the figures the
# colours of the nine surfaces repeat after six.)

# %%
signs, depth = classical.polarity(train_set), classical.mean_depth(train_set)
first_try = classical.steepest(test_set["image"], signs, depth, 0.12 * height)
off = (first_try - test_set["surfaces"]).abs()[test_set["valid"]].mean()
print(f"steepest change: mean error {off:.1f} rows, "
      f"order broken in {broken(first_try).float().mean():.0%} of the columns")  # fmt: skip

# %% tags=["hide-output"]
sources.show(classical.steepest, classical.polarity)

# %% mystnb={"image": {"alt": "Two B-scans of the retina: each alone, with its true surfaces, and with the surfaces of the steepest gradient, which are ragged and cross each other."}}
figure, axes = plt.subplots(1, 6, figsize=(7, 2.7))
for k, i in enumerate((0, 1)):
    image, truth = test_set["image"][i], test_set["surfaces"][i]
    panels = {"a B-scan": truth[:0], "its surfaces": truth, "steepest change": first_try[i]}
    for axis, (text, lines) in zip(axes[3 * k :], panels.items(), strict=False):
        plotting.surfaces(image, lines, ax=axis)
        axis.set_title(text)
plotting.show(figure)

# %% [markdown]
# Mistakes of two kinds: surfaces far from the truth, and surfaces in an order that no retina has. The
# second kind is what this chapter is about. Anatomy fixes the order, so a method should not be *able* to
# break it.

# %% [markdown]
# ## The method
#
# ### One column, N Gaussians, one order
#
# Take one column. For each surface $i$ the network gives a guess $\mu_i$ (a row, pointing down) and a
# variance $\sigma_i^2$: how much it would hurt to put the surface elsewhere. Moving surface $i$ to $s_i$
# costs $(s_i-\mu_i)^2/2\sigma_i^2$, and the best *ordered* column is
#
# $$
# \min_{s\in\mathbb R^N}\ \tfrac12(s-\mu)^\top Q\,(s-\mu)\quad\text{subject to}\quad
# s_1\le s_2\le\dots\le s_N,\qquad Q=\mathrm{Diag}(1/\sigma_1^2,\dots,1/\sigma_N^2).
# $$
#
# A convex problem: one minimum, found exactly. More generally the gaps may have bounds,
# $d^{\min}_i\le s_{i+1}-s_i\le d^{\max}_i$, which is what the paper's title means by *mutually
# interacting*. Order alone is $d^{\min}=0$, $d^{\max}=\infty$.


# %%
def draw_column(axis, mu, sigma, s, multipliers=None, limits=(0, 40)):
    """Gaussians of one column turned on their side, the guesses (rings) and the solution (bars)."""
    z = np.linspace(*limits, 400)
    for i, (m, sd, x) in enumerate(zip(mu, sigma, s, strict=True)):
        colour = plotting.CYCLE[i]
        bump = np.exp(-0.5 * ((z - m) / sd) ** 2) / sd
        axis.fill_betweenx(z, i, i + 2.2 * bump, color=colour, alpha=0.25, linewidth=0)
        axis.plot([i], [m], "o", color=colour, markerfacecolor="white", markersize=7)
        axis.plot([i - 0.3, i + 0.45], [x, x], color=colour, linewidth=2.5)
        if abs(x - m) > 1.2:
            axis.annotate("", (i, x), (i, m), arrowprops={"arrowstyle": "->", "color": colour})
    for i, lam in enumerate([] if multipliers is None else multipliers):
        if lam > 1e-6:
            axis.text(i + 0.5, max(s[i], s[i + 1]) + 1.2, f"λ = {lam:.2f}", ha="center", va="top")
    axis.set(xlim=(-0.5, len(mu) + 0.2), ylim=limits[::-1], xticks=range(len(mu)),
             xticklabels=[f"surface {i + 1}" for i in range(len(mu))], ylabel="row")  # fmt: skip


def solve_column(mu, sigma, **options):
    """One column through the real solver: numpy in, numpy out, and its multipliers."""
    mu_, sigma2 = (torch.tensor(x, dtype=torch.float64)[None, :, None] for x in (mu, sigma**2))
    solution, info = ordered_surfaces(mu_, sigma2, **options)
    return solution[0, :, 0].numpy(), info.multipliers_min[0, :, 0].numpy()


# %% mystnb={"image": {"alt": "Three surfaces of one column as Gaussians. The first two guesses are in the wrong order; the solution puts both at one row, nearer to the more certain one; the third stays."}}
mu_demo, sigma_demo = np.array([19.0, 12.0, 28.0]), np.array([1.0, 2.5, 2.0])
figure, axis = plt.subplots(figsize=(4.6, 2.9))
draw_column(axis, mu_demo, sigma_demo, *solve_column(mu_demo, sigma_demo))
plotting.show(figure)

# %% [markdown]
# Rings are the guesses, bars the solution. The first two surfaces were guessed in the wrong order. They
# meet, and the more certain one moves less: the meeting point is the mean of the two guesses, weighted by
# $1/\sigma^2$. The third stays where it was. $\lambda$, the *multiplier*, is the force with which the
# two surfaces press against each other.
#
# Sorting the guesses would also give an ordered column, but another one: it hands one surface's guess,
# made of that surface's evidence, to its neighbour, and knows nothing of certainty.
#
# ### The paper's solver
#
# With $A$ the matrix of rows $s_i-s_{i+1}$, the order is $As\le0$. At the optimum the pull of the
# Gaussians balances the multipliers, and a multiplier is zero unless its two surfaces touch. An
# *interior point method* softens this last condition, $-\lambda_i(As)_i=1/t$, solves the smooth system by
# Newton steps that keep $As<0$ and $\lambda>0$, and lets $t$ grow:
#
# $$
# r_t(s,\lambda)=\begin{bmatrix}Q(s-\mu)+A^\top\lambda\\-\mathrm{Diag}(\lambda)As-\mathbf 1/t\end{bmatrix},\quad
# J=\begin{bmatrix}Q&A^\top\\-\mathrm{Diag}(\lambda)A&-\mathrm{Diag}(As)\end{bmatrix},\quad
# \begin{bmatrix}\Delta s\\\Delta\lambda\end{bmatrix}=-J^{-1}r_t .
# $$
#
# The step is shortened until $\lambda>0$, $As<0$ and $\lVert r_t\rVert$ falls. From scratch, for one
# column, with the paper's constants $\beta_1=0.5$, $\beta_2=0.055$, $\beta_3=10$:


# %%
def algorithm_1(mu, sigma2, tol=1e-8, beta1=0.5, beta2=0.055, beta3=10.0):
    """The paper's interior point method for one column, every matrix written out."""
    n = len(mu)
    A, Q = -np.diff(np.eye(n), axis=0), np.diag(1 / sigma2)
    s = np.maximum.accumulate(mu) + 0.01 * np.arange(n)  # any strictly ordered start will do
    lam = np.ones(n - 1)

    def residual(s, lam, t):
        return np.r_[Q @ (s - mu) + A.T @ lam, -lam * (A @ s) - 1 / t]

    while -(A @ s) @ lam > tol or np.abs(Q @ (s - mu) + A.T @ lam).max() > tol:
        t = -beta3 * (n - 1) / ((A @ s) @ lam)
        r = residual(s, lam, t)
        J = np.block([[Q, A.T], [-lam[:, None] * A, -np.diag(A @ s)]])
        step = -np.linalg.solve(J, r)
        ds, dlam = step[:n], step[n:]
        alpha = min(1.0, 0.99 * np.min(-lam[dlam < 0] / dlam[dlam < 0], initial=np.inf))
        while (A @ (s + alpha * ds) >= 0).any() or np.linalg.norm(
            residual(s + alpha * ds, lam + alpha * dlam, t)
        ) > (1 - beta2 * alpha) * np.linalg.norm(r):
            alpha *= beta1
        s, lam = s + alpha * ds, lam + alpha * dlam
    return s


# %% [markdown]
# ### What the structure allows
#
# Two things about this problem the paper leaves lying on the table. First, $Q$ is diagonal and $A$ ties
# neighbours only. Eliminating $\Delta\lambda$ leaves a *tridiagonal* system for $\Delta s$,
#
# $$
# \big(Q+A^\top\mathrm{Diag}(\lambda/g)A\big)\,\Delta s=\text{right-hand side},\qquad g=-As,
# $$
#
# so that a Newton step costs $O(N)$ for a column instead of $O(N^3)$, and one sweep serves all columns
# of a batch at once. That is `method="ipm"`. It starts where the paper does, from a longest non-decreasing
# subsequence of the guesses with the others filled in between; each column stops when its own duality gap
# is small; and at the end the pairs that were found in contact are held together and the rest is solved
# exactly (`polish`).
#
# Second, with the order alone (or with minimum gaps: subtract them first) this is *weighted isotonic
# regression*, which has had a closed form since the 1950s: surfaces that press against each other form
# blocks, a block lies at the weighted mean of its guesses, and
#
# $$
# s_i=\max_{j\le i}\ \min_{k\ge i}\ \frac{\sum_{l=j}^k\mu_l/\sigma_l^2}{\sum_{l=j}^k1/\sigma_l^2}.
# $$
#
# No tolerance, and a finite number of steps. That is `method="pav"`, after *pool adjacent violators*, the
# classical algorithm. `ordered_surfaces` takes it by itself (`method="auto"`) unless there are maximum gaps, for
# which no closed form is known. Do all of them agree?

# %%
gen = rng.generator(run.seed, stream="agree")
mu_many = 30 * torch.rand(1, 9, 200, generator=gen, dtype=torch.float64)
sigma2_many = 10 ** (2 * torch.rand(1, 9, 200, generator=gen, dtype=torch.float64) - 1)
answers = {
    "Algorithm 1, from scratch": torch.stack(
        [torch.from_numpy(algorithm_1(m, v))
         for m, v in zip(mu_many[0].T.numpy(), sigma2_many[0].T.numpy(), strict=True)], 1)[None],
    'ordered_surfaces(method="ipm")': ordered_surfaces(mu_many, sigma2_many, method="ipm")[0],
    'ordered_surfaces(method="pav")': ordered_surfaces(mu_many, sigma2_many, method="pav")[0],
}  # fmt: skip
reference = torch.stack(
    [torch.from_numpy(optimize.isotonic_regression(m, weights=1 / v).x)
     for m, v in zip(mu_many[0].T.numpy(), sigma2_many[0].T.numpy(), strict=True)], 1)[None]  # fmt: skip
for name, answer in answers.items():
    error = (answer - reference).abs().max()
    print(f"{name:<32} largest difference from SciPy's isotonic regression {error:.0e} rows")
    assert error < 1e-3, f"{name} does not agree with SciPy"

# %% tags=["hide-output"]
sources.show(surface_ipm.increasing_start, surface_ipm.solve_columns)

# %% [markdown]
# ### Through the layer
#
# Training needs $\partial L/\partial\mu$ and $\partial L/\partial\sigma^2$. There is no need to
# differentiate the iterations: differentiate the optimality conditions $r_t(s,\lambda)=0$ instead. One more
# solve with the same tridiagonal matrix, $Kx=\partial L/\partial s$, gives
#
# $$
# \frac{\partial L}{\partial\mu}=Qx,\qquad
# \frac{\partial L}{\partial\sigma_i^2}=\frac{x_i\,(s_i-\mu_i)}{\sigma_i^4},\qquad
# \frac{\partial L}{\partial d^{\min}}=-\frac{\lambda_{\min}}{g_{\min}}\odot Ax,\qquad
# \frac{\partial L}{\partial d^{\max}}=-\frac{\lambda_{\max}}{g_{\max}}\odot Ax .
# $$
#
# with $g$ the slack of a limit. For a block of surfaces this says something simple: *a block moves as one*.
# Whatever pulls at one of its surfaces pulls at all, in shares of their weights $1/\sigma^2$. A surface that
# touches no other has the gradient 1 of a plain copy. The table shows $\partial s_i/\partial\mu_j$ for the
# column above, by both methods, and by finite differences of the from-scratch solver.


# %%
mu_one = torch.tensor(mu_demo)[None, :, None]
sigma2_one = torch.tensor(sigma_demo**2)[None, :, None]


def jacobian(method, **options):
    return torch.autograd.functional.jacobian(
        lambda m: ordered_surfaces(m, sigma2_one, method=method, **options)[0][0, :, 0], mu_one
    )[:, 0, :, 0]


eps = 1e-3
moved = [[algorithm_1(mu_demo + d * eps * np.eye(3)[j], sigma_demo**2, 1e-10) for d in (1, -1)]
         for j in range(3)]  # fmt: skip
numeric = np.stack([(up - down) / (2 * eps) for up, down in moved], 1)
by_method = {"pav": jacobian("pav").numpy(), "ipm": jacobian("ipm").numpy(), "diff.": numeric}
for name, found in by_method.items():
    assert np.abs(found - numeric).max() < 1e-4, f"the gradient of {name} disagrees"
plotting.Table(
    ["", *(f"{name}: {c}" for name in by_method for c in ("μ₁", "μ₂", "μ₃"))],
    [[f"s{'₁₂₃'[i]}", *(f"{round(m[i, j], 3) + 0.0:.3f}" for m in by_method.values()
                        for j in range(3))] for i in range(3)],
)  # fmt: skip

# %% [markdown]
# Gaps have gradients too. Allow at most 5 rows between neighbours: the third surface is pulled up, and the
# block down. How do the surfaces move when the limit of the lower pair grows? And how exact must an
# interior point be for its gradient to be right? Without the exact solve at the end (`polish=False`) its
# answer and its gradient are those of a smoothed problem, up to the tolerance:


# %%
def with_limit(limit):
    return ordered_surfaces(mu_one, sigma2_one, min_gap=0.0, max_gap=limit)[0][0, :, 0]


limit = torch.tensor([5.0, 5.0], dtype=torch.float64)
slope = torch.autograd.functional.jacobian(with_limit, limit)[:, 1]
nudge = torch.tensor([0.0, eps], dtype=torch.float64)
differences = (with_limit(limit + nudge) - with_limit(limit - nudge)) / (2 * eps)
print("∂s/∂d_max of the lower pair:", slope.numpy().round(4), "by differences:",
      differences.numpy().round(4))  # fmt: skip
assert torch.allclose(slope, differences, atol=1e-4), "the gradient of the gaps disagrees"
exact_one, exact_slope = ordered_surfaces(mu_one, sigma2_one, method="pav")[0], jacobian("pav")
for tol in (1e-1, 1e-2, 1e-4, 1e-8):
    rough = ordered_surfaces(mu_one, sigma2_one, method="ipm", tol=tol, polish=False)[0]
    error = (rough - exact_one).abs().max()
    slope_error = (jacobian("ipm", tol=tol, polish=False) - exact_slope).abs().max()
    print(f"tolerance {tol:<7g} surfaces off by {error:.1e} rows, ∂s/∂μ by {slope_error:.1e}")

# %% [markdown]
# ### The network in front of it
#
# A residual U-Net reads five channels (the image, its derivatives down and across, their magnitude and
# direction) and feeds two heads.
#
# **SurfaceConv** gives each surface a probability for every row of a column, $p_i(z)$ with
# $\sum_zp_i(z)=1$, and its mean $\xi_i=\sum_zz\,p_i(z)$, the *soft-argmax*. **RegionConv** labels each
# pixel with one of the $N+1$ regions between the surfaces. The regions of a column may come in any order, so
# $\gamma_i$ is an average position of boundary $i$, and $c\in[0,1]$ says how orderly the column is. The two
# are fused,
#
# $$
# \mu_i=\frac{c\,\gamma_i+(\kappa-c)\,\xi_i}{\kappa},\qquad
# \sigma_i^2=\sum_zp_i(z)\,(z-\mu_i)^2,
# $$
#
# with $\kappa\ge2$, so that the regions never outweigh the surfaces. $\gamma$ and $c$ come from an argmax
# and carry no gradient: the regions learn from their own loss only. $\sigma^2$ is taken about $\mu$, not
# about $\xi$: where the two heads disagree, certainty falls.
#
# The paper gives no formula for $\gamma$ and $c$. Here, with labels $0,\dots,N$ from top to bottom,
# $\gamma_i=\#\{z:\text{label}<i\}-\tfrac12$ for $i=1,\dots,N$: where the boundary would lie if the rows
# were sorted by label. A stray pixel then moves a boundary by one row, however far away it lies. (The mean of
# the first and the last place where the labels cross $i$, which comes to mind first, is thrown off by half
# the image, and the network without a layer validates worse with it.) $c$ is the share of rows whose label
# equals the largest label so far. The column in this example has one stray pixel and one lost region:

# %%
column = torch.tensor([0, 0, 0, 1, 1, 1, 0, 1, 3, 3, 3, 3])
gamma, c = region_boundaries(column[None, :, None], 3)
print("labels, top to bottom:", *column.tolist())
print(f"γ = {gamma.flatten().tolist()}, c = {c.item():.2f}")

# %% tags=["hide-output"]
sources.show(SurfaceNet.forward, region_boundaries)

# %% [markdown]
# ### Four losses
#
# - **Regions:** the generalised Dice loss, which weighs small regions up.
# - **Distributions:** $p_i$ should look like a Gaussian $g_i$ around the true surface. The paper's weighted
#   divergence is $L_{\mathrm{Div}}=\sum_z w\,g\,|\log(g/p)|$ with $w=1+10\lVert\nabla I\rVert$: it cares most
#   where the image changes.
# - **Smoothness:** the surfaces' changes from column to column, and the thickness of the layers, should be
#   those of the truth.
# - **Position:** $|s-s^*|$, with weight 10.
#
# The last two look at the *output of the layer*, so their gradients pass through it.
#
# ### How the rival keeps the order
#
# {cite:t}`he2019fcbr` (**FCBR**) orders with $s_1=\xi_1$, $s_i=s_{i-1}+\mathrm{ReLU}(\xi_i-s_{i-1})$.
# That is a running maximum: one surface guessed too deep pushes down all below it, whatever they know
# themselves, and those that are pushed get no gradient. In the column above:

# %%
rival = running_maximum(torch.tensor(mu_demo)[None, :, None])[0, :, 0]
print("guesses        ", mu_demo)
print("running maximum", rival.numpy())
print("column problem ", solve_column(mu_demo, sigma_demo)[0].round(2))

# %% [markdown]
# ## Training
#
# One recipe says what distinguishes an arm; everything else is shared: backbone and heads, images in the
# same order, number of updates, augmentation (Gaussian noise, and pixels turned black or white). Each arm
# keeps the weights with the lowest validation error of *its own* output, among those that have seen all of
# its losses.


# %% tags=["hide-output"]
sources.show(recipes.Recipe, recipes.network, recipes.place, experiment.noisy)

# %% [markdown]
# The losses of a batch. Unknown columns of a real data set count nowhere.
#
# Two things had to be added for so few updates; they were settled on the arm *without* IPM and its
# validation error, and the first serves FCBR as well. Smoothness and position are measured in rows, and as
# long as a distribution is spread over the whole column they are large: their gradients drown the losses
# that teach the network where to look (exercise 4 shows it). So for the first two thirds of the updates all
# arms learn from regions and distributions alone, and **layer and position matter in the last third only**.
# And the generalised Dice loss alone can leave a layer without a single pixel for long, which ruins
# $\gamma$; a cross entropy beside it does not let that happen. Adam's memory of squared gradients is short
# ($\beta_2=0.98$), or the jump of scale would unsettle it.


# %%
def training_step(model, batch, late):
    """The losses of the arm IPM; their sum is what Adam minimises."""
    out = model(gradient_channels(batch["input"]))
    placed = ordered_surfaces(out["mu"], out["sigma2"], tol=s.tol)[0]  # the layer
    truth, valid = batch["surfaces"], batch["valid"]
    target = losses.gaussian_target(truth, height, s.sigma)
    weight = losses.gradient_weight(gradient_channels(batch["image"])[:, 3:4])
    return {
        "regions": recipes.regions_loss(out["region_logits"], batch),
        "columns": losses.weighted_divergence(out["log_p"], target, weight, valid),
        "smooth": late * losses.smooth_loss(placed, truth, valid),
        "position": late * s.l1_weight * losses.l1_loss(placed, truth, valid),
    }


# %% [markdown]
# The other arms leave out or exchange some of these lines. What runs is below; for this arm it is the
# step above, number by number:

# %% tags=["hide-output"]
sources.show(recipes.training_losses, recipes.regions_loss)

# %% tags=["hide-input"]
torch.manual_seed(run.seed)
ipm = recipes.RECIPES["IPM"]
model = recipes.network(ipm, n_surfaces, s.widths, s.kappa, retina.circular)
batch = next(
    batches(train_set, s.batch, steps=1, seed=run.seed, augment=partial(experiment.noisy, s=s))
)
model.eval()  # the same statistics in both passes
with torch.no_grad():
    out = model(recipes.channels(batch["input"], ipm, retina.circular))
    for late in (False, True):
        ours = training_step(model, batch, late)
        theirs = recipes.training_losses(
            out, recipes.place(out, ipm, s.tol), batch, ipm, sigma=s.sigma,
            l1_weight=s.l1_weight, late=late, circular=retina.circular,
        )  # fmt: skip
        assert list(ours) == list(theirs)
        for name, part in ours.items():
            assert torch.allclose(part, theirs[name]), f"the {name} loss disagrees"

# %% [markdown]
# **MASD**, the mean absolute surface distance, is the error of one surface in one image, averaged over its
# columns. The paper's ± is not explained; here the standard deviation runs over all these cells, images
# times surfaces. It is the number that the paper's claim of robustness is about.


# %% tags=["hide-output"]
sources.show(scores.masd, scores.broken, scores.score)

# %% [markdown]
# An arm is a function of the seed: it trains, and reports on the test set.


# %% tags=["hide-output"]
sources.show(experiment.train, experiment.predict)

# %% [markdown]
# The arms. *No IPM* is the paper's ablation 7, *no smooth loss* and *no region μ* are 1 and 5; *soft-argmax*
# has neither regions nor layer. `extended` adds the other four. In the arm *IPM* the layer has the order as its
# only constraint, as in the paper: `ordered_surfaces` then takes the closed form, which has the same optimum
# and the same gradient as a converged interior point.

# %% tags=["hide-input"]
RECIPES = recipes.RECIPES | (recipes.EXTENDED if run.extended else {})


def make_arm(name, lr, task=retina, metrics=scores.score):
    return experiment.train(task, RECIPES[name], lr, s, run.device, metrics)


# %% [markdown]
# **Tuning.** Three learning rates for the two baselines that claims name, on the first seed; validation
# error chooses. Every arm with an IPM takes the rate that is best *without* it, so that any advantage of
# tuning lies with the baseline. (The tuning runs at the chosen rates are the first seed's runs of the
# comparison.)

# %% tags=["hide-input"]
rates = [s.lr, 3 * s.lr, 10 * s.lr]
baselines = {name: partial(make_arm, name) for name in ("no IPM", "FCBR")}
first = run.seeds[0]
tuning = compare.tuned(baselines, rates, first, workers=run.workers)
for name, found in tuning.scores.items():
    for lr, score in found.items():
        print(f"{f'{name}, rate {lr:.2g}':<20} validation error {-score:.3f} rows")
rate = tuning.chosen
print(f"→ all arms with the paper's losses: rate {rate['no IPM']:.2g}; FCBR: {rate['FCBR']:.2g}")

# %% tags=["hide-input"]
arms = {name: make_arm(name, rate["FCBR" if name == "FCBR" else "no IPM"]) for name in RECIPES}
fresh = {name: arms[name] for name in arms if name not in baselines}
results = tuning.results + compare.run_arms(fresh, [first], workers=run.workers)
if run.seeds[1:]:
    results += compare.run_arms(arms, run.seeds[1:], workers=run.workers)
results.same_budget(*RECIPES)

# %% [markdown]
# Did they learn? The first seed: the loss of the distributions (another one for FCBR, so not to be compared),
# and the validation error. IPM and no IPM are the same network up to the dotted line, where smoothness and
# position join. From there on the distributions are no longer what the network is mainly trained for, and
# their loss jumps.

# %% mystnb={"image": {"alt": "Left: loss of the column distributions over the updates, with a jump where the other losses join. Right: validation error in rows over the updates, falling for all arms."}}
COLOURS = {"IPM": plotting.PALETTE["green"], "no IPM": plotting.PALETTE["blue"],
           "FCBR": plotting.PALETTE["orange"]}  # fmt: skip
figure, axes = plt.subplots(1, 2, figsize=(7, 2.6))
for name, colour in COLOURS.items():
    record = results.get(name, first)
    look = {"color": colour, "linestyle": "--" if name == "IPM" else "-", "zorder": 3 - len(name)}
    running = np.convolve(record.extras["history"].parts["columns"], np.ones(9) / 9, mode="valid")
    axes[0].plot(np.arange(len(running)) + 5, running, **look)
    axes[1].plot(*np.array(record.extras["curve"]).T, marker=".", label=name, **look)
for axis in axes:
    axis.axvline(s.warm_up * s.steps, color="0.4", linestyle=":")
axes[0].set(xlabel="updates", ylabel="loss of the distributions", ylim=(0, None))
axes[1].set(xlabel="updates", ylabel="validation MASD (rows)", ylim=(0, 4))
axes[1].legend()
plotting.show(figure)
kept = {name: [results.get(name, seed).extras["history"].best[0] for seed in run.seeds]
        for name in COLOURS}  # fmt: skip
print(
    "weights kept after update:", "; ".join(f"{name} {updates}" for name, updates in kept.items())
)

# %% [markdown]
# ## Evaluation
#
# Rows that need no training of their own keep everybody honest:
#
# - **post-hoc**: the network that was trained *without* the layer, its output put in order by the very
#   same solver, at test time only. Whatever this row has, training through the layer cannot claim.
# - **graph search**: the classical method {cite:p}`li2006surfaces`. Nothing is learnt but the polarity of
#   each edge, the smoothing (on the validation images) and the ranges of rows, gaps and slopes (from the
#   training truth); a minimum cut finds the best surfaces within them.
# - **mean surface**: every surface at its mean depth. Whoever is not far better has learnt nothing.


# %% tags=["hide-output"]
sources.show(classical.by_graph, classical.tuned_graph_search)

# %% [markdown]
# The rows join the results; *post-hoc* takes the stored output of *no IPM*, seed by seed.


# %% tags=["hide-input"]
def scored(surfaces):
    """What a row without training reports for one seed."""
    return scores.score(surfaces, test_set) | {"extras": {"placed": surfaces}}


def post_hoc(seed):
    out = results.get("no IPM", seed).extras["out"]
    return scored(ordered_surfaces(out["mu"], out["sigma2"], tol=s.tol)[0])


graph, graph_blur, graph_seconds = classical.tuned_graph_search(retina)
results = results.with_row("graph search", lambda seed: scored(graph))
results = results.with_row("mean surface", lambda seed: scored(depth.expand_as(graph)))
results = results.with_row("post-hoc", post_hoc)
print(f"graph search: smoothing {graph_blur:g} px, {graph_seconds:.2f} s for one image")

# %% [markdown]
# The paper's table and ours. Theirs: JHU's retinas, µm, where a row is 3.9 µm. Ours: rows of the phantom.
# The two columns of numbers must not be compared with each other, their order may be.

# %%
theirs = {"IPM": ("2.78", "0.85"), "no IPM": ("2.83", "1.06"), "FCBR": ("2.79", "0.96"),
          "no smooth loss": ("2.83", "0.92"), "no region μ": ("2.79", "0.98"),
          "one channel": ("2.87", "0.96"), "dynamic σ": ("2.78", "0.95"),
          "weighted cross entropy": ("2.80", "0.97"), "plain KL": ("2.94", "0.89")}  # fmt: skip
order = ["IPM", "no IPM", "post-hoc", "FCBR", *[n for n in RECIPES if n not in COLOURS],
         "graph search", "mean surface"]  # fmt: skip
table_rows = []
for name in order:
    mean, sd = (np.array(results.per_seed(name, key)) for key in ("masd", "sd"))
    share = 100 * np.array(results.per_seed(name, "broken"))
    plus_minus = f" ± {mean.std(ddof=1):.2f}" if len(mean) > 1 else ""
    table_rows.append([name, *theirs.get(name, ("–", "–")), f"{mean.mean():.2f}{plus_minus}",
                       f"{sd.mean():.2f}", f"{share.mean():.2f} %"])  # fmt: skip
plotting.Table(
    ["method", "MASD µm, paper", "SD, paper", "MASD rows, ours", "SD, ours", "columns out of order"],
    table_rows,
    note=f"Paper: its FCBR-2 and ablations. Ours: mean over {len(run.seeds)} seeds, ± their standard "
    "deviation; SD: over all surfaces of all test images, mean of the seeds.",
)  # fmt: skip

# %% [markdown]
# Compare three rows. *No IPM* against *IPM* is the paper's comparison. *Post-hoc* against *no IPM* is what
# ordering alone repairs. *IPM* against *post-hoc* is what is left for training through the layer. How the
# three differ seed by seed, in per cent of *no IPM*:

# %%
for key, text in (("masd", "mean error"), ("sd", "SD of the error")):
    base = np.array(results.per_seed("no IPM", key))
    for name in ("post-hoc", "IPM"):
        change = 100 * (np.array(results.per_seed(name, key)) / base - 1)
        change = np.round(change, 1) + 0.0  # no −0.0
        print(f"{text:<16} {name:<9}", "  ".join(f"{x:+6.1f} %" for x in change))

# %% [markdown]
# What the stored run says. The layer keeps its promise, no column is out of order, and the price is small:
# the mean error stays within a few per cent. But it earns nothing in accuracy. Ordering alone leaves mean and spread as
# they were, and training through the layer does not lower them either. The ablations do not lose to the
# full method; FCBR, with its simpler losses, comes out ahead of it at this budget; the graph search, with
# hand-made costs, is far behind on the faint borders and as good as any on the strongest one, the ILM. The
# paper's own differences in the mean were two per cent or less, from one training each.
#
# Why does ordering move so little? Few columns need it. In those that do, how far are the surfaces from the
# truth before and after, and how deep do they cross?

# %%
before, after, depths = [], [], []
for seed in run.seeds:
    out = results.get("no IPM", seed).extras["out"]
    wrong = broken(out["mu"])  # (n,W)
    for placed, errors in (
        (out["mu"], before),
        (results.get("post-hoc", seed).extras["placed"], after),
    ):
        off = (placed - test_set["surfaces"]).abs().movedim(1, 2)[wrong]  # (columns, N)
        errors.append(off[off.isfinite()])
    depths.append((-out["mu"].diff(dim=1)).amax(1)[wrong])
before, after, depths = (torch.cat(x) for x in (before, after, depths))
print(f"{len(depths)} columns out of order")
if len(depths):
    print(f"they cross by {depths.median():.2f} rows (median), {depths.max():.2f} at most; mean error there "
          f"{before.mean():.2f} rows, ordered afterwards {after.mean():.2f}")  # fmt: skip

# %% [markdown]
# And what do the two heads contribute to $\mu$? The errors of the region boundaries $\gamma$, of the
# soft-argmax $\xi$, and of their fusion:

# %%
for name in ("IPM", "no IPM"):
    error = {k: np.mean([masd(results.get(name, seed).extras["out"][k], test_set).nanmean().item()
                         for seed in run.seeds]) for k in ("gamma", "xi", "mu")}  # fmt: skip
    c = np.mean([results.get(name, seed).extras["out"]["c"].mean().item() for seed in run.seeds])
    print(
        f"{name:<7} γ {error['gamma']:.2f}, ξ {error['xi']:.2f}, μ {error['mu']:.2f} rows; mean c {c:.3f}"
    )

# %% [markdown]
# ### Surface by surface
#
# Where does the error sit? Each dot is one seed.

# %% mystnb={"image": {"alt": "Mean error of each of the nine surfaces for IPM, no IPM, FCBR and graph search."}}
figure, axis = plt.subplots(figsize=(7, 2.9))
compared = {**COLOURS, "graph search": plotting.PALETTE["purple"]}
for k, (name, colour) in enumerate(compared.items()):
    cells = np.stack([np.reshape(results.value(name, seed, "masd"), (-1, n_surfaces))
                      for seed in run.seeds])  # (seeds, images, N)  # fmt: skip
    per_seed = np.nanmean(cells, axis=1)
    x = np.arange(n_surfaces) + 0.18 * (k - 1.5)
    axis.bar(x, per_seed.mean(0), 0.17, color=colour, alpha=0.6, label=name)
    axis.plot(np.tile(x, (len(run.seeds), 1)), per_seed, ".", color=colour, markersize=4)
axis.set(xticks=range(n_surfaces), xticklabels=names, ylabel="MASD (rows)")
axis.tick_params(axis="x", rotation=25)
axis.legend(ncols=2)
plotting.show(figure)

# %% [markdown]
# ### Where the order needs help
#
# The test image with most columns out of order, around the place where the surfaces cross: the truth, what
# the network without the layer says, and the same after ordering. On the right, by how much each surface was
# moved.

# %% mystnb={"image": {"alt": "A part of a B-scan with its true surfaces, the crossing surfaces of the network, the ordered ones, and a map of how far each surface was moved in each column."}}
out = results.get("no IPM", first).extras["out"]
worst_order = int(broken(out["mu"]).float().mean(1).argmax())
guess = out["mu"][worst_order]
placed = ordered_surfaces(guess[None], out["sigma2"][[worst_order]])[0][0]


def around_crossing(surfaces, reach=14):
    """Limits of columns and rows about the deepest crossing of (N,W)."""
    depth = -surfaces.diff(dim=0)
    i, x = np.unravel_index(int(depth.argmax()), depth.shape)
    z = float(surfaces[i, x])
    return (x - reach - 0.5, x + reach + 0.5), (z + reach + 0.5, z - reach - 0.5)


figure, axes = plt.subplots(1, 4, figsize=(7, 2.5), width_ratios=(1, 1, 1, 1.2))
columns, window = around_crossing(guess)
panels = {"truth": test_set["surfaces"][worst_order], "no IPM": guess, "post-hoc": placed}
for axis, (title, lines) in zip(axes, panels.items(), strict=False):
    plotting.surfaces(test_set["image"][worst_order], lines, ax=axis, linewidth=1.4)
    axis.set(
        title=title,
        xlim=columns,
        ylim=window,
        xlabel=f"columns {columns[0] + 0.5:.0f} to {columns[1] - 0.5:.0f}",
    )
shown = axes[3].imshow((placed - guess).abs(), aspect="auto", cmap="cividis")
axes[3].set(xlabel="column", ylabel="surface", title="moved by (rows)", xlim=columns,
            yticks=range(n_surfaces), yticklabels=range(1, n_surfaces + 1))  # fmt: skip
axes[3].grid(False)
figure.colorbar(shown, ax=axes[3], shrink=0.9)
plotting.show(figure)

# %% [markdown]
# ### Is the network's certainty worth anything?
#
# The column problem trusts $\sigma$. The figure puts the test points into ten groups from the smallest
# predicted $\sigma$ to the largest, and shows each group's mean error; a network that knows what it does not
# know makes this rise. (The targets all had the same $\sigma$, so nobody taught it.) And what if the layer is
# told that all surfaces are equally certain?

# %% mystnb={"image": {"alt": "Mean error of the points of the test set in ten groups of growing predicted standard deviation."}}
figure, axis = plt.subplots(figsize=(4.2, 2.5))
for seed in run.seeds:
    out = results.get("no IPM", seed).extras["out"]
    sd = out["sigma2"].sqrt()[test_set["valid"]]
    off = (out["mu"] - test_set["surfaces"]).abs()[test_set["valid"]]
    groups = sd.argsort().chunk(10)
    axis.plot([sd[g].mean() for g in groups], [off[g].mean() for g in groups], ".-",
              color=COLOURS["no IPM"], alpha=0.7)  # fmt: skip
axis.set(xlabel="predicted σ (rows), mean of the group", ylabel="mean error (rows)", ylim=(0, None))
plotting.show(figure)
for name, change in (("the network's σ", lambda v: v), ("equal σ", torch.ones_like)):
    errors = []
    for seed in run.seeds:
        out = results.get("no IPM", seed).extras["out"]
        placed = ordered_surfaces(out["mu"], change(out["sigma2"]))[0]
        errors.append((placed - test_set["surfaces"]).abs().movedim(1, 2)[broken(out["mu"])])
    if len(errors := torch.cat(errors)):
        print(f"post-hoc with {name:<16} mean error in the columns that were out of order "
              f"{errors.nanmean():.3f} rows")  # fmt: skip

# %% [markdown]
# The ranking is right, the scale is not: $\sigma$ is several times the error, since it is the width of a
# distribution that was trained to be wide. Only the ratios of the variances matter to the layer, and in the
# columns where it acts they are so much alike that it does as well without them.

# %% [markdown]
# ### Best, median, worst
#
# Chosen by the mean error of IPM, first seed; *no IPM* beside it on the same image. Orange is the truth, blue
# the network.

# %% mystnb={"image": {"alt": "Best, median and worst test image of IPM with predicted and true surfaces, and the output of the network without IPM on the same images."}} tags=["thumbnail"]
case_error = np.nanmean(np.reshape(results.value("IPM", first, "masd"), (-1, n_surfaces)), axis=1)
ranking = np.argsort(case_error)
cases = {"best": ranking[0], "median": ranking[len(ranking) // 2], "worst": ranking[-1]}
figure, axes = plt.subplots(1, 6, figsize=(7, 2.9))
for (what, i), pair in zip(cases.items(), axes.reshape(3, 2), strict=True):
    known = {k: test_set[k][[i]] for k in ("surfaces", "valid")}
    for axis, name in zip(pair, ("IPM", "no IPM"), strict=True):
        placed = results.get(name, first).extras["placed"][i]
        lines = {"truth": test_set["surfaces"][i], name: placed}
        plotting.surfaces(test_set["image"][i], lines, ax=axis)
        axis.set_title(f"{what}, {name}\n{masd(placed[None], known).nanmean():.2f} rows")
plotting.show(figure)

# %% [markdown]
# ### What the paper used, what the structure allows
#
# The columns of the test set, as the network without the layer leaves them, in three ways: the paper's
# dense Algorithm 1, column by column (timed on a few, scaled up, forward only), the tridiagonal interior
# point, and the closed form, both with their backward pass. The speed of generic optimisation layers stands on
# the page on [solver speed](../guide/solver-speed).

# %%
mu_test = torch.cat(
    [results.get("no IPM", seed).extras["out"]["mu"] for seed in run.seeds]
).double()
sigma2_test = torch.cat(
    [results.get("no IPM", seed).extras["out"]["sigma2"] for seed in run.seeds]
).double()
n_columns = mu_test.shape[0] * mu_test.shape[2]


def seconds(action, repeats=5):
    """Median time of one call."""
    action()
    timings = []
    for _ in range(repeats):
        started = time.perf_counter()
        action()
        timings.append(time.perf_counter() - started)
    return float(np.median(timings))


def forward_backward(method, mu=mu_test, sigma2=sigma2_test):
    m, v = mu.clone().requires_grad_(), sigma2.clone().requires_grad_()
    ordered_surfaces(m, v, method=method, tol=s.tol)[0].sum().backward()


few = 20
picked = [(m[:, j].numpy(), v[:, j].numpy()) for m, v, j in
          zip(mu_test[:few], sigma2_test[:few], itertools.count(), strict=False)]  # fmt: skip
dense = seconds(lambda: [algorithm_1(m, v, s.tol) for m, v in picked], 1) / len(picked)
cost = {"Algorithm 1, dense, a loop": dense * n_columns,
        "interior point, tridiagonal, batched": seconds(lambda: forward_backward("ipm"), 3),
        "closed form": seconds(lambda: forward_backward("pav"))}  # fmt: skip
for name, value in cost.items():
    print(f"{name:<38} {1e3 * value:8.1f} ms for {n_columns} columns")

# %% [markdown]
# ### When has an interior point method converged?
#
# The paper stops when $\lVert r_t\rVert<0.01$, and reports at most seven iterations. Both are true, and
# the second follows from the first: the residual mixes px⁻¹ (the Gaussians' pull, small where $\sigma^2$ is
# large) with pixels times forces, and says nothing about pixels. Below, the test columns that are out of
# order (random ones, if the networks leave fewer than fifty), solved by Algorithm 1 as printed until *its*
# criterion is met, for eight iterations whatever happens, and until the duality gap is small; compared with
# the closed form.

# %%
crossed = broken(mu_test)  # (B,W)
mu_bad = mu_test.movedim(1, 2)[crossed].T[None]  # (1,N,columns)
sigma2_bad = sigma2_test.movedim(1, 2)[crossed].T[None]
if mu_bad.shape[2] < 50:
    mu_bad, sigma2_bad = mu_many, sigma2_many
    print("random columns")
exact = ordered_surfaces(mu_bad, sigma2_bad, method="pav")[0]
AS_PRINTED, TIGHT = "‖r‖ < 0.01 (paper)", f"duality gap < {s.tol:g}"
rules = {
    AS_PRINTED: {"stop": "residual", "tol": 0.01},
    "8 iterations": {"stop": "residual", "tol": 1e-12, "max_iter": 8},
    TIGHT: {"stop": "gap", "tol": s.tol},
}
stopped = {}
for name, rule in rules.items():
    answer, info = interior_point(mu_bad, sigma2_bad, **rule)
    error = (answer - exact).abs().amax(1)[0]
    stopped[name] = (info.iterations.flatten(), error)
    print(f"{name:<20} {info.iterations.double().mean():5.1f} iterations on average, at most "
          f"{int(info.iterations.max())}; error at most {error.max():.1e} rows, 99th percentile "
          f"{error.quantile(0.99):.1e}")  # fmt: skip
# An objective that is off by δ leaves s off by at most √(2δσ²); twice that, for the pull's rest.
bound = 2 * (2 * s.tol * sigma2_bad.max()).sqrt()
assert stopped[TIGHT][1].max() < bound, "the interior point does not reach the closed form"

# %% [markdown]
# Does it matter? For the layer as a solver, and for its gradient, yes. For the mean error of *these*
# surfaces hardly: they are themselves about a row off. The whole test set, ordered both ways:

# %%
for name in (AS_PRINTED, TIGHT):
    placed = interior_point(mu_test, sigma2_test, **rules[name])[0].float()
    error = np.mean([masd(p, test_set).nanmean().item() for p in placed.chunk(len(run.seeds))])
    print(f"{name:<20} MASD {error:.4f} rows")

# %% mystnb={"image": {"alt": "Left: histogram of the number of iterations until both stopping criteria. Right: largest error in rows when the paper's criterion stops, and when the duality gap does."}}
figure, axes = plt.subplots(1, 2, figsize=(7, 2.6))
for name, colour in ((AS_PRINTED, "vermilion"), (TIGHT, "green")):
    colour = plotting.PALETTE[colour]
    counts, error = stopped[name]
    bins = np.arange(int(counts.max()) + 2) - 0.5
    axes[0].hist(counts.numpy(), bins, color=colour, alpha=0.6, label=name)
    axes[1].hist(error.clamp_min(1e-13).log10().numpy(), np.linspace(-13, 1, 43), color=colour,
                 alpha=0.6)  # fmt: skip
axes[0].set(xlabel="iterations", ylabel="columns")
axes[0].legend()
axes[1].set(xlabel="error (rows)", xticks=[-12, -9, -6, -3, 0],
            xticklabels=["10⁻¹²", "10⁻⁹", "10⁻⁶", "10⁻³", "1"])  # fmt: skip
plotting.show(figure)

# %% [markdown]
# ### When an interior point method earns its keep
#
# For the order alone nobody needs it. With *maximum* gaps there is no closed form. Take the range of each
# gap from the training truth (never from the test set), and let the layer enforce it on the network that
# was trained without, in double precision. What it earns is a guarantee, not a smaller error.

# %%
low, high = (g.double() for g in classical.gap_range(train_set))
table_rows, gaps_broken = [], {}
for name, limits in (("no IPM", None), ("order", {}), ("order, minimum gaps", {"min_gap": low}),
                     ("minimum and maximum gaps", {"min_gap": low, "max_gap": high})):  # fmt: skip
    errors, outside = [], []
    for seed in run.seeds:
        out = results.get("no IPM", seed).extras["out"]
        placed = out["mu"].double()
        if limits is not None:
            placed = ordered_surfaces(placed, out["sigma2"].double(), tol=s.tol, **limits)[0]
        gaps = placed.diff(dim=1)
        bad = (gaps < low[:, None] - 1e-6) | (gaps > high[:, None] + 1e-6)  # (n,N-1,W)
        errors.append(scores.score(placed, test_set))
        outside.append(bad.any(1).double().mean().item())
    gaps_broken[name] = outside
    method = "–" if limits is None else ("ipm" if "max_gap" in limits else "pav")
    mean, sd = (np.mean([np.nanmean(e[key]) for e in errors]) for key in ("masd", "sd"))
    table_rows.append([name, method, f"{mean:.3f}", f"{sd:.3f}", f"{100 * np.mean(outside):.2f} %"])
plotting.Table(["limits", "solver", "MASD rows", "SD", "columns with a gap out of range"], table_rows,
               note="Range: all but 0.1 % of the training gaps on either side.")  # fmt: skip

# %% [markdown]
# ### The second application: the wall of an artery
#
# **Intravascular ultrasound** (IVUS) turns a tiny transducer, at the tip of a thin tube (the *catheter*),
# inside an artery. In polar form a row is a radius and a column an angle, and two surfaces matter: the
# **lumen**, where the blood ends, and the **media**, the outer edge of the wall. The columns close on
# themselves: the U-Net pads with the last columns before the first, and the smoothness loss wraps around.
# Shadows of the wire that guides the catheter and of calcium, hard deposits in a diseased wall, hide what
# lies behind them, and at side branches the lumen has no edge. Without `ivus_dir` the data are the phantom
# [`ivus_polar`](../guide/phantoms-ivus). The learning rates are those found on the retina.

# %% tags=["hide-input"]
ivus_scores = partial(ivus_experiment.score, mm_per_row=mm_per_row, pixels=s.mask_px)
ivus_arms = {
    "IPM": make_arm("IPM", rate["no IPM"], artery, ivus_scores),
    "FCBR": make_arm("FCBR", rate["FCBR"], artery, ivus_scores),
}
ivus = compare.run_arms(ivus_arms, run.seeds, workers=run.workers)

# %% tags=["hide-output"]
sources.show(ivus_experiment.load)

# %% [markdown]
# The metrics are those of the IVUS challenge, on Cartesian masks: Dice and Jaccard (the share of overlap in
# the union), the Hausdorff distance (HD, the largest distance between two borders), and the percentage of
# area difference (PAD).

# %% tags=["hide-input"]
ivus_graph, ivus_blur, _ = classical.tuned_graph_search(artery)
ivus_row = ivus_scores(ivus_graph, artery.test) | {"extras": {"placed": ivus_graph}}
ivus = ivus.with_row("graph search", lambda seed: ivus_row)
printed_ivus = {
    "IPM": ("0.85", "0.92", "0.36", "0.08", "0.89", "0.94", "0.40", "0.06"),
    "FCBR": ("0.87", "0.93", "0.43", "0.08", "0.89", "0.94", "0.56", "0.07"),
    "graph search": ("0.86", None, "0.37", "0.09", "0.90", None, "0.43", "0.07"),
}
keys = [f"{n} {m}" for n in ivus_experiment.NAMES for m in ("Jaccard", "Dice", "HD", "PAD")]

# %% tags=["hide-output"]
sources.show(ivus_experiment.disc, ivus_experiment.score)

# %% [markdown]
# Lumen first, then media; HD in millimetres. (A pixel of the masks is the smallest step that HD can take.)

# %%
for part in ivus_experiment.NAMES:
    short = {k: k.removeprefix(f"{part} ") for k in keys if k.startswith(part)}
    print(part)
    display(plotting.paper_table(
        {arm: {v: ivus.per_seed(arm, k) for k, v in short.items()} for arm in printed_ivus},
        {arm: {short[k]: v for k, v in zip(keys, row, strict=True) if k in short}
         for arm, row in printed_ivus.items()}, digits=2,
        note="Paper: data set B of the challenge." if part == "media" else ""))  # fmt: skip

# %% mystnb={"image": {"alt": "Median and worst polar IVUS image of IPM with lumen and media: truth, IPM, FCBR and graph search."}}
hd = ivus.value("IPM", first, "media HD")
ivus_cases = {"median": np.argsort(hd)[len(hd) // 2], "worst": np.argsort(hd)[-1]}
figure, axes = plt.subplots(2, 3, figsize=(7, 3.7))
for row, (what, i) in enumerate(ivus_cases.items()):
    for column, name in enumerate(("IPM", "FCBR", "graph search")):
        lines = {"truth": artery.test["surfaces"][i],
                 name: ivus.get(name, first).extras["placed"][i]}  # fmt: skip
        plotting.surfaces(artery.test["image"][i], lines, ax=axes[row, column])
        value = ivus.value(name, first, "media HD")[i]
        axes[row, column].set_title(f"{what}, {name}: {value:.2f} mm")
plotting.show(figure)

# %% [markdown]
# Orange is the truth, blue the method; rows are radii, from the catheter down to the outside.

# %% [markdown]
# ## Explore
#
# **One column.** Push the guess of surface 2 through its neighbours. While it stays between them nothing
# else moves; once it crosses one, both meet in between, and the more certain one moves less. The lower
# slider changes how certain surface 2 is. $\lambda$ is the force in the contact.


# %%
def one_column(mu2, sigma2, mu1=16.0, mu3=27.0):
    mu, sigma = np.array([mu1, mu2, mu3]), np.array([1.5, sigma2, 2.5])
    figure, axis = plt.subplots(figsize=(4.2, 2.9))
    draw_column(axis, mu, sigma, *solve_column(mu, sigma))
    return figure


widgets.frames(
    one_column, mu2=[8.0, 11.0, 14.0, 16.0, 18.0, 21.0, 24.0, 27.0, 29.0, 32.0, 35.0],
    sigma2=[0.7, 1.5, 4.0], start={"mu2": 11.0, "sigma2": 1.5},
    labels={"mu2": "μ of surface 2", "sigma2": "σ of surface 2"}, target_bytes=60_000,
    alt="Gaussians of three surfaces, their guesses and the ordered solution",
)  # fmt: skip

# %% [markdown]
# In a running notebook all three guesses move freely:

# %%
widgets.live(one_column, mu1=(5.0, 35.0, 0.5), mu2=(5.0, 35.0, 0.5), mu3=(5.0, 35.0, 0.5),
             sigma2=(0.5, 6.0, 0.1))  # fmt: skip

# %% [markdown]
# **Iterations.** One column that starts out of order, solved by Algorithm 1. Left: the surfaces that touch,
# and their neighbours, on their way; rings are the guesses, dots the optimum. Right: the residual falls below
# the paper's $\varepsilon$ while the true error is still visible with the naked eye.

# %%
hardest = int(stopped[AS_PRINTED][1].argmax())
path, path_info = interior_point(mu_bad[..., [hardest]], sigma2_bad[..., [hardest]], stop="residual",
                                 tol=1e-9, max_iter=60, trace=True)  # fmt: skip
trace = path_info.trace
ways = trace.surfaces[:, 0, :, 0].numpy()  # (T+1, N)
goal = exact[0, :, hardest].numpy()
measures = {
    "residual ‖r‖": trace.residual[:, 0, 0].numpy(),
    "duality gap": trace.duality_gap[:, 0, 0].numpy(),
    "true error (rows)": np.abs(ways - goal).max(1),
}


# %%
def iterates(axis, k):
    """Left panel: the surfaces around the crossing on their way."""
    last = len(ways) - 1
    for i in touching:
        colour = plotting.CYCLE[i % len(plotting.CYCLE)]
        axis.plot(ways[: k + 1, i], ".-", color=colour, markersize=3, linewidth=1)
        axis.plot(-0.8, mu_bad[0, i, hardest], "o", color=colour, markerfacecolor="white")
        axis.plot(last + 0.8, goal[i], "o", color=colour, markersize=4)
    axis.set(xlim=(-1.5, last + 1.5), ylim=limits, xlabel="iteration", ylabel="row",
             xticks=range(0, last + 1, 5))  # fmt: skip


def iterations(k):
    figure, axes = plt.subplots(1, 2, figsize=(5.6, 2.7))
    iterates(axes[0], k)
    for name, values in measures.items():
        values = np.maximum(values, 1e-13)
        axes[1].semilogy(values, linewidth=0.7, alpha=0.4, color=hues[name])
        axes[1].semilogy(values[: k + 1], ".-", color=hues[name], label=name)
    axes[1].axhline(0.01, color="0.4", linestyle=":", label="ε = 0.01")
    axes[1].set(xlabel="iteration", ylim=(1e-13, 1e3), xlim=(-0.5, len(ways) - 0.5),
                xticks=range(0, len(ways), 5))  # fmt: skip
    axes[1].legend(loc="lower left")
    axes[1].set_title(f"true error {measures['true error (rows)'][k]:.1e} rows")
    return figure


hues = dict(zip(measures, plotting.CYCLE[1:4], strict=True))
moved_by = np.abs(goal - mu_bad[0, :, hardest].numpy())
touching = np.flatnonzero(moved_by > 0.01 * moved_by.max())  # the block, and one on either side
touching = [i for i in range(max(0, touching[0] - 1), min(len(goal), touching[-1] + 2))
            if np.abs(goal[i] - goal[touching]).min() < 8]  # fmt: skip
span = np.concatenate([ways[:, touching].ravel(), mu_bad[0, touching, hardest].numpy()])
limits = (span.max() + 1, span.min() - 1)
widgets.frames(
    iterations, k=list(range(len(ways)))[:30], start={"k": int(stopped[AS_PRINTED][0][hardest])},
    labels={"k": "iteration"}, target_bytes=58_000,
    alt="Iterates of the interior point method and its residual, duality gap and true error",
)  # fmt: skip

# %% [markdown]
# **Switch the order off and on.** Test images around the place where the network without the layer comes
# closest to a crossing, with the output of each way of ordering (white, dotted: the truth). White ticks at the
# top mark columns that are out of order.


# %%
def switched(image, method):
    i = views[image]
    placed = results.get(method, first).extras["placed"]
    figure, axis = plt.subplots(figsize=(3.2, 3.6))
    plotting.surfaces(test_set["image"][i], placed[i], ax=axis, linewidth=1.8)
    axis.plot(test_set["surfaces"][i].T, ":", color="white", linewidth=0.8)
    columns, window = around_crossing(results.get("no IPM", first).extras["out"]["mu"][i])
    bad = np.flatnonzero(broken(placed[[i]])[0])
    axis.plot(bad, np.full(len(bad), window[1] + 1.0), "|", color="white", markersize=8)
    error = masd(placed[[i]], {k: test_set[k][[i]] for k in ("surfaces", "valid")}).nanmean()
    axis.set(xlim=columns, ylim=window,
             title=f"{method}: {error:.2f} rows,\n{len(bad)} columns out of order")  # fmt: skip
    return figure


views = {"most out of order": worst_order, **{k: int(v) for k, v in cases.items()}}
widgets.frames(
    switched, image=list(views), method=["no IPM", "post-hoc", "IPM", "FCBR", "graph search"],
    labels={"image": "test image", "method": "ordering"}, target_bytes=72_000,
    alt="Part of a test image with the surfaces of one method",
)  # fmt: skip

# %% [markdown]
# ## Claims
#
# The statements and their margins were fixed before the first training run. Relative changes are paired by
# seed: the same images, order and first weights.


# %%
def relative(better, worse, key, source=results):
    """By which share `better` is below `worse`, one number per seed."""
    a, b = (np.array(source.per_seed(name, key)) for name in (better, worse))
    return (b - a) / b


count = {name: [int(broken(results.get(name, seed).extras["placed"]).sum()) for seed in run.seeds]
         for name in ("IPM", "no IPM")}  # fmt: skip
claims.exact(
    "C1a", "with IPM no test column breaks the order (tolerance 1e-6 px); without it some do",
    sum(count["IPM"]) == 0 and min(count["no IPM"]) > 0,
    f"columns out of order, by seed: {count['IPM']} with, {count['no IPM']} without "
    "(paper: 0 and 361 pixels)",
    if_fails="The network had learnt the order from the data alone in at least one seed.",
)  # fmt: skip
inside = gaps_broken["minimum and maximum gaps"]
claims.exact(
    "C1b", "nor does any break a required gap, minimum or maximum; without it some do",
    max(inside) == 0 and min(gaps_broken["no IPM"]) > 0,
    f"share of columns with a gap out of range, by seed: {', '.join(f'{100 * x:.2g} %' for x in inside)} with, "
    f"{', '.join(f'{100 * x:.2g} %' for x in gaps_broken['no IPM'])} without",
)  # fmt: skip
# %%
post = relative("post-hoc", "no IPM", "sd").mean()


def signed(x):
    return f"{round(x, 1) + 0.0:+.1f}".replace("-", "−")


claims.check(
    "C2", "the SD of the surface error is at least 5 % lower with IPM than without",
    relative("IPM", "no IPM", "sd"), at_least=0.05, paper="0.85 vs 1.06 µm (−20 %)",
    baseline=f"SD {results.mean('no IPM', 'sd'):.3g} rows; ordering it afterwards: {signed(-100 * post)} %",
    if_fails="Columns out of order are few and cross by little (see under the table), so ordering them moves "
    "no large error; and training through the layer adds nothing that could be told from the seeds.",
)  # fmt: skip
claims.check(
    "C3", "the mean error with IPM is at most 2 % above that without",
    -relative("IPM", "no IPM", "masd"), at_most=0.02, paper="2.78 vs 2.83 µm (−2 %)",
    baseline=f"{results.mean('no IPM', 'masd'):.3g} rows",
    if_fails="Three seeds do not pin a mean within the tolerance down to it: two trainings that differ in the "
    "layer alone end up to several per cent apart.",
)  # fmt: skip

# %%
within = []
for seed in run.seeds:
    out = results.get("IPM", seed).extras["out"]
    info = interior_point(out["mu"].double(), out["sigma2"].double(), stop="residual", tol=0.01)[1]
    within.append(((info.iterations <= 10) & info.converged).double().mean().item())
claims.check(
    "C4", "Algorithm 1 reaches the paper's ε within 10 iterations on at least 99 % of the columns",
    within, at_least=0.99, null=0.99, paper="at most 7 iterations",
)  # fmt: skip
claims.check(
    "C5", "the smoothness loss lowers the mean error by at least 1 %",
    relative("IPM", "no smooth loss", "masd"), at_least=0.01, paper="2.78 vs 2.83 µm (1.8 %)",
    baseline=f"{results.mean('no smooth loss', 'masd'):.3g} rows",
    if_fails="It counts squared rows of nine surfaces and eight layers, many times the other losses, and pulls "
    "the network away from where its distributions had led it: the jump in the figure under Training.",
)  # fmt: skip
claims.check(
    "C6", "μ from the regions lowers the SD of the error by at least 3 %",
    relative("IPM", "no region μ", "sd"), at_least=0.03, paper="0.85 vs 0.98 µm (13 %)",
    baseline=f"SD {results.mean('no region μ', 'sd'):.3g} rows",
    if_fails="Fusion helps a network that was trained with it (γ, ξ and μ under the table), but a soft-argmax "
    "that is trained alone gets as far by itself.",
)  # fmt: skip

# %%
claims.check(
    "C7a", "IVUS: the media's Hausdorff distance is at least 3 % lower than FCBR's",
    relative("IPM", "FCBR", "media HD", ivus), at_least=0.03, paper="0.40 vs 0.56 mm (29 %)",
    baseline=f"{ivus.mean('FCBR', 'media HD'):.3g} mm",
    if_fails="The seeds spread as widely as the gain.",
)  # fmt: skip
claims.check(
    "C7b", "IVUS: mean Dice of lumen and media at most 0.01 below FCBR's",
    np.mean([ivus.difference("IPM", "FCBR", f"{n} Dice") for n in ivus_experiment.NAMES], axis=0),
    at_least=-0.01, paper="0.92 and 0.94 vs 0.93 and 0.94",
    baseline=f"{ivus.mean('FCBR', 'lumen Dice'):.3g} and {ivus.mean('FCBR', 'media Dice'):.3g}",
    if_fails="The seeds spread as widely as the tolerance.",
)  # fmt: skip
claims.paper_only("C8", "absolute errors in µm on JHU's and the Beijing Eye Study's scans",
                  "2.78 ± 0.85 and 2.07 ± 0.91 µm",
                  "absolute numbers belong to the paper's data and scale")  # fmt: skip
for arm in ("no IPM", "post-hoc", "IPM"):
    claims.metric(f"mean error (rows), {arm}", results.mean(arm, "masd"))
    claims.metric(f"SD of the error (rows), {arm}", results.mean(arm, "sd"))
claims.report()

# %% [markdown]
# ## Exercises
#
# ### Exercise 1 (think)
#
# A column is already in order. What does the layer return, what is its gradient, and what does that mean
# for a network late in training, when nearly all columns are in order?
#
# :::{dropdown} Solution
# It returns $\mu$, and $\partial s/\partial\mu$ is the identity; $\partial s/\partial\sigma^2$ is zero. For
# such columns the layer is not there, in either direction: late in training it acts on the few columns that
# are out of order only. A mean over all columns can hardly show it; look at those columns instead.
# :::
#
# ### Exercise 2 (code)
#
# $\sigma^2$ gets a gradient only where surfaces press against each other. Write
# $\partial s/\partial\sigma^2$ of a block by hand, from $s=\sum_l w_l\mu_l/\sum_l w_l$ with
# $w=1/\sigma^2$, and check it against autograd through the layer.

# %% tags=["hide-input"]
mu_block = torch.tensor([20.0, 14.0, 17.0], dtype=torch.float64)  # all three end in one block
sigma2_block = torch.tensor([1.0, 4.0, 2.0], dtype=torch.float64)
w = 1 / sigma2_block
s_block = (w * mu_block).sum() / w.sum()
by_hand = -(mu_block - s_block) / (w.sum() * sigma2_block**2)
through = torch.autograd.functional.jacobian(
    lambda v: ordered_surfaces(mu_block[None, :, None], v[None, :, None])[0][0, 0, 0], sigma2_block
)
print("by hand  ", by_hand.numpy().round(6))
print("the layer", through.numpy().round(6))
assert torch.allclose(by_hand, through, atol=1e-8), "the layer's gradient is not the one by hand"

# %% [markdown]
# A larger variance of a surface above the block's row ($\mu<s$) lets the block sink, one below lets it rise.
#
# ### Exercise 3 (experiment)
#
# Is the order worth more when some guesses are lost? Throw every tenth guess of the trained network far off,
# by an error whose size its variance admits, and compare: no ordering, sorting, running maximum, column
# problem, and column problem with equal variances.

# %% mystnb={"image": {"alt": "Mean error over the size of the error of the lost guesses, for no ordering, sorting, running maximum, and the column problem with and without the right variances."}} tags=["hide-input"]
out = results.get("no IPM", first).extras["out"]
levels = (0.0, 5.0, 10.0, 20.0, 40.0)
ways_to_order = {
    "none": lambda m, v: m,
    "running maximum": lambda m, v: running_maximum(m),
    "sorted": lambda m, v: m.sort(1).values,
    "column problem, equal σ": lambda m, v: ordered_surfaces(m, torch.ones_like(v))[0],
    "column problem": lambda m, v: ordered_surfaces(m, v)[0],
}
curves_of = {name: [] for name in ways_to_order}
for level in levels:
    gen = rng.generator(run.seed, stream="exercise")
    lost = torch.rand(out["mu"].shape, generator=gen) < 0.1
    guess = out["mu"] + level * lost * torch.randn(out["mu"].shape, generator=gen)
    variance = out["sigma2"] + level**2 * lost
    for name, way in ways_to_order.items():
        curves_of[name].append(masd(way(guess, variance), test_set).nanmean().item())
figure, axis = plt.subplots(figsize=(4.8, 2.8))
for name, values in curves_of.items():
    axis.plot(levels, values, ".-", label=name)
axis.set(xlabel="error of the lost guesses (rows, SD)", ylabel="MASD (rows)")
axis.legend()
plotting.show(figure)

# %% [markdown]
# A running maximum passes a guess that is too deep on to everything below it. Sorting hands lost guesses to
# the wrong surfaces, and yet a column problem that trusts all guesses alike does no better. What the column
# problem gains beyond that is what knowing one's own errors is worth. (Here the variances of the lost guesses
# are right by construction; a network's need not be.)
#
# ### Exercise 4 (experiment)
#
# $\kappa$ says how far the soft-argmax outweighs the regions. Recompute $\mu$ from the stored $\gamma$,
# $\xi$ and $c$ for other values, without new training. Then run the chapter without the warm-up,
# `medseg run ipm-surfaces --set warm_up=0`, and look at the validation curves under *Training*.

# %% tags=["hide-input"]
for kappa in (2.0, 3.0, 4.0, 8.0, torch.inf):
    errors = []
    for seed in run.seeds:
        out = results.get("no IPM", seed).extras["out"]
        share = out["c"] / kappa
        errors.append(
            masd(share * out["gamma"] + (1 - share) * out["xi"], test_set).nanmean().item()
        )
    print(f"κ = {kappa:<4g} MASD {np.mean(errors):.3f} rows")

# %% [markdown]
# The network was trained with one $\kappa$, and its $\xi$ has learnt to make up for what $\gamma$ gets wrong: away
# from that value the fusion loses what it was tuned for.

# %% [markdown]
# ## On real data
#
# **JHU's retinal OCT** {cite:p}`he2019jhu`: 35 people, 14 healthy and 21 with multiple sclerosis, 49 B-scans
# each, nine surfaces drawn by hand. Heidelberg `.vol` images and MATLAB control points; the reader says
# what it found and what it expects.
#
# ```bash
# medseg run ipm-surfaces --scale paper -p dataset jhu -p data_dir /path/to/jhu
# ```
#
# **A Spectralis device's own export**: B-scans with the surfaces that the device drew, gaps where it gave up
# (they count nowhere). Crops of all scans but the last train, the last one tests. These surfaces are a
# program's, not a reader's.
#
# ```bash
# medseg run ipm-surfaces -p dataset spectralis -p data_dir /path/to/spectralis
# ```
#
# **The IVUS challenge's data set B** {cite:p}`balocco2014ivus`: 435 frames with lumen and media contours. It
# can be combined with any of the above.
#
# ```bash
# medseg run ipm-surfaces --scale paper -p ivus_dir /path/to/ivus
# ```
#
# **What differs from the paper.** Stated by the paper and kept: input channels, backbone's shape, both heads,
# fusion, losses and their weights, the column problem and its solver, the metrics. Not stated, our choice:
# how $\gamma$ and $c$ are computed, $\kappa=2$, widths, batch norm, Adam, its rates and schedule, noise
# levels, the floor of $\sigma^2$ (0.25 px²), what the ± runs over. Changed: smoothness and position join
# after two thirds of the updates, the regions have a cross entropy beside their Dice loss, the layer is
# solved to its optimum instead of to $\lVert r\rVert<0.01$ and $\lambda$ is not clamped, and FCBR here shares
# the backbone and the five channels of its rival. An artery has 384 angles instead of 360, which seven
# levels can halve six times. At the lesson's scale images, network and budget are small,
# and the Gaussian's $\sigma$ is 4 rows instead of 8 or 20.
#
# **Read on:** optimisation as a layer {cite:p}`amos2017optnet`, graph search {cite:p}`li2006surfaces`,
# pool adjacent violators {cite:p}`best1990active`, and the chapter [](selected-dimensions-oct) for surfaces
# by regression, without columns of probabilities.
