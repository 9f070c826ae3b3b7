"""The claims of an experiment, and the plots that show them: what `claims.json` beside the runs holds.

Whoever has measured the claims writes the file (`write_claims`); the report reads it, and draws a table of the claims
and a figure for each plot.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trainer.config.instantiate import check_values
from trainer.files.atomic import write_text
from trainer.files.plain import read_text
from trainer.log.scalars import scalars
from trainer.lr import ConfigError
from trainer.tools.drawing import series_color, suits_log
from trainer.tools.report import figures
from trainer.tools.report.comparison import by_repeat, grouped, repeats
from trainer.tools.report.figures import Cell, Figure, Panel, Row, Section, Trace
from trainer.tools.report.rates import is_geometric
from trainer.tools.report.response import Point
from trainer.tools.report.runs import Run, few_points
from trainer.tools.report.study import BATCH, Study, format_value
from trainer.tools.run_folders import is_number, value_order

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
    write_text(path, text + "\n")
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
        tree = json.loads(read_text(path))
        claims = tuple(_made(Claim, one) for one in tree.get("claims", []))
        plots = tuple(_made(Plot, one) for one in tree.get("plots", []))
        return Claims(**{**tree, "claims": claims, "plots": plots})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} cannot be read as claims ({error}): write it with write_claims.") from error


def _made(kind: type, fields: Any) -> Any:
    """A claim or a plot of a file, with the types of its fields checked."""
    made = kind(**fields)
    check_values(kind.__name__.lower(), kind, fields)
    return made


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
    head = [Cell(""), Cell("claim"), Cell("measured", "n"), Cell("threshold"), Cell("source")]
    columns = len(head) if any(claim.source for claim in claims.claims) else len(head) - 1
    table = [row[:columns] for row in (head, *map(_claim_row, claims.claims))]
    title = f"Claims: {claims.title}" if claims.title else "Claims"
    judged = [claim for claim in claims.claims if claim.kind != "note"]
    right = sum(claim.is_as_it_must for claim in judged)
    note = f"{right} of {len(judged)} came out as they must. {claims.source}".strip()
    return [Section("claims", title, note, table=table), *plots]


def _claim_row(claim: Claim) -> Row:
    role = "soft" if claim.kind == "note" else "good" if claim.is_as_it_must else "bad"
    text = f"{claim.text} ({claim.note})" if claim.note else claim.text
    measured = Cell(_number(claim.measured), "n")
    return [Cell(outcome(claim), role), Cell(text, "wide"), measured, Cell(_limit(claim)), Cell(claim.source, "wide")]


def outcome(claim: Claim) -> str:
    """The word of the verdict."""
    if claim.outcome or claim.kind == "note":
        return claim.outcome or "seen"
    return "holds" if claim.holds else "does not hold"


def format_claim(claim: Claim) -> str:
    """A claim as a line for a terminal."""
    return f"{outcome(claim)}: {claim.text}: {_number(claim.measured)} ({_limit(claim)})"


def _limit(claim: Claim) -> str:
    return f"{claim.relation} {_number(claim.threshold)}".strip()


def _number(value: Any) -> str:
    return f"{value:.4g}" if is_number(value) else str(value)


def plot_figure(study: Study, plot: Plot) -> Figure:
    """The figure of a plot.

    Raises:
        ConfigError: no run has what it shows, or runs at one point differ in more than the seed.
    """
    data = _PlotData(study, plot)
    drawn = []
    for value, runs in data.groups(plot.panels, data.runs):
        traces = [one for line, same in data.groups(plot.lines, runs) for one in data.traces(line, same)]
        if traces:
            drawn.append((data.name(plot.panels, value), traces))
    if not drawn:
        raise ConfigError(f"plot {plot.name}: no run has {plot.y} and {plot.x}: take names of its result and config.")
    ys = [y for _, traces in drawn for one in traces for y in one["y"] if math.isfinite(y)]
    y = figures.axis(plot.y, log=suits_log([*ys, *(value for value, _ in plot.levels)]))
    panels: list[Panel] = [(y, traces, title) for title, traces in drawn]
    count = len(panels)
    found = figures.figure(data.x_axis, panels, 450 if count == 1 else 120 + 240 * count, legend=bool(plot.lines))
    for i, (value, text) in ((i, level) for i in range(count) for level in plot.levels):
        figures.add_level(found, f"y{i + 1 if i else ''}", value, text)
    return found


class _PlotData:
    """The runs that a plot keeps, where each lies on the x axis, and the colour of each line."""

    def __init__(self, study: Study, plot: Plot) -> None:
        self.study, self.plot = study, plot
        where = {key: format_value(value) for key, value in (plot.where or {}).items()}
        self.runs = [
            run
            for run in study.described
            if all(format_value(study.value(run, key)) == value for key, value in where.items())
        ]
        self.colors = {value: series_color(i) for i, (value, _) in enumerate(self.groups(plot.lines, self.runs))}
        self.from_log = plot.x in (UPDATE, SAMPLES)
        self.positions, self.x_axis = ({}, figures.axis(plot.x)) if self.from_log else self._placed()

    def groups(self, key: str, runs: Sequence[Run]) -> list[tuple[Any, list[Run]]]:
        """The runs by their value of a key, in order; all in one group where there is no key."""
        groups = grouped((self.study.value(run, key) if key else "", run) for run in runs)
        return sorted(groups.items(), key=lambda item: value_order(item[0]))

    def name(self, key: str, value: Any) -> str:
        """A value with the name of its key."""
        label = self.study.labels.get(key, key.rpartition(".")[2])
        return f"{label} {format_value(value)}" if key else ""

    def _placed(self) -> tuple[dict[int, float], dict[str, Any]]:
        """Where each run lies on the x axis, and the axis: numbers lie at their value, words side by side."""
        title, batches = self.plot.x, self.study.batches if self.plot.x == BATCH else {}
        values = {run.number: batches.get(run.number, self.study.value(run, title)) for run in self.runs}
        levels = sorted(set(values.values()), key=value_order)
        if all(map(is_number, levels)):
            axis = figures.value_axis(title, levels, is_geometric(levels))
            return {number: float(value) for number, value in values.items()}, axis
        ticks = list(enumerate(map(format_value, levels)))
        axis = figures.axis(title, ticks=ticks, range=[-0.3, len(ticks) - 0.7])
        return {number: float(levels.index(value)) for number, value in values.items()}, axis

    def traces(self, line: Any, runs: Sequence[Run]) -> list[Trace]:
        """The traces of a line: what each run logged, or the means over seeds."""
        name, color = self.name(self.plot.lines, line) or self.plot.y, self.colors[line]
        if not self.from_log:
            return self._measured(name, color, runs)
        logged = [(run, points) for run in runs if (points := logged_points(run, self.plot))]
        return [figures.run_line(name, run, points, color, width=1.4, opacity=0.8) for run, points in logged]

    def _measured(self, name: str, color: str, runs: Sequence[Run]) -> list[Trace]:
        """The means over seeds with their spread as a line, and a point for each run."""
        pairs = [(run, y) for run in runs if (y := _y_value(run, self.plot.y)) is not None]
        xs = [self.positions[run.number] for run, _ in pairs]
        same = sorted(grouped(zip(xs, pairs)).items())
        if not same:
            return []
        for _, found in same:
            self._refuse_mixture([run for run, _ in found])
        means = [(x, repeats(list(by_repeat((run.repeat, y) for run, y in found).values()))) for x, found in same]
        points = [(x, y) for x, (_, y) in zip(xs, pairs)]
        return [
            figures.mean_line(name, means, color),
            figures.run_dots(name, [run for run, _ in pairs], points, color, self.plot.y),
        ]

    def _refuse_mixture(self, runs: Sequence[Run]) -> None:
        keys = [key for key in self.study.settings if key != self.plot.x and len(self.study.levels(key, runs)) > 1]
        if keys:
            mixed = f"plot {self.plot.name}: runs at one point differ in {', '.join(keys)}, too"
            raise ConfigError(f"{mixed}: name it in lines, panels or where.")


def _y_value(run: Run, name: str) -> float | None:
    """A metric of a run, or a number of its result."""
    if name not in FROM_RESULT:
        return run.value(name)
    value = run.result.get(name) if run.status == "completed" else None
    return float(value) if is_number(value) else None  # type: ignore[arg-type]


def logged_points(run: Run, plot: Plot) -> list[Point]:
    """The logged values of a tag, by update or by the samples seen until then; few also where a run is long."""
    points = scalars(run.folder, (plot.y,)).get(plot.y, [])
    few = few_points(plot.y, points)
    return [(samples_seen(run, t) if plot.x == SAMPLES else float(t), value) for t, value in few]


def samples_seen(run: Run, t: int) -> float:
    """The samples that a run has seen after update `t`, by its plan; 0 where it has no plan."""
    stages = run.plan.get("batches") or [{"update": 0, "samples": 0, "batch": run.plan.get("global_batch") or 0}]
    stage = next((one for one in reversed(stages) if one["update"] <= t), stages[0])
    return float(stage["samples"] + (t + 1 - stage["update"]) * stage["batch"])
