"""BIFSeg: interactive segmentation by image-specific fine-tuning inside a bounding box."""
