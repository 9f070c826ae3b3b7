"""The view model of the report: everything that is decided about the page and its figures, before anything is drawn.

`page` draws it as HTML with Plotly, `png` as pictures with matplotlib. Both read these values and decide nothing.
"""

from dataclasses import dataclass

from trainer.tools.report.findings import Finding

SCALE = ((0.0, "#2a6f97"), (0.35, "#5fa8a0"), (0.65, "#e9c46a"), (1.0, "#e07a1f"))
"""From the best, 0, to the worst, 1: colours of lines."""
PALE = ((0.0, "#8fc1d9"), (0.35, "#b5d9cb"), (0.65, "#f3e0a6"), (1.0, "#efb08a"))
"""The same as grounds behind words."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """An axis: its title, whether it is logarithmic, its ticks with their words (None: the renderer's own), its ends.

    Ticks and ends are in the units of the data, of a logarithmic axis too.
    """

    title: str = ""
    log: bool = False
    ticks: tuple[tuple[float, str], ...] | None = None
    ends: tuple[float, float] | None = None
    from_zero: bool = False
    percent: bool = False
    on_top: bool = False
    visible: bool = True


@dataclass(frozen=True)
class Series:
    """Points, drawn as `dots`, `line`, `line+dots` or `cross`.

    `spread` are standard deviations as bars; `colors` one colour a point in place of `color`; `runs` the numbers of the
    runs that a click opens, one a point or one for all. `hover` is what a pointer shows, with {x}, {y} and {text}.
    Series of one `group` share a place in the legend.
    """

    name: str
    points: tuple[Point, ...]
    color: str = ""
    mark: str = "line"
    dash: str = "solid"
    width: float = 1.8
    size: float = 6.0
    opacity: float = 1.0
    spread: tuple[float, ...] = ()
    colors: tuple[str, ...] = ()
    runs: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()
    hover: str = ""
    group: str = ""
    in_legend: bool = False


@dataclass(frozen=True)
class Cells:
    """A heat map: rows of shades from the best, 0, to the worst, 1; None is empty. Centres lie at `xs` and `ys`."""

    xs: tuple[float, ...]
    ys: tuple[float, ...]
    shades: tuple[tuple[float | None, ...], ...]
    texts: tuple[tuple[str, ...], ...]
    runs: tuple[tuple[int | None, ...], ...]
    hover: str


@dataclass(frozen=True)
class Bars:
    """Horizontal bars from the top, each with a range: name, value, low end and high end of the range."""

    items: tuple[tuple[str, float, float, float], ...]
    color: str
    range_color: str


@dataclass(frozen=True)
class Words:
    """Words at points: `anchor` is the side of the words that lies at the point, left, right or center."""

    items: tuple[tuple[float, float, str], ...]
    anchor: str = "center"
    hover: str = ""
    color: str = ""


@dataclass(frozen=True)
class Panel:
    """One pair of axes with what is drawn on it, and a title where there are several.

    `levels` are horizontal lines with a word each, `uprights` vertical lines.
    """

    x: Axis
    y: Axis
    series: tuple[Series, ...] = ()
    cells: Cells | None = None
    bars: Bars | None = None
    words: tuple[Words, ...] = ()
    levels: tuple[tuple[float, str], ...] = ()
    uprights: tuple[float, ...] = ()
    title: str = ""


@dataclass(frozen=True)
class Figure:
    """Panels below each other over one x axis. `height` is in pixels of the page, `inches` the size of the picture."""

    panels: tuple[Panel, ...]
    height: int
    inches: tuple[float, float]
    legend: bool = False
    wide: bool = False
    """Whether the panels have no axis words to the left, and so no margin there."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, the number that it is sorted by, and its role: plain, soft, good or bad."""

    text: str
    number: float | None = None
    role: str = ""


@dataclass(frozen=True)
class Table:
    """Rows under heads; a head says whether its column holds numbers."""

    heads: tuple[tuple[str, bool], ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Section:
    """A part of the page: a heading, a note, and a figure, a table or both. The picture of the figure is `name`.png."""

    name: str
    title: str
    note: str = ""
    figure: Figure | None = None
    table: Table | None = None


@dataclass(frozen=True)
class RunView:
    """A run on the page: the cells of its row, and what the row shows when it is opened."""

    number: int
    name: str
    settings: str
    href: str
    left_out: str
    error: str
    cells: tuple[Cell, ...]
    curves: Figure | None
    command: str
    tensorboard: str
    doctor: str


@dataclass(frozen=True)
class Best:
    """The best configuration: its value and standard error over the seeds, its settings, the command that runs it."""

    value: str
    error: str
    seeds: int
    settings: str
    command: str


@dataclass(frozen=True)
class View:
    """The whole report. `findings` are those of the page; the terminal shows `all_findings`.

    `claims` are the sections of an experiment, which come first.
    """

    title: str
    metric: str
    lead: str
    best: Best
    findings: tuple[Finding, ...]
    all_findings: tuple[Finding, ...]
    claims: tuple[Section, ...]
    sections: tuple[Section, ...]
    heads: tuple[tuple[str, bool], ...]
    runs: tuple[RunView, ...]
    claim_lines: tuple[str, ...] = ()

    @property
    def left_out(self) -> tuple[RunView, ...]:
        """The runs without a value, in the order of the jobs."""
        return tuple(sorted((run for run in self.runs if run.left_out), key=lambda run: run.number))


def blend(place: float, scale: tuple[tuple[float, str], ...] = SCALE) -> str:
    """The colour of a place between the best, 0, and the worst, 1.

    >>> blend(0.0)
    '#2a6f97'
    """
    place = min(1.0, max(0.0, place))
    upper = next(i for i, (end, _) in enumerate(scale) if i and place <= end)
    (a, low), (b, high) = scale[upper - 1], scale[upper]
    share = (place - a) / (b - a)
    mixed = (round((1 - share) * int(low[i : i + 2], 16) + share * int(high[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{part:02x}" for part in mixed)
