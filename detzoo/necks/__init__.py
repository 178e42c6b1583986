"""Builds the pyramid of a head from an extractor's maps: extra SSD levels, feature pyramids (floor 2)."""
