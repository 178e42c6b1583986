"""The command line (floor 6): flags and messages only; the work is in the packages below."""
