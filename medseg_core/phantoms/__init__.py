"""Embedded data: one imaging modality per file, built on `medseg_core.physics`."""
