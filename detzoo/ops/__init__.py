"""Pure tensor functions on boxes, anchors and regions (floor 1)."""
