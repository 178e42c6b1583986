"""Detectors: parts wired together behind four verbs, one file a detector (floor 3)."""
