"""Sweeps: each job a process with a folder of its own."""
