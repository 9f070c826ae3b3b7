"""The folder of a command that is refused: it is removed again, where the command has made it and nothing is in it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from omegaconf import OmegaConf

from trainer.cli.dry_run import is_dry_run
from trainer.cli.messages import user_error_message
from trainer.distributed.launch.folder_lock import FolderLock, missing_folders, remove_empty

BEFORE_UPDATES = ("config.yaml", "overrides.yaml", "plan.json", ".job", ".starts", "events.out.tfevents*")
"""What a run writes into its folder before its first update."""


def refused(error: BaseException | None) -> bool:
    """Whether an error is the user's mistake, or has ended the command as a signal does: no traceback is kept of it."""
    return error is not None and (not isinstance(error, Exception) or user_error_message(error) is not None)


@contextmanager
def removed_where_refused(folder: Path, also: Sequence[str] = ()) -> Iterator[None]:
    """Remove the folder at the end where it is new, the command is refused, and no other file than `also` is in it."""
    new = missing_folders(folder)
    try:
        yield
    except BaseException as error:
        if new and refused(error):
            if folder.is_dir() and {path.name for path in folder.iterdir()} <= set(also):
                _remove(folder, also)
            remove_empty(new)
        raise


@contextmanager
def emptied_where_refused(lock: FolderLock) -> Iterator[None]:
    """Remove what a run has written into a folder that was empty, where it is refused before its first update."""
    try:
        yield
    except Exception as error:
        folder = lock.folder
        kept = any((folder / name).exists() for name in ("result.json", "error.log")) or any(
            folder.glob("checkpoints/*")
        )
        if lock.fresh and refused(error) and not kept:
            _remove(folder, BEFORE_UPDATES)
            remove_empty([folder / "checkpoints"])
        raise


def run_job_in_new_folder(run_job: Callable[..., JobReturn]) -> Callable[..., JobReturn]:
    """Hydra's `run_job`, which makes the folder of a run before the task can be refused."""

    def run(*arguments: Any, **named: Any) -> JobReturn:
        before = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(named["config"])
        try:
            new = missing_folders(Path(str(OmegaConf.select(named["config"], named["job_dir_key"]))).absolute())
        finally:
            HydraConfig.instance().cfg = before
        error: BaseException | None = None
        try:
            done = run_job(*arguments, **named)
            error = done._return_value if isinstance(done._return_value, Exception) else None
            return done
        except BaseException as raised:
            error = raised
            raise
        finally:
            if refused(error) or is_dry_run():
                remove_empty(new)

    return run


def _remove(folder: Path, patterns: Sequence[str]) -> None:
    for path in [path for pattern in patterns for path in folder.glob(pattern)]:
        path.unlink(missing_ok=True)
