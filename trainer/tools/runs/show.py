"""What is known of one run: how it ended, what it reached, its rate, its disk space, and how to look further."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.distributed.launch.folder_lock import FolderLock
from trainer.lr import ConfigError
from trainer.tools.run_folders import (
    CONFIG,
    PLAN,
    RESULT,
    changes_of,
    finite,
    program_of,
    rollbacks_of,
    starting_command,
    with_changes,
)
from trainer.tools.runs.listed import OVERRIDES, RUNNING, ListedRun, one_run
from trainer.tools.runs.table import format_bytes, format_seconds, one_line


def show(folder: Path) -> list[str]:
    """The lines about the run in a folder.

    Raises:
        ConfigError: it holds no run, or several.
    """
    run = one_run(folder)
    if run.state == "unfinished" and not run.plan and not run.overrides and OVERRIDES not in run.files:
        raise ConfigError(
            f"{folder} holds no run: its {CONFIG} or {RESULT} is of another program, because there is no {OVERRIDES} "
            f"and no {PLAN}: give the folder of a run, as outputs/NAME."
        )
    changes = changes_of(run.plan)
    known: list[tuple[str, str]] = [
        ("run", run.name),
        ("state", _state(run)),
        ("scores", _scores(run)),
        ("updates", _updates(run)),
        ("rate", _rate(run.plan)),
        ("changed", ", ".join(changes)),
        ("rollbacks", "; ".join(rollbacks_of(run.plan))),
        ("batch", _number(run.plan.get("global_batch"))),
        ("disk", f"{format_bytes(run.size)}, {_checkpoints(run)}"),
        ("versions", _versions(run)),
        ("settings", shlex.join(run.overrides)),
        ("again", with_changes(starting_command(program_of(run.plan), run.overrides), changes)),
        *_commands(run),
    ]
    return [f"{name:<10}{one_line(text)}" for name, text in known if text]


def _state(run: ListedRun) -> str:
    if run.state == RUNNING:
        holder = FolderLock(run.folder).holder()
        return f"{run.state}, as process {holder.get('pid')} on {holder.get('host')} since {holder.get('since')}"
    return f"{run.state}: {run.error}" if run.error else run.state


def _scores(run: ListedRun) -> str:
    found = "  ".join(f"{name} {value:.5g}" for name, value in run.scores.items() if value is not None)
    best = run.result.get("best")
    update = finite(best.get("update")) if isinstance(best, dict) else None
    return found if update is None or not found else f"{found}  (best {run.watched} after update {update:.0f})"


def _updates(run: ListedRun) -> str:
    if run.updates is None:
        return ""
    of = "" if run.total is None else f" of {run.total}"
    return f"{run.updates}{of}" + (f" in {took}" if (took := format_seconds(run.seconds)) else "")


def _rate(plan: dict[str, Any]) -> str:
    """The curve of the rate in a few numbers, as far as the plan has them."""
    names = {"base": "base_lr", "peak": "peak_lr", "at update": "peak_update", "last": "last_lr"}
    numbers = [f"{name} {value:.6g}" for name, key in names.items() if (value := finite(plan.get(key))) is not None]
    curve, warmup = plan.get("curve"), finite(plan.get("warmup_updates"))
    if isinstance(curve, dict) and isinstance(curve.get("schedule"), str):
        numbers.append(f"schedule {curve['schedule']}")
    return ", ".join([*numbers, *([f"warm-up of {warmup:.0f} updates"] if warmup is not None else [])])


def _number(value: Any) -> str:
    return "" if (found := finite(value)) is None else f"{found:g}"


def _checkpoints(run: ListedRun) -> str:
    found = sorted((run.folder / "checkpoints").glob("*.ckpt"))
    return f"checkpoints: {', '.join(path.name for path in found)}" if found else "no checkpoint"


def _versions(run: ListedRun) -> str:
    found = run.result.get("versions")
    return ", ".join(f"{key} {value}" for key, value in found.items() if value) if isinstance(found, dict) else ""


def _commands(run: ListedRun) -> Sequence[tuple[str, str]]:
    doctor = shlex.join(["cadence", "doctor", run.name])
    board = shlex.join(["tensorboard", "--logdir", run.name])
    return [("look", doctor), ("", board)] if run.files else []
