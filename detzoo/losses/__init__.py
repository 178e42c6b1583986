"""Losses of a dense head: classification, localisation, and the choice of which anchors count (floor 2)."""
