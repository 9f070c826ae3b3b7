"""Saves that fail: one line with the reason of the system, and nothing that was saved before is lost."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.cli.messages import RunFailed


class SaveFailed(RunFailed):
    """A checkpoint, or another file that a run is for, could not be written."""


@contextmanager
def telling_why(path: Path) -> Iterator[None]:
    """Turn an error of the system while `path` is written into `SaveFailed`.

    torch hides it behind an assertion about its position in the file.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        if (cause := _of_system(error)) is None:
            raise
        reason = os.strerror(cause.errno) if cause.errno else str(cause)
        found = sorted([*path.parent.glob("update-*.ckpt"), *path.parent.glob("checkpoints/update-*.ckpt")])
        newest = f"the newest checkpoint is {found[-1].name}" if found else "there is no earlier checkpoint"
        raise SaveFailed(
            f"{path} could not be saved: {reason}; {newest}. Correct that, then go on with resume=auto."
        ) from error


def _of_system(error: BaseException | None) -> OSError | None:
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


class RunFolder:
    """The folder of a run as it was when training began: what is removed or moved meanwhile is not made anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: os.stat_result | None = None

    def begin(self) -> None:
        """Make the folder, if there is none, and remember it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._known = self.folder.stat()

    @property
    def is_lost(self) -> bool:
        """Whether another folder, or none, has taken its place."""
        try:
            return self._known is not None and not os.path.samestat(self.folder.stat(), self._known)
        except OSError:
            return True

    def check(self) -> None:
        """Raise `SaveFailed` where the folder is lost."""
        if self.is_lost:
            raise SaveFailed(
                f"{self.folder} is gone: it was removed or moved while the run trained, and nothing can be saved there."
            )
