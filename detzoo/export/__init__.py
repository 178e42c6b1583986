"""Exports trained checkpoints to SavedModels and TFLite models that need nothing but TensorFlow (floor 5)."""
