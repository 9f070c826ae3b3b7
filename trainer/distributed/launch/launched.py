"""What has started this process as one of the ranks of a run. Standard library only."""

import os


def launcher() -> str | None:
    """`torchrun` or `slurm`; None for a single process, and for one that Lightning's launcher or a person started."""
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env and "RANK" in env:
        return "torchrun"
    if "SLURM_STEP_ID" in env and "SLURM_PROCID" in env and "LOCAL_RANK" not in env:
        return "slurm"
    return None


def rank() -> int:
    """The rank as torchrun, Lightning's launcher or Slurm gives it; 0 in a single process."""
    env = os.environ
    return int(env.get("RANK") or env.get("LOCAL_RANK") or env.get("SLURM_PROCID") or 0)
