"""The ranks that Lightning starts from rank 0: the run is done when they are."""

import subprocess

import pytorch_lightning as pl

PATIENCE = 30.0
"""Seconds that a rank has to end after rank 0 has done its part."""


def joined(trainer: pl.Trainer) -> None:
    """Wait for the other ranks of this node; one that fails after the training would otherwise do so unseen."""
    for rank, child in enumerate(getattr(trainer.strategy.launcher, "procs", ()), 1):
        try:
            code = child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            raise RuntimeError(f"rank {rank} did not end within {PATIENCE:g} s of rank 0, and was killed") from None
        if code:
            raise RuntimeError(f"rank {rank} failed at the end of the run, with exit code {code}")
