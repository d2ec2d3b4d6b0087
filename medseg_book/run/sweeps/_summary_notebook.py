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

# %%
from IPython.display import Markdown, display

from medseg_book.page.plotting import show
from medseg_book.run.sweeps import figures, summary

# %% tags=["parameters"]
table: str = "sweep.csv"  # the sweep's table, one row per point
title: str = "A sweep"  # the heading

# %%
sweep = summary.load(table)
parameters = summary.swept(sweep)
display(Markdown(f"# {title}"))

# %% [markdown]
# ## What ran

# %%
display(summary.counts(sweep), summary.heaviest(sweep))
if (unfinished := summary.unfinished(sweep)) is not None:
    display(unfinished)

# %% [markdown]
# ## Metrics
#
# A dot is a run, the line (or the larger mark) their mean over the seeds, the band (or the bar) one
# standard deviation of the runs to each side.

# %%
if not summary.metrics(sweep):
    display(Markdown("*No finished point has a metric.*"))
for parameter in parameters or [None]:
    for figure in figures.metrics(sweep, parameter):
        show(figure)
    if left_out := figures.left_out(sweep, parameter):
        display(Markdown(left_out))

# %%
if (means := summary.means(sweep)) is not None:
    display(means)

# %% [markdown]
# ## Claims
#
# A mark is the figure that one run measured, the bar the interval that the run gives with it.

# %%
for parameter in parameters or [None]:
    for figure in figures.claims(sweep, parameter):
        show(figure)

# %%
if (verdicts := summary.verdicts(sweep)) is not None:
    display(verdicts)
else:
    display(Markdown("*No finished point has claims.*"))

# %% [markdown]
# ## Your own plot
#
# These lines need pandas and nothing of ours.

# %%
display(Markdown(f"```python\n{summary.recipe(sweep, table)}\n```"))
