"""What one paper alone needs: its network, loss, solver, training step and experiment.

One folder per chapter, `papers/<slug_with_underscores>/`. No paper imports another; what a second
page needs moves to the folder that its kind names.
"""
