"""Layers and lesions of OCT B-scans from networks that predict along selected dimensions.

The method: `network` from `blocks`, `losses`, `sampler`, `augment`; its rival: `pixel_reference`.
The chapter: `experiment`, `receptive_field`, `scores`.
"""
