"""Where the configuration meets code: messages in, wired parts out (floor 4)."""
