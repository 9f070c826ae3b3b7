"""A run's log, read from its folder."""

import json
import logging
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer.doctor.log import Log, Series
from trainer.lr import ConfigError

PLAN = "plan.json"
FACTS = ("total_updates", "warmup_updates", "global_batch", "base_lr")


def recorded(folder: Path) -> Log:
    """What a run has left in its folder, whether it is done, failed or still going on."""
    facts = _json(folder / PLAN)
    if facts is None:
        raise ConfigError(f"{folder} is not the folder of a run, or of a sweep: it has no {PLAN} that can be read.")
    if lost := [key for key in FACTS if not isinstance(facts.get(key), int | float)]:
        raise ConfigError(f"{folder / PLAN} lacks {', '.join(lost)}, or has no number there: it is not of a run.")
    total, warmup, batch, lr = (facts[key] for key in FACTS)
    error = str((_json(folder / "result.json") or {}).get("error", ""))
    return Log(scalars(folder), total, warmup, batch, lr, error)


def scalars(folder: Path) -> dict[str, Series]:
    """Every scalar of the TensorBoard log in `folder`; refused where there is none."""
    logging.getLogger("tensorboard").setLevel(logging.WARNING)  # it tells of each file that it reads
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    found = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    if "train/loss" not in found:
        raise ConfigError(f"{folder} holds no log of a training loss: train with logger=tensorboard.")
    return {tag: Series([one.step for one in rows], [one.value for one in rows]) for tag, rows in found.items()}


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
