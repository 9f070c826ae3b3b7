"""Signals that ask a run to stop: recorded at any time, obeyed between updates. Standard library only.

SIGINT (Ctrl-C), SIGHUP (the terminal is closed), SIGTERM, SIGUSR1 and SIGUSR2 do not kill the process. One that trains
alone ends at once while it has nothing to save. After `defer`, and in one of many processes, a signal is only recorded,
and the loop asks for it between two chunks of updates. A second SIGINT or SIGTERM ends the process at once, even while
it waits inside a collective or a save.
"""

import atexit
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
FROM_TERMINAL = (signal.SIGINT, signal.SIGHUP)
"""Those that a terminal sends to all processes in it. Where one is ignored, as under `nohup`, it stays ignored."""
TIME_IS_UP = signal.SIGALRM
"""The number that stands for the end of `trainer.max_time`; nothing sends this signal."""
SECOND_AFTER = {signal.SIGTERM: 2.0, signal.SIGINT: 0.5}
"""Seconds after which a signal counts as a second one: launchers repeat a signal that their processes get as well."""
AGAIN = "\ninterrupting at the end of the update; press Ctrl-C again to end at once\n"
SHOW_CURSOR = b"\x1b[?25h\n"
"""Ends what a progress bar has done to a terminal, which hides the cursor."""
NAMES = {signal.SIGINT: "SIGINT (Ctrl-C)", TIME_IS_UP: "trainer.max_time"}

_received: list[int] = []
_pipe: list[int] = []
_deferred: list[bool] = []
_ended: list[bool] = []
_at_fork: list[bool] = []
_reported: list[bool] = []
_first: dict[int, float] = {}
"""When the first signal of each number came."""


class Interrupted(SystemExit):
    """A signal, or the end of `trainer.max_time`, has stopped the run; the exit code is 128 + n.

    `command` continues the run; it is empty where no checkpoint was saved.
    """

    def __init__(self, signum: int, update: int = 0) -> None:
        super().__init__(128 + signum)
        self.signum, self.update, self.command = signum, update, ""

    @property
    def advice(self) -> str:
        """How to go on."""
        if not self.command and self.signum == TIME_IS_UP:
            return "its start and a save take longer: raise trainer.max_time"
        return f"go on with: {self.command}" if self.command else "there was nothing to save"

    @property
    def name(self) -> str:
        return NAMES.get(signal.Signals(self.signum), signal.Signals(self.signum).name)

    def __str__(self) -> str:
        when = f"at update {self.update}" if self.update else "before the first update"
        return f"interrupted by {self.name} {when}"


class Ended(SystemExit):
    """A signal has ended a command that is no run; the exit code is 128 + n."""

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signum = signum

    def __str__(self) -> str:
        return f"interrupted by {signal.Signals(self.signum).name}"


def signal_of(code: int) -> int:
    """The signal, or `TIME_IS_UP`, by which a run with this exit code was interrupted; 0 for another code."""
    return code - 128 if code - 128 in (*SIGNALS, TIME_IS_UP) else 0


def handle_signals() -> None:
    """Handle the signals from now on; call it before anything slow is imported."""
    if _pipe or threading.current_thread() is not threading.main_thread():
        return
    reader, writer = os.pipe()
    _pipe.extend((reader, writer))
    for signum in SIGNALS:
        if signum not in FROM_TERMINAL or signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, _handle)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    _register_at_fork()
    threading.Thread(target=_exit_at_second, args=(reader,), name="signals", daemon=True).start()


def begin_again() -> None:
    """Handle the signals as at the start, for the next run of a process that makes several."""
    for state in (_received, _deferred, _ended, _reported):
        state.clear()
    _first.clear()
    for signum in SIGNALS:
        signal.signal(signum, _handle)


def end_cleanly() -> None:
    """In a command that is no run: SIGTERM and SIGHUP raise `Ended`, so that what is temporary is removed."""
    if threading.current_thread() is not threading.main_thread():
        return
    for signum in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) is signal.SIG_DFL:
            signal.signal(signum, _end)
    _register_at_fork()


