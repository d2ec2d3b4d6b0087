"""EDPCNN: a U-Net trained through dynamic programming.

The method: `star_approximator` (the network F), `synthetic_gradient`; its solver is shared,
`solvers.star_dp`. Beside it: `pixel_loss`, `marginal_loss`. The chapter: `experiment` and `arms`
(what is compared), `untrained` and `rereading` (rows of its table), `printed` (the paper's),
`centres`, `evaluation`, `maps`, `gradient_quality`, `stopwatch`, `drawing`.
"""
