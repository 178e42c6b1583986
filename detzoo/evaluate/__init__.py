"""Measure a detector on a data set: COCO's numbers and Pascal VOC's (floor 5)."""
