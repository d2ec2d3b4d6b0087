"""A CRF whose few weights are learnt exactly, by maximum margin, on top of a CNN.

The method: `crf` (the model and its `fit`), `cutting_planes` (Algorithm 1) on `constraints` and
`qp`, `gradient` (the margin's loss for the network), `training` (Algorithm 2, and its control);
the network: `fcn8`. The chapter: `experiment`, `outcomes`, `scores`.
"""
