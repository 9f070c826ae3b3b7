"""Show what a sweep or a search has found: one page to open in a browser, pictures, and all results as tables.

Takes any folder with runs in it or below, also runs copied from elsewhere. Runs that are not done are left out, and the
page names them. It holds all it needs and reads nothing from the network. Examples:

    cadence report outputs/NAME
    cadence report outputs/NAME --metric val/accuracy --out page
    cadence report outputs --within 2       # the range of rates within 2 % of the best
    cadence report outputs/NAME --watch     # while the sweep runs: open the page, it renews itself
"""

import argparse
import math
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from trainer.cli.extras import needed
from trainer.cli.streams import shown
from trainer.files.atomic import write_text
from trainer.lr import ConfigError
from trainer.tools.report import png
from trainer.tools.report.build import Report, build_report
from trainer.tools.report.live_page import waiting_page, write_while_running
from trainer.tools.report.page import page
from trainer.tools.report.runs import Run, find_runs
from trainer.tools.report.study import RESUMED, NoResults, Study, format_command
from trainer.tools.writable import plain_cell, write_new_file

PAGE = "report.html"
FROM_RESULT = ("updates", "total_updates", "seconds")


def main(arguments: list[str] | None = None) -> None:
    """Read the runs, judge them, write the page, the pictures and the tables, and print what was found."""
    options = parse_arguments(arguments)
    if not math.isfinite(options.within) or options.within <= 0:
        raise ConfigError(f"--within={options.within} is not a percentage above zero: give one, as 5.")
    for module in ("plotly", "matplotlib", "pandas"):  # before any run is read
        needed(module, "the report", "report")
    script = needed("plotly.offline", "the page").get_plotlyjs()
    out = options.out or options.folder / "report"
    if options.out is None and out.is_symlink():  # whoever has made the folder would choose what is written over
        raise ConfigError(f"{out} is a link: say where to write by --out={out.resolve()}, or another folder.")
    try:
        if options.watch:
            write_and_tell(options, out, script)
        report = write_page(options, out, script)
        assert report is not None
        pictures = png.save([*report.claims, *report.sections], out)
        tables = save_tables(report.study, out)
    except OSError as error:
        raise ConfigError(f"--out={out} cannot be written ({error.strerror}): name another folder.") from error
    print(shown("\n".join(format_summary(report))))
    print(f"{out / PAGE}  {'  '.join([*tables, *pictures])}")


def write_and_tell(options: argparse.Namespace, out: Path, script: str) -> None:
    """Write the page again and again while runs go on, and say where it is once it is there."""
    lines: list[str] = []

    def written(seconds: int) -> None:
        write_page(options, out, script, seconds)
        if not lines:
            lines.append(f"{out / PAGE}: open it in a browser; Ctrl-C ends the watch")
            print(*lines, flush=True)

    write_while_running(options.folder, written)


def write_page(options: argparse.Namespace, out: Path, script: str, seconds: int = 0) -> Report | None:
    """Write the page at once. With `seconds` it reloads itself so often, and says so where there is no result yet."""
    try:
        study = Study(find_runs(options.folder), options.metric, options.best)
    except NoResults as none:
        if options.watch:
            write_text(out / PAGE, waiting_page(options.folder.resolve().name, str(none), seconds))
        if not seconds:
            raise
        return None
    report = build_report(study, options.folder, options.within / 100)
    write_text(out / PAGE, page(report, out, script, seconds))
    return report


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a sweep, a search, or any folder of runs")
    parser.add_argument(
        "--metric", metavar="NAME", help="the metric to judge by, as val/accuracy; else the one that the runs watched"
    )
    parser.add_argument(
        "--best", choices=("min", "max"), help="whether less or more of it is better, where its name does not say it"
    )
    parser.add_argument(
        "--within", type=float, default=5.0, metavar="PERCENT", help="for the width of the best range: 5"
    )
    parser.add_argument(
        "--watch", action="store_true", help="write the page again as long as runs go on; an open page reloads itself"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to write; else FOLDER/report")
    return parser.parse_args(arguments)


def format_summary(report: Report) -> list[str]:
    """The lines for a terminal."""
    study, best = report.study, report.study.configurations[0]
    reasons = Counter(map(study.why_left_out, study.left_out))
    left = f", left out: {', '.join(f'{count} {why}' for why, count in reasons.items())}" if reasons else ""
    found, settings = best.repeats, study.format_values(best.values) or report.title
    spread = f" ± {found.se:.2g} over {found.n} {study.repeated}" if found.se is not None else ""
    if found.low is not None:
        spread += f", 95 % interval {found.low:.5g} to {found.high:.5g}"
    lines = [
        f"{len(study.scored)} of {len(study.runs)} runs{left}",
        f"best {study.metric} {found.mean:.5g}{spread}: {settings}",
        f"     {format_command(best.runs[0])}",
    ]
    for one in report.all_findings:
        lines += [f"{one.kind:>8}  {one.text}", *([f"          {one.command}"] if one.command else [])]
    lines += [f"{'missing':>8}  {one.note}" for one in report.sections if not one.figure and not one.table]
    return [*lines, *(f"{'claim':>8}  {line}" for line in report.claim_lines)]


def save_tables(study: Study, folder: Path) -> list[str]:
    """Write `results.csv` and `results.parquet`: a row for each run, null where it has no such value. Their names."""
    asked = list(dict.fromkeys([*study.varied, *(key for run in study.runs for key in run.settings)]))
    metrics = sorted({metric for run in study.runs for metric in run.metrics})
    rows = [_row(study, run, asked, metrics) for run in study.runs]
    pandas = needed("pandas", "a table")
    table = pandas.DataFrame({name: _column(pandas, [row[name] for row in rows]) for name in rows[0]})
    cells = table.rename(columns=plain_cell)
    for name in cells.select_dtypes("string"):
        cells[name] = cells[name].map(plain_cell, na_action="ignore")
    write_new_file(folder / "results.csv", partial(cells.to_csv, index=False))
    write_new_file(folder / "results.parquet", partial(table.to_parquet, index=False))
    return ["results.csv", "results.parquet"]


def _row(study: Study, run: Run, asked: Sequence[str], metrics: Sequence[str]) -> dict[str, Any]:
    best = run.result.get("best")
    given = {key: run.config.get(key, run.settings.get(key)) for key in asked}
    given |= {RESUMED: study.value(run, RESUMED)} if RESUMED in given else {}
    return {
        "run": run.name,
        "status": run.status,
        "error": run.error,
        **{key: study.value(run, key) if isinstance(value, list | dict) else value for key, value in given.items()},
        **{metric: run.metrics.get(metric) for metric in metrics},
        "best_update": best.get("update") if isinstance(best, dict) else None,
        **{key: run.result.get(key) for key in FROM_RESULT},
        "global_batch": run.plan.get("global_batch"),
    }


def _column(pandas: Any, values: Sequence[Any]) -> Any:
    """A column of one type, with gaps: true and false, whole numbers or numbers as pandas finds them, else text."""
    try:
        column = pandas.array(values)
    except OverflowError:  # a whole number of more than 64 bits
        column = None
    if column is not None and str(column.dtype) in ("boolean", "Int64", "Float64"):
        return column
    return pandas.array([None if value is None else str(value) for value in values], dtype="string")
