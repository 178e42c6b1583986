"""Layers with new mathematics or new state, and the convolution block that every part is wired from (floor 1)."""
