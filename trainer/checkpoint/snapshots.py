"""Snapshots: a run as it was after an update, kept for runs of other lengths to start from. Standard library only.

`checkpoints/at-N` holds the checkpoint after update N, the best one so far, and the run's records up to there.
"""

import os
import shutil
from pathlib import Path

from trainer.files.atomic import remove_orphans, replaced
from trainer.log.validations import VALIDATIONS

EVENTS = "events.out.tfevents.*"


def snapshot_path(folder: Path, update: int) -> Path:
    """The checkpoint of the snapshot after `update` updates in a folder of checkpoints; its file is written last."""
    return folder / f"at-{update:08d}" / f"update-{update:08d}.ckpt"


def has_checkpoint(run: Path) -> bool:
    """Whether a run has a checkpoint of its own to go on from."""
    return any((run / "checkpoints").glob("update-*.ckpt"))


def remove_orphans_of(run: Path, owned: bool = False) -> None:
    """Remove what killed processes have left in a run's folder; `owned`: nobody else may write there."""
    for folder in (run, run / "checkpoints", *run.glob("checkpoints/at-*")):
        remove_orphans(folder, owned)


def save_records(run: Path, folder: Path, best: Path | None) -> None:
    """Copy the records of a run, as they are now, and its best checkpoint so far into the folder of a snapshot."""
    folder.mkdir(parents=True, exist_ok=True)
    for record in _records(run):
        _copy(record, folder / record.name)
    if best is None:
        (folder / "best.ckpt").unlink(missing_ok=True)
    else:
        _copy(best, folder / best.name, link=True)


def restore_records(checkpoint: Path, run: Path) -> None:
    """Copy the records of a snapshot into the run that starts from it, if `checkpoint` is that of a snapshot."""
    if checkpoint.parent.name.startswith("at-"):
        run.mkdir(parents=True, exist_ok=True)
        for record in _records(checkpoint.parent):
            if not (run / record.name).exists():
                _copy(record, run / record.name)


def _records(folder: Path) -> list[Path]:
    return [*sorted(folder.glob(EVENTS)), *folder.glob(VALIDATIONS)]


def _copy(source: Path, target: Path, link: bool = False) -> None:
    """Replace `target` at once. A file that is only ever replaced may be linked, where the disk has links."""
    with replaced(target) as temporary:
        try:
            (os.link if link else shutil.copyfile)(source, temporary)
        except OSError:
            if not link:
                raise
            shutil.copyfile(source, temporary)
