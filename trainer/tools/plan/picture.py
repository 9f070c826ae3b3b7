"""Plans as a picture: the learning rates, below them what else changes, and what a run has applied."""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import cycle
from textwrap import shorten
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from trainer.lr import Plan
from trainer.lr.schedule import annotations

COLORS = ("#2a6f97", "#e07a1f", "#3a8f5c", "#9b3d6e", "#6b5ca5", "#8a7a2f", "#4f9da6", "#b0413e")
GREY = "#8a8a8a"
COLUMNS = 1200
LINES = 24

Curve = tuple[str, Sequence[float]]


def draw(plans: Mapping[str, Plan], log: Mapping[str, list[Any]]) -> Figure:
    """A panel of learning rates, one for each dial of a plan, and one for the loss that a run has logged."""
    hyper_schedules = list(dict.fromkeys(name for plan in plans.values() for name in plan.hyper_schedules))
    count = 1 + len(hyper_schedules) + bool(log)
    figure = Figure(figsize=(8, 1.7 + 1.9 * count + 0.2 * len(plans)), layout="constrained")
    FigureCanvasAgg(figure)
    heights = [1.6, *[1.0] * (count - 1)]
    panels = figure.subplots(count, 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    told = _lines(panels[0], [item for name, plan in plans.items() for item in _rates(name, plan, plans)])
    _background(panels[0], plans)
    for panel, name in zip(panels[1:], hyper_schedules):
        names = _lines(panel, [item for run, plan in plans.items() for item in _values(run, plan, name, plans)])
        panel.set(ylabel=name.replace("_", " "))
        if len(names) > 1 and names != told:
            panel.legend(frameon=False, fontsize=9)
    if log:
        _applied(panels[0], panels[-1], log)
    if len(told) > 1 or log:
        side, columns = ("left", 1) if len(plans) > 1 else ("right", 4)
        panels[0].legend(
            frameon=False, fontsize=9, loc=f"lower {side}", bbox_to_anchor=(side == "right", 1), ncols=columns
        )
    panels[0].set(ylabel="learning rate", ylim=(0, None), xlim=(0, max(plan.horizon.total for plan in plans.values())))
    panels[-1].set_xlabel("update")
    panels[-1].xaxis.set_major_formatter("{x:,.0f}")
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
    figure.align_ylabels(panels)
    return figure


def decimated(values: Sequence[float], columns: int = COLUMNS) -> tuple[list[int], list[float]]:
    """The points of a curve to draw: all, or the lowest and the highest in each of `columns` equal parts."""
    count = len(values)
    if count <= 2 * columns:
        return list(range(count)), list(values)
    places = {0, count - 1}
    for i in range(columns):
        begin = i * count // columns
        part = values[begin : (i + 1) * count // columns]
        places |= {begin + part.index(min(part)), begin + part.index(max(part))}
    chosen = sorted(places)
    return chosen, [values[t] for t in chosen]


def _rates(name: str, plan: Plan, plans: Mapping[str, Plan]) -> Iterator[Curve]:
    if len(plans) > 1:  # the first group stands for its plan
        yield shorten(name, 80, placeholder=" …"), plan.curve
    else:
        yield from _distinct(plan.curves, name)


def _values(name: str, plan: Plan, dial: str, plans: Mapping[str, Plan]) -> Iterator[Curve]:
    if len(plans) == 1:
        yield from _distinct(plan.hyper_schedules.get(dial, {}), "")
        return
    found = plan.setting(dial, next(iter(plan.courses)))
    if found is None and dial == "batch_size":
        found = plan.horizon.batch_size
    if isinstance(found, float | int):
        found = array("d", [found]) * plan.horizon.total
    yield name, [] if found is None else found


def _distinct(curves: Mapping[str, Sequence[float]], alone: str) -> Iterator[Curve]:
    """Curves that are not the same, each with the groups that have it."""
    found: dict[int, tuple[list[str], Sequence[float]]] = {}
    for group, values in curves.items():
        same = next((key for key, (_, other) in found.items() if other is values or other == values), id(values))
        found.setdefault(same, ([], values))[0].append(group)
    for names, values in found.values():
        yield (", ".join(names) if len(found) > 1 else alone), values


def _lines(panel: Any, curves: Iterable[Curve]) -> list[str]:
    """Draw curves, and say their names."""
    names = []
    for (name, values), color in zip(curves, cycle(COLORS)):
        panel.plot(*decimated(values), color=color, linewidth=1.8, label=name, solid_joinstyle="round")
        names.append(name)
    return names


def _background(panel: Any, plans: Mapping[str, Plan]) -> None:
    """The warm-up as a band and the changes of the schedule as lines, where there is one plan."""
    if len(plans) > 1:
        return
    plan = next(iter(plans.values()))
    width, total = plan.policy.warmup.updates, plan.horizon.total
    if width:
        panel.axvspan(0, width - 1, color=COLORS[0], alpha=0.08, linewidth=0)
        panel.annotate(
            f"warm-up, W = {width:,}", (0, 1), xycoords="axes fraction", color=COLORS[0], fontsize=9,
            xytext=(0, 5), textcoords="offset points",
        )  # fmt: skip
    places = sorted({t for ts in annotations(plan.policy.schedule).values() for t in ts if 0 < t < total})
    for t in places if len(places) <= LINES else ():
        panel.axvline(t, color=GREY, linewidth=0.7, linestyle=(0, (1, 3)), zorder=0)


def _applied(rate: Any, loss: Any, log: Mapping[str, list[Any]]) -> None:
    """What a run has applied, on its plan, and the loss below it."""
    some = log["lr"][:: max(1, len(log["lr"]) // 48)]
    rate.plot([p.step for p in some], [p.value for p in some], "o", color=COLORS[1], ms=4, label="applied")
    steps, losses = [p.step for p in log["loss"]], [p.value for p in log["loss"]]
    chosen, values = decimated(losses)
    loss.plot([steps[i] for i in chosen], values, color=COLORS[1], linewidth=0.8)
    loss.set(ylabel="training loss", ylim=(0, None))
