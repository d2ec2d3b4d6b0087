"""Ordered surfaces by an interior-point layer in a network.

The method: `surface_net`, `losses`; its layer is shared, `solvers.surface_qp`. Its rivals without
learning: `classical`. The chapter: `experiment` (retina), `ivus_experiment` (artery), `recipes`
(what distinguishes the arms), `scores`.
"""
