"""Checkpoints: atomic files, the callback that writes them, snapshots."""
