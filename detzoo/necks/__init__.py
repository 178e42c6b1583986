"""From the maps of an extractor to the pyramid that a head reads: extra SSD levels, feature pyramids (floor 2)."""
