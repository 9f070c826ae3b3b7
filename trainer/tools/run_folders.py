"""Folders of runs: where they are below a folder, what their files say, how a run ended. Nothing in them is executed.

Without torch, numpy and the libraries of logs, because a list of a thousand runs is to be printed at once.
"""

import json
import math
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from trainer.cli.command import COMMAND
from trainer.cli.override import key_of
from trainer.cli.plain_yaml import LOADER, check_yaml
from trainer.files.plain import check_regular, read_text
from trainer.lr import ConfigError
from trainer.lr.backoff import ROLLBACK

RESULT, CONFIG, SWEEP, PLAN, TUNE = "result.json", "config.yaml", "sweep.json", "plan.json", "tune.json"
DECIDED = ("failed", "interrupted", "pruned")
"""Where the record of a sweep says one of these, it counts more than the result: a job may fail after writing one."""
STATES = ("completed", *DECIDED, "unfinished")
FALLING = ("loss", "error", "perplexity", "mse", "mae", "rmse", "nll", "distance", "hamming", "calibration", "mape")
RISING = (
    *("accuracy", "f1", "fbeta", "precision", "recall", "auroc", "auc", "dice", "iou", "jaccard", "r2", "psnr"),
    *("specificity", "kappa", "matthews", "bleu", "rouge", "map", "ssim", "exact_match", "correlation"),
)

Record = dict[str, Any]
"""What `sweep.json` says of a job."""


def find_folders(root: Path) -> dict[Path, Record]:
    """The folder of every run below `root`, in the order of the jobs, with its record in a sweep, where it has one.

    A sweep that was moved is read as the original. The folder of a job that failed early may be missing.

    Raises:
        ConfigError: `root` is no folder, or holds no run.
    """
    if not root.is_dir():
        raise ConfigError(f"{root} is not a folder: give that of a run, a sweep or a search, as outputs/NAME.")
    records: dict[Path, Record] = {}
    places: set[Path] = set()
    for name, below, files in os.walk(root):
        below[:] = [folder for folder in below if folder != "checkpoints"]
        if RESULT in files or CONFIG in files:
            places.add(Path(name))
        if SWEEP in files:
            records |= dict(_jobs(Path(name)))

    def order(place: Path) -> list[tuple[int, int, str]]:
        return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in place.relative_to(root).parts]

    everything = sorted(places | records.keys(), key=order)
    if not everything:
        raise ConfigError(f"{root} holds no run: there is no {RESULT} and no {CONFIG} in it or below.")
    return {place: records.get(place, {}) for place in everything}


def _jobs(place: Path) -> Iterator[tuple[Path, Record]]:
    """The jobs that `sweep.json` records, each with the folder that it has here."""
    jobs = (read_tree(place / SWEEP) or {}).get("jobs")
    for job in jobs if isinstance(jobs, list) else []:
        if isinstance(job, dict) and (parts := [p for p in Path(str(job.get("folder", ""))).parts[1:] if p != ".."]):
            tails = (place.joinpath(*parts[i:]) for i in range(len(parts)))
            yield next((tail for tail in tails if tail.is_dir()), place / parts[-1]), job


def read_tree(path: Path, kind: type = dict) -> Any:
    """What a file of JSON or YAML holds; None where it is not there, cannot be read or is of another kind."""
    try:
        text = read_text(path)
        if path.suffix != ".json":
            check_yaml(text, str(path))
        tree = json.loads(text) if path.suffix == ".json" else yaml.load(text, Loader=LOADER)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None
    return tree if isinstance(tree, kind) else None


def state_of(result: Mapping[str, Any] | None, record: Mapping[str, Any]) -> str:
    """How a run ended: completed, failed, interrupted, pruned or unfinished; `result` is None where it has none."""
    said = record["status"] if record.get("status") in DECIDED else (result or {}).get("status")
    return str(said) if said in STATES else "unfinished"


def error_of(place: Path, state: str, result: Mapping[str, Any] | None, record: Mapping[str, Any]) -> str:
    """The line that says why a run is not completed, at most 500 characters; empty where it is."""
    error = str(record.get("error") or (result or {}).get("error") or "")
    if not error and state != "completed":
        unreadable = result is None and (place / RESULT).exists()
        error = f"{RESULT} cannot be read: half-written?" if unreadable else _last_line(place, result)
    return " ".join(error.split())[:500]


def _last_line(place: Path, result: Mapping[str, Any] | None) -> str:
    missing = f"no {RESULT}" if result is None else f"{RESULT} has no status that is known"
    try:
        check_regular(place / "job.log")
        with (place / "job.log").open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 8192))
            lines = log.read().decode(errors="replace").splitlines()
    except OSError:
        return missing
    return next((line.strip() for line in reversed(lines) if line.strip()), missing)


