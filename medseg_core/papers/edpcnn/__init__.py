"""EDPCNN: a U-Net trained through dynamic programming."""
