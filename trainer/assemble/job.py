"""A sweep job: a fresh process with a folder, a log and a verdict of its own. Standard library only."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RESULT, LOG = "result.json", "job.log"
GRACE = 30.0
"""Seconds from the signal that ends a job to the SIGKILL for what is left of it."""
LEFTOVER = 5.0
"""Seconds that the other ranks of a job have after its first process is gone."""
TICK = 0.05


@dataclass
class Job:
    """One job; `status` goes from waiting over running to completed, failed or stopped.

    Completed takes both an exit code of 0 and a `result.json` that says so: a job that was killed, or that
    left early with exit code 0, has failed. `label` is what tells it from the others for a reader.
    """

    number: int
    overrides: list[str]
    folder: Path
    command: list[str]
    label: str = ""
    status: str = "waiting"
    error: str = ""
    seconds: float = 0.0
    result: dict[str, Any] = field(default_factory=dict)
    _process: "subprocess.Popen[bytes] | None" = None
    _started: float = 0.0
    _kill_at: float = math.inf
    _ended_by: str = ""
    _shown: int = 0

    def start(self, environment: dict[str, str]) -> None:
        """Start the process in a session of its own: a signal reaches all its ranks and no other job."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / LOG).open("wb") as log:
            self._process = subprocess.Popen(
                self.command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.status, self._started = "running", time.monotonic()

    def end(self, signum: int, cause: str) -> None:
        """Send a signal to all processes of the job; `SIGKILL` follows `GRACE` seconds after the first."""
        if not self._ended_by:
            self._ended_by, self._kill_at = cause, time.monotonic() + GRACE
        if self._process is not None:
            _signal_group(self._process.pid, signum)

    def ended(self, timeout: float | None) -> bool:
        """Whether the job is over, and judged; one that runs longer than `timeout` seconds is made to end."""
        assert self._process is not None
        self.seconds = time.monotonic() - self._started
        if (code := self._process.poll()) is not None:
            _clear_group(self._process.pid)
            self._judge(code)
            return True
        if time.monotonic() > self._kill_at:
            self.end(signal.SIGKILL, self._ended_by)
        elif timeout is not None and self.seconds > timeout and not self._ended_by:
            self.end(signal.SIGTERM, f"took longer than {timeout:g} s")
        return False

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
            "metrics": self.result.get("metrics", {}),
            "best": self.result.get("best", {}),
            "folder": str(self.folder),
        }

    def _judge(self, code: int) -> None:
        self.result = self._read_result()
        said = self.result.get("status")
        if code == 0 and said == "completed":
            self.status = "completed"
            return
        self.status = "stopped" if self._ended_by.startswith("stopped") else "failed"
        missing = f"{RESULT} says {said!r}" if said else f"no {RESULT}"
        reason = self.result.get("error") or (self._last_line() if code else "") or missing
        left = f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}, last line"
        self.error = self._ended_by or " ".join(f"{left}: {reason}".split())

    def _read_result(self) -> dict[str, Any]:
        try:
            result = json.loads((self.folder / RESULT).read_text())
        except (OSError, ValueError):
            return {}
        return result if isinstance(result, dict) else {}

    def _last_line(self) -> str:
        lines = (self.folder / LOG).read_text(errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _signal_group(group: int, signum: int) -> bool:
    """Whether the process group was there to receive the signal; signal 0 only asks."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signum)
        return True
    return False


def _clear_group(group: int) -> None:
    """Wait for the processes a job has left behind, then kill them: a hung rank would hold its device."""
    patience = time.monotonic() + LEFTOVER
    while _signal_group(group, 0):
        if time.monotonic() > patience:
            _signal_group(group, signal.SIGKILL)
            return
        time.sleep(TICK)
