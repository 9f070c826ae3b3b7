"""From an error to one line and an exit code.

0: done. 1: the run failed. 2: the user's mistake. 130: interrupted by Ctrl-C. 143, 129, 138, 140: interrupted by
SIGTERM, SIGHUP, SIGUSR1, SIGUSR2. 142: `trainer.max_time` was over. A job that Slurm has requeued keeps this code: its
run is not done.
"""

import logging
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from trainer.cli.environment import without_secrets
from trainer.cli.hydra_internals import RUN_JOB, hydra_raises
from trainer.cli.messages import RunFailed, one_line, user_error_message
from trainer.cli.streams import drop_unwritable, replace_unknown_characters, shown
from trainer.distributed.launch import signals
from trainer.distributed.launch.launcher import rank, started_by
from trainer.distributed.launch.requeue import requeue
from trainer.distributed.launch.restart_limit import RestartLimitReached, restart_limit_message
from trainer.files.plain import appended

DONE, FAILED, MISTAKE, INTERRUPTED = 0, 1, 2, 130
FULL_ERROR = "HYDRA_FULL_ERROR"
LONGEST = 500


def run_cli(main: Callable[[], object], trains: bool = False) -> int:
    """Run `main`, print an error in one line on stderr, and return the exit code.

    `HYDRA_FULL_ERROR=1` shows the traceback above that line and changes no code. A job that leaves through
    `sys.exit()` has failed: only one that returns is done. A command that `trains` goes on where nobody reads what it
    prints, as on a full disk.
    """
    replace_unknown_characters()
    drop_unwritable(pipes_only=not trains)
    if not trains:
        signals.end_cleanly()
    signals.reported()
    try:
        with hydra_raises():
            main()
    except KeyboardInterrupt:
        return _print("interrupted", INTERRUPTED)
    except SystemExit as leaving:
        return _exited(leaving)
    except Exception as error:
        ended = None if trains else _ended(error)
        return _exited(ended) if ended else _failed(error)
    finally:
        signals.ignore()
    return DONE


def _ended(error: BaseException | None) -> signals.Ended | None:
    """The signal behind an error: a library that it interrupts may fail while it cleans up."""
    while error is not None and not isinstance(error, signals.Ended):
        error = error.__cause__ or error.__context__
    return error


def _exited(leaving: SystemExit) -> int:
    """The code of `sys.exit(code)`; a job that exits without an error code has failed, too."""
    if isinstance(leaving.__context__, KeyboardInterrupt):
        return _print("interrupted", INTERRUPTED)
    if isinstance(leaving, signals.Ended):
        return _print(str(leaving), 128 + leaving.signum)
    if isinstance(leaving, signals.Interrupted):
        return _interrupted(leaving)
    if isinstance(leaving.code, str):
        return _print(one_line(leaving.code), FAILED)
    frames = traceback.extract_tb(leaving.__traceback__)
    if not leaving.code and any(frame.name in RUN_JOB for frame in frames):
        where = f"{frames[-1].filename}:{frames[-1].lineno}"
        return _print(f"the run left before its end through sys.exit({leaving.code}) at {where}", FAILED)
    return leaving.code or DONE


def _interrupted(by: signals.Interrupted) -> int:
    if rank() == 0 and (why := restart_limit_message(by.signum)):
        return _print(f"{by}; {why}", FAILED)
    logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.WARNING)  # it tells of its cache at exit
    became = requeue(by.signum) if rank() == 0 else ""
    return _print(f"{by}; {became or by.advice}", 128 + by.signum)


def _failed(error: Exception) -> int:
    if os.environ.get(FULL_ERROR) == "1":
        print(without_secrets("".join(traceback.format_exception(error))), file=sys.stderr)
    if isinstance(error, RunFailed | RestartLimitReached):
        return _print(str(error), FAILED)
    if line := user_error_message(error):
        return _print(
            line, MISTAKE, first=started_by() == "cadence"
        )  # rank 0, which started it, has not met this error
    text = without_secrets(one_line(f"{type(error).__name__}: {error}"))  # before it is cut
    folder = getattr(error, "run_folder", None)
    if folder is None or not Path(folder).is_dir():
        return _print(f"{text} (set {FULL_ERROR}=1 for the traceback)", FAILED)
    short, advice = text if len(text) <= LONGEST else f"{text[:LONGEST]} ...", getattr(error, "advice", "")
    path = Path(folder, "error.log")
    first = not path.exists()
    try:
        _append(path, error)
    except OSError as full:
        return _print(f"{short} (no traceback is kept: {full.strerror}: {path}){advice}", FAILED, first)
    return _print(f"{short} (traceback in {_relative(path)}){advice}", FAILED, first)


def _append(path: Path, error: Exception) -> None:
    text = without_secrets("".join(traceback.format_exception(error)))
    with appended(path) as log:
        log.write(f"rank {rank()}, {time.strftime('%Y-%m-%d %H:%M:%S')}\n{text}\n".encode(errors="replace"))


def _print(line: str, code: int, first: bool = False) -> int:
    """Print the line on rank 0; another rank prints only where it is the first to fail."""
    own, line = rank(), shown(without_secrets(line))
    if own == 0 or first:
        print(f"rank {own}: {line}" if own else line, file=sys.stderr, flush=True)
    return code


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
