"""A run of a list: its state, scores, settings and disk space. What takes time is read when it is first asked for."""

import os
import re
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from trainer.cli.override import typed_values
from trainer.distributed.launch.folder_lock import is_held
from trainer.files.plain import read_text
from trainer.log.validations import read_validations
from trainer.lr import ConfigError
from trainer.resume.changes import flat
from trainer.tools.run_folders import (
    CONFIG,
    DECIDED,
    PLAN,
    RESULT,
    Record,
    changes_of,
    error_of,
    find_folders,
    finite,
    metrics_of,
    parse_value,
    read_tree,
    state_of,
)

OVERRIDES = "overrides.yaml"
RUNNING = "running"
BLOCK = 512
"""Bytes of a block, in which systems count the space of a file."""
_OVERRIDE = re.compile(r"- ([A-Za-z+~][!-~]*=(?:[!-~]*[!-9;-~])?)")
"""A line of YAML that is one word with = in it. It needs no parser, which would take ten times as long."""
_CHECKPOINT = re.compile(r"update-(\d{1,15})\.ckpt")


@dataclass(frozen=True)
class ListedRun:
    """One run.

    name        its folder, as a person would type it
    state       running, completed, failed, interrupted, pruned or unfinished
    error       the line that says why it is not completed
    files       the names in its folder
    size        the bytes that it takes on the disk, without runs below it
    written     when its newest file was written, in seconds since 1970; 0 where it has none
    """

    name: str
    folder: Path
    state: str
    error: str
    overrides: tuple[str, ...]
    result: Record
    files: Collection[str]
    size: int
    written: str

    @cached_property
    def plan(self) -> Record:
        """What its plan.json holds; empty where it cannot be read."""
        return read_tree(self.folder / PLAN) or {}

    @cached_property
    def typed(self) -> dict[str, str | None]:
        """The values of the overrides by key, as typed."""
        return typed_values(self.overrides)

    @cached_property
    def may_be_resumed(self) -> bool:
        """Whether a resume may have changed it, as far as its overrides and the names of its files say it."""
        return any(key.startswith("resume") for key in self.typed) or any(
            name.startswith("config-until-") for name in self.files
        )

    @cached_property
    def changes(self) -> tuple[str, ...]:
        """How resumes have changed it, each in one line; the plan is read only where one may have."""
        return changes_of(self.plan) if self.may_be_resumed else ()

    @cached_property
    def planned_tree(self) -> Record:
        """The resolved config that the plan holds; empty where a resume may have changed it since.

        JSON is read in a tenth of the time that YAML takes.
        """
        history = self.plan.get("curve_history")
        if not isinstance(history, list) or len(history) != 1 or not isinstance(history[0], dict):
            return {}
        if self.may_be_resumed or CONFIG not in self.files:
            return {}
        config = history[0].get("config")
        return config if isinstance(config, dict) else {}

    @cached_property
    def written_tree(self) -> Record:
        """What its config.yaml holds."""
        return read_tree(self.folder / CONFIG) or {}

    @cached_property
    def config(self) -> dict[str, Any]:
        """Its config with dotted keys; empty where it has none."""
        return flat_values(self.planned_tree or self.written_tree)

    def setting(self, key: str, default: Any) -> Any:
        """The value of one dotted key of its config, without the time that all of them take."""
        node: Any = self.planned_tree or self.written_tree
        for name in key.split("."):
            if not isinstance(node, dict) or name not in node:
                return default
            node = node[name]
        refers = isinstance(node, str) and "${" in node
        return default if refers or (isinstance(node, dict) and node) else parse_value(node)

    @cached_property
    def scores(self) -> dict[str, float | None]:
        """The metrics of the result; of a run that has none, or goes on, those of its last validation."""
        found = metrics_of(self.result)
        if found and self.state != RUNNING:
            return found
        for last in read_validations(self.folder)[-1:]:
            return {str(name): finite(value) for name, value in last.items() if name not in ("update", "arrays")}
        return found

    @cached_property
    def updates(self) -> int | None:
        """The updates that it has made, as far as its files say it."""
        made = finite(self.result.get("updates"))
        if made is not None and self.state != RUNNING:
            return int(made)
        places = _entries(str(self.folder / "checkpoints"))
        saved = [int(found[1]) for entry in places if (found := _CHECKPOINT.fullmatch(entry.name))]
        validated = [int(last["update"]) for last in read_validations(self.folder)[-1:]]
        return max([*saved, *validated], default=None)

    @cached_property
    def total(self) -> int | None:
        """The updates that it was to make."""
        found = finite(self.result.get("total_updates"))
        if found is None:
            found = finite(self.plan.get("total_updates"))
        return None if found is None else int(found)

    @property
    def seconds(self) -> float | None:
        """How long it took, without earlier starts."""
        return finite(self.result.get("seconds"))

    @property
    def watched(self) -> str:
        """The metric by which it chose its best checkpoint; empty where it does not say it."""
        best = self.result.get("best")
        return str(best.get("metric") or "") if isinstance(best, dict) else ""


