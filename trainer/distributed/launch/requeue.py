"""Asks Slurm to start a job again that a signal has stopped. Standard library only."""

import os
import signal
import subprocess

NO_REQUEUE = "CADENCE_NO_REQUEUE"
"""Set by who starts runs in a Slurm job that they must not requeue themselves: to `PARENT` where it does so itself."""
PARENT = "parent"

_answered: list[str] = []
_known: dict[str, bool] = {}


def requeue(signum: int) -> str:
    """What became of the Slurm job, in words; empty where it is not to be started again. It is asked once."""
    if not _answered:
        _answered.append(_requeued() if wanted(signum) and not os.environ.get(NO_REQUEUE) else "")
    return _answered[0]


def wanted(signum: int) -> bool:
    """Whether a run that this signal has stopped is one that its Slurm job shall be started again for.

    SIGUSR1 and SIGUSR2 (`sbatch --signal`) mean that the time is nearly up. SIGTERM requeues only what is being
    preempted: a job that leaves by itself within the time of grace counts as finished, and is not started again.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None or (os.environ.get(NO_REQUEUE) or PARENT) != PARENT:
        return False
    return signum != signal.SIGTERM or _preempted(job)


def _requeued() -> str:
    job = os.environ["SLURM_JOB_ID"]
    code, told = _scontrol("requeue", job)
    return f"Slurm job {job} is requeued" if not code else f"Slurm job {job} is not requeued: {told}"


def _preempted(job: str) -> bool:
    if job not in _known:
        code, told = _scontrol("show", "job", "--oneliner", job)
        facts = dict(word.partition("=")[::2] for word in told.split())
        _known[job] = code == 0 and facts.get("JobState") == "RUNNING" and facts.get("PreemptTime", "None") != "None"
    return _known[job]


def _scontrol(*words: str) -> tuple[int, str]:
    try:
        done = subprocess.run(["scontrol", *words], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, f"scontrol: {error}"
    return done.returncode, " ".join((done.stdout or done.stderr).split())
