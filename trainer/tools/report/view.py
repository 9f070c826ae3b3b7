"""What the report shows, before it is written as a page, as pictures and as lines for a terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from trainer.tools.report.figures import Figure
from trainer.tools.report.findings import Finding
from trainer.tools.report.runs import Points
from trainer.tools.report.study import Study


class Cell(NamedTuple):
    """A cell of a table. `role` is empty, `n` for a number, `soft`, `good`, `bad` or `wide`."""

    text: str
    role: str = ""


Row = Sequence[Cell]


@dataclass(frozen=True)
class Section:
    """A part of the page: a heading, a note, and a figure, a table or both.

    The first row of the table is its head. The picture of the figure is `name`.png.
    """

    name: str
    title: str
    note: str = ""
    figure: Figure | None = None
    table: Sequence[Row] = ()


@dataclass(frozen=True)
class Report:
    """The report of a study; `folder` is as typed.

    `findings` are those of the page, the terminal shows `all_findings`. `claims` are the sections of an experiment,
    which come first. `logged` are the curves of each run that has a log, by its number.
    """

    study: Study
    folder: Path
    findings: Sequence[Finding]
    all_findings: Sequence[Finding]
    claims: Sequence[Section]
    claim_lines: Sequence[str]
    sections: Sequence[Section]
    logged: Mapping[int, Mapping[str, Points]]

    @property
    def title(self) -> str:
        """The name of the folder."""
        return self.folder.resolve().name or str(self.folder)
