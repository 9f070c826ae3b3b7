"""One owner per folder of a run or a sweep: a lock of the system, free when its holder ends. Standard library only.

The lock is flock on the file `.lock` in the folder, which names the holder. It belongs to an open file: the watchdog of
a sweep is given that file and so holds the lock too. Programs that a holder starts do not inherit the file, and forked
processes, such as the workers of a data loader, close it.
"""

import errno
import fcntl
import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from trainer.distributed.launch.launcher import job_id, started_again
from trainer.files.plain import check_regular, open_own, read_record
from trainer.files.process import process_runs
from trainer.lr import ConfigError

LOCK = ".lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""What a file system without locks answers, as NFS without its lock service, or Lustre mounted without `flock`."""
TICK, ATTEMPTS = 0.05, 100
AT_ONCE, ENDING, PREDECESSOR = 1.0, 10.0, 120.0
"""Seconds to wait for a holder: one that runs, one that was killed on this machine, and the same job's last start."""
RANKS = 60.0
"""Seconds to wait for ranks whose rank 0 was killed; they end by themselves, within `trainer.timeout`."""

_open: set[int] = set()
_warned: list[Path] = []


def _close_in_child() -> None:
    """In a forked process: close the files without releasing what they lock."""
    while _open:
        with suppress(OSError):
            os.close(_open.pop())


os.register_at_fork(after_in_child=_close_in_child)


class FolderLock:
    """The lock of a folder, acquired by `acquire` and released at the end of a `with`.

    `what` it is that holds the folder, as in messages; `name`: of the file that is locked.
    """

    def __init__(self, folder: Path, what: str = "a run", name: str = LOCK) -> None:
        self.folder, self.what, self.path = folder, what, folder / name
        self.file: int | None = None
        self.exclusive = True
        """Whether the file system has locks, as far as is known."""
        self.fresh = False
        """Whether the folder held nothing when it was locked."""

    def acquire(self, wait: bool = True) -> None:
        """Make the folder, where there is none, and lock it.

        A start that Slurm or torchrun has repeated waits for the one before. Without `wait`, nothing is waited for.

        Raises:
            ConfigError: another process holds the folder, or it cannot be written.
        """
        begun, announced = time.monotonic(), False
        while not self.acquired():
            holder = self.holder()
            patience = _patience(holder) if wait else 0.0
            if time.monotonic() - begun > patience:
                raise ConfigError(self._why_refused(holder))
            if patience > AT_ONCE and not announced:
                announced = _tell(
                    f"{self.folder} still belongs to {_name(holder)}: waiting up to {patience:g} s for its end"
                )
            time.sleep(TICK)
        if wait:
            self._wait_for_ranks()

    def acquired(self) -> bool:
        """Lock the folder, if no other process holds it, and return whether this one does."""
        if not self._try():
            return False
        self.fresh = {path.name for path in self.folder.iterdir()} <= {self.path.name, "job.log"}
        self._write_holder()
        return True

    def holder(self) -> dict[str, Any]:
        """Who holds the lock, as written by itself: host, pid, since, command, job; empty where that is not known."""
        return read_record(self.path)

    def release(self) -> None:
        """Remove the file and release the lock; nothing where this process does not hold it."""
        if self.file in _open:
            with suppress(OSError):
                if self._is_in_place(self.file):
                    self.path.unlink()
            _open.discard(self.file)
            os.close(self.file)
        self.file = None

    def __enter__(self) -> "FolderLock":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.release()

    def _try(self) -> bool:
        """Lock the file that is in the folder; False where another process holds it."""
        while True:
            file = self._opened()
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    os.close(file)
                    if isinstance(error, BlockingIOError):
                        return False
                    raise
                self.exclusive = False
                self._warn(error)
            if self._is_in_place(file):
                self.file = file
                _open.add(file)
                return True
            os.close(file)  # the holder before has removed this one

    def _opened(self) -> int:
        """The file, open; it and the folder are made where they are missing."""
        for left in reversed(range(ATTEMPTS)):
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                return open_own(self.path)
            except OSError as error:
                if isinstance(error, FileExistsError | FileNotFoundError) and left:
                    continue  # another process has removed the folder, which was its own
                what = f"{self.folder} cannot be written ({error.strerror})"
                raise ConfigError(f"{what}: choose another folder, by name or hydra.run.dir.") from None
        raise AssertionError

    def _is_in_place(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), self.path.stat())
        except FileNotFoundError:
            return False

    def _warn(self, error: OSError) -> None:
        if self.folder not in _warned:
            _warned.append(self.folder)
            without = f"{self.folder} lies on a file system without locks ({error.strerror})"
            _tell(f"warning: {without}: start nothing else in it, since two runs would not notice each other")

    def _write_holder(self) -> None:
        spec = getattr(sys.modules["__main__"], "__spec__", None)  # of `python -m`, and of the command `cadence`
        program = "cadence train" if spec and spec.name == "cadence.train" else Path(sys.argv[0]).name
        command = f"{program} {shlex.join(sys.argv[1:])}".strip()
        mine = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        text = json.dumps({"what": self.what, **mine, "command": command, "job": job_id()}) + "\n"
        assert self.file is not None
        with suppress(OSError):  # a full disk: the lock holds, and names nobody
            os.ftruncate(self.file, 0)
            os.pwrite(self.file, text.encode(), 0)

    def _wait_for_ranks(self) -> None:
        """Wait until no rank of a run whose rank 0 was killed is left."""
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            begun, announced = time.monotonic(), False
            while not _flock(folder, fcntl.LOCK_EX):
                if time.monotonic() - begun > RANKS:
                    self.release()
                    raise ConfigError(
                        f"{self.folder}: ranks of an earlier start still run: end them, or give another name."
                    )
                announced = announced or _tell(
                    f"{self.folder}: waiting up to {RANKS:g} s for ranks of an earlier start to end"
                )
                time.sleep(TICK)
        finally:
            os.close(folder)

    def _why_refused(self, holder: dict[str, Any]) -> str:
        state = "whose processes are being ended" if _is_dead(holder) else "that still runs"
        return (
            f"{self.folder} belongs to {holder.get('what', 'another process')} {state}: {_name(holder)}: wait for its "
            "end, or give another name."
        )


