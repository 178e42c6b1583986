"""Latency, memory, parameters and multiply-adds of a detector on this machine (floor 5)."""
