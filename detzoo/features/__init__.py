"""Feature extractors, one file per family: normalised image -> dict of level to map (floor 2)."""
