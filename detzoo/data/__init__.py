"""Records to padded batches of images and ground truth (floor 2)."""