def _end(signum: int, frame: FrameType | None) -> None:
    raise Ended(signum)


@contextmanager
def handled() -> Iterator[None]:
    """Handle, for a run inside another program, the signals for which it has no handler of its own.

    The handlers are put back at the end. A second SIGINT raises KeyboardInterrupt. In another thread than the main one
    no signal is handled.
    """
    if _pipe or threading.current_thread() is not threading.main_thread():
        yield
        return
    free = (signal.SIG_DFL, signal.default_int_handler)
    before = {signum: found for signum in SIGNALS if (found := signal.getsignal(signum)) in free}
    _received.clear()
    _deferred.clear()
    _register_at_fork()
    reported()
    for signum in before:
        signal.signal(signum, _handle)
    try:
        yield
    finally:
        _received.clear()
        _deferred.clear()
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _register_at_fork() -> None:
    if not _at_fork:
        os.register_at_fork(after_in_child=_restore_defaults)
        _at_fork.append(True)


def _restore_defaults() -> None:
    """In a forked child, such as a worker of a data loader: a signal ends it, as its parent expects.

    A signal from the terminal reaches the parent as well, which still needs its workers.
    """
    if _pipe:
        signal.set_wakeup_fd(-1)
    for signum in SIGNALS:
        if signal.getsignal(signum) is _handle:
            signal.signal(signum, signal.SIG_IGN if signum in FROM_TERMINAL else signal.SIG_DFL)
        elif signal.getsignal(signum) is _end:
            signal.signal(signum, signal.SIG_DFL)


def reported() -> None:
    """From here on the caller of the run prints its end; before, while it is imported, the handler does."""
    _reported.append(True)


def defer() -> None:
    """From here on only record a signal: there is something to save, or there are other ranks to agree with."""
    _deferred.append(True)


def received() -> int:
    """The first signal that has asked the run to stop; 0 for none."""
    return _received[0] if _received else 0


def ignore() -> None:
    """The process ends anyway: from here on no signal changes its exit code, except for a second SIGINT if it hangs."""
    if not _pipe:
        return
    _ended.append(True)
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)  # Python would restore the default, which kills
    for signum in SIGNALS:
        if signum != signal.SIGINT or signal.getsignal(signum) is not _handle:
            signal.signal(signum, signal.SIG_IGN)


def one_of_many() -> bool:
    """Whether this is one of several processes of a run that some program has started."""
    sizes = (os.environ.get(name, "1") for name in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS"))
    return any(size.isdigit() and int(size) > 1 for size in sizes)


def _handle(signum: int, frame: FrameType | None) -> None:
    if signum == signal.SIGINT and signum in _received and not _pipe:
        raise KeyboardInterrupt
    first = not _received
    _received.append(signum)
    if _ended:
        return
    if not _deferred and not one_of_many():
        defer()
        interrupted = Interrupted(signum)
        if not _reported:
            _write(f"{interrupted}; {interrupted.advice}\n")
        raise interrupted
    if signum == signal.SIGINT and first:
        _tell_of_second()


def _tell_of_second() -> None:
    from trainer.distributed.launch.launcher import rank  # late: this file comes before all imports

    if rank() == 0:
        _write(AGAIN)


def _write(text: str) -> None:
    """Write to stderr, also from within a write of Python's."""
    with suppress(OSError):
        os.write(2, text.encode())


def _exit_at_second(reader: int) -> None:
    """End the process at a second signal. Python's handlers wait for the main thread; this thread does not."""
    while numbers := os.read(reader, 64):
        now = time.monotonic()
        for signum, seconds in SECOND_AFTER.items():
            if signum not in numbers or (signum == signal.SIGINT and signal.getsignal(signum) is not _handle):
                continue
            if now - _first.setdefault(signum, now) > seconds:
                if os.isatty(1):
                    os.write(1, SHOW_CURSOR)
                os._exit(128 + signum)
