"""Rules of a config: every problem of a message at once, with field and line. Builders trust a checked message."""
