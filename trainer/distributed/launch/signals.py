"""Signals that ask a run to stop: recorded at any time, obeyed between updates. Standard library only.

SIGTERM, SIGUSR1 and SIGUSR2 do not kill the process. One that trains alone ends at once while it has nothing to save.
After `defer`, and in one of many processes, a signal is only recorded, and the loop asks for it between two chunks of
updates. A second SIGTERM ends the process at once, even while it waits inside a collective.
"""

import os
import signal
import threading
import time
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
SECOND_AFTER = 2.0
"""Seconds after which a SIGTERM counts as a second one: launchers repeat a signal that their processes get as well."""

_received: list[int] = []
_pipe: list[int] = []
_deferred: list[bool] = []


class Stopped(SystemExit):
    """A signal has stopped the run; the exit code is 128 + n."""

    def __init__(self, signum: int, update: int = 0) -> None:
        super().__init__(128 + signum)
        self.signum, self.update = signum, update

    @property
    def name(self) -> str:
        return signal.Signals(self.signum).name

    def __str__(self) -> str:
        return f"stopped by {self.name} " + (f"at update {self.update}" if self.update else "before the first update")


def handle_signals() -> None:
    """Handle the signals from now on; call it before anything slow is imported."""
    if _pipe or threading.current_thread() is not threading.main_thread():
        return
    reader, writer = os.pipe()
    _pipe.extend((reader, writer))
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=_restore_defaults)
    threading.Thread(target=_exit_at_second_sigterm, args=(reader,), name="signals", daemon=True).start()
    for signum in SIGNALS:
        signal.signal(signum, _handle)


def _restore_defaults() -> None:
    """In a forked child, such as a worker of a data loader: a signal ends it, as its parent expects."""
    signal.set_wakeup_fd(-1)
    for signum in SIGNALS:
        if signal.getsignal(signum) is _handle:
            signal.signal(signum, signal.SIG_DFL)


def defer() -> None:
    """From here on only record a signal: there is something to save, or there are other ranks to agree with."""
    _deferred.append(True)


def received() -> int:
    """The first signal that has asked the run to stop; 0 for none."""
    return _received[0] if _received else 0


def ignore() -> None:
    """The process ends anyway: from here on no signal changes its exit code."""
    if _pipe:
        for signum in SIGNALS:
            signal.signal(signum, signal.SIG_IGN)


def one_of_many() -> bool:
    """Whether this is one of several processes of a run that some program has started."""
    sizes = (os.environ.get(name, "1") for name in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS"))
    return any(size.isdigit() and int(size) > 1 for size in sizes)


def _handle(signum: int, frame: FrameType | None) -> None:
    _received.append(signum)
    if not _deferred and not one_of_many():
        defer()
        raise Stopped(signum)


def _exit_at_second_sigterm(reader: int) -> None:
    """End the process at a second SIGTERM. Python's handlers wait for the main thread; this thread does not."""
    first = 0.0
    while numbers := os.read(reader, 64):
        if signal.SIGTERM in numbers:
            first = first or time.monotonic()
            if time.monotonic() - first > SECOND_AFTER:
                os._exit(128 + signal.SIGTERM)