def metrics_of(result: Mapping[str, Any]) -> dict[str, float | None]:
    """The metrics of a result by name, None where one is not finite."""
    values = result["metrics"].items() if isinstance(result.get("metrics"), dict) else ()
    return {str(key): finite(value) for key, value in values}


def program_of(plan: Mapping[str, Any]) -> tuple[str, ...]:
    """The words that start a run, if the plan has some: a person pastes them, so other programs are left out."""
    words = plan.get("program")
    program = tuple(map(str, words)) if words and isinstance(words, list) else COMMAND
    ours = program[:2] == COMMAND or (program[0] == "python" and len(program) > 1 and program[1] not in ("-", "-c"))
    return program if ours else COMMAND


def changes_of(plan: Mapping[str, Any]) -> tuple[str, ...]:
    """How resumes have changed a run, each in one line: the policy for the curve, or a setting; and the update.

    A rollback of the guard is none of them: the same command makes it again.
    """
    curve = [one for one in _records(plan, "changes") if one.get("policy") != ROLLBACK]
    lines = [f"{one.get('policy')} at update {one.get('update')}" for one in curve]
    for one in _records(plan, "edits"):
        changed = one.get("changed")
        for key, pair in changed.items() if isinstance(changed, dict) else ():
            before, now = pair if isinstance(pair, list) and len(pair) == 2 else (None, pair)
            lines.append(f"{key} {before} → {now} at update {one.get('update')}")
    return tuple(" ".join(line.split()) for line in lines)


def rollbacks_of(plan: Mapping[str, Any]) -> tuple[str, ...]:
    """The rollbacks that the guard of a run has made, each in one line."""
    found = [one for one in _records(plan, "changes") if one.get("policy") == ROLLBACK]
    return tuple(" ".join(f"to update {one.get('update')}, rate × {one.get('factor')}".split()) for one in found)


def _records(plan: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    return [one for one in found if isinstance(one, dict)] if isinstance(found := plan.get(key), list) else []


def is_bookkeeping(key: str) -> bool:
    """Whether a key only names a run or its place, or says how it is resumed, what resumes from it, what it prints."""
    if key in ("name", "trainer.snapshots", "trainer.quiet", "trainer.profile"):
        return True
    return key.split(".")[0] in ("resume", "hydra") or key.startswith(("hydra/", "resume@"))


def starting_command(program: Sequence[str], overrides: Iterable[str], flags: Sequence[str] = ()) -> str:
    """The command that starts a run again, to paste: without its name and place."""
    keys = [(override, key_of(override)) for override in overrides]
    kept = [override for override, key in keys if key == "hydra.searchpath" or not is_bookkeeping(key)]
    return shlex.join([*program, *flags, *kept])


def with_changes(command: str, changes: Sequence[str]) -> str:
    """A command, to paste; of a run that a resume has changed, with a comment that says so: no one command gives it."""
    if not changes:
        return command
    return f"{command}  # was resumed: {', '.join(changes)}. This command trains another run, from the start."


def parse_value(text: Any) -> Any:
    """A value as YAML and Hydra read it, as far as it is a finite number, true, false or null."""
    if isinstance(text, float) and not math.isfinite(text):
        return str(text)
    if not isinstance(text, str):
        return text
    for kind in (int, float):
        try:
            return read if math.isfinite(read := kind(text)) else text
        except (ValueError, OverflowError):
            pass
    return {"true": True, "false": False, "null": None}.get(text.lower(), text.strip("'\""))


def is_number(value: Any) -> bool:
    """Whether a value is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def value_order(value: Any) -> tuple[bool, float, str]:
    """The order of the values of a setting: numbers by size, then words by the alphabet."""
    return (not is_number(value), value if is_number(value) else 0.0, str(value))


def finite(value: Any) -> float | None:
    """A number as a float; None for one that is not finite or too large, and for what is no number."""
    try:
        return float(value) if is_number(value) and math.isfinite(value) else None
    except OverflowError:
        return None


def direction(metric: str, runs: Iterable[Any], option: str = "--best") -> str:
    """min or max: as the metric itself says it, or the task of the one that it watches, else by the name.

    Raises:
        ConfigError: nothing says it.
    """
    name = metric.rpartition("/")[2].lower()
    for run in runs:
        directions = run.result.get("directions")
        if isinstance(directions, dict) and directions.get(metric) in ("min", "max"):
            return str(directions[metric])
        if run.config.get("task.monitor") == name and run.config.get("task.mode") in ("min", "max"):
            return str(run.config["task.mode"])
    for mode, parts in (("min", FALLING), ("max", RISING)):
        if any(part in name for part in parts):
            return mode
    raise ConfigError(f"nothing says whether more of {metric} is better: give {option} min or {option} max.")
