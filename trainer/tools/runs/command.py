"""List the runs below folders: how each ended, what it reached, its settings, and the disk space that it takes.

Takes any folder with runs in it or below, also runs copied from elsewhere, and changes nothing but in rm. A run that
goes on, failed or was interrupted is listed with its state, and with the scores of its last validation. Examples:

    cadence runs                                        # all runs below outputs
    cadence runs outputs/grid --where 'optimizer.lr>0.01' --where state=completed --sort val/loss
    cadence runs outputs --best val/accuracy --limit 3
    cadence runs outputs --csv > runs.csv
    cadence runs show outputs/first                     # all about one run
    cadence runs diff outputs/first outputs/second      # configs, scores and curves
    cadence runs compare outputs/first outputs/second --out compare.png
    cadence runs tensorboard outputs/grid               # each run named by what differs
    cadence runs rm outputs/first                       # asks before it removes the folder
"""

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from trainer.cli.streams import shown
from trainer.lr import ConfigError
from trainer.tools.run_folders import TUNE
from trainer.tools.runs.conditions import best_first, check_known, read_condition, sorted_by
from trainer.tools.runs.listed import ListedRun, list_runs
from trainer.tools.runs.table import as_csv, as_json, count_runs, format_runs

OUTPUTS = Path("outputs")


def main(arguments: list[str] | None = None) -> None:
    """List, or do what the first word says."""
    words = sys.argv[1:] if arguments is None else arguments
    if words and words[0] in SUBCOMMANDS:
        if lines := SUBCOMMANDS[words[0]](words[1:]):
            print_lines(lines)
        return
    options = parsed(words)
    roots = options.folders or [OUTPUTS]
    everything = list_runs(roots)
    found, tunes = without_tunes(everything, roots)
    runs = chosen_runs(found, options)
    if options.json or options.csv:
        print_lines([as_json(runs) if options.json else as_csv(runs)])
        return
    conditions = [read_condition(text).key for text in options.where]
    asked = [key for key in (options.best, options.sort, *conditions) if key and "/" in key]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    left_out = (
        [f"{count_runs(len(everything) - len(found))} in {', '.join(tunes)}: name it to list them"] if tunes else []
    )
    print_lines([*format_runs(runs, asked, len(found), width), *left_out])


def parsed(words: Sequence[str]) -> argparse.Namespace:
    """The command line of the list."""
    parser = _parser("", __doc__ or "")
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="where to look for runs: outputs")
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="CONDITION",
        help="list only runs for which it holds: a key of the config, a metric or a column, one of = != < <= > >=, "
        "and a value; give it several times for several conditions",
    )
    parser.add_argument("--sort", metavar="KEY", help="the order: by such a key, the least first")
    parser.add_argument("--reverse", action="store_true", help="with --sort: the greatest first")
    parser.add_argument("--best", metavar="METRIC", help="list only the completed run with the best METRIC")
    parser.add_argument("--mode", choices=("min", "max"), help="whether less or more of it is better, if not known")
    parser.add_argument("--limit", type=int, metavar="N", help="list only the first N; with --best, the best N")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a list of objects")
    form.add_argument("--csv", action="store_true", help="print a row for each run")
    options = parser.parse_args(words)
    if options.best and options.sort:
        raise ConfigError("--best and --sort both give an order: leave one out.")
    if options.limit is not None and options.limit < 1:
        raise ConfigError(f"--limit={options.limit} lists nothing: give 1 or more.")
    return options


def without_tunes(runs: Sequence[ListedRun], roots: Sequence[Path]) -> tuple[list[ListedRun], list[str]]:
    """The runs without the trainings of tunes below the roots, and the folders of these tunes.

    The trainings of a root that is a tune stay, and so do all where there is nothing else.
    """
    places = {place for run in runs for place in run.folder.parents if any(root in place.parents for root in roots)}
    tunes = [place for place in sorted(places) if (place / TUNE).is_file()]
    kept = [run for run in runs if not any(place in run.folder.parents for place in tunes)]
    return (kept, [shown(str(place)) for place in tunes]) if kept else (list(runs), [])


