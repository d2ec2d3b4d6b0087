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
# # A sweep, worked through: EDPCNN's learning curve
#
# The chapter [](../surfaces-and-structure/edpcnn) compares three ways to outline the left ventricle with few and
# with many training images. Two sizes make two points, not a curve. Here is the curve, as you would make it for any
# chapter and any parameter: one command, one table, one plot. How sweeps work is told in [](sweeps), what the table
# holds in [](sweep-results).
#
# ## The command
#
# ```bash
# medseg sweep edpcnn -g n_train='[10],[40],[160]' --seeds 0,10,20 --set n_seeds=1 --workers 2
# ```
#
# - `-g n_train=…` names what varies. `n_train` is one of the chapter's *settings*, a tuple of sizes, so each value
#   stands in brackets; the quotes keep the shell away from them.
# - `--seeds 0,10,20` repeats every size with other training images, another order and other first weights.
#   `n_seeds=1` tells the chapter not to repeat anything by itself: the spread then comes from the sweep, one number a
#   run. (Left alone, a run takes its own three seeds, which is why seeds of a sweep should lie apart.)
# - Each combination is one run of the whole chapter at the scale of a lesson. Those that are done stay when the
#   command is given again: add a size to the list, and only that size runs.
#
# ## The table
#
# `sweep.csv` has a row per run. Its columns are the parameters, what the run cost, every figure that the chapter
# keeps, and the claims. This page reads the table of the command above:

# %%
import json

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import display

from medseg_book.page import plotting
from medseg_book.run.catalogue import find_root

plotting.style()
table = pd.read_csv(find_root() / "book" / "_results" / "edpcnn-n_train.csv")
table["images"] = [json.loads(sizes)[0] for sizes in table["param.overrides.n_train"]]
print(f"{len(table)} runs, {(table.status == 'done').sum()} done, {table.seconds.sum() / 60:.0f} min "
      f"of computing, at most {table.peak_memory_mb.max():.0f} MiB")  # fmt: skip
mean = table.groupby("images")[[c for c in table if c.startswith("metrics.Dice")]].mean()
display(plotting.Table(
    ["images", *(name.removeprefix("metrics.") for name in mean)],
    [[str(n), *(f"{x:.3f}" for x in row)] for n, row in zip(mean.index, mean.to_numpy(), strict=True)],
))  # fmt: skip

# %% [markdown]
# ## The plot
#
# Lines are means over the seeds; each dot is one run. A band or a bar of three numbers would suggest more than three
# numbers can tell, so the numbers themselves are drawn.

# %% mystnb={"image": {"alt": "Dice and mean surface distance over the number of training images, from 10 to 160, for U-Net, U-Net with dynamic programming and EDPCNN: means as lines, single runs as dots."}}
figure, axes = plt.subplots(1, 2, figsize=(7, 2.8))
colours = {"U-Net": plotting.PALETTE["blue"], "U-Net + DP": plotting.PALETTE["orange"],
           "EDPCNN": "black"}  # fmt: skip
for axis, metric in zip(axes, ("Dice", "ASSD (mm)"), strict=True):
    for arm, colour in colours.items():
        column = f"metrics.{metric}, {arm}"
        axis.plot(table.groupby("images")[column].mean(), color=colour, label=arm)
        axis.plot(table["images"], table[column], ".", color=colour, alpha=0.6)
    sizes = sorted(table["images"].unique())
    axis.set(xscale="log", xlabel="training images", ylabel=metric, xticks=sizes, xticklabels=sizes)
    axis.minorticks_off()
axes[0].legend()
plotting.show(figure)

# %% [markdown]
# Read it as the chapter's main figure with more sizes and without the chapter's margin: whether a difference is more
# than noise is for the [claims](how-to-read-claims) to say, which are paired by seed. The folder also
# holds `summary.ipynb`, which draws every figure of the run against every swept parameter without a line of yours,
# and the executed notebooks themselves: if one dot lies far from the others, open its notebook.
