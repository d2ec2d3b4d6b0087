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
# # EDPCNN: a network trained through dynamic programming
#
# *A chapter on* {cite:t}`nguyen2019edpcnn`.
#
# :::{admonition} At a glance
# :class: tip
#
# - **Task:** outline the left ventricle, the heart's main pumping chamber, in MR images, when only
#   ten labelled ones exist.
# - **Idea:** a U-Net draws a map, dynamic programming finds the best closed contour in it, and a
#   small network that imitates the solver lends the U-Net its gradient.
# - **Afterwards you can** write an exact solver for closed contours, say why it has no gradient,
#   train through it all the same, and compare such a pipeline fairly with a pixel-wise network.
# - **Before:** U-Nets and gradient descent; the primer
#   [dynamic programming](../primers/dynamic-programming).
# - **Images:** cardiac MR. **Level:** intermediate.
# - **Time:** `smoke` about a minute, `lesson` some minutes on two CPU cores, `paper` (full-size
#   networks, 20 000 updates, seven training-set sizes) days on a GPU.
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
seed: int = 0  # first seed; all random numbers follow from it
device: str = "auto"  # auto | cpu | cuda | cuda:1 | mps
data_dir: str = None  # folder of the real data set; the phantom needs none
extended: bool = False  # also the ablations that want a GPU's time
overrides: dict = {}  # settings to change, for example {"steps": 500}
dataset: str = "phantom"  # phantom | sunnybrook | acdc

# %% mystnb={"code_prompt_show": "Set-up: imports"} tags=["hide-input"]
import itertools

import matplotlib.pyplot as plt
import numpy as np
import torch
from skimage.filters import threshold_otsu
from torch.nn import functional as F

from medseg_book.page import claims, compare, exercises, plotting, scales, sources, widgets
from medseg_core import rng
from medseg_core.metrics import overlap
from medseg_core.papers.edpcnn import experiment, printed, rereading, stopwatch, untrained
from medseg_core.papers.edpcnn.arms import Arms
from medseg_core.papers.edpcnn.centres import dice_off_centre
from medseg_core.papers.edpcnn.drawing import draw_contour, draw_warped
from medseg_core.papers.edpcnn.evaluation import component, mean_dice, outline, share_broken
from medseg_core.papers.edpcnn.gradient_quality import cosines
from medseg_core.papers.edpcnn.pixel_loss import LOSSES
from medseg_core.papers.edpcnn.synthetic_gradient import SyntheticGradient
from medseg_core.solvers import star_dp, star_pattern

TRUTH, RESULT, METHOD = (plotting.ROLES[role] for role in ("truth", "result", "method"))
UNET, WITH_DP, NO_NOISE = plotting.BASELINES[:3]
plotting.style()

# %% mystnb={"code_prompt_show": "Set-up: settings and data"} tags=["hide-input"]
how = {"scale": scale, "seed": seed, "device": device, "overrides": overrides}
what = {"data_dir": data_dir, "dataset": dataset, "extended": extended}
run = scales.begin("edpcnn", experiment.SETTINGS, sources=experiment.SOURCES, **how, **what)
s, first = run.s, run.seeds[0]
rho = s.radius / s.n_points
loaded = experiment.LOADERS[run.dataset](s, run.seed, run.reader)
pool, validation, test = parts = experiment.Parts(*map(experiment.prepared, loaded))
wanted = {*s.n_train, *((40,) if run.extended else ())}
sizes = sorted({min(n, len(pool["image"])) for n in wanted})  # never more than there are
few, many = min(sizes), max(sizes)

# %% [markdown]
# ## The problem
#
# A *short-axis* slice cuts the heart across. The **left ventricle** (LV) is a bright disc of blood
# inside a dark ring of muscle, the **myocardium**; the right ventricle leans on it as a bright
# crescent. Two **papillary muscles** stand inside the blood and count as part of it. The disc is
# large at *end-diastole* (ED), when the ventricle is full, and small at *end-systole* (ES), when it
# has emptied.
#
# Brightness alone does not find it: blood is bright everywhere. But we know its *shape*, one closed
# and nearly round outline around a centre that an expert clicks in a second. Read along rays from
# that centre, the outline becomes a line from top to bottom, and looking for it becomes a problem
# that dynamic programming solves exactly.


# %% mystnb={"code_prompt_show": "The figure", "image": {"alt": "A short-axis slice; a threshold's answer, which leaks into the bright structures around the ventricle; rays from the ventricle's centre with its outline; and the slice read along the rays, with the outline as a line from top to bottom."}} tags=["hide-input"]
large = int(test["mask"].sum((1, 2, 3)).argmax())
slice_, mask, centre = (test[key][[large]] for key in ("image", "mask", "centre"))
points = experiment.star(s, centre)
v_true = star_pattern.star_truth(mask, points)[0]
leak = component(slice_ > threshold_otsu(slice_.numpy()), centre)
figure, axes = plt.subplots(1, 4, figsize=(plotting.WIDTH, 2.1))
plotting.overlay(slice_[0], ax=axes[0], titles=[f"a slice ({test['phase_name'][large]})"])
plotting.errors(slice_[0], leak[0], mask[0], ax=axes[1], titles=["a threshold's answer"])
plotting.overlay(slice_[0], ax=axes[2], titles=["rays from the centre"])
axes[2].plot(*points[0].permute(2, 1, 0).flip(0), color=plotting.PALETTE["sky"], linewidth=0.5)
axes[2].set(xlim=(-0.5, s.size - 0.5), ylim=(s.size - 0.5, -0.5))
draw_contour(axes[2], star_pattern.contour_points(centre, v_true, rho)[0], TRUTH)
draw_warped(axes[3], star_pattern.warp(slice_, points)[0], v_true[0], TRUTH, "read along them")
plotting.show(
    figure,
    caption="A test slice. Of what a threshold leaves, the piece at the centre: green is right, "
    f"vermilion too much, blue missing (Dice {overlap.dice(leak, mask).item():.2f}). Right: rays, "
    "and the slice read along them; the true outline (purple) becomes a line from top to bottom.",
)

