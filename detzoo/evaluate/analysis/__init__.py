"""Explains an evaluation: curves, the best score threshold, confusions, errors by kind, and the worst images.

images -> table (flat arrays, overlaps) -> matching -> precision, thresholds, errors, confusion -> Analysis -> page

All steps are NumPy on arrays of all detections at once. Nothing here imports TensorFlow.
"""
