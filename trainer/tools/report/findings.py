"""What the numbers say, as sentences, each with the command that follows from it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from trainer.tools.report.comparison import Comparison, Repeats, compare_options, grouped
from trainer.tools.report.optimum import Optimum
from trainer.tools.report.rates import Width, find_edge, refine
from trainer.tools.report.response import RateCurve
from trainer.tools.report.runs import Run
from trainer.tools.report.study import BATCH_FACTORS, Study, format_command, format_value
from trainer.tools.run_folders import TUNE, read_tree, rollbacks_of

COARSE = 3.0
"""A finer grid is worth its runs where the neighbours of the best rate are at least this factor apart."""


class Finding(NamedTuple):
    """A sentence: `kind` is edge, optimum, width, compare, tune or note; `command` is what to run next, if it follows.

    `curve` names the rate curve that it is about, where there are several.
    """

    kind: str
    text: str
    command: str = ""
    curve: str = ""


def find_all(study: Study, curves: Sequence[RateCurve]) -> list[Finding]:
    """All findings of a study."""
    compared = [one for key in study.choices for one in _comparisons(study, key)]
    return [*_duplicates(study), *_rollbacks(study), *_of_curves(study, curves), *_other_edges(study), *compared]


def answer_of_tune(study: Study, folder: Path) -> list[Finding]:
    """What `cadence tune` has found, in a folder of its own: the best of all its trainings may be a short one."""
    found = read_tree(folder / TUNE) or {}
    given, answer = found.get("overrides"), found.get("override")
    if not (isinstance(given, list) and isinstance(answer, list) and answer):
        return []
    words = " ".join(map(str, answer))
    text = f"cadence tune ends with {words}. The best configuration of this page may be one of its shorter trainings."
    return [Finding("tune", text, format_command(study.scored[0], overrides=[*map(str, given), *map(str, answer)]))]


def leading_findings(study: Study, curves: Sequence[RateCurve], findings: Sequence[Finding]) -> list[Finding]:
    """The sentences that no table has; of several rate curves, those about the best one."""
    best = min(curves, key=lambda curve: study.sign * study.best_mean(curve.means)[1].mean, default=None)
    kept = ("", best.name if best else "")
    return [one for one in findings if one.kind not in ("optimum", "width") and one.curve in kept]


def _duplicates(study: Study) -> Iterator[Finding]:
    more = sum(len(one.runs) - one.repeats.n for one in study.configurations)
    if more:
        subject = "1 run is" if more == 1 else f"{more} runs are"
        same = "the same seed" if study.repeated == "seeds" else "the same seed and fold"
        yield Finding("note", f"{subject} the same as another under {same}: they count by their mean.")


def _rollbacks(study: Study) -> Iterator[Finding]:
    back = [(run.name, lines) for run in study.scored if (lines := rollbacks_of(run.plan))]
    if back:
        subject = "1 run has" if len(back) == 1 else f"{len(back)} runs have"
        some = [f"{name} {'; '.join(lines)}" for name, lines in back[:3]] + ["…"] * (len(back) > 3)
        yield Finding("note", f"{subject} diverged, and the guard has rolled back: {', '.join(some)}.")


def _of_curves(study: Study, curves: Sequence[RateCurve]) -> Iterator[Finding]:
    for curve in curves:
        for one in _of_curve(study, curve):
            yield one if len(curves) == 1 else one._replace(text=f"{curve.name}: {one.text}", curve=curve.name)


def _of_curve(study: Study, curve: RateCurve) -> Iterator[Finding]:
    edge = curve.edge
    if edge is not None and edge.extension:
        where = f"{edge.best:g}, is the {edge.side} end of the grid"
        text = f"the best rate, {where}, better than its neighbour by {abs(edge.margin):.3g}: extend the grid."
        more = ",".join(map(format_value, edge.extension))
        yield Finding("edge", text, _command_with(study, curve.runs, str(study.lr), more))
    elif edge is not None:
        text = f"the best rate, {edge.best:g}, is the last with a value: the runs beyond it failed or were pruned."
        yield Finding("edge", text)
    if isinstance(curve.fit, Optimum):
        fit = curve.fit
        text = f"optimum at {fit.rate:.3g}, 95 % interval {fit.low:.3g} to {fit.high:.3g}"
        yield Finding("optimum", f"{text}, by a parabola in the log of the rate through {fit.points} runs.")
    elif edge is None and len(curve.means) > 1:
        yield Finding("note", f"no interval for the optimum: {curve.fit}.", _command_for_finer_grid(study, curve))
    if curve.width is not None and curve.is_grid:
        yield Finding("width", f"{study.metric} stays {_format_width(curve.width)}")


def _format_width(width: Width) -> str:
    span = f"{width.decades:.2g} decades, {width.low:.3g} to {width.high:.3g}"
    if width.open_low or width.open_high:
        ends = "to the high end" if not width.open_low else "from end to end" if width.open_high else "from the low end"
        span = f"at least {span}, {ends} of the grid"
    return f"within {100 * width.within:g} % of its best over {span}."


def _command_for_finer_grid(study: Study, curve: RateCurve) -> str:
    """The command for rates between the best and its neighbours, where the rates make a grid."""
    grid = [rate for rate, _ in curve.means]
    best, _ = study.best_mean(curve.means)
    if not curve.is_grid or curve.best_of_several or not grid[0] < best < grid[-1]:
        return ""
    at = grid.index(best)
    if grid[at + 1] < COARSE * grid[at - 1]:  # here more seeds would help, not more rates
        return ""
    return _command_with(study, curve.runs, str(study.lr), ",".join(map(format_value, refine(grid, best))))


def _other_edges(study: Study) -> Iterator[Finding]:
    """Settings other than the rate whose best value is at an end of their grid."""
    for key in study.settings:
        if key == study.lr or not study.is_numeric(key):
            continue
        bests: dict[float, float] = {}
        for one in study.configurations:
            value = float(dict(one.values)[key])
            bests[value] = min(bests.get(value, float("inf")), study.sign * one.repeats.mean)
        edge = find_edge(list(bests), list(bests.values()))
        last = edge is not None and key in BATCH_FACTORS and edge.best == 1  # nothing lies below a batch of one
        if edge is not None and not last and len(bests) * 2 <= len(study.configurations):
            yield Finding("edge", f"the best {study.labels[key]}, {edge.best:g}, is the {edge.side} end of the grid.")


def _comparisons(study: Study, key: str) -> Iterator[Finding]:
    """The options of a key against the best one."""
    rest = [name for name in study.settings if name != key]
    options = grouped((format_value(study.value(run, key)), run) for run in study.scored)
    found = compare_options({name: study.costs(runs, rest) for name, runs in options.items()})
    for comparison in found:
        yield Finding("compare", f"{study.labels[key]}: {_format_comparison(comparison, study.repeated)}")
    if found and (unequal := _unequal_budgets(study, key, list(options))):
        yield Finding("note", f"{study.labels[key]}: {unequal}")


def _format_comparison(one: Comparison, repeated: str) -> str:
    parts = []
    if one.tuned:
        parts.append(f"each at its own best settings, {_format_difference(one.tuned, one.level, repeated)}")
    if one.grid and one.shared > 1:
        where = f"at the same {one.shared} settings"
        parts.append(f"{where}, {_format_difference(one.grid, one.level, repeated)}, and better at {one.wins} of them")
    return f"{one.option} against {one.other}: {'; '.join(parts) or f'they have no {repeated} in common'}."


def _format_difference(of: Repeats, level: float, repeated: str) -> str:
    """A paired difference, above zero where the first is better."""
    word, sign = ("better", 1) if of.mean >= 0 else ("worse", -1)
    if of.low is None or of.high is None:
        return f"{word} by {abs(of.mean):.2g} (one run of each, so no interval)"
    low, high = sorted((sign * of.low, sign * of.high))
    chance = ": may be chance" if low <= 0 else ""
    interval = f"{100 * level:.3g} % interval {low:.2g} to {high:.2g}"
    return f"{word} by {abs(of.mean):.2g} ({interval}, {of.n} {repeated}{chance})"


def _unequal_budgets(study: Study, key: str, options: Sequence[str]) -> str:
    """The runs and samples that each option was given, where they differ."""
    budgets = {}
    for name in options:
        runs = [run for run in study.described if format_value(study.value(run, key)) == name]
        budgets[name] = (len(runs), sum(_samples(run) for run in runs))
    if len(set(budgets.values())) < 2:
        return ""
    given = ", ".join(f"{name} {runs} runs of {samples:,} samples in all" for name, (runs, samples) in budgets.items())
    return f"the budgets are not equal, so the comparison is not fair: {given}."


def _samples(run: Run) -> int:
    total, batch = run.plan.get("total_updates"), run.plan.get("global_batch")
    return total * batch if isinstance(total, int) and isinstance(batch, int) else 0


def _command_with(study: Study, runs: Sequence[Run], key: str, values: str) -> str:
    """The command that runs more values of a key, for all other values that these runs had."""
    overrides = {}
    for override in runs[0].overrides:
        typed = override.partition("=")[0]
        name = typed.lstrip("+~")
        new = values if name == key else _typed_values(study, name, runs)
        overrides[name] = f"{typed}={new}" if new else override
    overrides.setdefault(key, f"{key}={values}")
    return format_command(runs[0], "-m", overrides=overrides.values())


def _typed_values(study: Study, key: str, runs: Sequence[Run]) -> str:
    """The values that runs had for a key, as typed; empty where there is only one, or a run did not type it."""
    texts = {study.value(run, key): run.typed.get(key) or "" for run in runs}
    levels = study.levels(key, runs)
    return ",".join(texts[level] for level in levels) if len(levels) > 1 and all(texts.values()) else ""
