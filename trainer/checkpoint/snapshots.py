"""A run as it was after an update, kept whole for runs of other lengths to branch off. Standard library only.

`checkpoints/at-N` holds the checkpoint after update N, the best one by then, and the run's records up to there.
"""

import os
import shutil
from pathlib import Path

from trainer.log.validations import VALIDATIONS

EVENTS = "events.out.tfevents.*"


def point(folder: Path, update: int) -> Path:
    """The checkpoint that is kept in a folder of checkpoints after `update` updates; the last of its folder to be."""
    return folder / f"at-{update:08d}" / f"update-{update:08d}.ckpt"


def begun(run: Path) -> bool:
    """Whether a run has a checkpoint of its own to go on from."""
    return any((run / "checkpoints").glob("update-*.ckpt"))


def leave(run: Path, there: Path, best: Path | None) -> None:
    """Put the records of a run, as they are now, and its best checkpoint so far in the folder `there`."""
    there.mkdir(parents=True, exist_ok=True)
    for record in _records(run):
        _copy(record, there / record.name)
    if best is None:
        (there / "best.ckpt").unlink(missing_ok=True)
    else:
        _copy(best, there / best.name, link=True)


def take(checkpoint: Path, run: Path) -> None:
    """Begin the records of a run with those that lie beside the checkpoint that it branches off, if any do."""
    if checkpoint.parent.name.startswith("at-"):
        run.mkdir(parents=True, exist_ok=True)
        for record in _records(checkpoint.parent):
            if not (run / record.name).exists():
                _copy(record, run / record.name)


def _records(folder: Path) -> list[Path]:
    return [*sorted(folder.glob(EVENTS)), *folder.glob(VALIDATIONS)]


def _copy(source: Path, target: Path, link: bool = False) -> None:
    """Replace `target` at once; a `link` serves for a file that is only ever replaced, where the disk has links."""
    aside = target.with_name(f".{target.name}")
    aside.unlink(missing_ok=True)
    try:
        (os.link if link else shutil.copyfile)(source, aside)
    except OSError:
        if not link:
            raise
        shutil.copyfile(source, aside)
    aside.replace(target)
