"""Losses of the heads: classification, localisation, masks, and the mining of hard examples (floor 2)."""
