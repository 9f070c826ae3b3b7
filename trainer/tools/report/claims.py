"""The claims of an experiment, and the plots that show them: what `claims.json` beside the runs holds.

Whoever has measured the claims writes the file (`write_claims`); the report reads it, and draws a table of the claims
and a figure for each plot.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from trainer.lr import ConfigError
from trainer.tools.drawing import series_color
from trainer.tools.report.comparison import by_seed, is_number, repeats, value_order
from trainer.tools.report.figures import value_ticks
from trainer.tools.report.rates import is_geometric, suits_log
from trainer.tools.report.runs import POINTS, Run, mean_points, scalars, some_points
from trainer.tools.report.study import BATCH, Study, format_value
from trainer.tools.report.view import Axis, Cell, Figure, Panel, Point, Section, Series, Table

CLAIMS = "claims.json"
UPDATE, SAMPLES = "update", "samples"
"""The x axes of a plot of curves; every other x is a key of the config, or `global batch`."""
FROM_RESULT = ("updates", "seconds")
"""Numbers of `result.json` beside its metrics."""


@dataclass(frozen=True)
class Claim:
    """A sentence, what was measured, what it was held against, and whether it holds.

    `measured` and `threshold` are numbers, or words where one number does not say it; `relation` stands between them
    and the threshold: `at most`, `at least`, `between`. `note` says how it was measured, as `mean of 3 seeds`. `kind`
    is claim (it must hold), control (it must not hold) or note (it decides nothing); `outcome` is the word of the
    verdict, where yes or no does not say it.
    """

    text: str
    measured: float | str
    relation: str
    threshold: float | str
    holds: bool
    source: str = ""
    note: str = ""
    kind: str = "claim"
    outcome: str = ""

    @property
    def is_as_it_must(self) -> bool:
        """Whether a claim holds, and a control does not."""
        return {"claim": self.holds, "control": not self.holds}.get(self.kind, True)


@dataclass(frozen=True)
class Plot:
    """A figure: `y` against `x`, one line for each value of the key `lines`, one panel for each value of `panels`.

    With `x` a key of the config (or `global batch`), `y` is a metric of `result.json`, or its `updates` or `seconds`:
    means over seeds with their standard deviation. With `x` `update` or `samples`, `y` is a tag of the log: a line for
    each run. `where` keeps the runs that have these values. `levels` are horizontal lines, each a value and a word.
    `name` names the PNG; a plot takes the place of a section of the report that has its name.
    """

    name: str
    title: str
    x: str
    y: str
    lines: str = ""
    panels: str = ""
    where: Mapping[str, Any] | None = None
    levels: Sequence[tuple[float, str]] = ()
    note: str = ""


@dataclass(frozen=True)
class Claims:
    """All claims of an experiment with its plots; `source` is the paper that they are from.

    `more` is kept as it is: what the writer wants to find again, as the cost or the machine.
    """

    title: str = ""
    source: str = ""
    claims: tuple[Claim, ...] = ()
    plots: tuple[Plot, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)


def write_claims(folder: Path, claims: Claims) -> Path:
    """Write `claims.json` into the folder of the sweep; numbers that are not finite become words."""
    path = folder / CLAIMS
    text = json.dumps(_plain(asdict(claims)), indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def read_claims(folder: Path) -> Claims | None:
    """The claims beside the runs of a folder; None where it has none.

    Raises:
        ConfigError: the file is there, and is no such file.
    """
    path = folder / CLAIMS
    if not path.exists():
        return None
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        claims = tuple(_typed(Claim, one) for one in tree.get("claims", []))
        plots = tuple(_typed(Plot, one) for one in tree.get("plots", []))
        return _typed(Claims, {**tree, "claims": claims, "plots": plots})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} cannot be read as claims ({error}): write it with write_claims.") from error


def _typed(kind: Any, tree: Mapping[str, Any]) -> Any:
    """A claim or a plot from its JSON; an unknown or a missing key is a TypeError that names it."""
    known = {one.name for one in fields(kind)}
    if unknown := tree.keys() - known:
        raise TypeError(f"{kind.__name__} has no key {', '.join(sorted(unknown))}")
    return kind(**tree)


def _plain(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _plain(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_plain(value) for value in tree]
    return str(tree) if isinstance(tree, float) and not math.isfinite(tree) else tree


def claim_sections(study: Study, claims: Claims) -> list[Section]:
    """The table of the claims, then a section for each plot."""
    plots = [Section(plot.name, plot.title, plot.note, plot_figure(study, plot)) for plot in claims.plots]
    if not claims.claims:
        return plots
    sourced = any(claim.source for claim in claims.claims)
    heads: tuple[tuple[str, bool], ...] = (("", False), ("claim", False), ("measured", True), ("threshold", False))
    heads = (*heads, ("source", False)) if sourced else heads
    rows = tuple(_claim_row(claim)[: len(heads)] for claim in claims.claims)
    title = f"Claims: {claims.title}" if claims.title else "Claims"
    judged = [claim for claim in claims.claims if claim.kind != "note"]
    right = sum(claim.is_as_it_must for claim in judged)
    note = f"{right} of {len(judged)} came out as they must. {claims.source}".strip()
    return [Section("claims", title, note, table=Table(heads, rows)), *plots]


def _claim_row(claim: Claim) -> tuple[Cell, ...]:
    role = "soft" if claim.kind == "note" else "good" if claim.is_as_it_must else "bad"
    text = f"{claim.text} ({claim.note})" if claim.note else claim.text
    return (
        Cell(outcome(claim), role=role),
        Cell(text, role="wide"),
        Cell(_number(claim.measured), claim.measured if isinstance(claim.measured, int | float) else None),
        Cell(f"{claim.relation} {_number(claim.threshold)}".strip()),
        Cell(claim.source, role="wide"),
    )


def outcome(claim: Claim) -> str:
    """The word of the verdict."""
    if claim.outcome or claim.kind == "note":
        return claim.outcome or "seen"
    return "holds" if claim.holds else "does not hold"


def format_claim(claim: Claim) -> str:
    """A claim as a line for a terminal."""
    threshold = f"{claim.relation} {_number(claim.threshold)}".strip()
    return f"{outcome(claim)}: {claim.text}: {_number(claim.measured)} ({threshold})"


def _number(value: Any) -> str:
    return f"{value:.4g}" if is_number(value) else str(value)


def plot_figure(study: Study, plot: Plot) -> Figure:
    """The figure of a plot.

    Raises:
        ConfigError: no run has what it shows, or runs at one point differ in more than the seed.
    """
    data = _PlotData(study, plot)
    panels = []
    for value, runs in data.groups(plot.panels, data.runs):
        lines = data.groups(plot.lines, runs)
        series = [one for line, same in lines for one in data.series(line, same)]
        if series:
            panels.append((data.name(plot.panels, value), series))
    if not panels:
        raise ConfigError(f"plot {plot.name}: no run has {plot.y} and {plot.x}: take names of its result and config.")
    ys = [y for _, series in panels for one in series for _, y in one.points if math.isfinite(y)]
    x, y = data.x_axis(), Axis(plot.y, log=suits_log([*ys, *(value for value, _ in plot.levels)]))
    levels = tuple((value, word) for value, word in plot.levels)
    drawn = tuple(Panel(x, y, tuple(series), levels=levels, title=title) for title, series in _named_once(panels))
    count = len(drawn)
    height, inches = (450, 4.6) if count == 1 else (120 + 240 * count, 1.2 + 2.4 * count)
    return Figure(drawn, height, (8, inches), legend=bool(plot.lines))


def _named_once(panels: Sequence[tuple[str, list[Series]]]) -> Iterator[tuple[str, list[Series]]]:
    """The panels with each name in the legend once, where it comes first."""
    named: set[str] = set()
    for title, series in panels:
        yield title, [replace(one, in_legend=one.in_legend and one.name not in named) for one in series]
        named |= {one.name for one in series if one.in_legend}


class _PlotData:
    """The runs that a plot keeps, where each lies on the x axis, and the colour of each line."""

    def __init__(self, study: Study, plot: Plot) -> None:
        self.study, self.plot = study, plot
        where = (plot.where or {}).items()
        self.runs = [
            run
            for run in study.described
            if all(format_value(study.value(run, key)) == format_value(value) for key, value in where)
        ]
        self.colors = {value: series_color(i) for i, (value, _) in enumerate(self.groups(plot.lines, self.runs))}
        self.from_log = plot.x in (UPDATE, SAMPLES)
        self.levels = [] if self.from_log else sorted({self.x(run) for run in self.runs}, key=value_order)
        self.has_words = not all(map(is_number, self.levels))

    def groups(self, key: str, runs: Sequence[Run]) -> list[tuple[Any, list[Run]]]:
        """The runs by their value of a key, in order; all in one group where there is no key."""
        groups: dict[Any, list[Run]] = {}
        for run in runs:
            groups.setdefault(self.study.value(run, key) if key else "", []).append(run)
        return sorted(groups.items(), key=lambda item: value_order(item[0]))

    def name(self, key: str, value: Any) -> str:
        """A value with the name of its key."""
        label = self.study.labels.get(key, key.rpartition(".")[2])
        return f"{label} {format_value(value)}" if key else ""

    def x(self, run: Run) -> Any:
        """The value of x of a run."""
        value = self.study.value(run, self.plot.x)
        return self.study.batches.get(run.number, value) if self.plot.x == BATCH else value

    def x_axis(self) -> Axis:
        """Numbers lie at themselves, words beside each other."""
        if self.from_log:
            return Axis(self.plot.x)
        if self.has_words:
            ticks = tuple((float(i), format_value(level)) for i, level in enumerate(self.levels))
            return Axis(self.plot.x, ticks=ticks, ends=(-0.3, len(ticks) - 0.7))
        log = is_geometric(self.levels)
        return Axis(self.plot.x, log=log, ticks=value_ticks(self.levels, log) if len(self.levels) <= 10 else None)

    def series(self, line: Any, runs: Sequence[Run]) -> list[Series]:
        """What is drawn of the runs of a line."""
        name = self.name(self.plot.lines, line) or self.plot.y
        return (self._logged if self.from_log else self._measured)(name, self.colors[line], runs)

    def _measured(self, name: str, color: str, runs: Sequence[Run]) -> list[Series]:
        """The means over seeds with their spread as a line, and a point for each run."""
        points: dict[float, list[tuple[Run, float]]] = {}
        for run in runs:
            if (y := _y_value(run, self.plot.y)) is not None:
                x = self.x(run)
                points.setdefault(float(self.levels.index(x) if self.has_words else x), []).append((run, y))
        for same in points.values():
            self._refuse_mixture([run for run, _ in same])
        means = {
            x: repeats(list(by_seed((run.seed, y) for run, y in same).values())) for x, same in sorted(points.items())
        }
        spread = tuple(found.std or 0.0 for found in means.values())
        line = Series(
            name,
            tuple((x, found.mean) for x, found in means.items()),
            color,
            mark="line+dots",
            size=7,
            spread=spread if any(spread) else (),
            group=name,
            in_legend=True,
        )
        each = [(run, (x, y)) for x, same in points.items() for run, y in same]
        dots = Series(
            name,
            tuple(point for _, point in each),
            color,
            mark="dots",
            opacity=0.55,
            size=5,
            runs=tuple(run.number for run, _ in each),
            texts=tuple(run.name for run, _ in each),
            hover="{y} at {x}, run {text}",
            group=name,
        )
        return [line, dots] if means else []

    def _refuse_mixture(self, runs: Sequence[Run]) -> None:
        mixed = [key for key in self.study.settings if key != self.plot.x and len(self.study.levels(key, runs)) > 1]
        if mixed:
            raise ConfigError(
                f"plot {self.plot.name}: runs at one point differ in {', '.join(mixed)}, too: "
                "name it in lines, panels or where."
            )

    def _logged(self, name: str, color: str, runs: Sequence[Run]) -> list[Series]:
        """A line for each run that logged the tag."""
        logged = [(run, points) for run in runs if (points := logged_points(run, self.plot))]
        return [
            Series(
                name,
                points,
                color,
                width=1.4,
                opacity=0.8,
                runs=(run.number,),
                hover=f"{{y}} at {{x}}, run {run.name}",
                group=name,
                in_legend=i == 0,
            )
            for i, (run, points) in enumerate(logged)
        ]


def _y_value(run: Run, name: str) -> float | None:
    """A metric of a run, or a number of its result."""
    if name not in FROM_RESULT:
        return run.value(name)
    value = run.result.get(name) if run.status == "completed" else None
    return float(value) if is_number(value) else None  # type: ignore[arg-type]


def logged_points(run: Run, plot: Plot) -> tuple[Point, ...]:
    """The logged values of a tag, by update or by the samples seen up to it; few, whatever the length of the run."""
    points = scalars(run.folder, (plot.y,)).get(plot.y, [])
    few = (mean_points if plot.y.startswith("train/") else some_points)(points, POINTS)
    return tuple((samples_seen(run, t) if plot.x == SAMPLES else float(t), value) for t, value in few)


def samples_seen(run: Run, t: int) -> float:
    """The samples that a run has seen after update `t`, by its plan; 0 where it has none."""
    stages = run.plan.get("batches") or [{"update": 0, "samples": 0, "batch": run.plan.get("global_batch") or 0}]
    stage = next((one for one in reversed(stages) if one["update"] <= t), stages[0])
    return float(stage["samples"] + (t + 1 - stage["update"]) * stage["batch"])
