"""Say what a run's log shows to be wrong with its learning rate, its batch or its length, with the evidence.

Reads the folder of a run that is done, failed or still going on, or those of all runs of a sweep, and changes nothing.
The exit code is 0 even where something is found. Examples:

    cadence doctor outputs/NAME
    cadence doctor outputs/SWEEP --json findings.json
"""

import argparse
import json
from pathlib import Path

from trainer.cli.streams import shown
from trainer.doctor.log import PLAN, Finding, read_log
from trainer.doctor.signs import LEAST, NAMES, examine
from trainer.lr import ConfigError
from trainer.tools.writable import write_new_file


def main(arguments: list[str] | None = None) -> None:
    """Examine each run, and print the findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="the folder of a run, or of a sweep")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the findings of all runs there, too")
    options = parser.parse_args(arguments)
    found: dict[str, list[dict[str, object]] | None] = {}
    for run in run_folders(options.runs):
        try:
            found[str(run)] = report(run)
        except ConfigError as reason:
            if run in options.runs:
                raise
            print(shown(f"{run}: nothing to examine: {reason}"))
            found[str(run)] = None
    if options.json:
        text = json.dumps(found, indent=2) + "\n"
        write_new_file(options.json, lambda path: path.write_text(text, encoding="utf-8"))


def run_folders(given: list[Path]) -> list[Path]:
    """The folders of runs: the runs below each folder that is given, as below that of a sweep, else the folder itself.

    A `plan.json` beside runs is what `cadence plan` has written.
    """
    runs: list[Path] = []
    for folder in given:
        below = [path.parent for path in folder.rglob(PLAN) if path.parent != folder]
        runs += sorted(
            below, key=lambda run: [(not p.isdecimal(), int(p) if p.isdecimal() else 0, p) for p in run.parts]
        ) or [folder]
    return runs


def report(run: Path) -> list[dict[str, object]]:
    """Print the findings in a run, and return them as plain values."""
    log = read_log(run)
    findings = examine(log)
    state = f"{log.made} of {log.total} updates"
    if not findings:
        few = f"; below {LEAST} updates little can be seen" if log.made < LEAST else f", {len(NAMES)} signs checked"
        print(shown(f"{run}: {state}: nothing found{few}"))
    for finding in findings:
        print(shown(format_finding(run, state, finding)))
    return [finding._asdict() for finding in findings]


def format_finding(run: Path, state: str, finding: Finding) -> str:
    """A finding in four lines."""
    return (
        f"{run}: {state}: {finding.heading}\n"
        f"    seen       {finding.seen}\n"
        f"    measure    {finding.measure:.4g}, threshold {finding.threshold:.4g}: {finding.source}\n"
        f"    try        {finding.override}"
    )
