"""Analyses of the papers: what a loss does, on paper and to a trained detector (floor 5)."""