def list_runs(roots: Sequence[Path]) -> list[ListedRun]:
    """Every run below these folders, in the order of the jobs.

    Raises:
        ConfigError: one of them is no folder, or holds no run.
    """
    records: dict[Path, Record] = {}
    for root in roots:
        records |= find_folders(root)
    folders = {os.path.normpath(place) for place in records}
    # A sweep also records jobs that wait, and those whose folder was removed.
    there = [place for place, record in records.items() if record.get("status") in DECIDED or place.is_dir()]
    return [_run(place, records[place], folders) for place in there]


def one_run(folder: Path) -> ListedRun:
    """The run in a folder, or the only one below it.

    Raises:
        ConfigError: there is none, or several.
    """
    runs = list_runs([folder])
    own = [run for run in runs if run.folder == folder] or runs
    if len(own) != 1:
        raise ConfigError(f"{folder} holds {len(own)} runs: name one of them; cadence runs {folder} lists them.")
    return own[0]


def _run(place: Path, record: Record, folders: Collection[str]) -> ListedRun:
    result = read_tree(place / RESULT)
    size, written, files = _measure(place, folders)
    ended = state_of(result, record)
    state = RUNNING if is_held(place) else ended
    return ListedRun(
        name=os.path.normpath(place),
        folder=place,
        state=state,
        error="" if state == RUNNING else error_of(place, ended, result, record),
        overrides=_overrides(place, record),
        result=result or {},
        files=files,
        size=size,
        written=written,
    )


def _overrides(place: Path, record: Record) -> tuple[str, ...]:
    path = place / OVERRIDES
    try:
        lines = read_text(path).split("\n")
    except (OSError, ValueError):
        lines = []
    plain = [_OVERRIDE.fullmatch(line) for line in lines if line]
    if plain and all(plain):
        return tuple(found[1] for found in plain if found)
    words = read_tree(path, list) or record.get("overrides")
    return tuple(map(str, words)) if isinstance(words, list) else ()


def _measure(place: Path, folders: Collection[str]) -> tuple[int, str, list[str]]:
    """The bytes below a folder, without those of other runs, when the newest file was written, and the names in it.

    A file with several names counts once. Links are not followed.
    """
    size, newest, names = 0, 0.0, []
    seen: set[tuple[int, int]] = set()
    top = os.path.normpath(place)
    stack = [top]
    while stack:
        folder = stack.pop()
        for entry in _entries(folder):
            about = entry.stat(follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False):
                stack += [entry.path] if os.path.normpath(entry.path) not in folders else []
            else:
                newest = max(newest, about.st_mtime)
            if about.st_nlink < 2 or (about.st_dev, about.st_ino) not in seen:
                size += about.st_blocks * BLOCK
            seen.add((about.st_dev, about.st_ino))
            names += [entry.name] if folder == top else []
    return size, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(newest)) if newest else "", names


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """What lies in a folder, as far as it can be read; a run that goes on may remove files meanwhile."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if _is_there(entry)]
    except OSError:
        return []


def _is_there(entry: "os.DirEntry[str]") -> bool:
    try:
        entry.stat(follow_symlinks=False)  # is kept in the entry
    except OSError:
        return False
    return True


def flat_values(tree: Record) -> dict[str, Any]:
    """A config with dotted keys and plain values, without what refers to another key."""
    try:
        found = flat(tree) if tree else {}
    except RecursionError:
        return {}
    return {key: parse_value(value) for key, value in found.items() if not (isinstance(value, str) and "${" in value)}
