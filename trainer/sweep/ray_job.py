"""A sweep job on the machine that Ray gave it: a plain run beside Ray's worker, not inside it. Standard library only.

Ray ends a worker, and its children by SIGKILL, when the driver or the head of the cluster is gone. So the run is a
grandchild: this file is also the program between, which passes signals on and tells the exit code. Where the pipe from
the worker closes, or this program is killed, the run is ended by SIGTERM, and saves itself.
"""

import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainer.sweep.device_pool import SHOWN
from trainer.sweep.job import Job
from trainer.sweep.watchdog import TICK, Watchdog, alone


class Place:
    """Where Ray puts a job: an actor with a worker of its own."""

    def __init__(self) -> None:
        self._begun = threading.Event()

    def run(self, program: Sequence[str], environment: Mapping[str, str], gpus: bool, where: str) -> int:
        """Run the program below in the folder `where` to its end: the exit code of the job, -n where signal n ended it.

        The job sees the GPUs that Ray gives it, none where it asked for none.
        """
        shown = os.environ.get(SHOWN) if gpus else ""
        self._process = subprocess.Popen(
            list(program),
            env={**environment, **({} if shown is None else {SHOWN: shown})},
            cwd=where,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._begun.set()
        assert self._process.stdout is not None
        said = self._process.stdout.read()
        return int(said or self._process.wait())

    def host(self) -> str:
        """The name of the machine, once the job has begun."""
        self._begun.wait()
        return socket.gethostname()

    def end(self, signum: int) -> None:
        """Send a signal to all processes of the job."""
        assert self._process.stdin is not None
        self._process.stdin.write(bytes([signum]))
        self._process.stdin.flush()


def keep(folder: Path, command: list[str]) -> int:
    """Run a command to its end, its output in the job's log; the exit code."""
    with selectors.DefaultSelector() as heard:
        heard.register(0, selectors.EVENT_READ)
        held = os.open(folder, os.O_RDONLY)
        while not alone(held):  # until what an earlier driver has left here has ended
            if heard.select(TICK):
                return -signal.SIGTERM
        guardian, job = Watchdog([held]), Job(0, [], folder, command)
        guardian.watch(job.start(dict(os.environ)))
        while not job.ended(None):
            if not heard.get_map():
                time.sleep(TICK)
            elif heard.select(TICK):
                if not (signums := os.read(0, 16)):
                    heard.unregister(0)
                for signum in signums or [signal.SIGTERM]:
                    job.end(signum, "stopped")
        guardian.close()
    assert job.code is not None
    return job.code


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # Ray blocks SIGINT
    print(keep(Path(sys.argv[1]), sys.argv[2:]), flush=True)
