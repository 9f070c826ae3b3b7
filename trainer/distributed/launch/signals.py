"""Signals that ask a run to stop: noted at any time, acted on where nothing is lost. Standard library only.

SIGTERM, SIGUSR1 and SIGUSR2 kill nothing. A process that trains alone leaves at once while it has nothing to keep;
after `hold`, and in one of many processes, a signal is only noted, and the loop asks for it between two blocks.
A second SIGTERM ends the process at once, even one that waits inside a collective.
"""

import os
import signal
import threading
import time
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
IMPATIENT = 2.0
"""Seconds after which a second SIGTERM is another one: launchers pass on what their processes get, too."""

_noted: list[int] = []
_watching: list[int] = []
_held: list[bool] = []


class Stopped(SystemExit):
    """A signal has asked the run to stop, and it has: the exit code is 128 + n."""

    def __init__(self, signum: int, update: int = 0) -> None:
        super().__init__(128 + signum)
        self.signum, self.update = signum, update

    @property
    def name(self) -> str:
        return signal.Signals(self.signum).name

    def __str__(self) -> str:
        return f"stopped by {self.name} " + (f"at update {self.update}" if self.update else "before the first update")


def watch() -> None:
    """Note the signals from now on; call it before anything slow is imported."""
    if _watching or threading.current_thread() is not threading.main_thread():
        return
    reader, writer = os.pipe()
    _watching.extend((reader, writer))
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=_ours_no_more)
    threading.Thread(target=_impatience, args=(reader,), name="signals", daemon=True).start()
    for signum in SIGNALS:
        signal.signal(signum, _note)


def _ours_no_more() -> None:
    """In a forked child, as a worker of a data loader: a signal ends it, as its parent expects."""
    signal.set_wakeup_fd(-1)
    for signum in SIGNALS:
        if signal.getsignal(signum) is _note:
            signal.signal(signum, signal.SIG_DFL)


def hold() -> None:
    """From here on a signal is only noted: there is something to keep, or others to agree with."""
    _held.append(True)


def noted() -> int:
    """The first signal that has asked to stop; 0: none has."""
    return _noted[0] if _noted else 0


def leave() -> None:
    """The process ends anyway: no signal shall change its exit code any more."""
    if _watching:
        for signum in SIGNALS:
            signal.signal(signum, signal.SIG_IGN)


def one_of_many() -> bool:
    """Whether other processes of the run have been started beside this one, by whatever program."""
    sizes = (os.environ.get(name, "1") for name in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS"))
    return any(size.isdigit() and int(size) > 1 for size in sizes)


def _note(signum: int, frame: FrameType | None) -> None:
    _noted.append(signum)
    if not _held and not one_of_many():
        hold()
        raise Stopped(signum)


def _impatience(reader: int) -> None:
    """End the process at a second SIGTERM; the handlers of Python wait for the main thread, this one does not."""
    first = 0.0
    while received := os.read(reader, 64):
        if signal.SIGTERM in received:
            first = first or time.monotonic()
            if time.monotonic() - first > IMPATIENT:
                os._exit(128 + signal.SIGTERM)
