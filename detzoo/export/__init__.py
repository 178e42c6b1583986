"""From a trained checkpoint to a SavedModel that needs nothing but TensorFlow (floor 5)."""
