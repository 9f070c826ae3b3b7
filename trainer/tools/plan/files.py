"""Plans as files: a picture of the rates and of what else changes, and the numbers as JSON and CSV."""

import csv
import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from textwrap import shorten
from typing import Any

from trainer.lr import Plan
from trainer.lr.backoff import Backoff
from trainer.lr.schedule import annotations
from trainer.tools.drawing import COLORS, GREY, new_figure, series_color
from trainer.tools.writable import plain_cell, save_numbers, write_new_file

COLUMNS = 1200
"""Parts of a long curve, each drawn by its lowest and highest value."""
LINES = 24
"""The most changes of a schedule that are marked by a line."""

Curve = tuple[str, Sequence[float]]


def save(
    plans: Mapping[str, Plan],
    stem: Path,
    table: bool = False,
    log: Mapping[str, list[Any]] = {},  # noqa: B006
    rollbacks: Sequence[Backoff] = (),
) -> str:
    """Write the plans as a picture and as numbers. Returns their paths, to print.

    `log` is what a run has applied, with these `rollbacks`.
    """
    numbers = {name: {**plan.summary(), "lr": plan.curve.tolist()} for name, plan in plans.items()}
    text = json.dumps(numbers if len(plans) > 1 else next(iter(numbers.values())))
    saved = save_numbers(stem, text, draw(plans, log, rollbacks))
    if not table:
        return saved
    write_new_file(Path(f"{stem}.csv"), partial(write_table, plans))
    return f"{saved}  {stem}.csv"


def write_table(plans: Mapping[str, Plan], path: Path) -> None:
    """A row for each update: the rate of each group, then the hyper-parameters; empty past the end of a shorter run."""
    columns: dict[str, Any] = {}
    for name, plan in plans.items():
        prefix = f"{name}: " if len(plans) > 1 else ""
        columns |= {f"{prefix}lr/{group}": values for group, values in plan.curves.items()}
        for setting, by_group in plan.hyper_schedules.items():
            columns |= {f"{prefix}{setting}/{group}": values for group, values in by_group.items()}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["update", *map(plain_cell, columns)])
        updates = range(max(plan.horizon.total for plan in plans.values()))
        writer.writerows(zip_longest(updates, *columns.values(), fillvalue=""))


def draw(plans: Mapping[str, Plan], log: Mapping[str, list[Any]], rollbacks: Sequence[Backoff] = ()) -> Any:
    """A panel of learning rates, one for each scheduled setting of a plan, and one for the loss that a run has logged.

    Returns a matplotlib figure.
    """
    settings = list(dict.fromkeys(name for plan in plans.values() for name in plan.hyper_schedules))
    count = 1 + len(settings) + bool(log)
    heights = [1.6, *[1.0] * (count - 1)]
    figure, panels = new_figure(8, 1.7 + 1.9 * count + 0.2 * len(plans), count, height_ratios=heights)
    names = _draw_curves(panels[0], [item for name, plan in plans.items() for item in _rates(name, plan, plans)])
    _draw_background(panels[0], plans)
    for panel, setting in zip(panels[1:], settings):
        curves = [item for name, plan in plans.items() for item in _values(name, plan, setting, plans)]
        panel.set(ylabel=setting.replace("_", " "))
        if len(_draw_curves(panel, curves)) > 1 and [name for name, _ in curves] != names:
            panel.legend(frameon=False, fontsize=9)
    if log:
        _draw_log(panels[0], panels[-1], log)
        for i, (begin, _, _) in enumerate(rollbacks):
            panels[0].axvline(begin, color=COLORS[1], linewidth=0.9, linestyle="--", label="_" * (i > 0) + "rollback")
    if len(names) > 1 or log:
        side, columns = ("left", 1) if len(plans) > 1 else ("right", 4)
        panels[0].legend(
            frameon=False, fontsize=9, loc=f"lower {side}", bbox_to_anchor=(side == "right", 1), ncols=columns
        )
    panels[0].set(ylabel="learning rate", ylim=(0, None), xlim=(0, max(plan.horizon.total for plan in plans.values())))
    panels[-1].set_xlabel("update")
    panels[-1].xaxis.set_major_formatter("{x:,.0f}")
    figure.align_ylabels(panels)
    return figure


