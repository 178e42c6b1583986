"""The training loop: strategy, steps, checkpoints, progress (floor 5)."""
