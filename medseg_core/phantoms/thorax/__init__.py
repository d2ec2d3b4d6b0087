"""CT of the thorax: an axial slice at the level of the heart."""
