"""Feature extractors, one file a family: normalised image -> dict level -> map (floor 2)."""
