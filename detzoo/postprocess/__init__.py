"""From raw predictions to final detections (floor 2)."""
