"""From an error to one line and an exit code.

0: done. 1: the run failed. 2: the user's mistake. 130: stopped by Ctrl-C. 143, 138, 140: stopped by SIGTERM,
SIGUSR1, SIGUSR2. Whether Slurm has requeued the job is told, and changes no code: what is not done is no success.
"""

import os
import sys
import time
import traceback
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra._internal.utils
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import ConfigCompositionException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig

from trainer.cli.command import check_launcher
from trainer.cli.messages import mistake, one_line
from trainer.distributed.launch import signals
from trainer.distributed.launch.launched import launcher, rank
from trainer.distributed.launch.requeue import requeue
from trainer.distributed.launch.restart_limit import RestartLimitReached, futile
from trainer.lr import ConfigError
from trainer.sweep.summary import SweepFailed

DONE, FAILED, MISTAKE, INTERRUPTED = 0, 1, 2, 130
FULL_ERROR = "HYDRA_FULL_ERROR"
LONGEST = 500


def guarded(main: Callable[[], object]) -> int:
    """Run `main` and return the exit code; what went wrong is told in one line on stderr.

    `HYDRA_FULL_ERROR=1` shows the traceback above that line and changes no code. Leaving a job through
    `sys.exit()` is no success: only a job that returns is done.
    """
    try:
        with _hydra_raises():
            main()
    except KeyboardInterrupt:
        return _tell("interrupted", INTERRUPTED)
    except SystemExit as leaving:
        return _left(leaving)
    except Exception as error:
        return _failed(error)
    finally:
        signals.leave()
    return DONE


@contextmanager
def _hydra_raises() -> Iterator[None]:
    """Let Hydra raise what it would otherwise print over several lines and turn into exit code 1."""
    report, returned, misread = hydra._internal.utils.run_and_report, JobReturn.return_value, ArgumentParser.error
    instantiate = Plugins.instantiate_launcher
    hydra._internal.utils.run_and_report = _composed
    ArgumentParser.error = _misread  # type: ignore[method-assign,assignment]
    JobReturn.return_value = returned.getter(_return_value)  # type: ignore[method-assign,attr-defined]
    Plugins.instantiate_launcher = _launcher(instantiate)  # type: ignore[method-assign]
    try:
        yield
    finally:
        hydra._internal.utils.run_and_report = report
        ArgumentParser.error = misread  # type: ignore[method-assign]
        JobReturn.return_value = returned  # type: ignore[method-assign]
        Plugins.instantiate_launcher = instantiate  # type: ignore[method-assign]


def _launcher(instantiate: Callable[..., Launcher]) -> Callable[..., Launcher]:
    """Check what would launch the jobs of a sweep before it is made."""

    def checked(plugins: Plugins, hydra_context: HydraContext, task_function: Any, config: DictConfig) -> Launcher:
        check_launcher(config.hydra.launcher)
        return instantiate(plugins, hydra_context, task_function, config)

    return checked


def _composed(func: Callable[[], Any]) -> Any:
    """Run a part of Hydra; an error before the job has begun is marked, and told the groups of the config."""
    try:
        return func()
    except (ConfigCompositionException, ValueError, TypeError, OSError) as error:
        if not hasattr(error, "run_folder") and isinstance(app := GlobalHydra.instance().hydra, Hydra):
            groups = [name for name in app.list_all_config_groups() if not name.startswith("hydra")]
            error.groups = groups  # type: ignore[union-attr]
        raise


def _misread(parser: ArgumentParser, message: str) -> None:
    raise ConfigError(f"{message}: flags come first, then all settings together; --help shows both.")


def _return_value(job: JobReturn) -> Any:
    if job.status is JobStatus.COMPLETED:
        return job._return_value
    if job.hydra_cfg is not None:
        job._return_value.run_folder = job.hydra_cfg.hydra.runtime.output_dir
    raise job._return_value


def _left(leaving: SystemExit) -> int:
    """The code of `sys.exit(code)`; inside a job, leaving without an error code counts as a failure."""
    if isinstance(leaving.__context__, KeyboardInterrupt):
        return _tell("interrupted", INTERRUPTED)
    if isinstance(leaving, signals.Stopped):
        return _stopped(leaving)
    if isinstance(leaving.code, str):
        return _tell(one_line(leaving.code), FAILED)
    frames = traceback.extract_tb(leaving.__traceback__)
    if not leaving.code and any(frame.name == "run_job" for frame in frames):
        where = f"{frames[-1].filename}:{frames[-1].lineno}"
        return _tell(f"the run left before its end through sys.exit({leaving.code}) at {where}", FAILED)
    return leaving.code or DONE


def _stopped(stopped: signals.Stopped) -> int:
    if rank() == 0 and (why := futile(stopped.signum)):
        return _tell(f"{stopped}; {why}", FAILED)
    became = requeue(stopped.signum) if rank() == 0 else ""
    return _tell(f"{stopped}; {became or 'go on with resume=auto'}", 128 + stopped.signum)


def _failed(error: Exception) -> int:
    if os.environ.get(FULL_ERROR) == "1":
        traceback.print_exception(error)
    if isinstance(error, SweepFailed | RestartLimitReached):
        return _tell(str(error), FAILED)
    if told := mistake(error):
        child = "RANK" not in os.environ and launcher() is None  # of rank 0: it meets what rank 0 did not
        return _tell(told, MISTAKE, first=child)
    text = one_line(f"{type(error).__name__}: {error}")
    folder = getattr(error, "run_folder", None)
    if folder is None or not Path(folder).is_dir():
        return _tell(f"{text} (set {FULL_ERROR}=1 for the traceback)", FAILED)
    short = text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
    path = Path(folder, "error.log")
    first = not path.exists()
    _append(path, error)
    return _tell(f"{short} (traceback in {_near(path)})", FAILED, first)


def _append(path: Path, error: Exception) -> None:
    with path.open("a") as log:
        log.write(f"rank {rank()}, {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        log.writelines(traceback.format_exception(error))
        log.write("\n")


def _tell(line: str, code: int, first: bool = False) -> int:
    """Print the line on rank 0; another rank speaks only where it is the first to fail."""
    own = rank()
    if own == 0 or first:
        print(f"rank {own}: {line}" if own else line, file=sys.stderr, flush=True)
    return code


def _near(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
