"""Plans as files: a picture, and the numbers as JSON and CSV."""

import csv
import json
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

from trainer.lr import ConfigError, Plan


def save(plans: Mapping[str, Plan], stem: Path, table: bool = False, log: Mapping[str, list[Any]] = {}) -> str:  # noqa: B006
    """Write the plans as a picture and as numbers; where they are."""
    from trainer.tools.plan.picture import draw

    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        draw(plans, log).savefig(f"{stem}.png", dpi=120)
        told = {name: {**plan.facts(), "lr": plan.curve.tolist()} for name, plan in plans.items()}
        numbers = json.dumps(told if len(plans) > 1 else next(iter(told.values())))
        Path(f"{stem}.json").write_text(numbers + "\n", encoding="utf-8")
        if table:
            write_table(plans, Path(f"{stem}.csv"))
    except OSError as error:
        raise ConfigError(f"--out={stem} cannot be written ({error.strerror}): name another place.") from error
    return "  ".join(f"{stem}.{kind}" for kind in ("png", "json", *(["csv"] if table else [])))


def write_table(plans: Mapping[str, Plan], path: Path) -> None:
    """A row for each update: the rate of each group, then the hyper-parameters; empty past the end of a shorter run."""
    columns: dict[str, Any] = {}
    for name, plan in plans.items():
        whose = f"{name}: " if len(plans) > 1 else ""
        columns |= {f"{whose}lr/{group}": values for group, values in plan.curves.items()}
        for dial, owners in plan.hyper_schedules.items():
            columns |= {f"{whose}{dial}/{group}": values for group, values in owners.items()}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["update", *columns])
        updates = range(max(plan.horizon.total for plan in plans.values()))
        writer.writerows(zip_longest(updates, *columns.values(), fillvalue=""))
