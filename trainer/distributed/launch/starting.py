"""What comes before the imports that take seconds: the first line on the screen. Standard library only."""

import gc
import os
import sys

RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
SHOWS = {"--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc"}
"""Flags of Hydra with which nothing is trained."""
QUIET = "trainer.quiet=true"
_paused: list[bool] = []


def pause_collector() -> None:
    """Collect no cycles until `resume_collector`: imports and a config make many objects, and hardly any garbage.

    Only in a process that has just begun: one that has imported torch has objects of others.
    """
    if gc.isenabled() and "torch" not in sys.modules:
        gc.disable()
        _paused.append(True)


def resume_collector() -> None:
    """Collect cycles again, where `pause_collector` has ended it; what is there until now is never looked at again.

    That saves a fifth of the time of a command that trains nothing: each collection, and the one at the end of the
    process, would go through all modules.
    """
    if _paused:
        _paused.clear()
        gc.freeze()
        gc.enable()


def tell_starting() -> None:
    """Say on a terminal that the command has begun; other ranks than the first say nothing."""
    shows = any(word.partition("=")[0] in SHOWS or word.lower() == QUIET for word in sys.argv[1:])
    first = all(os.environ.get(name, "0") in ("", "0") for name in RANKS)
    if first and not shows and sys.stderr is not None and sys.stderr.isatty():
        print("starting ...", file=sys.stderr, flush=True)
