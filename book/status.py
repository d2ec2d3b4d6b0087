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
# # Status: how each notebook was run
#
# Every page with code shows the outputs of one run, stored with the notebook. Here stands what those
# runs say about themselves: when, where, how long, and whether they still belong to the code.
# Their results are in the [ledger](ledger).

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
from IPython.display import display

from medseg_book.page import plotting

# As in the ledger, the runner reads the other notebooks.
from medseg_book.run import status
from medseg_book.run.catalogue import find_chapters, find_root

chapters = find_chapters(find_root())
rows = status.read(chapters)
headline = status.headline(rows)
bundle = {"text/plain": headline, "text/markdown": headline}
# The record by which `medseg check` knows whether this page is current.
display(bundle | {status.STATUS_MIME: {"digest": status.digest(chapters)}}, raw=True)

# %% [markdown]
# ## Notebook by notebook
#
# - **state**: outputs are *fresh* if they come from the code as it stands, *stale* if a cell has changed
#   since. A small circle (°) says that a module of `medseg_core` which the run used has changed. That is no
#   fault: a faster solver need not repeat fifty lessons. It says where to look first when your figures
#   differ from the page's; `medseg check` names the modules.
# - Then the claims that hold (✓), that do not (✗), that are within noise (≈), and those not judged (–).
# - **run**: scale and device; **time** of the whole run with the kernel's start; **MiB** of memory at
#   the peak; **kB** of stored outputs. A dash stands where a run records none.

# %% tags=["remove-input"]
display(status.table(rows))
if (gpu := status.gpu_table(rows)) is not None:
    display(gpu)

# %% [markdown]
# ## Time and memory
#
# The chapters alone. The line marks the five minutes that a lesson may take on two CPU cores; a chapter
# that needs more says so in its box.

# %% mystnb={"image": {"alt": "Horizontal bars for each chapter, the slowest on top: on the left the minutes of its stored run, on the right its peak memory in GiB"}} tags=["hide-input"]
shown = [row for row in rows if row.kind == "chapter" and row.seconds]
shown.sort(key=lambda row: row.seconds)
plotting.style()
fig, axes = plt.subplots(1, 2, figsize=(plotting.WIDTH, 0.7 + 0.24 * len(shown)), sharey=True)
places, memory = range(len(shown)), [row.record.get("peak_memory_mb") or 0 for row in shown]
axes[0].barh(places, [row.seconds / 60 for row in shown], color=plotting.PALETTE["blue"])
axes[0].axvline(5, color=plotting.PALETTE["black"], linewidth=1, linestyle="--")
axes[1].barh(places, [mib / 1024 for mib in memory], color=plotting.PALETTE["orange"])
axes[0].set(xlabel="minutes", yticks=places, yticklabels=[row.slug for row in shown])
axes[1].set(xlabel="peak memory in GiB")
for ax in axes:
    ax.grid(False, axis="y")
plotting.show(fig)

# %% [markdown]
# To bring a notebook up to date run `medseg refresh` with its name, then `medseg refresh ledger status`.
