"""The command line of an experiment: it trains, prints its tables, writes NAME.json and NAME.png, and judges."""

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import machine
from experiments.verdict import Verdict
from trainer.lr import ConfigError
from trainer.lr.bounds import whole

COLORS = ("#2a6f97", "#e07a1f", "#3a8f5c", "#9b3d6e", "#8a7a2f", "#6b5ca5", "#5d5d5d", "#c0392b")
"""Of the curves in a picture."""
DOCS = Path(__file__).resolve().parents[1] / "docs" / "experiments"


@dataclass(frozen=True)
class Table:
    """Rows of text under a head; the first column names the row."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def lines(self) -> list[str]:
        """As Markdown, which also reads well on a terminal; numbers to the right."""
        columns = [[str(row[i]) for row in [self.head, *self.rows]] for i in range(len(self.head))]
        shown = []
        for title, *cells in columns:
            wide, right = max(map(len, (title, *cells))), bool(cells) and cells[0].lstrip("-*")[:1].isdigit()
            rule = "-" * (wide - 1) + (":" if right else "-")
            shown.append([cell.rjust(wide) if right else cell.ljust(wide) for cell in (title, rule, *cells)])
        return [f"| {' | '.join(row)} |" for row in zip(*shown)]


@dataclass(frozen=True)
class Result:
    """What an experiment found. `draw` fills a matplotlib figure; `notes` are sentences for the page."""

    verdicts: Sequence[Verdict]
    tables: Sequence[Table]
    draw: Callable[[Any], None]
    notes: Sequence[str] = ()
    runs: int = 0


@dataclass(frozen=True)
class Experiment:
    """`run(seeds, processes)` trains and judges; `about` says in a sentence what is claimed, `setting` how it is tried.

    `size` is that of the picture in inches.
    """

    name: str
    title: str
    about: str
    setting: str
    seeds: int
    run: Callable[[Sequence[int], int], Result]
    size: tuple[float, float] = (8.0, 4.2)


class NotReproduced(RuntimeError):
    """A claim does not hold, or a negative control does."""


def command(experiment: Experiment, description: str | None, arguments: list[str] | None = None) -> None:
    """Run the experiment. Raises `NotReproduced`, exit code 1, where it is not as claimed."""
    options = _parsed(experiment, description, arguments)
    check_writable(options.out / f"{experiment.name}.json", "--docs" if options.docs else "--out")
    begun = time.perf_counter()
    result = experiment.run(range(options.seeds), options.jobs)
    words = shlex.join(["python", f"experiments/{experiment.name}.py", *(arguments or sys.argv[1:])])
    report = _report(experiment, result, words, time.perf_counter() - begun, options)
    for table in result.tables:
        print("\n".join(["", table.title, "", *table.lines()]))
    print("\n".join(["", *judged(report["verdicts"]).lines(), "", *result.notes, _cost(report)]))
    stem = options.out / experiment.name
    _draw(experiment, result, Path(f"{stem}.png"))
    Path(f"{stem}.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{stem}.json  {stem}.png")
    missed = [verdict.claim for verdict in result.verdicts if not verdict.passed]
    if missed:
        raise NotReproduced(f"{experiment.name}: {len(missed)} of {len(result.verdicts)} not as claimed: {missed[0]}")


def judged(rows: Sequence[dict[str, Any]]) -> Table:
    """The verdicts as a table."""

    def shown(value: Any) -> str:
        return f"{value:.3g}" if isinstance(value, float | int) else str(value)

    cells = [[row["claim"], shown(row["measured"]), row["threshold"], row["outcome"], row["source"]] for row in rows]
    return Table("Verdict", ["claim", "measured", "threshold", "verdict", "source"], cells)


def _parsed(experiment: Experiment, description: str | None, arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    count, default = min(2, os.cpu_count() or 1), Path("outputs/experiments")
    parser.add_argument(
        "--seeds", type=int, default=experiment.seeds, metavar="N", help=f"0 to N-1 ({experiment.seeds})"
    )
    parser.add_argument("--out", type=Path, default=default, metavar="FOLDER", help=f"where to write ({default})")
    parser.add_argument("--docs", action="store_true", help="write into docs/experiments, for the page")
    parser.add_argument("--jobs", type=int, default=count, metavar="N", help=f"processes that train ({count})")
    options = parser.parse_args(arguments)
    whole("--seeds", options.seeds, "give how many.")
    whole("--jobs", options.jobs, "give how many.")
    options.out = DOCS if options.docs else options.out
    return options


def check_writable(path: Path, option: str) -> None:
    """Refuse a place that cannot be written, before anything is trained."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = not path.exists()
        with path.open("a"):
            pass
        if new:
            path.unlink()
    except OSError as error:
        raise ConfigError(f"{option}: {path} cannot be written ({error.strerror}): name another folder.") from error


def _report(
    experiment: Experiment, result: Result, words: str, seconds: float, options: argparse.Namespace
) -> dict[str, Any]:
    """All that the page needs."""
    where = machine(1)
    return {
        "name": experiment.name,
        "title": experiment.title,
        "about": experiment.about,
        "setting": experiment.setting,
        "pass": all(verdict.passed for verdict in result.verdicts),
        "verdicts": [verdict.row() for verdict in result.verdicts],
        "tables": [
            {"title": one.title, "head": list(one.head), "rows": [list(row) for row in one.rows]}
            for one in result.tables
        ],  # fmt: skip  # noqa: E501
        "notes": list(result.notes),
        "command": words,
        "seeds": options.seeds,
        "cost": {"runs": result.runs, "seconds": round(seconds, 1), "processes": options.jobs},
        "machine": {"processor": where["processor"], "cores": where["cores"], "versions": where["versions"]},
    }


def _cost(report: dict[str, Any]) -> str:
    cost = report["cost"]
    return f"{cost['runs']} runs in {cost['seconds']:.0f} s, {cost['processes']} at a time"


def _draw(experiment: Experiment, result: Result, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=experiment.size, layout="constrained")
    FigureCanvasAgg(figure)
    result.draw(figure)
    for panel in figure.axes:
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
