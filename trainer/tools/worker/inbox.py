"""What the driver of a sweep has sent to its worker: jobs to train, and jobs to stop."""

import os
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection

from trainer.distributed.launch import signals
from trainer.sweep.alike_jobs import kind_of
from trainer.sweep.watchdog import GRACE
from trainer.sweep.worker import Order

SAME = 0.3
"""Seconds in which a signal to several jobs that train as one is one signal."""


class Inbox:
    """Reads the pipe in a thread of its own. Where the driver has died, the job that runs is stopped as by SIGTERM."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._change = pipe, threading.Condition()
        self._waiting: list[Order] = []
        self.running: set[int] = set()
        self._stopped: dict[int, int] = {}
        self._separate: set[tuple[str, ...]] = set()
        self._closed = False
        self._signalled: dict[int, float] = {}
        threading.Thread(target=self._read, name="inbox", daemon=True).start()

    def take(self) -> list[Order]:
        """The next job, with all waiting ones that are alike and may be stacked; empty where no more will come."""
        with self._change:
            self._change.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return []
            first = self._waiting[0]
            alike = (
                [] if first.alone else [one for one in self._waiting if not one.alone and _kind(one) == _kind(first)]
            )
            taken = alike or [first]
            self._waiting = [one for one in self._waiting if one not in taken]
            self.running = {one.number for one in taken}
            self._tell(("begun", [one.number for one in taken]))
            return taken

    def give_back(self, orders: list[Order]) -> None:
        """Put jobs that were taken together back in front of all others, each to be trained alone."""
        with self._change:
            self._waiting = [one._replace(alone=True) for one in orders] + self._waiting
            self.running = set()
            self._tell(("waits", [one.number for one in orders]))

    def separate(self, order: Order) -> None:
        """Give out the jobs of this kind one by one from now on."""
        self._separate.add(_kind(order))

    def stopped(self, order: Order) -> int:
        """The signal that has stopped a job which was taken; 0 where none has."""
        return self._stopped.get(order.number, 0)

    def check(self, orders: Sequence[Order]) -> None:
        """Raise `Interrupted` where all jobs were stopped before signals were handled; call it once they are."""
        if all(map(self.stopped, orders)):
            raise signals.Interrupted(self.stopped(orders[0]))

    def ended(self, order: Order, code: int, seconds: float) -> None:
        """Tell the driver how a job has ended."""
        with self._change:
            self.running.discard(order.number)
            self._tell(("ended", order.number, code, seconds))

    def note(self, line: str) -> None:
        """Have the driver print a line."""
        with self._change:
            self._tell(("note", line))

    def _tell(self, message: tuple[object, ...]) -> None:
        with suppress(OSError):  # the driver has died
            self._pipe.send(message)

    def _read(self) -> None:
        try:
            while True:
                what, *given = self._pipe.recv()
                with self._change:
                    if what == "jobs":
                        self._waiting += given[0]
                        self._change.notify()
                    else:
                        self._stop(*given)
        except (EOFError, OSError):
            self._end()

    def _stop(self, number: int, signum: int) -> None:
        """Take a waiting job back; send the signal to this process group once all jobs that run are to stop."""
        if number in self.running:
            self._stopped[number] = signum
            if self.running <= self._stopped.keys() and time.monotonic() - self._signalled.get(signum, -SAME) > SAME:
                self._signalled[signum] = time.monotonic()
                os.killpg(os.getpid(), signum)
        elif any(one.number == number for one in self._waiting):
            self._waiting = [one for one in self._waiting if one.number != number]
            self._tell(("ended", number, 128 + signum, 0.0))

    def _end(self) -> None:
        with self._change:
            self._closed, self._waiting = True, []
            self._stopped |= dict.fromkeys(self.running, signal.SIGTERM)
            running = bool(self.running)
            self._change.notify()
        if running:
            os.killpg(os.getpid(), signal.SIGTERM)
            time.sleep(GRACE)
            os.killpg(os.getpid(), signal.SIGKILL)


def _kind(order: Order) -> tuple[str, ...]:
    """What jobs of one kind have in common: their choices, and the keys of their numbers, whole or not."""
    words = kind_of([word for word in order.words if not word.startswith("hydra.run.dir=")])
    return tuple(word.replace("=int ", "=float ") for word in words)
