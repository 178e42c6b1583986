"""Reading and writing checkpoints, whole or by part (floor 4)."""
