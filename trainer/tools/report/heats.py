"""The metric over the learning rate and another key, with the rules by which a larger batch moves the rate."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from trainer.tools.report.batches import BATCH, PARTS, planned
from trainer.tools.report.edge import geometric, near
from trainer.tools.report.optimum import Optimum
from trainer.tools.report.runs import Run
from trainer.tools.report.study import Cell, Study
from trainer.tools.report.views import fitted, has

MOMENTA = ("optimizer.momentum", "optimizer.beta1")


@dataclass(frozen=True)
class Heat:
    """The metric over rate and another number: the best mean over what else varies; `bad` are settings with no value.

    `linear` and `sqrt` are where the optimum of the first row moves by the two rules, where the number is the batch.
    """

    name: str
    cells: dict[tuple[float, float], Cell]
    bad: frozenset[tuple[float, float]]
    others: tuple[str, ...]
    grid: bool
    linear: tuple[tuple[float, float], ...] = ()
    sqrt: tuple[tuple[float, float], ...] = ()
    note: str = ""
    xs: tuple[float, ...] = ()
    ys: tuple[float, ...] = ()

    @property
    def log(self) -> bool:
        """Whether the second axis is better seen as a log axis."""
        return geometric(self.ys)


def by_batch(study: Study) -> Heat | None:
    """The metric over learning rate and global batch, however the batch came about."""
    known = any(planned(run) for run in study.told)
    name = BATCH if known else " × ".join(study.labels[key] for key in PARTS if key in study.varied)
    told = _heat(study, name, study.batches)
    return _with_rules(study, told) if told is not None and told.grid else told


def by_momentum(study: Study) -> Heat | None:
    """The metric over learning rate and momentum."""
    key = study.first(*MOMENTA)
    if key is None:
        return None
    values = {run.number: float(study.value(run, key)) for run in study.told if has(study, run, (key,))}
    return _heat(study, study.labels[key], values)


def _heat(study: Study, name: str, second: Mapping[int, float]) -> Heat | None:
    """The metric over learning rate and the `second` number of each run."""
    if study.lr is None or len({second[run.number] for run in study.good if run.number in second}) < 2:
        return None
    at = {
        run.number: (float(study.value(run, study.lr)), second[run.number])
        for run in study.told
        if run.number in second and has(study, run, (study.lr,))
    }
    cells: dict[tuple[float, float], Cell] = {}
    for cell in reversed(study.cells):  # the best cell of each place is the last to come
        if (place := at.get(cell.runs[0].number)) is not None:
            cells[place] = cell
    kept = set(near([x for x, _ in at.values()], [x for x, _ in cells]))
    places = {(x, y) for x, y in at.values() if x in kept}
    xs, ys = (tuple(sorted({place[i] for place in places})) for i in (0, 1))
    shared: dict[tuple[float, float], list[Run]] = {}
    for run in study.good:
        if run.number in at:
            shared.setdefault(at[run.number], []).append(run)
    others = [key for key in study.settings if any(len(study.levels(key, runs)) > 1 for runs in shared.values())]
    labels = tuple(study.labels[key] for key in others)
    grid = len(places) > len(xs) * len(ys) / 2
    return Heat(name, cells, frozenset(places - cells.keys()), labels, grid, xs=xs, ys=ys)


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
    if any(run.plan.get("batches") for run in study.runs):
        note += " Of a batch that grows, the first."
    rules = {p: tuple((start * (y / first) ** p, y) for y in told.ys) for p in (1.0, 0.5)}
    return replace(told, linear=rules[1.0], sqrt=rules[0.5], note=note)
