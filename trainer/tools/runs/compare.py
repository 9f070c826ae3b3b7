"""A picture of the learning rates, the training losses and the validated metric of several runs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from trainer.log.scalars import Points
from trainer.lr import ConfigError
from trainer.tools.drawing import COLORS, new_figure, plain, series_color, suits_log
from trainer.tools.report.comparable import comparable
from trainer.tools.report.runs import Run, find_runs, read_curves
from trainer.tools.run_folders import finite
from trainer.tools.runs.table import count_runs, cut, one_line
from trainer.tools.writable import check_new_file, write_new_file

MOST = 64
"""The most runs of a picture: more lines cannot be told apart."""
IN_LEGEND = 12
LONGEST = 48


def compare(folders: Sequence[Path], out: Path, metric: str | None = None, force: bool = False) -> list[str]:
    """Write the picture, and return the lines about it.

    Raises:
        ConfigError: a folder holds no run, there are too many runs, no run has a log, or the file cannot be written.
    """
    check_new_file(out, (".png",), force)
    runs = numbered([replace(run, name=str(run.folder)) for folder in folders for run in find_runs(folder)])
    if len(runs) > MOST:
        raise ConfigError(f"{len(runs)} runs do not fit one picture: name at most {MOST}.")
    watched = metric or _watched(runs)
    logged = [(run, curves) for run in runs if (curves := read_curves(run.folder, watched))]
    if not logged:
        raise ConfigError(f"none of {len(runs)} runs has a TensorBoard log: train with logger=tensorboard.")
    figure = draw([(run.name, curves) for run, curves in logged], watched)
    write_new_file(out, partial(figure.savefig, dpi=120))
    without = [one_line(run.name) for run in runs if all(run is not one for one, _ in logged)]
    apart = comparable([run for run, _ in logged], watched)[1]
    return [
        f"{out}: {count_runs(len(logged))}{', too many for a legend' if len(logged) > IN_LEGEND else ''}",
        *([f"no log, left out: {', '.join(without)}"] if without else []),
        *(
            f"{one_line(runs[number].name)}: its scores do not compare: it is {why}"
            for number, why in apart.items()
            if why
        ),
        *(one_line(f"{run.name}: was resumed: {', '.join(run.changes)}") for run, _ in logged if run.changes),
    ]


def numbered(runs: Sequence[Run]) -> list[Run]:
    """The runs, each once, with their numbers in this order."""
    return [replace(run, number=i) for i, run in enumerate({run.folder: run for run in runs}.values())]


def _watched(runs: Sequence[Run]) -> str:
    """The metric by which most runs chose their best checkpoint, or else the one that most are to watch."""
    bests = [best for run in runs if isinstance(best := run.result.get("best"), dict)]
    names = Counter(name for best in bests if isinstance(name := best.get("metric"), str))
    names = names or Counter(f"val/{run.config.get('task.monitor') or 'loss'}" for run in runs)
    return names.most_common(1)[0][0]


def draw(runs: Sequence[tuple[str, dict[str, Points]]], metric: str) -> Any:
    """Three panels over the updates; a line for each run."""
    titles = {"lr": "learning rate", "loss": "training loss", "metric": metric.replace("test/", "val/", 1)}
    kinds = [kind for kind in titles if any(kind in curves for _, curves in runs)]
    figure, panels = new_figure(9, 1.2 + 2.2 * len(kinds), rows=len(kinds))
    for panel, kind in zip(panels, kinds):
        for i, (_, curves) in enumerate(runs):
            points = [(t, y) for t, y in curves.get(kind, []) if finite(y) is not None]
            dots = {"marker": "."} if len(points) < 30 else {}
            look = {"color": series_color(i), "linestyle": "--" if i // len(COLORS) % 2 else "-", **dots}
            panel.plot([t for t, _ in points], [y for _, y in points], linewidth=1.2, **look)
        panel.set_ylabel(plain(one_line(titles[kind])))
        values = [y for _, curves in runs for _, y in curves.get(kind, []) if finite(y) is not None]
        if kind != "lr" and values and suits_log(values):
            panel.set_yscale("log")
    panels[-1].set_xlabel("update")
    if len(runs) <= IN_LEGEND:
        names = [plain(cut(one_line(f"./{name}" if name[:1] == "_" else name), LONGEST)) for name, _ in runs]
        figure.legend(panels[0].lines, names, loc="outside upper left", ncols=2, fontsize="small", frameon=False)
    return figure
