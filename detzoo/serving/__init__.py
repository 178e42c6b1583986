"""Exported models, ready to call: SavedModel, TFLite and frozen graphs."""
