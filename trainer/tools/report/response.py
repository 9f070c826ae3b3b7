"""How the metric responds to the learning rate: alone, as curves, and with a second setting, as heat maps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from trainer.tools.report.comparison import Repeats, grouped, repeats
from trainer.tools.report.optimum import Optimum, Undetermined, optimum
from trainer.tools.report.rates import Edge, Width, find_edge, near, width
from trainer.tools.report.runs import Run
from trainer.tools.report.study import BATCH, BATCH_FACTORS, Configuration, Study, planned_batch
from trainer.tools.run_folders import is_number

MOST_CURVES = 8
MOMENTA = ("optimizer.momentum", "optimizer.beta1")

Point = tuple[float, float]


@dataclass(frozen=True)
class RateCurve:
    """The metric against the rate under otherwise equal settings: each run, the means over seeds, what they say.

    `points` and `runs` have the same order. `fit` is the optimum, or why there is none. `is_grid`: a grid of rates was
    run, so that a line between means has a meaning. `best_of_several`: other settings vary along the curve, and each
    mean is the best over them.
    """

    name: str
    runs: tuple[Run, ...]
    points: tuple[Point, ...]
    means: tuple[tuple[float, Repeats], ...]
    failed: tuple[float, ...]
    fit: Optimum | str
    edge: Edge | None
    width: Width | None
    is_grid: bool
    best_of_several: bool


@dataclass(frozen=True)
class HeatMap:
    """The metric over rate (x) and another number (y): the best mean over what else varies.

    `failed` are the places that have no value, `others` the labels of what else varies. `linear` and `sqrt` are where
    the optimum of the first row moves by the two batch-size rules, where y is the batch.
    """

    name: str
    cells: dict[Point, Configuration]
    failed: frozenset[Point]
    others: tuple[str, ...]
    is_grid: bool
    linear: tuple[Point, ...] = ()
    sqrt: tuple[Point, ...] = ()
    note: str = ""
    xs: tuple[float, ...] = ()
    ys: tuple[float, ...] = ()


def rate_curves(study: Study, within: float = 0.05) -> list[RateCurve]:
    """A curve for each setting of what else varies; where those are many, for each schedule or other choice."""
    if study.lr is None:
        return []
    keys = [key for key in study.settings if key != study.lr]
    if len({study.values(run, keys) for run in study.described}) > MOST_CURVES:
        schedules = [key for key in study.choices if key.startswith("schedule")] or study.choices
        keys = [key for key in schedules if len(study.levels(key)) <= MOST_CURVES][:1]
    groups = grouped((study.values(run, keys), run) for run in study.described)
    curves = [_rate_curve(study, study.format_values(values), runs, within) for values, runs in groups.items()]
    return [curve for curve in curves if curve is not None][:MOST_CURVES]


def _rate_curve(study: Study, name: str, runs: list[Run], within: float) -> RateCurve | None:
    key = study.lr
    assert key is not None
    scored = [run for run in runs if run.value(study.metric) is not None]
    lost = {study.value(run, key) for run in runs if run.value(study.metric) is None}
    if not scored:
        return None
    rates = [float(study.value(run, key)) for run in scored]
    several = len({study.values(run, [name for name in study.settings if name != key]) for run in scored}) > 1
    is_grid = not several or len(set(rates)) * 2 <= len({study.values(run, study.settings) for run in scored})
    best = _best_costs(study, scored)
    data = [rate for rate, costs in best.items() for _ in costs], [cost for costs in best.values() for cost in costs]
    close = near(sorted(float(rate) for rate in lost if is_number(rate) and rate > 0), rates)
    failed = [rate for rate in close if rate not in rates]
    return RateCurve(
        name=name or "all runs",
        runs=tuple(scored),
        points=tuple((rate, study.sign * study.cost(run)) for rate, run in zip(rates, scored)),
        means=tuple((rate, repeats([study.sign * cost for cost in costs])) for rate, costs in best.items()),
        failed=tuple(close),
        fit="other settings vary along it" if several else fit_or_reason(*data),
        edge=find_edge(*data, failed) if is_grid else None,
        width=width(*data, within, failed) if is_grid else None,
        is_grid=is_grid,
        best_of_several=several,
    )


def _best_costs(study: Study, runs: Sequence[Run]) -> dict[float, list[float]]:
    """At each rate in order, the costs by seed of the configuration with the best mean."""
    best: dict[float, list[float]] = {}
    for values, by_repeat in study.costs(runs, study.settings).items():
        rate, costs = float(dict(values)[str(study.lr)]), list(by_repeat.values())
        if rate not in best or sum(costs) / len(costs) < sum(best[rate]) / len(best[rate]):
            best[rate] = costs
    return dict(sorted(best.items()))


def fit_or_reason(rates: Sequence[float], costs: Sequence[float]) -> Optimum | str:
    """The optimum, or why there is none."""
    try:
        return optimum(rates, costs)
    except Undetermined as reason:
        return str(reason)


def heat_map_of_batch(study: Study) -> HeatMap | None:
    """The metric over learning rate and global batch, however the batch came about."""
    known = any(planned_batch(run) for run in study.described)
    name = BATCH if known else " × ".join(study.labels[key] for key in BATCH_FACTORS if key in study.varied)
    heat = _heat_map(study, name, study.batches)
    return _with_rules(study, heat) if heat is not None and heat.is_grid else heat


def heat_map_of_momentum(study: Study) -> HeatMap | None:
    """The metric over learning rate and momentum."""
    key = next((name for name in MOMENTA if study.is_numeric(name)), None)
    if key is None:
        return None
    values = {run.number: float(value) for run in study.described if is_number(value := study.value(run, key))}
    return _heat_map(study, study.labels[key], values)


def _heat_map(study: Study, name: str, second: Mapping[int, float]) -> HeatMap | None:
    """The metric over learning rate and the `second` number of each run."""
    if study.lr is None or len({second[run.number] for run in study.scored if run.number in second}) < 2:
        return None
    runs = [run for run in study.described if run.number in second and is_number(study.value(run, study.lr))]
    at = {run.number: (float(study.value(run, study.lr)), second[run.number]) for run in runs}
    cells: dict[Point, Configuration] = {}
    for one in reversed(study.configurations):  # the best of each place comes last
        if (place := at.get(one.runs[0].number)) is not None:
            cells[place] = one
    kept = set(near([x for x, _ in at.values()], [x for x, _ in cells]))
    places = {(x, y) for x, y in at.values() if x in kept}
    xs, ys = (tuple(sorted({place[i] for place in places})) for i in (0, 1))
    shared = grouped((at[run.number], run) for run in study.scored if run.number in at)
    others = [key for key in study.settings if any(len(study.levels(key, runs)) > 1 for runs in shared.values())]
    return HeatMap(
        name=name,
        cells=cells,
        failed=frozenset(places - cells.keys()),
        others=tuple(study.labels[key] for key in others),
        is_grid=len(places) > len(xs) * len(ys) / 2,
        xs=xs,
        ys=ys,
    )


def _with_rules(study: Study, heat: HeatMap) -> HeatMap:
    """The heat map of rate and batch with the curves of the linear and the square-root rule."""
    if any(run.plan.get("scaling", "none") != "none" for run in study.runs):
        return replace(heat, note="A scaling rule was at work, so the rate here is that of the base batch.")
    base = next((run.plan["base_batch_size"] for run in study.runs if run.plan.get("base_batch_size")), None)
    rows = {y: {x: cell for (x, at), cell in heat.cells.items() if at == y} for y in heat.ys}
    first = base if base is not None and rows.get(base) else next((y for y in heat.ys if rows[y]), None)
    if first is None:
        return heat
    costs = {x: study.sign * cell.repeats.mean for x, cell in rows[first].items()}
    fit = fit_or_reason(list(costs), list(costs.values()))
    if isinstance(fit, Optimum) and min(heat.xs) <= fit.low and fit.high <= max(heat.xs):
        start, how = fit.rate, "fitted"
    else:
        start, how = min(sorted(costs), key=costs.__getitem__), "best measured"
    note = f"Lines: the {how} optimum of batch {first:g}, moved with κ = B/{first:g} by the linear and the √κ rule."
    if any(run.plan.get("batches") for run in study.runs):
        note += " Of a batch that grows, the first."
    linear, sqrt = (tuple((start * (y / first) ** power, y) for y in heat.ys) for power in (1.0, 0.5))
    return replace(heat, linear=linear, sqrt=sqrt, note=note)
