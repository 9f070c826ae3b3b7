"""The first line on the screen, before the imports that take seconds. Standard library only."""

import os
import sys

RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
SHOWS = {"--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc"}
"""Flags of Hydra with which nothing is trained."""
QUIET = "trainer.quiet=true"


def tell_starting() -> None:
    """Say on a terminal that the command has begun; other ranks than the first say nothing."""
    shows = any(word.partition("=")[0] in SHOWS or word.lower() == QUIET for word in sys.argv[1:])
    first = all(os.environ.get(name, "0") in ("", "0") for name in RANKS)
    if first and not shows and sys.stderr is not None and sys.stderr.isatty():
        print("starting ...", file=sys.stderr, flush=True)
