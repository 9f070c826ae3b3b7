"""What the numbers say, as sentences, each with the command that would follow from it."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from trainer.tools.report.batches import PARTS
from trainer.tools.report.edge import edge, finer
from trainer.tools.report.optimum import Optimum
from trainer.tools.report.repeats import Comparison, Repeats, by_seed, compared
from trainer.tools.report.runs import Run
from trainer.tools.report.study import Study, command, shown
from trainer.tools.report.views import Line
from trainer.tools.report.width import Width

COARSE = 3.0
"""How far the neighbours of the best rate must be apart for a finer grid to be worth its runs."""


class Finding(NamedTuple):
    """A sentence: `kind` is edge, optimum, width, compare or note; `paste` is a command, where one follows.

    `line` is the one of several lines of rates that it is about.
    """

    kind: str
    text: str
    paste: str = ""
    line: str = ""


def findings(study: Study, lines: Sequence[Line]) -> list[Finding]:
    """Everything that the analyses tell."""
    told = [*_twice(study), *_rates(study, lines), *_other_edges(study)]
    for key in study.choices:
        told += _compared(study, key)
    return told


def _twice(study: Study) -> Iterator[Finding]:
    more = sum(len(cell.runs) - cell.repeats.n for cell in study.cells)
    if more:
        how = "1 run is" if more == 1 else f"{more} runs are"
        yield Finding(
            "note", f"{how} the same as another under the same seed, and no repeat: they count by their mean."
        )


def _rates(study: Study, lines: Sequence[Line]) -> Iterator[Finding]:
    for line in lines:
        whose = f"{line.name}: " if len(lines) > 1 else ""
        for one in _line(study, line):
            yield one._replace(text=whose + one.text, line=line.name if len(lines) > 1 else "")


def _line(study: Study, line: Line) -> Iterator[Finding]:
    key = str(study.lr)
    if line.edge is not None and line.edge.more:
        where = f"{line.edge.best:g}, is the {line.edge.side} end of the grid"
        text = f"the best rate, {where}, better than its neighbour by {abs(line.edge.margin):.3g}: extend it."
        yield Finding("edge", text, _extension(study, line.runs, key, ",".join(map(shown, line.edge.more))))
    elif line.edge is not None:
        text = f"the best rate, {line.edge.best:g}, is the last with a value: what lies beyond it failed or was pruned."
        yield Finding("edge", text)
    if isinstance(line.fit, Optimum):
        how = f"of a parabola in the log of the rate through {line.fit.points} runs"
        found = f"optimum at {line.fit.rate:.3g}, 95 % interval {line.fit.low:.3g} to {line.fit.high:.3g}"
        yield Finding("optimum", f"{found}, {how}.")
    elif line.edge is None and len(line.means) > 1:
        yield Finding("note", f"no interval for the optimum: {line.fit}.", _finer(study, line))
    if line.width is not None and line.connected:
        yield Finding("width", f"{study.metric} stays {_wide(line.width)}")


def _wide(width: Width) -> str:
    least = "at least " if width.open_low or width.open_high else ""
    ends = {(True, True): ", both ends being the grid's", (True, False): ", the low end being the grid's"}
    where = {**ends, (False, True): ", the high end being the grid's"}.get((width.open_low, width.open_high), "")
    span = f"{least}{width.decades:.2g} decades, {width.low:.3g} to {width.high:.3g}{where}"
    return f"within {100 * width.within:g} % of its best over {span}."


def _finer(study: Study, line: Line) -> str:
    """The command for rates between the best and its neighbours, where they make a grid."""
    grid = [rate for rate, _ in line.means]
    best = min(line.means, key=lambda pair: study.sign * pair[1].mean)[0]
    if not line.connected or line.best_of_several or not grid[0] < best < grid[-1]:
        return ""
    at = grid.index(best)
    if grid[at + 1] < COARSE * grid[at - 1]:  # here more seeds would help, not more rates
        return ""
    return _extension(study, line.runs, str(study.lr), ",".join(map(shown, finer(grid, best))))


def _other_edges(study: Study) -> Iterator[Finding]:
    for key in study.settings:
        if key == study.lr or not study.numeric(key):
            continue
        bests: dict[float, float] = {}
        for cell in study.cells:
            value = float(dict(cell.values)[key])
            bests[value] = min(bests.get(value, float("inf")), study.sign * cell.repeats.mean)
        found = edge(list(bests), list(bests.values()))
        last = found is not None and key in PARTS and found.best == 1  # there is no batch and no number below
        if found is not None and not last and len(bests) * 2 <= len(study.cells):
            text = f"the best {study.labels[key]}, {found.best:g}, is the {found.side} end of the grid."
            yield Finding("edge", text)


def _compared(study: Study, key: str) -> Iterator[Finding]:
    rest = [name for name in study.settings if name != key]
    options: dict[str, dict[Any, list[tuple[Any, float]]]] = {}
    for run in study.good:
        cells = options.setdefault(shown(study.value(run, key)), {})
        cells.setdefault(study.at(run, rest), []).append((run.seed, study.cost(run)))
    told = compared({name: {at: by_seed(of) for at, of in cells.items()} for name, cells in options.items()})
    for comparison in told:
        yield Finding("compare", f"{study.labels[key]}: {_versus(comparison)}")
    if told and (uneven := _budgets(study, key, list(options))):
        yield Finding("note", f"{study.labels[key]}: {uneven}")


def _versus(told: Comparison) -> str:
    parts = []
    if told.tuned:
        parts.append(f"each at its own best settings, {_difference(told.tuned, told.level)}")
    if told.grid and told.shared > 1:
        where = f"at the same {told.shared} settings"
        parts.append(f"{where}, {_difference(told.grid, told.level)}, and better at {told.wins} of them")
    return f"{told.option} against {told.other}: {'; '.join(parts) or 'they share no seed'}."


def _difference(of: Repeats, level: float) -> str:
    """A paired difference, above zero where the first is better."""
    word, turn = ("better", 1) if of.mean >= 0 else ("worse", -1)
    if of.low is None or of.high is None:
        return f"{word} by {abs(of.mean):.2g} (one seed, so no interval)"
    low, high = sorted((turn * of.low, turn * of.high))
    chance = ": may be chance" if low <= 0 else ""
    return f"{word} by {abs(of.mean):.2g} ({100 * level:.3g} % interval {low:.2g} to {high:.2g}, {of.n} seeds{chance})"


def _budgets(study: Study, key: str, options: Sequence[str]) -> str:
    """What each option was given, where that differs: runs, and updates in each."""
    spent = {}
    for name in options:
        runs = [run for run in study.told if shown(study.value(run, key)) == name]
        samples = sum(_samples(run) for run in runs)
        spent[name] = (len(runs), samples)
    if len(set(spent.values())) < 2:
        return ""
    given = ", ".join(f"{name} {runs} runs of {samples:,} samples in all" for name, (runs, samples) in spent.items())
    return f"the budgets are not equal, so the comparison is not fair: {given}."


def _samples(run: Run) -> int:
    total, batch = run.plan.get("total_updates"), run.plan.get("global_batch")
    return total * batch if isinstance(total, int) and isinstance(batch, int) else 0


def _extension(study: Study, runs: Sequence[Run], key: str, values: str) -> str:
    """The command that runs more values of a key, for the other values that these runs have had."""
    told = {}
    for word in runs[0].words:
        given = word.partition("=")[0]
        name = given.lstrip("+~")
        new = values if name == key else _typed(study, name, runs)
        told[name] = f"{given}={new}" if new else word
    told.setdefault(key, f"{key}={values}")
    return command(told.values(), "train.py", "-m")


def _typed(study: Study, key: str, runs: Sequence[Run]) -> str:
    """All values that runs had for a key, as they were typed; nothing where it is one, or not typed for some."""
    texts = {}
    for run in runs:
        words = (word.partition("=") for word in run.words)
        texts[study.value(run, key)] = next((text for name, _, text in words if name.lstrip("+~") == key), "")
    levels = study.levels(key, runs)
    return ",".join(texts[level] for level in levels) if len(levels) > 1 and all(texts.values()) else ""
