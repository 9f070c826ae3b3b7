"""Checkpoints as files: written aside and renamed, plain containers only, read without running code."""

import os
import re
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO

from trainer.lr import ConfigError

BEST = "best.ckpt"
_NUMBERED = re.compile(r"update-(\d+)\.ckpt")


class AtomicCheckpointIO(CheckpointIO):
    """Saves to a temporary file in the same folder, syncs it and renames it: a file under its name is whole."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with aside.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
        _sync_folder(path.parent)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        return read(path)

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


def read(path: str | Path) -> dict[str, Any]:
    """A checkpoint on the CPU, as plain containers; refused where it is not one of ours."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        why = "it is damaged, or holds more than plain data"
        raise ConfigError(f"resume.path={path} is not a checkpoint that can be read: {why}. Name another.") from error
    if not isinstance(checkpoint, dict) or "cadence" not in checkpoint:
        raise ConfigError(f"resume.path={path} was not written by this framework: it has no clock. Name another.")
    return checkpoint


def numbered(folder: Path, update: int) -> Path:
    """Where the checkpoint after `update` updates is kept."""
    return folder / f"update-{update:08d}.ckpt"


def history(folder: Path) -> list[Path]:
    """The numbered checkpoints of a folder, the oldest first; by their number, never by a file's time."""
    found = {int(match[1]): path for path in folder.glob("*.ckpt") if (match := _NUMBERED.fullmatch(path.name))}
    return [found[update] for update in sorted(found)]


def _sync_folder(folder: Path) -> None:
    """Make the renames in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
