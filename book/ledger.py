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
# # The ledger: every claim of every chapter
#
# Each chapter states its paper's claims with a metric and a margin *before* it runs, and judges
# them by the spread over seeds or cases ([how to read them](guide/how-to-read-claims.md)). Here
# they all stand, those that fail first. The paper's figures are the paper's, on its data and at its
# size; ours come from the stored run of the chapter, mostly on a phantom, in minutes on a laptop.
# The two are not to be compared with each other: a claim is a *difference* between methods, and
# the question is whether it shows in ours as well.
#
# The tables are read from the stored notebooks; nothing is typed in.

# %% tags=["hide-input"]
from IPython.display import Markdown, display

# The one notebook that looks into the others, so the one that imports the runner.
from medseg_book.run import ledger as claims
from medseg_book.run.catalogue import find_chapters, find_root

chapters = claims.read(find_chapters(find_root()))
stored = [chapter for chapter in chapters if chapter.claims]
total = sum((chapter.counts for chapter in stored), start=claims.counts([]))
headline = f"**{len(stored)} of {len(chapters)} chapters** have stored results"
headline += f". Claims: {claims.summary(total)}." if stored else "."
bundle = {"text/plain": headline, "text/markdown": headline}
# The record by which `medseg check` knows whether this page is current.
display(bundle | {claims.LEDGER_MIME: {"digest": claims.digest(chapters)}}, raw=True)

# %% [markdown]
# ## At a glance

# %% tags=["remove-input"]
if stored:
    display(Markdown(claims.overview(stored)))
else:
    display(Markdown("*No chapter has stored its claims yet.*"))

# %% [markdown]
# ## Claim by claim
#
# In brackets the interval over seeds or cases. *Within noise* means that the runs cannot tell;
# *paper scale only* that the claim needs the paper's data or size, and is not judged here.

# %% tags=["remove-input"]
worst_first = sorted(chapters, key=lambda c: [-c.counts[word] for word in claims.VERDICTS[:2]])
for chapter in worst_first:
    display(Markdown(claims.details(chapter)))
