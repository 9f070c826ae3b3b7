"""A sweep that goes on where it stopped: whose folder it is, what it was, and which of its jobs are completed."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from trainer.lr import ConfigError
from trainer.sweep.job import RESULT, Job
from trainer.sweep.summary import SUMMARY
from trainer.sweep.watchdog import alone

OF_THE_RESUME = ("resume", "resume.path")


@contextmanager
def owned(root: Path) -> Iterator[list[int]]:
    """Hold the folder of a sweep against another; the open files that hold it, if its file system can.

    Who inherits them holds it too: the jobs of a driver that was killed end before the next driver may start.
    """
    root.mkdir(parents=True, exist_ok=True)
    held = os.open(root, os.O_RDONLY)
    try:
        if not alone(held):
            raise ConfigError(
                f"{root} belongs to a sweep that still runs, or whose jobs are being ended: wait, or give another name"
            )
        yield [held]
    finally:
        os.close(held)


@contextmanager
def owned_first(roots: Iterable[Path]) -> Iterator[tuple[Path, list[int]]]:
    """Hold the first of the folders that no other sweep holds; refused where there is none."""
    with ExitStack() as stack:
        refused: ConfigError | None = None
        for root in roots:
            try:
                held = stack.enter_context(owned(root))
            except ConfigError as error:
                refused = error
            else:
                break
        else:
            assert refused is not None
            raise refused
        yield root, held


class PreviousJobs:
    """What `sweep.json` told of the jobs before this start; `rest` is what it told of jobs that come later."""

    def __init__(self, root: Path) -> None:
        self.root, self.rest = root, _recorded(root)

    def take_up(self, batch: Sequence[Job], again: Sequence[bool], last: bool) -> None:
        """Adopt what an earlier start of the sweep has completed, where a job may go on: `again`, for each job.

        A folder never serves other overrides than it was made for. `last`: no more jobs follow these.
        """
        if self.rest and not all(again):
            raise ConfigError(f"{self.root} holds a sweep already: give another name, or go on with it by resume=auto")
        for job in batch:
            if (record := self.rest.pop(job.number, None)) is not None:
                _check_same(job, record, self.root)
                if record.get("status") != "failed" and job.adopt():
                    print(f"job {job.number} was completed before", flush=True)
            elif job.folder.exists() and any(job.folder.iterdir()):
                what = f"holds the {RESULT} of an earlier job" if (job.folder / RESULT).exists() else "is in use"
                raise ConfigError(
                    f"{job.folder} {what}, and no {SUMMARY} tells of it: choose another name for this sweep"
                )
        if last and self.rest:
            number, record = min(self.rest.items())
            words = " ".join(_words(record.get("overrides", [])))
            raise ConfigError(
                f"job {number} of {self.root / SUMMARY}, {words}, is not among the {len(batch)} jobs of this command: "
                "give the same jobs to go on, or another name"
            )


def _recorded(root: Path) -> dict[int, Any]:
    """What `sweep.json` holds of each job, by its number; nothing where there is none."""
    path = root / SUMMARY
    if not path.exists():
        return {}
    try:
        return {int(record["number"]): record for record in json.loads(path.read_text())["jobs"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} cannot be read as the record of a sweep ({error}): give another name") from None


def _check_same(job: Job, record: dict[str, Any], root: Path) -> None:
    before, now = _words(record.get("overrides", [])), _words(job.overrides)
    if sorted(before) != sorted(now):
        was, new = ([w for w in one if w not in other] for one, other in ((before, now), (now, before)))
        raise ConfigError(
            f"job {job.number} of {root / SUMMARY} was {' '.join(was) or 'without'} and is now "
            f"{' '.join(new) or 'without'}: give the same jobs to go on, or another name"
        )
    if Path(str(record.get("folder"))).name != job.folder.name:
        raise ConfigError(
            f"job {job.number} of {root / SUMMARY} had the folder {record.get('folder')} and now has {job.folder}: "
            "keep hydra.sweep.subdir to go on, or give another name"
        )


def _words(overrides: Sequence[str]) -> list[str]:
    """Overrides, but for those that only say that a run goes on."""
    return [word for word in overrides if word.partition("=")[0].lstrip("+~") not in OF_THE_RESUME]
