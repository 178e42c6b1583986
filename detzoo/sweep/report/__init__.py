"""Figures and the page of a sweep, from rows of results.csv alone; nothing here imports TensorFlow."""
