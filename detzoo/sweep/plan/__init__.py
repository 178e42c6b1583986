"""A sweep file expanded to points, each with its config."""
