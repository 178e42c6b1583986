"""The points of a sweep, each trained and measured in a separate process."""
