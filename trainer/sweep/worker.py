"""Jobs of a sweep that share one process: it imports once, and trains what it is given one after another or as one.

The driver sends jobs over a pipe, and the worker sends back when each begins and how it ended. A job that takes the
process with it ends alone: another worker trains those that had not begun. Those that trained as one with it are
trained again, one after another.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from trainer.sweep.fork_server import NO_THREADS
from trainer.sweep.watchdog import GRACE, signal_group

PROGRAM = "trainer.tools.worker.process"


class Order(NamedTuple):
    """What the worker needs of a job. `words`: its command without the interpreter. `alone`: not to be stacked."""

    number: int
    words: list[str]
    environment: dict[str, str]
    log: str
    alone: bool


@dataclass(eq=False)
class Task:
    """A job of the worker, as a scheduler sees a process; it has no process group of its own."""

    worker: "Worker"
    order: Order
    asked: float = field(default_factory=time.monotonic)
    begun: float | None = None
    together: int = 1
    """How many jobs train as one with it; each takes its share of their time."""
    seconds: float | None = None
    code: int | None = None
    stopped: bool = False
    pid: int = 0

    @property
    def waited(self) -> float:
        """Seconds in which it has not trained."""
        now = time.monotonic()
        own = self.seconds
        if own is None:
            own = 0.0 if self.begun is None else (now - self.begun) / self.together
        return now - self.asked - own

    def poll(self) -> int | None:
        """The exit code that a process of its own would have had, once the job has ended."""
        self.worker.exchange()
        return self.code

    def send(self, signum: int) -> None:
        """Stop the job alone, whether it has begun or not; SIGKILL takes the worker with a job that has begun."""
        if self.code is None:
            self.stopped = True
            self.worker.stop(self, signum)

    def alive(self) -> bool:
        """Whether it has not ended yet."""
        return self.code is None


class Worker:
    """Starts jobs in one worker process, which it starts with the first of them, and again where it has died.

    `keep` gives the open files that the worker holds to its end, `stack` is whether jobs may train as one.
    """

    def __init__(self, keep: Callable[[], Sequence[int]], stack: bool) -> None:
        self.keep, self.stack = keep, stack
        self._unsent: list[Task] = []
        self._sent: dict[int, Task] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._count = 0

    def __call__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> Task:
        """Take a job; jobs that are taken before the next look at one of them are sent together."""
        self._count += 1
        task = Task(self, Order(self._count, list(command[1:]), dict(environment), str(log), not self.stack))
        self._unsent.append(task)
        return task

    def exchange(self) -> None:
        """Send the jobs that wait, and take in what the worker says."""
        if self._unsent:
            self._send()
        if self._process is None:
            return
        died = self._process.poll()
        self._receive()
        if died is not None:
            self._lose(died)

    def stop(self, task: Task, signum: int) -> None:
        """Send a signal to a job, or take it back where it has not begun."""
        if task in self._unsent:
            self._unsent.remove(task)
            task.code = 128 + signum
        elif signum == signal.SIGKILL and task.begun is not None and self._process is not None:
            signal_group(self._process.pid, signal.SIGKILL)
        else:
            self._tell(("stop", task.order.number, signum))

    def close(self) -> None:
        """Let the worker end: no job is left."""
        process, self._process = self._process, None
        if process is None or self._pipe is None:
            return
        self._pipe.close()
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            signal_group(process.pid, signal.SIGKILL)
            process.wait()

    def _send(self) -> None:
        if self._process is None:
            self._start()
        tasks, self._unsent = self._unsent, []
        self._sent |= {task.order.number: task for task in tasks}
        self._tell(("jobs", [task.order for task in tasks]))

    def _tell(self, message: tuple[object, ...]) -> None:
        assert self._pipe is not None
        with suppress(OSError):  # the worker has died: the next look at it tells
            self._pipe.send(message)

    def _start(self) -> None:
        self._pipe, theirs = Pipe()
        path = os.pathsep.join(filter(None, sys.path))
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", PROGRAM, str(theirs.fileno())],
                env={**os.environ, **NO_THREADS, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"},
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *self.keep()),
                start_new_session=True,
            )

    def _receive(self) -> None:
        """Take in what the worker has said so far."""
        assert self._pipe is not None
        with suppress(EOFError, OSError):
            while self._pipe.poll():
                what, *given = self._pipe.recv()
                if what == "note":
                    print(*given, flush=True)
                elif what in ("begun", "waits"):
                    for number in given[0]:
                        self._sent[number].begun = time.monotonic() if what == "begun" else None
                        self._sent[number].together = len(given[0])
                else:
                    number, code, seconds = given
                    task = self._sent.pop(number)
                    task.seconds, task.code = seconds, code

    def _lose(self, code: int) -> None:
        """After the death of the worker, whose exit code that of its job is: others are sent to the next one."""
        assert self._process is not None
        assert self._pipe is not None
        signal_group(self._process.pid, signal.SIGKILL)
        self._pipe.close()
        self._process, self._pipe = None, None
        tasks, self._sent = list(self._sent.values()), {}
        begun = [task for task in tasks if task.begun is not None]
        for task in tasks:
            if task.stopped or not begun or (begun == [task] and task.together == 1):
                task.seconds, task.code = 0.0 if task.begun is None else time.monotonic() - task.begun, code
                continue
            if task.begun is not None:
                print(f"the process died with the {len(begun)} jobs that it trained as one: each trains alone now")
                task.order = task.order._replace(alone=True)
            task.begun = None
            self._unsent.append(task)
