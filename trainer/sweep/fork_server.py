"""The warm parent of a sweep's jobs: a process that has imported what all need, and forks each of them.

It does nothing else: it runs no thread, opens no device and reads no config, so that a fork of it is as good as a fresh
interpreter. A job is the leader of a session with an environment, a log and an exit code of its own, like any other.
"""

import gc
import importlib
import json
import os
import select
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainer.cli.command import run_program

HEAVY = ("hydra", "rich.table", "torch", "pytorch_lightning", "trainer.run", "trainer.log.tensorboard")
TICK = 0.02


def main() -> None:
    """Import, say whether a fork is safe, then fork for each line on stdin until it ends."""
    out = os.dup(1)
    os.dup2(2, 1)  # what an import prints is no answer
    asked = json.loads(_line())
    sys.path[:] = asked["path"]
    for name in HEAVY:
        importlib.import_module(name)
    for name in asked["modules"]:
        with suppress(ImportError):  # the job says so
            importlib.import_module(name)
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)  # it goes when its driver does
    _say(out, refused=unsafe())
    gc.freeze()
    job = _serve(out)
    os.close(out)
    if job is not None:
        _become(job)


def unsafe() -> str:
    """Why this process must not be forked; empty where it may."""
    threads = len(list(Path("/proc/self/task").iterdir())) if Path("/proc/self/task").exists() else 2
    if threads > 1:
        return f"an import has started {threads - 1} threads"
    torch: Any = sys.modules["torch"]
    return "an import has opened a CUDA device" if torch.cuda.is_initialized() else ""


def _serve(out: int) -> dict[str, Any] | None:
    """Fork for each request, and tell the end of each job; in a job, its request. None: the driver has gone."""
    buffer, running = b"", 0
    while True:
        if select.select([0], [], [], TICK if running else None)[0]:
            if not (fresh := os.read(0, 65536)):
                return None
            *lines, buffer = (buffer + fresh).split(b"\n")
            for line in lines:
                if (pid := _forked()) == 0:
                    return dict(json.loads(line))
                running += 1
                _say(out, started=pid)
        while running and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            running -= 1
            _say(out, pid=ended[0], code=os.waitstatus_to_exitcode(ended[1]))


def _forked() -> int:
    """Fork; the child leads a session of its own before its parent goes on."""
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        os.setsid()
        os.close(reader)
    os.close(writer)
    if pid:
        os.read(reader, 1)
        os.close(reader)
    return pid


def _line() -> bytes:
    """The first line on stdin, and nothing beyond it."""
    read = b""
    while not read.endswith(b"\n") and (one := os.read(0, 1)):
        read += one
    return read


def _say(out: int, **what: Any) -> None:
    os.write(out, json.dumps(what).encode() + b"\n")


def _become(job: dict[str, Any]) -> None:
    """Run the program of the job as a fresh interpreter would."""
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log = os.open(job["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for here, there in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(here, there)
    os.close(log)
    os.close(nothing)
    sys.stdout.reconfigure(line_buffering=True, write_through=True)  # type: ignore[union-attr]
    os.environ.clear()
    os.environ.update(job["environment"])
    if threads := job["environment"].get("OMP_NUM_THREADS", ""):
        torch: Any = sys.modules["torch"]
        torch.set_num_threads(int(threads))  # the variable is read at the import only
    run_program(job["words"])
