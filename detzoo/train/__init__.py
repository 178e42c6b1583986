"""The training loop: strategy, steps, checkpoints, progress (floor 5).

Trainer (weights, optimizer, position in the data; many steps in one traced function)
  <- TrainingLoop (progress, checkpoints, evaluation, early stopping, signals) <- ``detzoo train``
"""
