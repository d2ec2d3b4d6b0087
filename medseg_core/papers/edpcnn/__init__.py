"""EDPCNN: a U-Net trained through dynamic programming.

The method: `star_approximator` (the network F), `synthetic_gradient`; its solver is shared,
`solvers.star_dp`. The chapter: `experiment`, `centres`, `evaluation`, `maps`.
"""
