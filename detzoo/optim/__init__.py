"""Optimizers and learning-rate schedules that Keras lacks, from plain numbers (floor 3)."""
