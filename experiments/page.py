"""Write docs/experiments.md from what the experiments wrote into docs/experiments.

Example:

    python experiments/adam_sqrt.py --docs
    python experiments/page.py
"""

import argparse
import json
import sys
from pathlib import Path
from textwrap import fill
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments.command import DOCS, Table, check_writable, judged  # noqa: E402
from trainer.cli.run_cli import run_cli  # noqa: E402
from trainer.lr import ConfigError  # noqa: E402

INTRODUCTION = [
    "Results of the literature, tried again through the framework on 1,797 handwritten digits, so that anybody can do "
    "the same in minutes on a CPU. Every run is one that `python train.py experiment=NAME …` makes (but those of the "
    "critical batch, which trains stacks of nets at once); `conf/experiment` has the setting.",
    "1,437 digits train, 360 test, in a split that is the same for all. Arms are paired: a seed gives each of them the "
    "same order of the data and, for the same net, the same initial weights. What is judged is the loss over the whole "
    "training set, without dropout: the error on 360 test digits is too coarse.",
    "Thresholds stand at the top of each script and were fixed before its first full run. A *claim* must hold; a "
    "*control* is a demand that must fail, or the claim would show nothing; a *note* is what the source says and this "
    "small setting may not show. A script ends with exit code 1 where it is not so.",
    "Two more want a GPU and have not been run in full: `python experiments/large_batch.py` (CIFAR-10, batches "
    "of 256 to 8,192) and `python experiments/super_convergence.py`. Their thresholds are fixed too.",
]


def page(reports: list[dict[str, Any]]) -> str:
    """The whole page."""
    parts = ["# Experiments", *map(_filled, INTRODUCTION), _overview(reports)]
    for report in reports:
        parts += section(report)
    return "\n\n".join(parts) + "\n"


def _overview(reports: list[dict[str, Any]]) -> str:
    head = ["experiment", "verdict", "claims", "controls that fail", "runs", "minutes"]
    rows = []
    for one in reports:
        counts = [
            f"{sum(row['pass'] for row in own)} of {len(own)}"
            for own in ([row for row in one["verdicts"] if row["role"] == role] for role in ("claim", "control"))
        ]
        cost = one["cost"]
        rows.append([
            f"[{one['title']}](#{anchor(one['title'])})", "reproduced" if one["pass"] else "**NOT as claimed**",
            *counts, str(cost["runs"]), f"{cost['seconds'] / 60:.1f}",
        ])  # fmt: skip
    return "\n".join(Table("", head, rows).lines())


def anchor(title: str) -> str:
    """What a link to a heading is called."""
    kept = "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -")
    return kept.replace(" ", "-")


def section(report: dict[str, Any]) -> list[str]:
    """The paragraphs of one experiment."""
    where, cost = report["machine"], report["cost"]
    told = [f"## {report['title']}", _filled(report["about"]), _filled(report["setting"])]
    told += ["\n".join(judged(report["verdicts"]).lines())]
    for table in report["tables"]:
        told += [_filled(f"{table['title']}:"), "\n".join(Table(**table).lines())]
    told += [f"![{report['title']}](experiments/{report['name']}.png)", *map(_filled, report["notes"])]
    return [
        *told,
        _filled(
            f"`{report['command']}`: {cost['runs']} runs ({report['seeds']} seeds) in {cost['seconds'] / 60:.1f} "
            f"minutes, {cost['processes']} at a time with one thread each, on {where['processor']} "
            f"({where['cores']} cores shared with other jobs), Python {where['versions']['python']}, torch "
            f"{where['versions']['torch']}."
        ),
    ]


def _filled(text: str) -> str:
    return fill(text, 119, break_long_words=False, break_on_hyphens=False)


def reports_in(folder: Path) -> list[dict[str, Any]]:
    """What the experiments wrote, in the order of their names."""
    try:
        found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder}: a report cannot be read ({error}): run its script again with --docs.") from error
    if not found:
        raise ConfigError(f"{folder} holds no report: run an experiment with --docs first.")
    return found


def main(arguments: list[str] | None = None) -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    place = ROOT / "docs" / "experiments.md"
    parser.add_argument("--reports", type=Path, default=DOCS, metavar="FOLDER", help="docs/experiments")
    parser.add_argument("--out", type=Path, default=place, metavar="FILE", help="docs/experiments.md")
    options = parser.parse_args(arguments)
    reports = reports_in(options.reports)
    check_writable(options.out, "--out")
    options.out.write_text(page(reports), encoding="utf-8")
    print(f"{options.out}: {len(reports)} experiments")


if __name__ == "__main__":
    sys.exit(run_cli(main))
