"""Trains several members of a tune at once: processes that each take one training after another."""

import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

from trainer.lr import ConfigError
from trainer.sweep.device_pool import VISIBLE, threads_per_process, visible_devices
from trainer.tools.tune.members import Member, Members, Outcome

THREADS = "OMP_NUM_THREADS"
PATIENCE = 10.0
"""Seconds that a process gets to end before it is killed."""


@dataclass
class Worker:
    """A process, this side of its pipe, and the place of the training that it makes; None: it waits for one."""

    process: Any
    pipe: Connection
    place: int | None = None


class Workers:
    """`count` processes, started when they are needed. Each has a GPU of its own, in turn, where there are any."""

    def __init__(self, members: Members, count: int) -> None:
        self.members, self.count = members, count
        run = members.cfg.trainer
        self.devices = [] if run.accelerator == "cpu" else visible_devices()
        self.threads = str(threads_per_process(run, count))
        self.workers: list[Worker] = []

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *raised: object) -> None:
        """End the processes: those that wait at once, those that train by a signal."""
        for one in self.workers:
            one.pipe.close()
            if one.place is not None:
                one.process.terminate()
        for one in self.workers:
            one.process.join(PATIENCE)
            one.process.kill()
            one.process.join()

    def train(self, members: Sequence[Member]) -> Iterator[Outcome]:
        """Train members, `count` at a time; their outcomes in this order.

        Raises:
            ConfigError, OSError: what a training has raised.
        """
        waiting, ended = deque(enumerate(members)), dict[int, Outcome]()
        for place in range(len(members)):
            while place not in ended:
                self._give(waiting)
                self._take(ended)
            yield ended.pop(place)

    def _give(self, waiting: "deque[tuple[int, Member]]") -> None:
        """Give a training to each process that waits for one; start what is missing."""
        while len(self.workers) < min(self.count, len(waiting) + self._busy()):
            self.workers.append(self._started(len(self.workers)))
        for one in self.workers:
            if one.place is None and waiting:
                one.place, member = waiting.popleft()
                one.pipe.send(member)

    def _busy(self) -> int:
        return sum(one.place is not None for one in self.workers)

    def _take(self, ended: dict[int, Outcome]) -> None:
        """Wait until a training ends, and note how."""
        by_pipe = {one.pipe: one for one in self.workers if one.place is not None}
        for pipe in wait(list(by_pipe)):
            one = by_pipe[pipe]  # type: ignore[index]
            assert one.place is not None
            place, one.place = one.place, None
            try:
                answer = one.pipe.recv()
            except (EOFError, ConnectionError):
                one.process.join()
                self.workers.remove(one)
                answer = Outcome(float("inf"), 0, f"its process ended with exit code {one.process.exitcode}")
            if isinstance(answer, Exception):
                raise answer
            ended[place] = answer

    def _started(self, number: int) -> Worker:
        """A new process. It ends when this one does, by the end of the pipe; Ctrl-C is for this one alone."""
        context = get_context("spawn")
        here, there = context.Pipe()
        own = {THREADS: os.environ.get(THREADS, self.threads)}
        if self.devices:
            own[VISIBLE] = self.devices[number % len(self.devices)]
        process = context.Process(target=serve, args=(there, self.members), name=f"tune {number}")
        with _given(own):
            process.start()
        there.close()
        return Worker(process, here)


def serve(pipe: Connection, members: Members) -> None:
    """Train what comes, until nobody asks any more."""
    while True:
        try:
            member = pipe.recv()
        except EOFError:
            return
        try:
            answer: Outcome | Exception = members.train(member)
        except (ConfigError, OSError) as error:
            answer = error
        pipe.send(answer)


@contextmanager
def _given(own: dict[str, str]) -> Iterator[None]:
    """What a process that is started here inherits: variables, and that Ctrl-C is ignored."""
    before, handler = dict(os.environ), signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(own)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        os.environ.clear()
        os.environ.update(before)
