"""Sweeps: one chapter over a grid of parameters and seeds, as papermill runs on Dask."""
