"""The metric over the learning rate and another key, with the rules by which a larger batch moves the rate."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from scripts.reports.edge import near
from scripts.reports.optimum import Optimum
from scripts.reports.runs import Run
from scripts.reports.study import Cell, Study
from scripts.reports.views import fitted, has

BATCHES = ("data.batch_size", "data.global_batch_size")
MOMENTA = ("optimizer.momentum", "optimizer.beta1")


@dataclass(frozen=True)
class Heat:
    """The metric over rate and another key: the best mean over what else varies; `bad` are settings with no value.

    `linear` and `sqrt` are where the optimum of the first row moves by the two rules, where the key is the batch.
    """

    key: str
    cells: dict[tuple[float, float], Cell]
    bad: frozenset[tuple[float, float]]
    others: tuple[str, ...]
    grid: bool
    linear: tuple[tuple[float, float], ...] = ()
    sqrt: tuple[tuple[float, float], ...] = ()
    note: str = ""
    xs: tuple[float, ...] = ()
    ys: tuple[float, ...] = ()


def heat(study: Study, key: str | None) -> Heat | None:
    """The metric over learning rate and another key."""
    if study.lr is None or key is None:
        return None
    names = (study.lr, key)
    cells: dict[tuple[float, float], Cell] = {}
    for cell in reversed(study.cells):  # the best cell of each place is the last to come
        cells[_place(study, cell.runs[0], names)] = cell
    tried = {_place(study, run, names) for run in study.told if has(study, run, names)}
    kept = set(near([x for x, _ in tried], [x for x, _ in cells]))
    places = {(x, y) for x, y in tried if x in kept}
    xs, ys = (tuple(sorted({place[i] for place in places})) for i in (0, 1))
    others = tuple(study.labels[k] for k in study.settings if k not in names)
    grid = len(places) > len(xs) * len(ys) / 2
    told = Heat(key, cells, frozenset(places - cells.keys()), others, grid, xs=xs, ys=ys)
    return _with_rules(study, told) if key in BATCHES and grid else told


def _with_rules(study: Study, told: Heat) -> Heat:
    """The heat map of rate and batch with the lines of the linear and the square-root rule."""
    if any(run.plan.get("scaling", "none") != "none" for run in study.runs):
        return replace(told, note="A scaling rule was at work, so the rate here is that of the base batch.")
    base = next((run.plan["base_batch_size"] for run in study.runs if run.plan.get("base_batch_size")), None)
    rows = {y: {x: c for (x, at), c in told.cells.items() if at == y} for y in told.ys}
    first = base if base is not None and rows.get(base) else next((y for y in told.ys if rows[y]), None)
    if first is None:
        return told
    pairs = [(x, study.sign * v) for x, cell in rows[first].items() for v in [cell.repeats.mean]]
    fit = fitted(sorted(pairs))
    fine = isinstance(fit, Optimum) and min(told.xs) <= fit.low and fit.high <= max(told.xs)
    start = fit.rate if isinstance(fit, Optimum) and fine else min(pairs, key=lambda pair: pair[1])[0]
    how = "fitted" if fine else "best measured"
    note = (
        f"Lines: where the {how} optimum of batch {first:g} moves with κ = B/{first:g}, by the linear and the √κ rule."
    )
    rules = {p: tuple((start * (y / first) ** p, y) for y in told.ys) for p in (1.0, 0.5)}
    return replace(told, linear=rules[1.0], sqrt=rules[0.5], note=note)


def _place(study: Study, run: Run, keys: Sequence[str]) -> tuple[float, float]:
    x, y = (float(study.value(run, key)) for key in keys)
    return x, y
