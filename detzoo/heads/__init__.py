"""From a pyramid of maps to raw predictions for each anchor (floor 2)."""
