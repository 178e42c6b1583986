"""Training targets of the heads, from anchors and ground truth (floor 2)."""
