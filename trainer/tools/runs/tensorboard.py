"""TensorBoard of several runs, each named by the settings that it does not share with the others."""

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from trainer.lr import ConfigError
from trainer.tools.runs.listed import ListedRun, list_runs
from trainer.tools.runs.table import count_runs, cut, distinct_settings, one_line

LONGEST = 60
"""The most characters of a name: its bytes, at most four for each, are within the 255 that a file system takes."""


def open_tensorboard(folders: Sequence[Path], port: int | None = None) -> list[str]:
    """Show the runs below the folders until TensorBoard ends; nothing is written into them.

    TensorBoard names a run by its folder, so it is given a temporary one, with a link for each run.

    Raises:
        ConfigError: no run has a TensorBoard log, or TensorBoard cannot show them.
    """
    runs = [run for run in list_runs(folders) if any(run.folder.glob("events.out.tfevents.*"))]
    if not runs:
        raise ConfigError("no run in these folders has a TensorBoard log: train with logger=tensorboard.")
    with tempfile.TemporaryDirectory(prefix="cadence-") as place:
        for run, name in zip(runs, names_of(runs)):
            Path(place, name).symlink_to(run.folder.resolve(), target_is_directory=True)
        given = ["--logdir", place, *([] if port is None else ["--port", str(port)])]
        print(f"{count_runs(len(runs))}, named by what differs; Ctrl-C ends TensorBoard", flush=True)
        try:
            code = subprocess.call([sys.executable, "-m", "tensorboard.main", *given])
        except KeyboardInterrupt:
            return []
    if code:
        raise ConfigError(f"TensorBoard ended with code {code}: see its lines above.")
    return []


def names_of(runs: Sequence[ListedRun]) -> list[str]:
    """A name for each run that a folder can have; all have a number and their run's name where two would be alike."""
    settings = distinct_settings(runs)
    names = [_as_name(words) for words in settings]
    if len({*names, ""}) > len(names):
        return names
    return [_as_name(f"{i} {run.name} {words}") for i, (run, words) in enumerate(zip(runs, settings))]


def _as_name(text: str) -> str:
    return cut(re.sub(r"^\.+|[/\\\0]", "_", one_line(text)), LONGEST)
