"""Messages in, wired parts out (floor 5): builders trust messages that ``detzoo config check`` accepts."""
