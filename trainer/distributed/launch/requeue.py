"""Asks Slurm to start a job again that a signal has stopped. Standard library only."""

import os
import signal
import subprocess

from trainer.distributed.launch.signals import TIME_IS_UP

NEARLY_UP = (signal.SIGUSR1, signal.SIGUSR2, TIME_IS_UP)
"""Signals that say that the time of a job is nearly up."""
NO_REQUEUE = "CADENCE_NO_REQUEUE"
"""Set for runs inside a Slurm job that must not requeue it themselves; to `PARENT` where their parent requeues it."""
PARENT = "parent"

_results: list[str] = []
_preempted: dict[str, bool] = {}


def requeue(signum: int) -> str:
    """Requeue the Slurm job where `signum` asks for it, once. Returns the outcome as text; empty for none."""
    if not _results:
        _results.append(_requeue() if wanted(signum) and not os.environ.get(NO_REQUEUE) else "")
    return _results[0]


def requeue_allowed() -> bool:
    """Whether this is a Slurm job that the run or its parent may requeue."""
    return "SLURM_JOB_ID" in os.environ and (os.environ.get(NO_REQUEUE) or PARENT) == PARENT


def wanted(signum: int) -> bool:
    """Whether the Slurm job of a run that this signal has stopped should be started again.

    SIGUSR1 and SIGUSR2 (`sbatch --signal`) and `trainer.max_time` mean that the time is nearly up. SIGTERM requeues
    only a preempted job: Slurm counts a job that ends by itself within its time of grace as finished, and does not
    start it again. SIGINT and SIGHUP come from a person.
    """
    if not requeue_allowed():
        return False
    return signum in NEARLY_UP or (signum == signal.SIGTERM and _is_preempted(os.environ["SLURM_JOB_ID"]))


def _requeue() -> str:
    job = os.environ["SLURM_JOB_ID"]
    code, output = _scontrol("requeue", job)
    return f"Slurm job {job} is requeued" if not code else f"Slurm job {job} is not requeued: {output}"


def _is_preempted(job: str) -> bool:
    if job not in _preempted:
        code, output = _scontrol("show", "job", "--oneliner", job)
        fields = dict(field.partition("=")[::2] for field in output.split())
        running, time = fields.get("JobState") == "RUNNING", fields.get("PreemptTime", "None")
        _preempted[job] = code == 0 and running and time != "None"
    return _preempted[job]


def _scontrol(*arguments: str) -> tuple[int, str]:
    try:
        done = subprocess.run(["scontrol", *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, f"scontrol: {error}"
    return done.returncode, " ".join((done.stdout or done.stderr).split())
