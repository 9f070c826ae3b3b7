"""Removes the folders of runs and sweeps: never one that holds no run, and never one whose run goes on."""

import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from trainer.distributed.launch.folder_lock import FolderLock, is_held
from trainer.lr import ConfigError
from trainer.tools.run_folders import CONFIG, PLAN, RESULT, STATES, SWEEP, Record, find_folders, read_tree
from trainer.tools.runs.listed import ListedRun, list_runs
from trainer.tools.runs.table import count_runs, format_bytes, one_line


def remove(folders: Sequence[Path], sure: bool = False) -> list[str]:
    """Remove the folders with all that is in them, and return the lines about it. Asks on a terminal unless `sure`.

    Raises:
        ConfigError: one of them may not be removed (then none is), or there is no terminal to ask on.
    """
    runs = {folder: check_removable(folder) for folder in dict.fromkeys(folders)}
    count, size = sum(map(len, runs.values())), sum(run.size for each in runs.values() for run in each)
    what = f"{', '.join(one_line(str(folder)) for folder in runs)} ({count_runs(count)}, {format_bytes(size)})"
    if not sure and not _agreed(what):
        return ["nothing was removed"]
    with ExitStack() as locks:
        for folder, each in runs.items():
            for place in dict.fromkeys([*(run.folder for run in each if run.folder.is_dir()), folder]):
                lock = locks.enter_context(FolderLock(place))
                lock.acquire(wait=False)
        for folder in runs:
            _remove_folder(folder)
    return [f"removed {what}"]


def check_removable(folder: Path) -> list[ListedRun]:
    """The runs in a folder, which may be removed.

    Raises:
        ConfigError: it may not be.
    """
    if folder.is_symlink():
        raise ConfigError(f"{folder} is a link: give the folder that it leads to.")
    find_folders(folder)
    inside = [one for one in (Path.cwd(), Path.home()) if one.resolve().is_relative_to(folder.resolve())]
    if inside:
        raise ConfigError(f"{folder} is not removed: the folder {inside[0]} lies in it: go elsewhere.")
    if not _is_of_run(folder):
        raise ConfigError(
            f"{folder} is not the folder of a run, a sweep or a tune, though runs lie below it: name each, as "
            f"{folder / 'NAME'}."
        )
    runs = list_runs([folder])
    for place in dict.fromkeys([folder, *(run.folder for run in runs), folder.absolute().parent]):
        if is_held(place, ranks=True):
            raise ConfigError(f"{folder} is not removed: a run or sweep in {place} still goes on: wait for its end.")
    for place in (folder, folder.absolute().parent):
        if not os.access(place, os.W_OK):
            raise ConfigError(f"{folder} is not removed: {place} cannot be written: ask who owns it.")
    return runs


def _is_of_run(folder: Path) -> bool:
    """Whether the files in a folder are those of a run, a sweep or a tune; a config.yaml alone may be anything's."""
    result: Record = read_tree(folder / RESULT) or {}
    plan: Record = read_tree(folder / PLAN) or {}
    jobs = (read_tree(folder / SWEEP) or {}).get("jobs")
    written = (folder / CONFIG).exists() and (folder / "overrides.yaml").exists()
    tuned = "budget" in (read_tree(folder / "command.json") or {})
    return written or tuned or result.get("status") in STATES or "total_updates" in plan or isinstance(jobs, list)


def _agreed(what: str) -> bool:
    """Whether the person at the terminal agrees."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError(f"remove {what}? There is no terminal to ask on: add --yes.")
    try:
        print(f"remove {what}? [y/N] ", end="", flush=True)
        return input().strip().lower() in ("y", "yes")
    except EOFError:
        print()
        return False


def _remove_folder(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except OSError as error:
        where = os.fspath(error.filename) if isinstance(error.filename, str) else folder
        raise ConfigError(f"{where} cannot be removed ({error.strerror}): a part of {folder} is left.") from error
