"""All that is shown of a study, gathered once for the page, the pictures and the terminal."""

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.tools.report import heats, views
from trainer.tools.report.curves import POINTS, Points, curves
from trainer.tools.report.heats import Heat
from trainer.tools.report.importance import Importance, importance
from trainer.tools.report.runs import Run
from trainer.tools.report.study import Study, command
from trainer.tools.report.views import Axis, Line
from trainer.tools.report.words import Finding, findings

SHOWN = 6
"""Runs whose learning curves are laid over each other."""
BUDGET = 60_000
"""Points of curves that a page carries for each of the three series."""


@dataclass(frozen=True)
class Exhibit:
    """A study with its pictures' contents, its sentences, the curves of its runs, and where the runs lie."""

    study: Study
    title: str
    lines: Sequence[Line]
    batch: Heat | None
    momentum: Heat | None
    parallel: Sequence[Axis]
    importance: Importance | str
    findings: Sequence[Finding]
    curves: dict[int, dict[str, Points]]
    links: dict[int, str]
    given: Path

    @property
    def command(self) -> str:
        """The best configuration as a command."""
        return command(self.study.cells[0].runs[0].words)

    @property
    def best_line(self) -> Line | None:
        """The line of rates with the best mean."""
        sign = self.study.sign
        return min(self.lines, key=lambda line: min(sign * told.mean for _, told in line.means), default=None)

    @property
    def leading(self) -> list[Run]:
        """The runs whose curves are shown first: one of each of the best configurations."""
        best = [cell.runs[0] for cell in self.study.cells]
        return [run for run in best if run.number in self.curves][:SHOWN]

    def board(self, run: Run) -> str:
        """The command that shows a run in TensorBoard."""
        return shlex.join(["tensorboard", "--logdir", str(self.given / run.name)])

    def doctor(self, run: Run) -> str:
        """The command that says what is wrong with a run."""
        return shlex.join(["python", "scripts/doctor.py", str(self.given / run.name)])


def exhibit(study: Study, given: Path, out: Path, within: float) -> Exhibit:
    """Analyse a study; `given` is its folder as typed, `out` is where the page will lie."""
    lines = views.lines(study, within)
    points = max(24, min(POINTS, BUDGET // len(study.runs)))
    logged = {run.number: curves(run.folder, study.metric, points) for run in study.runs}
    columns = {key: [study.value(run, key) for run in study.good] for key in study.settings}
    here = out.resolve()
    return Exhibit(
        study=study,
        title=given.resolve().name or str(given),
        lines=lines,
        batch=heats.by_batch(study),
        momentum=heats.by_momentum(study),
        parallel=views.parallel(study),
        importance=importance(columns, [study.cost(run) for run in study.good]),
        findings=findings(study, lines),
        curves={number: series for number, series in logged.items() if series},
        links={run.number: Path(os.path.relpath(run.folder.resolve(), here)).as_posix() for run in study.runs},
        given=given,
    )
