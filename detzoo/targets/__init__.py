"""What a head should have predicted, from anchors and ground truth (floor 2)."""
