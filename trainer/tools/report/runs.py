"""The runs below a folder, wherever they were made: what each was told, how it ended, what it reached."""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from trainer.lr import ConfigError
from trainer.resume.changes import flat

RESULT, CONFIG, SWEEP = "result.json", "config.yaml", "sweep.json"
SKIPPED = {"checkpoints"}
DECIDED = ("failed", "stopped", "pruned")
"""What the record of a sweep says against a result: a job may write one and fail after it."""
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Run:
    """One run: `words` are its overrides as typed, `config` has dotted keys, `metrics` null where one is not finite.

    `status` is completed, failed, stopped, pruned or unfinished; `error` is the line that says why.
    """

    number: int
    name: str
    folder: Path
    status: str
    error: str = ""
    words: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float | None] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)

    @property
    def overrides(self) -> dict[str, Any]:
        """What was asked for, by key, but for the name and place of the run."""
        pairs = (word.partition("=") for word in self.words)
        told = {key.lstrip("+~"): number(value) if equals else "removed" for key, equals, value in pairs}
        return {key: value for key, value in told.items() if not own(key)}

    @property
    def seed(self) -> Any:
        """The seed, where the run says it."""
        return self.config.get("seed", self.overrides.get("seed"))

    def value(self, metric: str) -> float | None:
        """The metric of a completed run, where it is finite."""
        return self.metrics.get(metric) if self.status == "completed" else None

    def why(self, metric: str) -> str:
        """Why the run has no such value."""
        if self.status != "completed":
            return self.status
        return f"{metric} is not finite" if metric in self.metrics else f"no {metric}"


def own(key: str) -> bool:
    """Whether a key only names a run, its place, how it goes on or what may go on from it."""
    if key in ("name", "trainer.snapshots"):
        return True
    return key.split(".")[0] in ("resume", "hydra") or key.startswith(("hydra/", "resume@"))


def found(root: Path) -> list[Run]:
    """Every run below `root`, in the order of their jobs; paths inside the files do not matter.

    Raises:
        ConfigError: `root` is no folder, or holds no run.
    """
    if not root.is_dir():
        raise ConfigError(f"{root} is not a folder: give that of a run, a sweep or a search, as outputs/NAME.")
    records: dict[Path, dict[str, Any]] = {}
    places: set[Path] = set()
    for place, files in _folders(root):
        if {RESULT, CONFIG} & files:
            places.add(place)
        if SWEEP in files:
            records |= dict(_jobs(place))
    everything = sorted(places | records.keys(), key=lambda place: _order(place, root))
    if not everything:
        raise ConfigError(f"{root} holds no run: there is no {RESULT} and no {CONFIG} in it or below.")
    return [_run(i, place, root, records.get(place, {})) for i, place in enumerate(everything)]


def number(text: Any) -> Any:
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


def _folders(root: Path) -> Iterator[tuple[Path, set[str]]]:
    for place, below, files in os.walk(root):
        below[:] = [name for name in below if name not in SKIPPED]
        yield Path(place), set(files)


def _order(place: Path, root: Path) -> list[tuple[int, int, str]]:
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in place.relative_to(root).parts]


def _jobs(place: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The jobs that a sweep tells of, each at the folder that it has here."""
    jobs = (_json(place / SWEEP) or {}).get("jobs")
    for job in jobs if isinstance(jobs, list) else []:
        if isinstance(job, dict) and (parts := [p for p in Path(str(job.get("folder", ""))).parts[1:] if p != ".."]):
            tails = (place.joinpath(*parts[i:]) for i in range(len(parts)))
            yield next((tail for tail in tails if tail.is_dir()), place / parts[-1]), job


def _run(i: int, place: Path, root: Path, record: dict[str, Any]) -> Run:
    result = _json(place / RESULT)
    half = result is None and (place / RESULT).exists()
    said = str((result or {}).get("status", "unfinished"))
    status = str(record["status"]) if record.get("status") in DECIDED else said
    told = (result or {}).get("metrics")
    metrics = {str(k): _finite(v) for k, v in told.items()} if isinstance(told, dict) else {}
    error = str(record.get("error") or (result or {}).get("error") or "")
    if not error and status != "completed":
        error = f"{RESULT} cannot be read: half-written?" if half else _last_line(place)
    words = _yaml(place / "overrides.yaml") or record.get("overrides")
    return Run(
        number=i,
        name=place.relative_to(root).as_posix(),
        folder=place,
        status=status if status in ("completed", *DECIDED) else "unfinished",
        error=" ".join(error.split())[:500],
        words=tuple(map(str, words)) if isinstance(words, list) else (),
        config=_config(place / CONFIG),
        metrics=metrics,
        result=result or {},
        plan=_json(place / "plan.json") or {},
    )


def _config(path: Path) -> dict[str, Any]:
    """A config as dotted keys, without the values that are derived from others."""
    tree = _yaml(path)
    plain = flat(tree) if isinstance(tree, dict) else {}
    return {key: number(value) for key, value in plain.items() if not (isinstance(value, str) and "${" in value)}


def _finite(value: Any) -> float | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else None


def _json(path: Path) -> dict[str, Any] | None:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return read if isinstance(read, dict) else None


def _yaml(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None


def _last_line(place: Path) -> str:
    try:
        with (place / "job.log").open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 8192))
            lines = log.read().decode(errors="replace").splitlines()
    except OSError:
        return f"no {RESULT}"
    return next((line.strip() for line in reversed(lines) if line.strip()), f"no {RESULT}")
