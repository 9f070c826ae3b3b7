"""Jobs that are forked from a process which has imported torch and Lightning: no job imports them again.

The process is the fork server of the standard library, with `trainer.sweep.preload` preloaded. A job is the leader of
a session, with an environment, a log and an exit code of its own, like one in a fresh interpreter.
"""

import atexit
import multiprocessing
import os
import signal
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from trainer.cli.command import run_program
from trainer.files.process import process_runs
from trainer.lr import ConfigError
from trainer.sweep.spawn import GroupLeader, Process, fresh

PRELOAD = "trainer.sweep.preload"
MODULES = "CADENCE_PRELOAD"
"""The variable that names the modules which the fork server imports."""
HEAVY = ("hydra", "rich.table", "torch", "pytorch_lightning", "trainer.run", "trainer.log.tensorboard")
NO_THREADS = {"OPENBLAS_NUM_THREADS": "1", "CUDA_MODULE_LOADING": "LAZY"}
"""Environment variables that keep imports from starting threads."""
UNKNOWN = 255
"""The exit code that the standard library reports where the fork server died before the job."""


class ForkServer:
    """Forks jobs; the fork server starts with the first one. `modules`: what it imports beside torch and Lightning."""

    def __init__(self, modules: Sequence[str]) -> None:
        self.modules = modules
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([PRELOAD])

    def __call__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> Process:
        """Fork a job; where the fork server cannot start, use a fresh interpreter.

        Raises:
            ConfigError: a fork would not be safe.
        """
        interpreter, *arguments = command
        if interpreter != sys.executable or (arguments[0].startswith("-") and arguments[0] != "-m"):
            return fresh(command, environment, log)
        reader, writer = self._context.Pipe(duplex=False)
        process = self._context.Process(target=run_job, args=(writer, arguments, dict(environment), str(log)))
        try:
            with self._environment(), _without_main():
                process.start()
            writer.close()
            refused = reader.recv()
        except (EOFError, OSError):
            print("the fork server has died: this job starts in a fresh interpreter", file=sys.stderr, flush=True)
            return fresh(command, environment, log)
        finally:
            reader.close()
        if refused:
            raise ConfigError(f"hydra.launcher.fork=true: {refused}, and a fork would not be safe: leave fork out")
        return ForkedProcess(process)

    @contextmanager
    def _environment(self) -> Iterator[None]:
        """The environment in which the fork server starts; it finds the same modules as this process."""
        before = dict(os.environ)
        path = os.pathsep.join(filter(None, sys.path))
        names = " ".join([*HEAVY, *self.modules])
        os.environ.update(NO_THREADS, PYTHONPATH=path, PYTHONSAFEPATH="1", **{MODULES: names})
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


class ForkedProcess(GroupLeader):
    """A job that the fork server has forked."""

    def __init__(self, process: Any) -> None:
        self.pid, self._process = process.pid, process

    def poll(self) -> int | None:
        """The exit code, once the job has ended; `UNKNOWN` where the fork server was killed before."""
        code: int | None = self._process.exitcode
        if code != UNKNOWN or not process_runs(self._process.ident):
            return code
        return None


def run_job(ready: Connection, arguments: list[str], environment: dict[str, str], log: str) -> None:
    """In the forked process: lead a session, then run the program as a fresh interpreter would."""
    os.setsid()
    refused = sys.modules[PRELOAD].REFUSED
    ready.send(refused)
    ready.close()
    if refused:
        return
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _redirect(log)
    os.environ.clear()
    os.environ.update(environment)
    multiprocessing.set_start_method(None, force=True)  # data loader workers start by the default method
    threads = environment.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # OpenMP takes a list, by level
    if threads.isdecimal() and int(threads):
        sys.modules["torch"].set_num_threads(int(threads))  # the variable is read at the import only
    try:
        run_program(arguments)
    finally:
        atexit._run_exitfuncs()  # `multiprocessing` itself does not call them


def why_not_fork() -> str:
    """Why this process must not be forked; empty where it may be."""
    threads = len(list(Path("/proc/self/task").iterdir())) if Path("/proc/self/task").exists() else 2
    if threads > 1:
        return f"an import has started {threads - 1} threads"
    torch: Any = sys.modules["torch"]
    return "an import has opened a CUDA device" if torch.cuda.is_initialized() else ""


def modules_of(config: Any) -> list[str]:
    """The modules of this project that the `_target_`s of a config name; most jobs need them."""
    if isinstance(config, dict):
        own = str(config.get("_target_", "")).rpartition(".")[0]
        found = {own} if own.split(".")[0] in ("trainer", "models", "data") else set()
        return sorted(found.union(*(modules_of(inner) for inner in config.values())))
    return sorted(set().union(*(modules_of(inner) for inner in config))) if isinstance(config, list) else []


def _redirect(log: str) -> None:
    """Read from /dev/null; write output and errors to the log."""
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (file, 1), (file, 2)):
        os.dup2(source, target)
    os.close(file)
    os.close(nothing)
    sys.stdout.reconfigure(line_buffering=True, write_through=True)  # type: ignore[union-attr]


@contextmanager
def _without_main() -> Iterator[None]:
    """Keep `multiprocessing` from running this program's script in the forked process, which runs that of the job."""
    before = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = before
