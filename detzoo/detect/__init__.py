"""Run an exported detector over image files and draw what it finds (floor 5)."""
