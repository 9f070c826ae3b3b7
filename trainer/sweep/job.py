"""A job of a sweep: one process with a folder and a log of its own, and how it ended."""

import json
import math
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.cli.streams import shown
from trainer.distributed.launch.folder_lock import missing_folders, remove_empty
from trainer.distributed.launch.signals import signal_of
from trainer.sweep.spawn import Process, Spawn, fresh
from trainer.sweep.watchdog import GRACE

RESULT, LOG = "result.json", "job.log"
REFUSED = 2
"""The exit code of a job that is refused."""
LEFTOVER = 5.0
"""Seconds that the other ranks of a job have after its first process has ended."""


@dataclass(frozen=True)
class SharedPrefix:
    """A job starts from the snapshot that a longer job, `source`, keeps after `updates` updates."""

    source: "Job"
    updates: int


@dataclass
class Job:
    """One job; `status` goes from waiting to running to completed, failed, interrupted or pruned.

    A job is completed where its exit code is 0 and its `result.json` says so. One that was killed, or that left early
    with exit code 0, has failed. `label` shows what tells it from the others. `need` is how many devices it takes and
    `devices` are those that it was given. `threads`: how many each of its processes may use (None: all).
    """

    number: int
    overrides: list[str]
    folder: Path
    command: list[str]
    label: str = ""
    need: int = 0
    threads: int | None = None
    devices: tuple[str, ...] = ()
    status: str = "waiting"
    error: str = ""
    seconds: float = 0.0
    result: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    prefix: SharedPrefix | None = None
    code: int | None = field(default=None, init=False)
    """The exit code of the first process, once it has ended."""
    _process: Process | None = field(default=None, init=False)
    _started: float = field(default=0.0, init=False)
    _kill_at: float = field(default=math.inf, init=False)
    _cause: str = field(default="", init=False)
    _shown: int = field(default=0, init=False)
    _earlier_result: int = field(default=0, init=False)
    _made: list[Path] = field(default_factory=list, init=False)
    _log_start: int = field(default=0, init=False)

    def start(self, environment: dict[str, str], spawn: Spawn = fresh) -> int:
        """Start the process in a session of its own and return its process group: a signal reaches all its ranks."""
        self._made = missing_folders(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._earlier_result = self._result_time()
        path = self.folder / LOG
        self._shown = self._log_start = path.stat().st_size if path.exists() else 0
        path.touch()
        self._process = spawn(self.command, environment, path)
        self.status, self._started = "running", time.monotonic()
        return self._process.pid

    @property
    def group(self) -> int:
        """The process group of the job, once started; 0 where it runs on another machine."""
        assert self._process is not None
        return self._process.pid

    @property
    def ending(self) -> bool:
        """Whether the driver has asked it to end."""
        return bool(self._cause)

    def adopt(self) -> bool:
        """Take the result of an earlier start of the sweep, if it completed the job. Returns whether it did."""
        result = self._read_result()
        if result.get("status") == "completed":
            self.status, self.result, self.seconds = "completed", result, float(result.get("seconds", 0.0))
        return self.status == "completed"

    def end(self, signum: int, cause: str) -> None:
        """Send a signal to all processes of the job; SIGKILL follows `GRACE` seconds after the first one."""
        if not self._cause:
            self._cause, self._kill_at = cause, time.monotonic() + GRACE
        if self._process is not None:
            self._process.send(signum)

    def ended(self, timeout: float | None) -> bool:
        """Whether the job and all its processes have ended; one that runs longer than `timeout` seconds is ended.

        A rank that outlives the first process is killed `LEFTOVER` seconds later: it would hold its device.
        """
        assert self._process is not None
        now = time.monotonic()
        if self.code is None:
            self.seconds = now - self._started - self._process.waited
            self.code = self._process.poll()
            if self.code is None:
                self._enforce(timeout, now)
                return False
            self._kill_at = min(self._kill_at, now + LEFTOVER)
        if now < self._kill_at + LEFTOVER and self._process.alive():
            if now > self._kill_at:
                self._process.send(signal.SIGKILL)
            return False
        self._conclude(self.code)
        return True

    def show(self) -> None:
        """Copy to the terminal what the job has printed since the last call."""
        with (self.folder / LOG).open("rb") as log:
            log.seek(self._shown)
            printed = log.read()
        self._shown += len(printed)
        sys.stdout.write(printed.decode(errors="replace"))
        sys.stdout.flush()

    def warnings(self) -> list[str]:
        """The warnings in its log, each once; none where it has not begun."""
        if not (self.folder / LOG).exists():
            return []
        with (self.folder / LOG).open(errors="replace") as log:
            return list(dict.fromkeys(shown(line.rstrip()) for line in log if line.startswith("warning: ")))

    def remove_refused(self) -> None:
        """Remove the folder of a refused job, where it is new and empty except for its log; `error` says why."""
        if self.code == REFUSED and self._made and all(path.suffix == ".log" for path in self.folder.iterdir()):
            (self.folder / LOG).unlink()
            remove_empty(self._made)

    def record(self) -> dict[str, Any]:
        """What `sweep.json` holds of the job."""
        prefix = self.prefix
        return {
            "number": self.number,
            "overrides": self.overrides,
            "status": self.status,
            "error": self.error,
            "seconds": round(self.seconds, 3),
            "devices": list(self.devices),
            "metrics": self.result.get("metrics", {}),
            "best": self.result.get("best", {}),
            "folder": str(self.folder),
            **({"parameters": self.parameters} if self.parameters else {}),
            **({"shared_prefix": {"job": prefix.source.number, "updates": prefix.updates}} if prefix else {}),
        }

    def _enforce(self, timeout: float | None, now: float) -> None:
        """Kill a job that still runs after its grace period, and end one that has run for longer than `timeout`."""
        if now > self._kill_at:
            self.end(signal.SIGKILL, self._cause)
        elif timeout is not None and self.seconds > timeout and not self._cause:
            self.end(signal.SIGTERM, f"took longer than {timeout:g} s")

    def _conclude(self, code: int) -> None:
        """Set the status and the error from the exit code and the result."""
        self.result = self._read_result() if self._result_time() != self._earlier_result else {}
        status = self.result.get("status")
        if code == 0 and status == "completed":
            self.status = "completed"
            return
        if signal_of(code) and status == "interrupted" and not self._cause:
            self.status, self.error = "interrupted", str(self.result.get("error"))
            return
        first_word = self._cause.partition(" ")[0]
        self.status = first_word if first_word in ("interrupted", "pruned") else "failed"
        missing = f"{RESULT} says {status!r}" if status else f"no {RESULT}"
        reason = self.result.get("error") or (self._last_line() if code else "") or missing
        ending = f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}, last line"
        self.error = self._cause or " ".join(f"{ending}: {reason}".split())

    def _result_time(self) -> int:
        """When the result was written, in ns; 0 where there is none."""
        path = self.folder / RESULT
        return path.stat().st_mtime_ns if path.exists() else 0

    def _read_result(self) -> dict[str, Any]:
        try:
            result = json.loads((self.folder / RESULT).read_text())
        except (OSError, ValueError):
            return {}
        return result if isinstance(result, dict) else {}

    def _last_line(self) -> str:
        lines = (self.folder / LOG).read_bytes()[self._log_start :].decode(errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
