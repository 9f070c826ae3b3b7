"""Asks Slurm to start a job again that a signal has stopped. Standard library only."""

import os
import signal
import subprocess

NO_REQUEUE = "CADENCE_NO_REQUEUE"
"""Set by who starts many runs in one Slurm job, of which none may requeue it."""

_answered: list[str] = []


def requeue(signum: int) -> str:
    """What became of the Slurm job, in words; empty outside Slurm. It is asked once.

    SIGUSR1 and SIGUSR2 (`sbatch --signal`) mean that the time is nearly up. SIGTERM requeues only what is being
    preempted: a job that leaves by itself within the time of grace counts as finished, and is not started again.
    """
    if not _answered:
        _answered.append(_requeued(signum))
    return _answered[0]


def _requeued(signum: int) -> str:
    job = os.environ.get("SLURM_JOB_ID")
    if job is None or os.environ.get(NO_REQUEUE) or (signum == signal.SIGTERM and not _preempted(job)):
        return ""
    done = _scontrol("requeue", job)
    return f"Slurm job {job} is requeued" if not done[0] else f"Slurm job {job} is not requeued: {done[1]}"


def _preempted(job: str) -> bool:
    code, told = _scontrol("show", "job", "--oneliner", job)
    facts = dict(word.partition("=")[::2] for word in told.split())
    return code == 0 and facts.get("JobState") == "RUNNING" and facts.get("PreemptTime", "None") != "None"


def _scontrol(*words: str) -> tuple[int, str]:
    try:
        done = subprocess.run(["scontrol", *words], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, f"scontrol: {error}"
    return done.returncode, " ".join((done.stdout or done.stderr).split())
