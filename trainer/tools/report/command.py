"""Show what a sweep or a search has found: one page to open in a browser, pictures, and all results as tables.

Takes any folder with runs in it or below, also runs copied from elsewhere; what is not done is left out, and said.
The page holds all it needs and reads nothing from the network. Examples:

    python scripts/report.py outputs/NAME
    python scripts/report.py outputs/NAME --metric val/accuracy --out page
    python scripts/report.py outputs --within 2       # the range of rates within 2 % of the best
"""

import argparse
import math
from collections import Counter
from pathlib import Path

from trainer.lr import ConfigError
from trainer.tools.report import files, page, pictures
from trainer.tools.report.exhibit import Exhibit, exhibit
from trainer.tools.report.runs import found
from trainer.tools.report.study import Study

PAGE = "report.html"


def main(arguments: list[str] | None = None) -> None:
    """Read the runs, judge them, write the page, the pictures and the tables, and say what was found."""
    options = parsed(arguments)
    if not math.isfinite(options.within) or options.within <= 0:
        raise ConfigError(f"--within={options.within} is not a percentage above zero: give one, as 5.")
    library = page.library()
    study = Study(found(options.folder), options.metric, options.best)
    out = options.out or options.folder / "report"
    whole = exhibit(study, options.folder, out, options.within / 100)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / PAGE).write_text(page.page(whole, library), encoding="utf-8")
        drawn = pictures.save(whole, out)
        tables = files.save(study, out)
    except OSError as error:
        raise ConfigError(f"--out={out} cannot be written ({error.strerror}): name another folder.") from error
    print("\n".join(summary(whole)))
    print(f"{out / PAGE}  {'  '.join([*tables, *drawn])}")


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a sweep, a search, or any folder of runs")
    parser.add_argument(
        "--metric", metavar="NAME", help="what to judge by, as val/accuracy; else what the runs watched"
    )
    parser.add_argument(
        "--best", choices=("min", "max"), help="whether less or more of it is better, where its name is new"
    )
    parser.add_argument(
        "--within", type=float, default=5.0, metavar="PERCENT", help="for the width of the best range: 5"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to write; else FOLDER/report")
    return parser.parse_args(arguments)


def summary(whole: Exhibit) -> list[str]:
    """What a terminal shows."""
    study, best = whole.study, whole.study.cells[0]
    left = Counter(study.why(run) for run in study.left_out)
    out = f", left out: {', '.join(f'{count} {why}' for why, count in left.items())}" if left else ""
    told = best.repeats
    spread = f" ± {told.se:.2g} over {told.n} seeds" if told.se is not None else ""
    return [
        f"{len(study.good)} of {len(study.runs)} runs{out}",
        f"best {study.metric} {told.mean:.5g}{spread}: {study.name(best.values) or whole.title}",
        f"     {whole.command}",
        *(f"{one.kind:>8}  {one.text}" + (f"\n          {one.paste}" if one.paste else "") for one in whole.findings),
    ]
