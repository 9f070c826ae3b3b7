"""One task of a sweep job under Slurm: a plain run as a child process, and what becomes of the job after it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from trainer.cli.run_id import VARIABLE
from trainer.distributed.launch.requeue import NO_REQUEUE, PARENT, requeue
from trainer.distributed.launch.signals import SIGNALS
from trainer.sweep.job import LOG


def work(command: list[str], folder: Path, stamp: str) -> int:
    """Run the command, its output in the job's log, and return its exit code.

    Signals are passed on, and submitit's own answer to them is taken away: the run saves itself. A job that Slurm
    will start again leaves without a result, as one that is not over.
    """
    folder.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {VARIABLE: stamp, NO_REQUEUE: PARENT, "PYTHONUNBUFFERED": "1"}
    with (folder / LOG).open("ab") as log:
        run = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    for signum in SIGNALS:
        signal.signal(signum, lambda number, _: run.send_signal(number))
    code = run.wait()
    if code - 128 in SIGNALS:
        first = os.environ.get("SLURM_PROCID", "0") == "0"
        if not first or requeue(code - 128).endswith("is requeued"):
            sys.exit(code)
    return code