# %% [markdown]
# **Dice**, twice the overlap over the sum of both areas, says how well two masks agree: 1 is
# perfect, 0 is disjoint.
#
# The book's own images are a [phantom](../guide/phantoms): hearts off the centre, patients of
# different contrast, vessels and organs as bright as the blood. One patient gives an ED and an ES
# slice; training, validation and test patients are different people. Slices whose ventricle covers
# fewer than 4 pixels are left out.

# %% mystnb={"code_prompt_show": "Settings, and what the arms may see"} tags=["hide-cell"]
sources.show(experiment.Settings, experiment.LOADERS[run.dataset], experiment.prepared)

# %% [markdown]
# ## The method
#
# ### A star, and a band
#
# Put $N$ rays around the centre, with $M+1$ samples on each. Reading the U-Net's output map there
# gives the **warped map** $g \in \mathbb R^{N\times(M+1)}$. The contour is one answer
# $v_n\in\{1,\dots,M\}$ per ray: $v_n=i$ says that the map falls between the samples $i-1$ and $i$,
# so that the border lies at the radius $(i-\tfrac12)\rho$, with $\rho$ the distance of two samples.
# (Half a pixel sounds like nothing; at a radius of 12 pixels it is 4 % of Dice.)
#
# Good answers lie where the map falls steeply. A **band** ties neighbours together: from ray to
# ray the answer may change by at most $\delta$, and from the last ray to the first as well.
#
# **Predict, then move.** No network yet: here the solver reads the slice itself, which is bright
# inside. What does the contour look like at $\delta=0$? Where does it go when the band no longer
# binds? And what do six rays make of a round ventricle?


# %% mystnb={"code_prompt_show": "The slider"} tags=["hide-input"]
def path_and_contour(band, rays):
    points = star_pattern.star_pattern(centre, rays, s.n_points, s.radius)
    g = star_pattern.warp(slice_, points)
    v = star_dp.circular_dp(g, band)
    figure, axes = plt.subplots(1, 2, figsize=(5.2, 2.6))
    draw_warped(axes[0], g[0], v[0], RESULT, "the slice, warped")
    plotting.overlay(slice_[0], ax=axes[1])
    draw_contour(axes[1], star_pattern.contour_points(centre, v, rho)[0], RESULT)
    dice = overlap.dice(outline(v, centre, rho, s.size), mask).item()
    axes[1].set_title(f"Dice {dice:.3f}")
    return figure


widgets.frames(
    path_and_contour,
    band=[0, 1, 2, 3, 5, 10],
    rays=[6, 12, 24, 36, 50],
    start={"band": 2, "rays": 24},
    target_bytes=150_000,
    alt="The warped slice with the solver's path, and the contour on the slice",
    caption="The best closed contour (yellow) in the warped slice and on it. At δ = 0 it is a "
    "circle; in a wide band every ray goes to its own strongest edge; few rays cut the corners.",
)

# %% [markdown]
# ### The best closed contour
#
# Let $h(n,i)=g(n,i)-g(n,i-1)$, which is negative where the map falls. The paper adds up pairs of
# neighbouring rays; $\oplus$ counts modulo $N$, so that the last ray and the first are a pair, too:
#
# $$
# \min_{v_1,\dots,v_N}\ \sum_{n=1}^{N}E(n,v_n,v_{n\oplus1}),\qquad
# E(n,i,j)=\begin{cases}h(n,i)+h(n\oplus1,j)&|i-j|\le\delta\\ \infty&\text{otherwise.}\end{cases}
# $$
#
# Around the circle every $h(n,v_n)$ occurs twice, so this is $2\sum_n h(n,v_n)$ under the band. The
# published algorithm keeps tables over all pairs of answers, $O(NM^3)$. With the first answer $k$
# held fixed, one step of the recursion is a minimum over a sliding window,
# $V(k,j)\leftarrow h(n,j)+\min_{|i-j|\le\delta}V(k,i)$, and all starts together cost $O(NM^2)$. From
# scratch, for one map:


# %%
def closed_contour(g, delta):
    """Exact: one open path per first answer k, and the best of those that close."""
    h = np.diff(g, axis=1)
    n_lines, m = h.shape
    best = (np.inf, None)
    for k in range(m):
        value = np.where(np.arange(m) == k, h[0], np.inf)
        back = np.zeros((n_lines, m), int)
        for n in range(1, n_lines):
            lo = [max(0, j - delta) for j in range(m)]
            back[n] = [lo[j] + value[lo[j] : j + delta + 1].argmin() for j in range(m)]
            value = h[n] + value[back[n]]
        for j in range(max(0, k - delta), min(m, k + delta + 1)):  # the contour must close
            if value[j] < best[0]:
                path = [j]
                for n in range(n_lines - 1, 0, -1):
                    path.append(back[n, path[-1]])
                best = (value[j], path[::-1])
    return 2 * best[0], np.array(best[1]) + 1


# %% [markdown]
# The real solver treats a batch at once, takes each window's minimum by doubling, and traces back
# the path that won. On small maps all contours can be listed, so brute force is the judge.

