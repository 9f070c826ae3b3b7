"""Colours of all pictures, and an empty matplotlib figure."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from trainer.cli.extras import needed

COLORS = ("#2a6f97", "#e07a1f", "#3a8f5c", "#9b3d6e", "#6b5ca5", "#8a7a2f", "#4f9da6", "#b0413e")
"""Colours of series, in their order."""
GREY = "#8a8a8a"
_commands: list[bool] = []


def needed_for_pictures() -> None:
    """Refuse, before anything is trained, a command that cannot draw its picture at the end."""
    if find_spec("matplotlib") is None:
        needed("matplotlib", "the picture (--no-files leaves it out)")
    _commands.append(True)


@contextmanager
def _undocumented() -> Iterator[None]:
    """In a command, matplotlib is imported without texts and signatures for help(), a quarter of the time."""
    artist = needed("matplotlib.artist", "a picture")
    left_out = {
        (artist, "kwdoc"): lambda kind: "",
        (artist.Artist, "_update_set_signature_and_docstring"): classmethod(lambda kind: None),
    }
    before = {place: vars(place[0]).get(place[1]) for place in left_out}
    if not _commands or None in before.values():
        yield
        return
    for (owner, name), empty in left_out.items():
        setattr(owner, name, empty)
    try:
        yield
    finally:
        for (owner, name), made in before.items():
            setattr(owner, name, made)


def series_color(i: int) -> str:
    """The colour of the series number `i`."""
    return COLORS[i % len(COLORS)]


def new_figure(width: float, height: float, rows: int = 1, **subplots: Any) -> tuple[Any, list[Any]]:
    """A figure of so many inches that needs no display, and its panels below each other.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    with _undocumented():
        figure = needed("matplotlib.figure", "a picture").Figure(figsize=(width, height), layout="constrained")
        needed("matplotlib.backends.backend_agg", "a picture").FigureCanvasAgg(figure)
    panels = list(figure.subplots(rows, 1, sharex=True, squeeze=False, **subplots)[:, 0])
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
    return figure, panels


def plain(text: str) -> str:
    """Text that matplotlib draws as it is: text between two dollars would be drawn as mathematics."""
    return text.replace("$", r"\$")


def suits_log(values: Sequence[float]) -> bool:
    """Whether a log axis suits the values of a metric: all above zero, and the largest more than 8 times the least."""
    return min(values) > 0 and max(values) > 8 * min(values)
