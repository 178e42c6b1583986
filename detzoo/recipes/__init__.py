"""Trainings of several steps, which resume after the last finished step."""