# %%
small = torch.randn((20, 5, 6), generator=rng.generator(run.seed), dtype=torch.float64)
scratch = [closed_contour(g, 1)[0] for g in small.numpy()]
solved = star_dp.circular_dp_energy(small, star_dp.circular_dp(small, 1), 1)
published = star_dp.circular_dp_energy(small, star_dp.algorithm1(small, 1), 1)
every = torch.tensor(list(itertools.product(range(1, 6), repeat=5)))
listed = [star_dp.circular_dp_energy(g.expand(len(every), -1, -1), every, 1).min() for g in small]
same = [np.allclose(scratch, energy) for energy in (solved, published, torch.stack(listed))]
assert all(same), "from scratch, circular_dp, Algorithm 1 or the list of all contours differ"

# %% mystnb={"code_prompt_show": "The real solver: circular_dp"} tags=["hide-cell"]
sources.show(star_dp.circular_dp, star_dp._closed_costs, star_dp._window_min)

# %% [markdown]
# Behind the solver the answers are averaged over five neighbouring rays, which rounds off jagged
# contours, and the polygon of the averaged answers is filled. This is the whole pipeline behind the
# network:


# %%
def segment(maps, data, delta=s.delta, centre=None):
    """Warp, solve, smooth, fill."""
    centre = data["centre"] if centre is None else centre
    g = star_pattern.warp(maps, experiment.star(s, centre).to(maps.device))
    v = star_pattern.smooth_indices(star_dp.circular_dp(g, delta), s.smooth)
    return outline(v.cpu(), centre, rho, s.size)


# %% [markdown]
# ### Why there is no gradient, and how to make one
#
# Nudge one value of $g$: nearly always the best contour stays exactly where it is, and now and then
# it jumps. The derivative of $v$ by $g$ is zero almost everywhere. **Synthetic gradients**
# {cite:p}`jaderberg2016synthetic` go around it: a small network $F_\varphi$ reads $g$ and returns
# one softmax over the $M$ answers for every ray. It learns to say what the solver says *in the
# neighbourhood of* $g$, and then its gradient stands in for the missing one:
#
# $$
# \begin{aligned}
# &\text{$S$ times, with new noise } \varepsilon\sim\mathcal N(0,1):&
# &\min_\varphi\ L\big(F_\varphi(g+\sigma\varepsilon),\ \mathrm{smooth}(\mathrm{DP}(g+\sigma\varepsilon))\big)\\
# &\text{then, with } g=\mathrm{warp}(\mathrm{U\text{-}Net}_\psi(x)):&
# &\min_\psi\ L\big(F_\varphi(g),\ v^*\big)
# \end{aligned}
# $$
#
# $L$ is the cross entropy per ray and $v^*$ the true answers. The noise is there because an imitator
# that has seen the solver at one point knows its value there, but not its slope. The moving average
# belongs to what $F$ imitates; else the U-Net would be trained for another contour than the one that
# it is judged by. One update, from scratch:


# %%
def dp_answers(g):
    """What F has to imitate: the smoothed answers, rounded to a class 0 … M−1."""
    v = star_pattern.smooth_indices(star_dp.circular_dp(g, s.delta), s.smooth)
    return v.round().long() - 1


