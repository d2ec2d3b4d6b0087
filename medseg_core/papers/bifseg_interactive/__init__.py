"""BIFSeg: interactive segmentation by image-specific fine-tuning inside a bounding box.

The method: `crf`, `weight_map`, `refine`; its rivals: `seed_models`. The chapter: `experiment`,
`methods`, `knobs`, `sessions`.
"""
