"""Augmentation of one sample: image, boxes, masks and classes change together."""