def sg_from_scratch(f, optimizer, g, v_star, gen):
    """Algorithm 2 for one batch: S updates of F, then the loss whose gradient the U-Net gets."""
    f.train()
    for _ in range(s.n_steps):
        noisy = g.detach() + s.sigma * torch.randn(g.shape, generator=gen).to(g.device)
        loss = F.cross_entropy(f(noisy).flatten(0, 1), dp_answers(noisy).flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    f.eval()  # its running statistics must not see this step; its gradient is thrown away
    return F.cross_entropy(f(g).flatten(0, 1), v_star.flatten())


# %% [markdown]
# The real one, `SyntheticGradient`, in two calls; from the same first weights and the same noise
# both must give the same gradient. $F$ is a small U-Net over the map's differences, with the
# angle as a closed axis.


# %%
def sg_real(f, optimizer, g, v_star, gen):
    sg = SyntheticGradient(f, dp_answers, optimizer, gen, sigma=s.sigma, n_steps=s.n_steps)
    sg.step(g)
    return sg.loss(g, v_star)


points = experiment.star(s, test["centre"][:4])
g_demo = star_pattern.warp(test["image"][:4], points).to(run.device)
v_demo = star_pattern.star_truth(test["mask"][:4], points)[0].to(run.device) - 1
gradients = []
for one_update in (sg_from_scratch, sg_real):
    rng.seed_all(run.seed)  # of F's first weights
    f, optimizer = experiment.imitator(s, s.lr, run.device)
    g = g_demo.clone().requires_grad_()
    loss = one_update(f, optimizer, g, v_demo, rng.generator(run.seed, stream="demo"))
    gradients.append(torch.autograd.grad(loss, g)[0])
assert torch.allclose(*gradients, atol=1e-6), "from scratch and SyntheticGradient differ"

# %% mystnb={"code_prompt_show": "The real code: SyntheticGradient, F"} tags=["hide-cell"]
sources.show(SyntheticGradient.step, SyntheticGradient.loss, experiment.StarApproximator)

# %% [markdown]
# ## Training
#
# All arms get the same U-Net, the same images in the same order and the same number of updates (the
# one exception says so in its name). Nobody sees augmented images. Every arm keeps the weights with
# the best Dice on the validation images, judged by the pipeline that it will be tested with.
#
# **EDPCNN** is trained on stars whose centres are drawn anew over the ventricle's pixels and that
# are turned at random, as in the paper. This is one update: read the map along the stars, let $F$
# learn what the solver says around it, and take $F$'s gradient.


# %%
def through_f(sg, maps, points, v_star):
    """The loss of one update: g = warp(maps), S updates of F, then F's cross entropy at g."""
    g = star_pattern.warp(maps, points)
    agreement = torch.tensor(sg.step(g))
    return {"loss": sg.loss(g, v_star - 1), "agreement": agreement, "spread": g.detach().std()}


# %% [markdown]
# **The U-Net alone** is trained pixel by pixel, with cross entropy (CE) or CE and a Dice loss,
# whichever the validation images prefer. **U-Net + DP**, the paper's second baseline, puts the same
# centre and solver behind a U-Net that was trained without them. What the solver is fed with is not
# stated, and it matters: the mask, the probability or the logits. Each gets weights of its own,
# chosen by *its* validation Dice through the solver, so that it is not judged by weights that are
# best for something else.

# %% mystnb={"code_prompt_show": "The arms and their training loops"} tags=["hide-cell"]
bench = experiment.Bench(s, parts, segment, run.device)
arms = Arms(bench, through_f, dp_answers)
sources.show(Arms, experiment.network, experiment.unet_arm, experiment.contour_arm)

# %% [markdown]
# **Tuning** is the same for both sides: three learning rates, and for the U-Net both losses, on the
# smallest training set and the first seed. Validation Dice chooses; for U-Net + DP the one through
# the solver.

# %% mystnb={"code_prompt_show": "Tuning, and its scores"} tags=["hide-cell"]
rates = [s.lr, 3 * s.lr, 10 * s.lr]
tuning = compare.tuned(
    {"U-Net": lambda choice: arms.unet(few, *choice), "EDPCNN": lambda lr: arms.edpcnn(few, lr)},
    {"U-Net": list(itertools.product(LOSSES, rates)), "EDPCNN": rates},
    run.seed,
    workers=run.workers,
)
behind = tuning.rescored(lambda record: rereading.best_through_dp(record.extras))
chosen, chosen_dp = tuning.chosen["U-Net"], behind.chosen["U-Net"]
rate = tuning.chosen["EDPCNN"]
scored = tuning.scores, behind.scores
rows = [[f"{a}, {k}", *(f"{found[a][k]:.3f}" for found in scored)] for a, k in tuning.tried]
plotting.Table(["validation Dice of arm, choice", "by itself", "through the solver"], rows)

# %% [markdown]
# Then the comparison, over all seeds. $\sigma=0$ switches the exploration off. **Smoothed DP** goes
# beyond the paper: with $-\gamma\log\sum\exp(-\cdot/\gamma)$ in place of the minimum the program has
# a gradient of its own {cite:p}`mensch2018ddp`, the *marginals*, and needs neither $F$ nor noise; its
# loss is the log-likelihood of the true answers, its temperature $\gamma$ is not tuned. (`extended`
# adds ten inner steps, an $F$ whose angle does not close, and stars that stay on the centre.)

# %% mystnb={"code_prompt_show": "All arms, all seeds"} tags=["hide-input"]
compared = arms.compared(sizes, chosen, chosen_dp, rate, run.extended)
results = compare.run_arms(compared, run.seeds, workers=run.workers)
longer = {f"U-Net, 3× the updates, first seed ({few})": arms.unet(few, *chosen, times=3)}
results += compare.run_arms(longer, [first], budget="declared")
unet_few, edp_few, no_noise = f"U-Net ({few})", f"EDPCNN ({few})", f"EDPCNN, σ = 0 ({few})"

# %% [markdown]
# Did they learn, and did $F$ follow the solver? Its *agreement* is the share of rays on which it
# names the solver's answer on the maps of the step; with noise these are new each time, without it
# the same map is seen $S$ times.

# %% mystnb={"code_prompt_show": "The figure", "image": {"alt": "Three panels over the updates: validation Dice of U-Net and EDPCNN with few and with many images; agreement of F with the solver, and standard deviation of the warped map, each with and without noise."}} tags=["hide-input"]
figure, axes = plt.subplots(1, 3, figsize=(plotting.WIDTH, 2.7))
for name, colour in ((unet_few, UNET), (edp_few, METHOD), (no_noise, NO_NOISE)):
    history = results.get(name, first).extras["history"]
    axes[0].plot(*zip(*history.validation, strict=True), marker=".", color=colour, label=name)
    for axis, key in zip(axes[1:], ("agreement", "spread"), strict=True):
        if key in history.parts:
            axis.plot(np.convolve(history.parts[key], np.ones(5) / 5, "valid"), color=colour)
for axis, label in zip(axes, ("validation Dice", "agreement of F", "SD of g"), strict=True):
    axis.set(xlabel="updates", ylabel=label, ylim=(0, None))
figure.legend(loc="outside upper center", ncols=3)
plotting.show(
    figure,
    caption=f"The first seed's training with {few} images. Left: validation Dice, each arm through "
    "its own pipeline. Then: how often $F$ names the solver's answer, and the spread of the warped "
    "map, whose scale is free: a noise of $\\sigma=1$ means less once the map has grown.",
)

# %% [markdown]
# ## Evaluation
#
# EDPCNN is told the ventricle's centre, and it has a prior that the U-Net lacks; U-Net + DP has both.
# More rows keep everybody honest:
#
# - **mean disc**: a disc of the training images' mean area at the true centre; what the centre alone
#   is worth;
# - **floor**: the solver on the smoothed *image*, no training at all; smoothing and $\delta$ chosen
#   on the validation images;
# - **U-Net in the star's disc**: pixels outside of it are out of the race, as they are for EDPCNN;
# - **U-Net with three times the updates**, since its loss may simply be the slower one;
# - **ceiling**: the true answers, the best that a star with these rays can do.
#
# The U-Net's answer is the *component* (pixels that hang together) at the centre, as in the paper.
# Beside Dice stand two distances between the borders of two masks, each pixel of a border being
# matched with the nearest one of the other: their average (**ASSD**, average symmetric surface
# distance) and their largest (**HD**, Hausdorff distance). The paper's numbers are from ACDC, its
# training and validation patients, presumably in millimetres; ours from test patients that no choice
# has seen.

# %% mystnb={"code_prompt_show": "The rows without training of their own"} tags=["hide-input"]
for name, fixed in untrained.rows(bench, few, run.seed).items():
    results = results.with_row(name, lambda seed, fixed=fixed: fixed)
own = "U-Net for the DP" if chosen_dp != chosen else "U-Net"
with_dp = {}  # with the feed that is best on the validation images
extras = {(r.arm, r.seed): r.extras for r in results.records}
for n in sizes:
    again, with_dp[n] = rereading.rows(n, run.seeds, extras, own, bench)
    for name, row in again.items():
        results = results.with_row(name, row.get)
unit = "mm" if run.dataset != "sunnybrook" else "px"
metrics = {"dice": "Dice", "assd": f"ASSD ({unit})", "hd": f"HD ({unit})"}

# %% mystnb={"code_prompt_show": "The paper's table beside ours"} tags=["hide-input"]
paper = printed.beside(results.arms, few, many, with_dp[many], metrics.values())
better = [r for r in list(paper)[:2] if results.mean(r, "dice") >= results.mean(unet_few, "dice")]
ours = {a: {name: results.per_seed(a, key) for key, name in metrics.items()} for a in paper}
plotting.paper_table(
    ours,
    paper,
    digits=2,
    note="In brackets our number of training images; the paper's are 10 and 1436, its U-Net + DP "
    f"is fed with a mask, going by the published code. Mean ± SD over {len(run.seeds)} seeds. "
    "Empty predictions have no distance and do not count there, which favours the U-Net: "
    f"{results.excluded(unet_few, 'assd')} of {len(run.seeds) * len(test['image'])} here. "
    f"Rows without training that {unet_few} does not beat: {', '.join(better) or 'none'}.",
)

# %% [markdown]
# Read the rows without training first: knowing the centre is worth a lot, and with few images a
# pixel-wise network may not even reach them. So the comparison that counts is with U-Net + DP, which
# knows the centre and has the solver, but was not trained through it.
#
# **With more images** the U-Net catches up; this is the paper's main figure. (`extended` adds a size
# between.)

# %% mystnb={"code_prompt_show": "The figure", "image": {"alt": "Dice, average surface distance and Hausdorff distance over the number of training images, for U-Net, U-Net + DP and EDPCNN."}} tags=["hide-input"]
arms_of = {name: [f"{name} ({n})" for n in sizes] for name in ("U-Net", "EDPCNN")}
arms_of["U-Net + DP"] = [with_dp[n] for n in sizes]
figure, axes = plt.subplots(1, 3, figsize=(plotting.WIDTH, 2.7))
for axis, (key, label) in zip(axes, metrics.items(), strict=True):
    for (name, names), colour in zip(arms_of.items(), (UNET, METHOD, WITH_DP), strict=True):
        per_seed = np.array([results.per_seed(arm, key) for arm in names])  # (sizes, seeds)
        axis.plot(sizes, per_seed.mean(1), marker="o", color=colour, label=name)
        axis.fill_between(sizes, per_seed.min(1), per_seed.max(1), alpha=0.2, color=colour)
    axis.set(xlabel="training images", ylabel=label, xscale="log")
    axis.set_xticks(sizes, sizes)
    axis.minorticks_off()
figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=3)
plotting.show(
    figure,
    caption="Test scores over the number of training images: means over the seeds, and bands from "
    "the lowest to the highest. U-Net + DP is fed with what the validation images prefer.",
)

