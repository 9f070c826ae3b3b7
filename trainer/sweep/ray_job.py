"""A sweep job on the machine that Ray gave it: a plain run beside Ray's worker, not inside it. Standard library only.

Ray kills a worker and its children when the driver or the head of the cluster is gone. So the run is a grandchild of
the worker. This file is also the program between them, which passes signals on and returns the exit code. Where the
pipe from the worker closes, or this program is killed, the run gets SIGTERM and saves itself.
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

from trainer.distributed.launch.folder_lock import FolderLock
from trainer.sweep.device_pool import VISIBLE
from trainer.sweep.job import Job
from trainer.sweep.watchdog import TICK, Watchdog


class RayActor:
    """The actor of one job, which has a worker of Ray to itself."""

    def __init__(self) -> None:
        self._begun = threading.Event()

    def run(self, program: Sequence[str], environment: Mapping[str, str], gpus: bool, cwd: str) -> int:
        """Run `program` (see `main`) in the folder `cwd` and return the job's exit code, -n where signal n ended it.

        The job sees the GPUs that Ray gives it, or none if it asked for none.
        """
        visible = os.environ.get(VISIBLE) if gpus else ""
        self._process = subprocess.Popen(
            list(program),
            env={**environment, **({} if visible is None else {VISIBLE: visible})},
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._begun.set()
        assert self._process.stdout is not None
        output = self._process.stdout.read()
        return int(output or self._process.wait())

    def host(self) -> str:
        """The name of the machine, once the job has begun."""
        self._begun.wait()
        return socket.gethostname()

    def end(self, signum: int) -> None:
        """Send a signal to all processes of the job."""
        assert self._process.stdin is not None
        self._process.stdin.write(bytes([signum]))
        self._process.stdin.flush()


def main(folder: Path, command: list[str]) -> int:
    """Run a command to its end with its output in the job's log, and return the exit code; signals come from stdin."""
    with selectors.DefaultSelector() as stdin:
        stdin.register(0, selectors.EVENT_READ)
        held = FolderLock(folder, "a job", name=".job.lock")
        while not held.acquired():  # a job of an earlier driver is still ending here
            if stdin.select(TICK):
                return -signal.SIGTERM
        assert held.file is not None
        watchdog, job = Watchdog([held.file]), Job(0, [], folder, command)
        watchdog.add(job.start(dict(os.environ)))
        while not job.ended(None):
            if not stdin.get_map():
                time.sleep(TICK)
            elif stdin.select(TICK):
                if not (signums := os.read(0, 16)):
                    stdin.unregister(0)
                for signum in signums or [signal.SIGTERM]:
                    job.end(signum, "interrupted")
        watchdog.close()
        held.release()
    assert job.code is not None
    return job.code


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # Ray blocks SIGINT
    print(main(Path(sys.argv[1]), sys.argv[2:]), flush=True)
