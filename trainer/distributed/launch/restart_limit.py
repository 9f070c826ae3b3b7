"""A Slurm job that is started again and again and makes no update: it is given up. Standard library only.

Each start of a run notes in its folder which checkpoint it has found, and at which start of the job that one was found
first. After `trainer.max_idle_restarts` starts with the same one the job fails in one line, and is not requeued.
"""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.distributed.launch.launched import rank
from trainer.distributed.launch.requeue import NO_REQUEUE, PARENT, wanted
from trainer.distributed.launch.signals import SIGNALS, Stopped

if TYPE_CHECKING:
    from trainer.checkpoint.checkpointing import Checkpointing

RECORD = ".starts"

_begun: list[Path] = []


class RestartLimitReached(RuntimeError):
    """A Slurm job that gets nowhere, and is not requeued."""


def begin(folder: Path, most: int | None) -> None:
    """On rank 0, note this start in `folder`. Raises `RestartLimitReached` after `most` (None: any) in vain."""
    _begun.append(folder)
    job = os.environ.get("SLURM_JOB_ID")
    if job is None or (os.environ.get(NO_REQUEUE) or PARENT) != PARENT or rank():
        return
    found, before = _newest(folder), _record(folder)
    same = (before.get("job"), before.get("checkpoint")) == (job, found)
    since = before.get("since", 0) if same else _restarts()
    folder.mkdir(parents=True, exist_ok=True)
    told = {"job": job, "checkpoint": found, "since": since, "most": most}
    (folder / RECORD).write_text(json.dumps(told) + "\n", encoding="utf-8")
    if most is not None and _restarts() - since >= most:
        raise RestartLimitReached(_words(job, _restarts() - since, found))


def futile(signum: int) -> str:
    """Why Slurm shall not start this job again, which a signal has stopped; empty where it may, or would not anyway."""
    if not wanted(signum):
        return ""
    job = os.environ["SLURM_JOB_ID"]
    if not _begun:
        early = f"Slurm job {job} is given up: its time was up before the run had begun"
        return f"{early}: give it more (sbatch --time), or a shorter lead (--signal)" if signum in SIGNALS[1:] else ""
    record, found = _record(_begun[-1]), _newest(_begun[-1])
    starts = _restarts() + 1 - record.get("since", 0)
    if not record or record["most"] is None or record["checkpoint"] != found or starts < record["most"]:
        return ""
    return _words(job, starts, found)


def settled(cause: BaseException, checkpointing: "Checkpointing") -> BaseException:
    """The error a run ends with, the same on all ranks: `RestartLimitReached` where its job is given up."""
    if not isinstance(cause, Stopped) or not checkpointing.halt.shared(lambda: bool(futile(cause.signum))):
        return cause
    checkpointing.stopped_by = 0  # so that nobody asks Slurm
    return RestartLimitReached(futile(cause.signum))


def _words(job: str, starts: int, found: str) -> str:
    made = f"no update beyond {int(Path(found).stem.rpartition('-')[2])}" if found else "no update"
    return (
        f"Slurm job {job} is given up: {starts} starts in a row have made {made}: give it more time (sbatch --time), "
        f"or raise trainer.max_idle_restarts={starts}"
    )


def _newest(folder: Path) -> str:
    """The name of the newest checkpoint, which is another one after each update that is kept."""
    return max((path.name for path in (folder / "checkpoints").glob("update-*.ckpt")), default="")


def _restarts() -> int:
    """How often Slurm has started this job again."""
    told = os.environ.get("SLURM_RESTART_COUNT", "")
    return int(told) if told.isdigit() else 0


def _record(folder: Path) -> dict[str, Any]:
    """What the last start has noted; nothing where there was none, or it was killed as it wrote."""
    try:
        told = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}
