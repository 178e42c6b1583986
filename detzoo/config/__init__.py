"""From the text of a pipeline.config to a checked message: load, override, check, show, diff (floor 1).

Nothing here imports TensorFlow, so that ``detzoo config check`` answers in well under a second.
"""