# %% [markdown]
# ### Best, median, worst
#
# Chosen by EDPCNN's Dice. Where it fails it fails as a whole: the prior that carries a contour over
# weak edges also holds it on wrong ones.

# %% mystnb={"code_prompt_show": "The figure", "image": {"alt": "Best, median and worst test slice of EDPCNN with its errors, and the U-Net's errors on the same slices below."}} tags=["thumbnail", "hide-input"]
edp, alone = results.get(edp_few, first), results.get(unet_few, first)
order = np.argsort(-edp.metrics["dice"])
three = order[[0, len(order) // 2, -1]].tolist() * 2
masks_edp = segment(edp.extras["test"], test)
masks_unet = component(alone.extras["test"] > 0, test["centre"])
found = torch.cat([masks_edp[three[:3]], masks_unet[three[:3]]])
dice = [*edp.metrics["dice"][three[:3]], *alone.metrics["dice"][three[:3]]]
names = [*(f"EDPCNN, {case}" for case in ("best", "median", "worst")), *["U-Net"] * 3]
titles = [f"{name}: Dice {x:.2f}" for name, x in zip(names, dice, strict=True)]
figure = plotting.errors(test["image"][three], found, test["mask"][three], titles=titles, columns=3)
plotting.show(
    figure,
    caption=f"EDPCNN's best, median and worst test slice of the first seed, trained with {few} "
    "images, and the U-Net on the same slices.",
)

# %% [markdown]
# ### What if the centre is wrong? What does it cost?
#
# The paper moves the centre inside the object: a truncated normal displacement, bounded by a share
# of the object's radius, which is its shortest distance from centre to border. It also reports that
# inference costs 16 % more; here one batch is timed with the same weights, once with the component
# rule, once with warp, solver, smoothing and fill.

# %% mystnb={"code_prompt_show": "Displaced centres, and the cost"} tags=["hide-input"]
levels = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
edp_maps = [results.get(edp_few, seed).extras["test"] for seed in run.seeds]
moved = [dice_off_centre(segment, x, test, levels, s.jitter_seeds) for x in edp_maps]
slower = stopwatch.slower(edp.extras["state"], bench)
plotting.Table(
    ["largest displacement / object's radius", *map(str, levels)],
    [["Dice of EDPCNN", *(f"{dice:.3f}" for dice in np.mean(moved, 0))]],
    note=f"Trained with {few} images, mean over the seeds. Inference in this run: {slower():+.0%} "
    "against the U-Net's, which depends on the machine and its load.",
)

# %% [markdown]
# ## Explore
#
# **Training, from the inside.** One validation image while EDPCNN trains. At which update does the
# solver find the ventricle, and does $F$ know it before or after? ($F$ is shown as the U-Net's
# gradient sees it, with its running statistics, which makes it more cautious than in its own
# training.)


# %% mystnb={"code_prompt_show": "The slider"} tags=["hide-input"]
looks = {look["update"]: look for look in edp.extras["seen"]}
case = int(validation["mask"][:8].sum((1, 2, 3)).argmax())  # the largest of those looked at


def inside_training(updates):
    look, at = looks[updates], validation["centre"][[case]]
    v = look["dp"][[case]] + 1
    figure, axes = plt.subplots(1, 2, figsize=(5.6, 2.7))
    plotting.overlay(look["maps"][case], ax=axes[0], titles=[f"map after {updates} updates"])
    draw_contour(axes[0], star_pattern.contour_points(at, v, rho)[0], RESULT)
    draw_warped(axes[1], look["softmax"][case], v[0] - 0.5, RESULT, "F and the solver's answers")
    figure.colorbar(axes[1].images[0], ax=axes[1], label="probability")
    return figure


widgets.frames(
    inside_training,
    updates=list(looks),
    start={"updates": max(looks)},
    target_bytes=80_000,
    alt="Output map with the solver's contour, and the softmax of F with the solver's path",
    caption="Left: the U-Net's output map of one validation image, with the solver's contour "
    "(yellow). Right: what $F$ says on every ray, and the solver's answers.",
)

# %% [markdown]
# **Move the star.** Its centre is the one thing that a user has to give. How far from the middle of
# the ventricle may it lie before the contour breaks, and which side breaks first? (In a
# notebook, `moved_star(2.5, -1)` draws any other place.)


# %% mystnb={"code_prompt_show": "The sliders"} tags=["hide-input"]
def moved_star(down_px, right_px):
    at = centre + torch.tensor([[down_px, right_px]], dtype=torch.float32)
    found = segment(edp.extras["test"][[large]], {"centre": at})
    figure, axis = plt.subplots(figsize=(2.6, 2.8))
    plotting.errors(slice_[0], found[0], mask[0], ax=axis)
    axis.set_title(f"Dice {overlap.dice(found, mask).item():.3f}")
    axis.plot(at[0, 1], at[0, 0], "+", color="white", markersize=10, markeredgewidth=2)
    return figure


widgets.frames(
    moved_star,
    down_px=[-6, -3, 0, 3, 6],
    right_px=[-6, -3, 0, 3, 6],
    start={"down_px": 0, "right_px": 0},
    target_bytes=90_000,
    alt="Errors of the contour when the star's centre is moved",
    caption="EDPCNN's answer with the star's centre (white cross) moved by pixels. Green is right, "
    "vermilion too much, blue missing.",
)

# %% [markdown]
# ## Claims
#
# The statements and their margins were fixed before the first training run. Differences are paired
# by seed: the same images, order and first weights. Each seed draws its own training images from the
# pool (all of them, at the largest size).

# %% mystnb={"code_prompt_show": "C1 to C3: EDPCNN against both baselines"} tags=["hide-input"]
with_few, dp_few = f"with {few} training images", with_dp[few]
claims.check(
    "C1",
    f"{with_few} EDPCNN's Dice exceeds the U-Net's by at least 0.05",
    results.difference(edp_few, unet_few, "dice"),
    at_least=0.05,
    paper="0.907 vs 0.695",
    baseline=results.mean(unet_few, "dice"),
    if_fails="The phantom leaves a pixel-wise network too little room to go wrong.",
)
claims.check(
    "C2",
    f"{with_few} EDPCNN's Dice exceeds the best U-Net + DP's by at least 0.03",
    results.difference(edp_few, dp_few, "dice"),
    at_least=0.03,
    paper="0.907 vs 0.719 (mask)",
    baseline=f"{results.mean(dp_few, 'dice'):.4g} on {dp_few.split()[-2]}",
    if_fails="The seeds differ more than the margin, or a solver that is fed with the best input "
    "repairs what the U-Net gets wrong: see the three U-Net + DP rows.",
)
distances = {"C3a": ("assd", "0.84 vs 7.66 and 4.66"), "C3b": ("hd", "10.26 vs 31.34 and 27.42")}
for id, (key, theirs) in distances.items():
    gains = [results.difference(other, edp_few, key) for other in (unet_few, dp_few)]
    worse = [min(pair) for pair in zip(*gains, strict=True)]
    claims.check(
        id,
        f"{with_few} EDPCNN's {metrics[key].split()[0]} is lower than both baselines'",
        worse,
        at_least=0.0,
        null=0.0,
        paper=theirs,
        baseline=f"{results.mean(unet_few, key):.3g} and {results.mean(dp_few, key):.3g} {unit}",
        if_fails=f"The seeds' gains range from {min(worse):.2g} to {max(worse):.2g} {unit}.",
    )

# %% mystnb={"code_prompt_show": "C4 and C5: the data and the noise"} tags=["hide-input"]
if many >= 100 or run.smoke:
    pairs = ((f"EDPCNN ({n})", f"U-Net ({n})") for n in (few, many))
    gap, last_gap = (np.array(results.difference(*pair, "dice")) for pair in pairs)
    claims.check(
        "C4",
        f"the gap EDPCNN − U-Net closes: gap({few}) − gap({many}) is at least 0.03 Dice",
        gap - last_gap,
        at_least=0.03,
        paper="0.212 → 0.003",
        baseline=f"gap({few}) = {gap.mean():.3f}, gap({many}) = {last_gap.mean():.3f}",
        if_fails="The U-Net has not caught up at this number of images and updates.",
    )
else:
    why = f"needs 100 training images or more, there are {len(pool['image'])}"
    claims.paper_only("C4", "the gap closes with the number of images", "0.212 → 0.003", why)
claims.check(
    "C5",
    f"{with_few} the noise is worth at least 0.01 Dice (σ = 1 against σ = 0)",
    results.difference(edp_few, no_noise, "dice"),
    at_least=0.01,
    paper="important for the algorithm to succeed; no number",
    baseline=results.mean(no_noise, "dice"),
    if_fails="Seeds differ by more than the margin. An untested guess: moved stars explore, too.",
)

# %% mystnb={"code_prompt_show": "C6 to C8: the centre, the cost, the paper's scale"} tags=["hide-input"]
claims.check(
    "C6",
    "a centre off by up to 0.2 of the object's radius costs less than 0.02 Dice",
    [min(dice[1:3]) - dice[0] for dice in moved],
    at_least=-0.02,
    paper="no significant degradation",
    baseline=float(np.mean(moved, 0)[0]),
    if_fails="The mean loss is small, but one seed's weak contours jump when the rays move.",
)
claims.check(
    "C7",
    "inference takes less than 1.5 times the U-Net's (relative extra time below 0.5)",
    [slower() for _ in range(3 if run.smoke else 5)],
    at_most=0.5,
    unit="case",
    paper="+0.16",
    timing=True,
    if_fails="Beside so small a U-Net solver and fill show; a full-size one was not timed.",
)
why = "absolute numbers belong to the paper's data and scale"
text = "on ACDC: Dice, ASSD and HD with 10 and with all images"
claims.paper_only("C8", text, "0.907, 0.84, 10.26; 0.947, 0.36, 5.73", why)
for arm, name in ((unet_few, "U-Net"), (dp_few, "U-Net + DP"), (edp_few, "EDPCNN")):
    for key, label in metrics.items():
        claims.metric(f"{label}, {name}", results.mean(arm, key))  # of the fewest images
claims.report()

# %% [markdown]
# ## Self-test
#
# Open the answer that you would give: it says whether it is right, and why.

# %% jupyter={"source_hidden": true} tags=["remove-input"]
exercises.quiz(
    {
        "You add a tiny number to one value of $g$. What happens to the solver's contour?": [
            (False, "It moves by a tiny bit.", "The answers are whole numbers: they cannot."),
            (True, "Nearly always nothing.", "It jumps once another contour is cheaper."),
        ],
        "The band is $\\delta=2$; the first ray answers 12, the last one 15. May that be?": [
            (False, "Yes, they are the two ends of a path.", "A contour has no ends: it closes."),
            (True, "No, such a contour costs infinity.", "Last and first ray are a pair, too."),
        ],
        "Why does $F$ see noisy copies of $g$?": [
            (True, "to learn the solver's slope", "At $g$ alone it would only know its value."),
            (False, "to be robust against noisy images", "The noise is added to the map."),
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
# The U-Net's map has no sigmoid before the solver, so its scale is free. In the course of the
# training it grows tenfold. With which $\sigma$ would the solver give $F$ the same answers to learn
# as $\sigma=1$ did before?
#
# :::{dropdown} Hint
# Does the solver's answer change when *all* its input is multiplied by ten?
# :::

# %%
same_exploration = ...

exercises.check("ex1", same_exploration)

# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
noise = torch.randn(g_demo.shape, generator=rng.generator(run.seed, stream="exercise"))
before = dp_answers(g_demo.cpu() + noise)
after = {sigma: dp_answers(10 * g_demo.cpu() + sigma * noise) for sigma in (0.1, 1, 10, 100)}
alike = {sigma: (v == before).sum().item() for sigma, v in after.items()}
exercises.solution("ex1", max(alike, key=alike.get))

# %% [markdown] jupyter={"source_hidden": true} tags=["solution"]
# All energies grow tenfold and the order of the contours stays, so the noise must grow with the
# map. Kept at 1, it explores ten times less: exploration dies out as the map grows. One could
# measure $\sigma$ in units of the map's spread.

# %% [markdown]
# ### Exercise 2 (code)
#
# Forget the closure: write the *open* problem, without a condition between the last and the first
# ray. On which share of the test slices does EDPCNN's contour break there?
#
# :::{dropdown} Hint
# Take `closed_contour`, drop the loop over `k`, and start from `value = h[0]`.
# :::


# %%
def open_contour(g, delta):
    """Answers 1 … M of the best open path through one map (N,M+1)."""
    return ...


g_test = star_pattern.warp(edp.extras["test"], experiment.star(s, test["centre"])).numpy()
exercises.check("ex2", lambda: share_broken(open_contour, g_test, s.delta), within=0.001)


# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
def open_path(g, delta):
    h = np.diff(g, axis=1)
    far = np.abs(np.subtract.outer(*[range(h.shape[1])] * 2)) > delta
    value, back = h[0], []
    for row in h[1:]:
        reach = np.where(far, np.inf, value)  # (to, from)
        back.append(reach.argmin(1))
        value = row + reach.min(1)
    path = [value.argmin()]
    for index in reversed(back):
        path.append(index[path[-1]])
    return np.array(path[::-1]) + 1


v_open = torch.tensor(np.stack([open_path(g, s.delta) for g in g_test]))
masks = outline(star_pattern.smooth_indices(v_open, s.smooth), test["centre"], rho, s.size)
print(f"Dice {mean_dice(masks, test):.4f} open, {edp.metrics['dice'].mean():.4f} closed")
exercises.solution("ex2", share_broken(open_path, g_test, s.delta))

# %% [markdown] jupyter={"source_hidden": true} tags=["solution"]
# Dice hardly sees a broken contour. That is why the solver's tests look at the energy and at the
# pair (last, first), never at Dice alone.

# %% [markdown]
# ### Exercise 3 (experiment)
#
# Is the synthetic gradient any good? There is a slow way to the true direction: perturb $g$ a
# thousand times, solve each time, and correlate the contour's error with the perturbation
# {cite:p}`berthet2020perturbed`. `cosines` compares $F$'s gradient with that. Whose
# gradient points nearer to the truth, averaged over the training: `"σ = 1"` or `"σ = 0"`?
#
# :::{dropdown} Hint
# `results.get(no_noise, first).extras["seen"]` holds what the function wants to see of the run
# without noise; a hundred draws show the difference.
# :::

# %%
nearer = ...

exercises.check("ex3", nearer)

# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
draws, quality = 20 if run.smoke else 1000, {}
for name, arm in (("σ = 1", edp_few), ("σ = 0", no_noise)):
    seen = results.get(arm, first).extras["seen"]
    quality[name], truth = cosines(seen, s, draws, run.seed).mean(0)
    print(f"{name}: cosine of F's gradient {quality[name]:.2f}, of a true one about {truth:.2f}")
exercises.solution("ex3", max(quality, key=quality.get))

# %% [markdown] jupyter={"source_hidden": true} tags=["solution"]
# The estimate is noisy itself: two independent ones with a cosine of $r$ have a mean whose cosine with
# the truth is about $\sqrt{2r/(1+r)}$, which is what a true gradient would reach. An imitator without noise knows the solver's
# answer and not its slope. That a gradient which points almost anywhere can still train a U-Net is
# worth a thought: see claim C5.

# %% [markdown]
# ## On real data
#
# **ACDC** {cite:p}`bernard2018acdc`: 100 training patients, ED and ES, labels of LV, myocardium and
# RV; free after registration, for research. Unpack it and run
#
# ```bash
# medseg run edpcnn --scale paper -p dataset acdc -p data_dir /path/to/ACDC
# ```
#
# **Sunnybrook** {cite:p}`radau2009sunnybrook`, public domain, as PNG pairs (`Train/Images`,
# `Train/Labels`, …): two patients train, two validate, the others test. Pixel sizes are lost in
# this form, so distances are in pixels.
#
# ```bash
# medseg run edpcnn -p dataset sunnybrook -p data_dir /path/to/sunnybrook
# ```
#
# **What differs from the paper.** The lesson has smaller images, networks and budgets, $S=4$ inner
# steps, and padded convolutions; `paper` restores all of them. The paper chooses its weights on the
# patients that it reports, and evaluates on the original grid; we keep test patients apart on the
# phantom and on Sunnybrook, and evaluate on the resampled grid everywhere. Its U-Net's loss is not
# stated; loss and rates are chosen on validation images here. $F$ reads the map's differences, as in
# the published code. Our choices: $F$'s angle closes on itself, the smoothed answers are rounded to a
# class, and the $S$ noisy copies of a batch are solved together before $F$'s $S$ updates, which
# changes nothing.
#
# **Try next:** a wider band at test time, `segment(edp.extras["test"], test, delta=10)`: has the map
# come to rely on the band? And `medseg run edpcnn --set n_steps=10`, `--set n_lines=16`; compare the
# claims with `medseg claims runs/edpcnn/*.ipynb`. **Read on:** contours by dynamic programming
# {cite:p}`ray2012snake,felzenszwalb2011dp`, smoothed programs {cite:p}`mensch2018ddp`, perturbed
# optimisers {cite:p}`berthet2020perturbed`, the U-Net {cite:p}`ronneberger2015unet`.
#
# ## To take away
#
# - A closed contour around a known centre is one answer per ray; with a band between neighbours the
#   best one is found exactly, in $O(NM^2)$. Mind the pair (last, first).
# - An argmin has no useful gradient. An imitator has, if it has seen the solver's *neighbourhood*.
# - Give the baseline the same centre, the same solver and its best input, or the comparison measures
#   something else.
# - Knowing the object's centre is worth much by itself: put rows that only know that into the table.
# - To use it: `star_dp.circular_dp(star_pattern.warp(maps, points), delta)`, and
#   `SyntheticGradient` around any solver that answers with a class per line.