def chosen_runs(runs: Sequence[ListedRun], options: argparse.Namespace) -> list[ListedRun]:
    """The runs that are asked for, in their order."""
    conditions = [read_condition(text) for text in options.where]
    check_known([one.key for one in conditions], "--where", runs)
    kept = [run for run in runs if all(one.holds(run) for one in conditions)]
    limit = options.limit
    if options.best:
        kept, limit = best_first(options.best, kept, options.mode), limit or 1
    elif options.sort:
        check_known([options.sort], "--sort", runs)
        kept = sorted_by(options.sort, kept, options.reverse)
    return kept[:limit]


def show_command(words: Sequence[str]) -> list[str]:
    """`cadence runs show`."""
    from trainer.tools.runs.show import show

    parser = _parser("show", "Say what is known of one run. Example:\n\n    cadence runs show outputs/first")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the folder of a run")
    return show(parser.parse_args(words).folder)


def diff_command(words: Sequence[str]) -> list[str]:
    """`cadence runs diff`."""
    parser = _parser(
        "diff",
        "Say in what two runs differ: config, scores, and the curves of rate, loss and metric by update. Example:\n\n"
        "    cadence runs diff outputs/grid/0 outputs/grid/1",
    )
    parser.add_argument("first", type=Path, metavar="A", help="the folder of a run")
    parser.add_argument("second", type=Path, metavar="B", help="that of another")
    options = parser.parse_args(words)
    from trainer.tools.runs.diff import diff  # late: the libraries of logs

    return diff(options.first, options.second)


def compare_command(words: Sequence[str]) -> list[str]:
    """`cadence runs compare`."""
    parser = _parser(
        "compare",
        "Draw the learning rates, the losses and the validated metric of runs over their updates. Example:\n\n"
        "    cadence runs compare outputs/first outputs/grid --out compare.png",
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="a run, or a folder of runs")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.png", help="the picture to write")
    parser.add_argument("--metric", metavar="NAME", help="the metric to draw; else the one that the runs watch")
    parser.add_argument("--force", action="store_true", help="write over a file that is there")
    options = parser.parse_args(words)
    from trainer.tools.runs.compare import compare  # late: matplotlib

    return compare(options.folders, options.out, options.metric, options.force)


def tensorboard_command(words: Sequence[str]) -> list[str]:
    """`cadence runs tensorboard`."""
    parser = _parser(
        "tensorboard",
        "Start TensorBoard with each run named by the settings in which it differs from the others. A run that begins "
        "later is not in it. Example:\n\n    cadence runs tensorboard outputs/grid",
    )
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="where to look for runs: outputs")
    parser.add_argument("--port", type=int, metavar="N", help="the port of the page: 6006")
    options = parser.parse_args(words)
    from trainer.tools.runs.tensorboard import open_tensorboard

    return open_tensorboard(options.folders or [OUTPUTS], options.port)


def remove_command(words: Sequence[str]) -> list[str]:
    """`cadence runs rm`."""
    from trainer.tools.runs.remove import remove

    parser = _parser(
        "rm",
        "Remove the folders of runs or sweeps with all that is in them. It asks before. A folder that holds no run, or "
        "one that goes on, is refused. Example:\n\n    cadence runs rm outputs/first outputs/grid/3",
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="the folder of a run or a sweep")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    options = parser.parse_args(words)
    return remove(options.folders, options.yes)


SUBCOMMANDS: dict[str, Callable[[Sequence[str]], list[str]]] = {
    "show": show_command,
    "diff": diff_command,
    "compare": compare_command,
    "tensorboard": tensorboard_command,
    "rm": remove_command,
}


def print_lines(lines: Sequence[str]) -> None:
    """Print what others may have written."""
    print(shown("\n".join(lines)), flush=True)


def _parser(name: str, text: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=f"cadence runs {name}".strip(), description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
