"""A sweep job: a fresh process with a folder, a log and a verdict of its own."""

import json
import math
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.sweep.spawn import Spawn, Started, fresh
from trainer.sweep.watchdog import GRACE

RESULT, LOG = "result.json", "job.log"
LEFTOVER = 5.0
"""Seconds that the other ranks of a job have after its first process is gone."""


@dataclass
class Job:
    """One job; `status` goes from waiting over running to completed, failed, stopped or pruned.

    Completed takes both an exit code of 0 and a `result.json` that says so: a job that was killed, or that
    left early with exit code 0, has failed. `label` is what tells it from the others for a reader, `need` how many
    devices it takes, `threads` how many each of its processes (none: all), `devices` those that it was given. It
    starts from the checkpoint of `trunk` after update `branch`, where it has one.
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
    trunk: "Job | None" = None
    branch: int = 0
    _process: Started | None = None
    _started: float = 0.0
    _kill_at: float = math.inf
    _ended_by: str = ""
    _shown: int = 0
    _code: int | None = None
    _earlier: int = 0
    _logged: int = 0

    def start(self, environment: dict[str, str], spawn: Spawn = fresh) -> int:
        """Start the process in a session of its own, whose group is returned: a signal reaches all its ranks only."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._earlier = self._written()
        path = self.folder / LOG
        self._shown = self._logged = path.stat().st_size if path.exists() else 0
        path.touch()
        self._process = spawn(self.command, environment, path)
        self.status, self._started = "running", time.monotonic()
        return self._process.pid

    @property
    def group(self) -> int:
        """The process group of the job, once started; 0 where another machine has it."""
        assert self._process is not None
        return self._process.pid

    @property
    def code(self) -> int | None:
        """The exit code of its first process, once it has one."""
        return self._code

    @property
    def ending(self) -> bool:
        """Whether it was told to end."""
        return bool(self._ended_by)

    def adopt(self) -> bool:
        """Whether the job was completed before, by an earlier start of the sweep; if so it takes that result."""
        result = self._read_result()
        if result.get("status") == "completed":
            self.status, self.result, self.seconds = "completed", result, float(result.get("seconds", 0.0))
        return self.status == "completed"

    def end(self, signum: int, cause: str) -> None:
        """Send a signal to all processes of the job; `SIGKILL` follows `GRACE` seconds after the first."""
        if not self._ended_by:
            self._ended_by, self._kill_at = cause, time.monotonic() + GRACE
        if self._process is not None:
            self._process.send(signum)

    def ended(self, timeout: float | None) -> bool:
        """Whether the job and all its processes are gone; one that runs longer than `timeout` seconds is made to end.

        A rank that stays behind the first process is killed `LEFTOVER` seconds later: it would hold its device.
        """
        assert self._process is not None
        now = time.monotonic()
        if self._code is None:
            self.seconds = now - self._started - self._process.waited
            self._code = self._process.poll()
            if self._code is None:
                self._hasten(timeout, now)
                return False
            self._kill_at = min(self._kill_at, now + LEFTOVER)
        if now < self._kill_at + LEFTOVER and self._process.alive():
            if now > self._kill_at:
                self._process.send(signal.SIGKILL)
            return False
        self._judge(self._code)
        return True

    def _hasten(self, timeout: float | None, now: float) -> None:
        if now > self._kill_at:
            self.end(signal.SIGKILL, self._ended_by)
        elif timeout is not None and self.seconds > timeout and not self._ended_by:
            self.end(signal.SIGTERM, f"took longer than {timeout:g} s")

    def show(self) -> None:
        """Pass on to the terminal what the job has printed since the last call."""
        with (self.folder / LOG).open("rb") as log:
            log.seek(self._shown)
            fresh = log.read()
        self._shown += len(fresh)
        sys.stdout.write(fresh.decode(errors="replace"))
        sys.stdout.flush()

    def record(self) -> dict[str, Any]:
        """What `sweep.json` holds of the job."""
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
            **({"trunk": {"job": self.trunk.number, "update": self.branch}} if self.trunk else {}),
        }

    def _judge(self, code: int) -> None:
        self.result = self._read_result() if self._written() != self._earlier else {}
        said = self.result.get("status")
        if code == 0 and said == "completed":
            self.status = "completed"
            return
        first = self._ended_by.partition(" ")[0]
        self.status = first if first in ("stopped", "pruned") else "failed"
        missing = f"{RESULT} says {said!r}" if said else f"no {RESULT}"
        reason = self.result.get("error") or (self._last_line() if code else "") or missing
        left = f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}, last line"
        self.error = self._ended_by or " ".join(f"{left}: {reason}".split())

    def _written(self) -> int:
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
        lines = (self.folder / LOG).read_bytes()[self._logged :].decode(errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
