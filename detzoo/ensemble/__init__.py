"""Several detectors, or several views of an image, as one detector: choose them and merge what they find (floor 5)."""