@contextmanager
def follow(folder: Path) -> Iterator[None]:
    """Belong to the run in a folder that another rank has locked: the next start waits for this process, too."""
    file = os.open(folder, os.O_RDONLY)
    _open.add(file)
    _flock(file, fcntl.LOCK_SH)
    try:
        yield
    finally:
        if file in _open:
            _open.discard(file)
            os.close(file)


def is_held(folder: Path, ranks: bool = False) -> bool:
    """Whether a process holds the lock of a folder, as far as this machine can see; no file is made or changed.

    `ranks`: also where only ranks of a run are left, whose rank 0 was killed.
    """
    return _locked(folder / LOCK, fcntl.LOCK_SH) or (ranks and _locked(folder, fcntl.LOCK_EX))


def _locked(path: Path, how: int) -> bool:
    try:
        if not path.is_dir():
            check_regular(path)
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except OSError as error:
        held = isinstance(error, BlockingIOError)
        return held or (path.name == LOCK and error.errno in NO_LOCKS and _may_run(read_record(path)))
    finally:
        os.close(file)
    return False


def _may_run(holder: dict[str, Any]) -> bool:
    """Whether the process that a file names may run: on a file system without locks nothing else says it."""
    pid = holder.get("pid")
    return isinstance(pid, int) and (holder.get("host") != socket.gethostname() or process_runs(pid))


def missing_folders(folder: Path) -> list[Path]:
    """A folder and those that it lies in, as far as they do not exist, the innermost first."""
    return [place for place in (folder, *folder.parents) if not place.exists()]


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders that are empty, the innermost first; an empty log, as Hydra opens one, counts as nothing."""
    for folder in folders:
        try:
            files = list(folder.iterdir())
            for path in files if all(path.suffix == ".log" and not path.stat().st_size for path in files) else []:
                path.unlink()
            folder.rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            return


def _flock(file: int, how: int) -> bool:
    """Lock an open file; False where another process holds it. Without locks it is nobody's."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _patience(holder: dict[str, Any]) -> float:
    """Seconds to wait for a holder."""
    if holder.get("job") is not None and holder["job"] == job_id() and started_again():
        return PREDECESSOR
    return ENDING if _is_dead(holder) else AT_ONCE


def _is_dead(holder: dict[str, Any]) -> bool:
    """Whether the holder is seen to be dead: a process that it started, or its own end, still holds the lock."""
    pid = holder.get("pid")
    return isinstance(pid, int) and holder.get("host") == socket.gethostname() and not process_runs(pid)


def _name(holder: dict[str, Any]) -> str:
    if not holder:
        return "it does not say which"
    short = " ".join(str(holder.get("command")).split())
    short = short if len(short) <= 200 else f"{short[:200]} ..."
    return f"process {holder.get('pid')} on {holder.get('host')} since {holder.get('since')} ({short})"


def _tell(line: str) -> bool:
    print(line, file=sys.stderr, flush=True)
    return True
