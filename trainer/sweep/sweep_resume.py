"""Resuming a sweep: the lock on its folder, its earlier jobs, and which of them are completed."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from trainer.cli.override import key_of
from trainer.cli.plain_yaml import read_yaml
from trainer.cli.run_folder import removed_where_refused
from trainer.distributed.launch.folder_lock import FolderLock
from trainer.lr import ConfigError
from trainer.resume.changes import differences
from trainer.sweep.job import RESULT, Job
from trainer.sweep.summary import SUMMARY

RESUME_KEYS = ("resume", "resume.path")


_held: dict[Path, int] = {}
"""The folders of sweeps that this process holds, and the open file that holds each."""


@contextmanager
def own_folder(root: Path, wait: bool = True) -> Iterator[list[int]]:
    """Lock the folder of a sweep against others, and give the open files that hold the lock.

    A process that inherits these files holds the lock too: the jobs of a driver that was killed end before the next
    driver may start. A folder that this process holds already is not locked again.

    Raises:
        ConfigError: another process holds the folder.
    """
    if root in _held:
        yield [_held[root]]
        return
    with removed_where_refused(root, also=("multirun.yaml",)), FolderLock(root, "a sweep") as lock:
        lock.acquire(wait)
        assert lock.file is not None
        _held[root] = lock.file
        try:
            yield [lock.file]
        finally:
            del _held[root]


@contextmanager
def own_first_free(roots: Iterable[Path]) -> Iterator[tuple[Path, list[int]]]:
    """Lock the first of the folders that no other process holds. Raises ConfigError where there is none."""
    with ExitStack() as stack:
        refused: ConfigError | None = None
        for root in roots:
            try:
                held = stack.enter_context(own_folder(root, wait=False))
            except ConfigError as error:
                refused = error
            else:
                break
        else:
            assert refused is not None
            raise refused
        yield root, held


class PreviousJobs:
    """The records of `sweep.json` from before this start; `records` are those of jobs not taken up yet."""

    def __init__(self, root: Path) -> None:
        self.root, self.records = root, _read_records(root)

    def take_up(self, batch: Sequence[Job], resumes: Sequence[bool], last: bool) -> None:
        """Adopt the results of jobs that an earlier start has completed.

        Args:
            batch: the jobs of this start.
            resumes: for each of them, whether it may go on (`resume=auto`).
            last: whether no more jobs follow.

        Raises:
            ConfigError: the folder was made for other jobs.
        """
        if self.records and not all(resumes):
            raise ConfigError(f"{self.root} holds a sweep already: give another name, or go on with it by resume=auto")
        for job in batch:
            if (record := self.records.pop(job.number, None)) is not None:
                _check_same(job, record, self.root)
                if record.get("status") != "failed" and job.adopt():
                    print(f"job {job.number} was completed before", flush=True)
            elif job.folder.exists() and any(job.folder.iterdir()):
                what = f"holds the {RESULT} of an earlier job" if (job.folder / RESULT).exists() else "is in use"
                raise ConfigError(f"{job.folder} {what}, and no {SUMMARY} lists it: choose another name for this sweep")
        if last and self.records:
            number, record = min(self.records.items())
            overrides = " ".join(_without_resume(record.get("overrides", [])))
            raise ConfigError(
                f"job {number} of {self.root / SUMMARY}, {overrides}, is not among the {len(batch)} jobs of this "
                "command: give the same jobs to go on, or another name"
            )


def edits_since(job: Job, config: Mapping[str, Any]) -> str:
    """In what the config of a completed job differs from the one that it would have now; empty where in nothing."""
    before = read_yaml(job.folder / "config.yaml")
    if not before:
        return ""
    changed = differences(before, {key: value for key, value in config.items() if key != "hydra"})
    edits = [
        f"{key}: {old} → {new}"
        for key, (old, new) in changed.items()
        if key.partition(".")[0] not in ("name", "resume", "allow")
    ]
    return ", ".join(edits[:3] + ["…"] * (len(edits) > 3))


def _read_records(root: Path) -> dict[int, Any]:
    """The records of `sweep.json` by job number; empty where there is no such file."""
    path = root / SUMMARY
    if not path.exists():
        return {}
    try:
        return {int(record["number"]): record for record in json.loads(path.read_text())["jobs"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} cannot be read as the record of a sweep ({error}): give another name") from None


def _check_same(job: Job, record: dict[str, Any], root: Path) -> None:
    before, now = _without_resume(record.get("overrides", [])), _without_resume(job.overrides)
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


def _without_resume(overrides: Sequence[str]) -> list[str]:
    """The overrides without those of `resume`."""
    return [override for override in overrides if key_of(override) not in RESUME_KEYS]
