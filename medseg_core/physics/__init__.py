"""How images come to be: noise, deformation, shapes, acoustics. Pure functions."""
