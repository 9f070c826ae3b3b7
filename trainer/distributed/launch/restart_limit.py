"""Gives up a Slurm job that is started again and again and makes no update. Standard library only.

Each start of a run writes into its folder which checkpoint it found, and which start of the job found this one first.
After `trainer.max_idle_restarts` starts that found the same checkpoint the job fails with one line, and is not
requeued.
"""

import json
import os
from pathlib import Path

from trainer.distributed.launch.launcher import rank
from trainer.distributed.launch.requeue import NEARLY_UP, requeue_allowed, wanted
from trainer.files.atomic import write_text
from trainer.files.plain import read_record

RECORD = ".starts"

_folders: list[Path] = []


class RestartLimitReached(RuntimeError):
    """A Slurm job makes no progress, and is not requeued."""


def record_start(folder: Path, limit: int | None) -> None:
    """Record this start in `folder`, on rank 0.

    Raises:
        RestartLimitReached: `limit` starts in a row made no update; None sets no limit.
    """
    _folders.append(folder)
    if not requeue_allowed() or rank():
        return
    job, found, before = os.environ["SLURM_JOB_ID"], _newest(folder), read_record(folder / RECORD)
    same = (before.get("job"), before.get("checkpoint")) == (job, found)
    since = before.get("since", 0) if same else _restarts()
    record = {"job": job, "checkpoint": found, "since": since, "most": limit}
    write_text(folder / RECORD, json.dumps(record) + "\n")
    if limit is not None and _restarts() - since >= limit:
        raise RestartLimitReached(_message(job, _restarts() - since, found))


def restart_limit_message(signum: int) -> str:
    """Why Slurm must not start this job again after this signal; empty where it may, or would not do so anyway."""
    if not wanted(signum):
        return ""
    job = os.environ["SLURM_JOB_ID"]
    if not _folders:
        early = f"Slurm job {job} is given up: its time was up before the run had begun"
        return f"{early}: give it more (sbatch --time), or a shorter lead (--signal)" if signum in NEARLY_UP else ""
    record, found = read_record(_folders[-1] / RECORD), _newest(_folders[-1])
    starts = _restarts() + 1 - record.get("since", 0)
    if not record or record["most"] is None or record["checkpoint"] != found or starts < record["most"]:
        return ""
    return _message(job, starts, found)


def _message(job: str, starts: int, found: str) -> str:
    made = f"no update beyond {int(Path(found).stem.rpartition('-')[2])}" if found else "no update"
    return (
        f"Slurm job {job} is given up: {starts} starts in a row have made {made}: give it more time (sbatch --time), "
        f"or raise trainer.max_idle_restarts={starts}"
    )


def _newest(folder: Path) -> str:
    """The name of the newest checkpoint; each saved update has a name of its own."""
    return max((path.name for path in (folder / "checkpoints").glob("update-*.ckpt")), default="")


def _restarts() -> int:
    """How often Slurm has started this job again."""
    count = os.environ.get("SLURM_RESTART_COUNT", "")
    return int(count) if count.isdigit() else 0