def decimate(values: Sequence[float], columns: int = COLUMNS) -> tuple[list[int], list[float]]:
    """The points of a curve to draw: all, or the lowest and the highest in each of `columns` equal parts."""
    count = len(values)
    if count <= 2 * columns:
        return list(range(count)), list(values)
    kept = {0, count - 1}
    for i in range(columns):
        begin = i * count // columns
        part = values[begin : (i + 1) * count // columns]
        kept |= {begin + part.index(min(part)), begin + part.index(max(part))}
    updates = sorted(kept)
    return updates, [values[t] for t in updates]


def _rates(name: str, plan: Plan, plans: Mapping[str, Plan]) -> Iterator[Curve]:
    """The rates of each group; of several plans, those of the first group."""
    if len(plans) > 1:
        yield shorten(name, 80, placeholder=" …"), plan.curve
    else:
        yield from _distinct(plan.curves, name)


def _values(name: str, plan: Plan, setting: str, plans: Mapping[str, Plan]) -> Iterator[Curve]:
    """The values of a scheduled setting; a plan that holds it constant has a level line."""
    if len(plans) == 1:
        yield from _distinct(plan.hyper_schedules.get(setting, {}), "")
        return
    values = plan.setting(setting, next(iter(plan.courses)))
    if values is None and setting == "batch_size":
        values = plan.horizon.batch_size
    if isinstance(values, float | int):
        values = array("d", [values]) * plan.horizon.total
    yield name, [] if values is None else values


def _distinct(curves: Mapping[str, Sequence[float]], alone: str) -> Iterator[Curve]:
    """The curves that differ, each with the names of the groups that share it; a single curve is called `alone`."""
    distinct: dict[int, tuple[list[str], Sequence[float]]] = {}
    for group, values in curves.items():
        same = next((key for key, (_, other) in distinct.items() if other is values or other == values), id(values))
        distinct.setdefault(same, ([], values))[0].append(group)
    for names, values in distinct.values():
        yield (", ".join(names) if len(distinct) > 1 else alone), values


def _draw_curves(panel: Any, curves: Iterable[Curve]) -> list[str]:
    """Draw curves; their names."""
    names = []
    for i, (name, values) in enumerate(curves):
        panel.plot(*decimate(values), color=series_color(i), linewidth=1.8, label=name, solid_joinstyle="round")
        names.append(name)
    return names


def _draw_background(panel: Any, plans: Mapping[str, Plan]) -> None:
    """The warm-up as a band and the changes of the schedule as lines, where there is one plan."""
    if len(plans) > 1:
        return
    plan = next(iter(plans.values()))
    width, total = plan.policy.warmup.updates, plan.horizon.total
    if width:
        panel.axvspan(0, width - 1, color=COLORS[0], alpha=0.08, linewidth=0)
        place = {"xycoords": "axes fraction", "xytext": (0, 5), "textcoords": "offset points"}
        panel.annotate(f"warm-up, W = {width:,}", (0, 1), color=COLORS[0], fontsize=9, **place)
    changes = sorted({t for ts in annotations(plan.policy.schedule).values() for t in ts if 0 < t < total})
    for t in changes if len(changes) <= LINES else ():
        panel.axvline(t, color=GREY, linewidth=0.7, linestyle=(0, (1, 3)), zorder=0)


def _draw_log(rate: Any, loss: Any, log: Mapping[str, list[Any]]) -> None:
    """The rates that a run has applied, on its plan, and the loss below."""
    some = log["lr"][:: max(1, len(log["lr"]) // 48)]
    rate.plot(*zip(*some), "o", color=COLORS[1], ms=4, label="applied")
    steps, losses = map(list, zip(*log["loss"]))
    kept, values = decimate(losses)
    loss.plot([steps[i] for i in kept], values, color=COLORS[1], linewidth=0.8)
    loss.set(ylabel="training loss", ylim=(0, None))
