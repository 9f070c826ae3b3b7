"""The results of an experiment: printed, kept in a JSON file, and shown in docs/experiments.md."""

import argparse
import math
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import fill
from typing import Any

from benchmarks.report import machine
from trainer.lr import ConfigError
from trainer.lr.bounds import integer
from trainer.tools.report.claims import CLAIMS, Claim, Claims, read_claims

DOCS = Path(__file__).resolve().parents[1] / "docs" / "experiments"
INTRODUCTION = DOCS / "introduction.md"


@dataclass(frozen=True)
class Table:
    """Rows of text under a head; the first column names the row."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> list[str]:
        """As Markdown, which also reads well on a terminal; numbers to the right."""
        columns = [[str(row[i]) for row in [self.head, *self.rows]] for i in range(len(self.head))]
        shown = []
        for title, *cells in columns:
            wide, right = max(map(len, (title, *cells))), bool(cells) and cells[0].lstrip("-*")[:1].isdigit()
            rule = "-" * (wide - 1) + (":" if right else "-")
            shown.append([cell.rjust(wide) if right else cell.ljust(wide) for cell in (title, rule, *cells)])
        return [f"| {' | '.join(row)} |" for row in zip(*shown)]


class NotReproduced(RuntimeError):
    """A claim does not hold, or a negative control does."""


def table_of(claims: Sequence[Claim]) -> Table:
    """The verdicts as a table."""
    signs = {"at most": "<= ", "at least": ">= "}
    cells = [
        [one.text, _number(one.measured), f"{signs.get(one.relation, '')}{_number(one.threshold, 'g')}", one.outcome,
         one.source] for one in claims
    ]  # fmt: skip
    return Table("Verdict", ["claim", "measured", "threshold", "verdict", "source"], cells)


def options_of(description: str | None, seeds: int | None = None) -> argparse.ArgumentParser:
    """The options that every experiment has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    count, place = min(2, os.cpu_count() or 1), Path("outputs/experiments")
    shown = "as many as the experiment says" if seeds is None else seeds
    parser.add_argument("--seeds", type=int, default=seeds, metavar="N", help=f"0 to N-1 ({shown})")
    parser.add_argument("--jobs", type=int, default=count, metavar="N", help=f"processes that train ({count})")
    parser.add_argument("--out", type=Path, default=place, metavar="FOLDER", help=f"where to write ({place})")
    parser.add_argument("--docs", action="store_true", help="write docs/experiments, too")
    return parser


def check_options(options: argparse.Namespace, folder: Path) -> None:
    """Refuse bad options and a folder that cannot be written, before anything is trained."""
    if options.seeds is not None:
        integer("--seeds", options.seeds, "give how many.")
    integer("--jobs", options.jobs, "give how many.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (probe := folder / ".writable").touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"--out: {folder} cannot be written ({error.strerror}): name another folder.") from error


def summary(found: Claims) -> str:
    """The results as text for a terminal."""
    more = found.more
    tables = [part for one in more["tables"] for part in ("", one["title"], "", *Table(**one).markdown())]
    cost = f"{more['cost']['runs']} runs in {more['cost']['seconds']:.0f} s, {more['cost']['processes']} at a time"
    return "\n".join([*tables, "", *table_of(found.claims).markdown(), "", *more["notes"], cost])


def check(name: str, claims: Sequence[Claim]) -> None:
    """Raise `NotReproduced`, exit code 1, where a claim fails or a control holds."""
    missed = [one.text for one in claims if not one.is_as_it_must]
    if missed:
        raise NotReproduced(f"{name}: {len(missed)} of {len(claims)} not as claimed: {missed[0]}")


def measured_by(command: str, seeds: int, runs: int, seconds: float, processes: int) -> dict[str, Any]:
    """How the numbers of a record were measured."""
    where = machine(1)
    cost = {"runs": runs, "seconds": round(seconds, 1), "processes": processes}
    kept = {key: where[key] for key in ("processor", "cores", "versions")}
    return {"command": command, "seeds": seeds, "cost": cost, "machine": kept}


def publish(name: str, folder: Path, pictures: Sequence[Path]) -> None:
    """Copy a record and its pictures into docs/experiments/NAME, and rewrite the page."""
    place = DOCS / name
    place.mkdir(parents=True, exist_ok=True)
    for path in (folder / CLAIMS, *pictures):
        shutil.copy(path, place)
    DOCS.with_suffix(".md").write_text(page(records_in(DOCS)), encoding="utf-8")


def page(records: dict[str, Claims]) -> str:
    """docs/experiments.md, of the records by name."""
    head = ["experiment", "verdict", "claims", "controls that fail", "runs", "minutes"]
    rows = []
    for one in records.values():
        kinds = [[c.is_as_it_must for c in one.claims if c.kind == kind] for kind in ("claim", "control")]
        cost, anchor = one.more["cost"], "".join(x for x in one.title.lower() if x.isalnum() or x in " -")
        rows.append([
            f"[{one.title}](#{anchor.replace(' ', '-')})",
            "reproduced" if all(c.is_as_it_must for c in one.claims) else "**NOT as claimed**",
            *(f"{sum(own)} of {len(own)}" for own in kinds), str(cost["runs"]), f"{cost['seconds'] / 60:.1f}",
        ])  # fmt: skip
    parts = [INTRODUCTION.read_text(encoding="utf-8").strip(), "\n".join(Table("", head, rows).markdown())]
    machines = {_machine(one) for one in records.values()}
    if same := len(machines) == 1:
        parts.append(_filled(f"All were measured {machines.pop()}."))
    parts += [part for name, one in records.items() for part in _section(name, one, same)]
    return "\n\n".join(parts) + "\n"


def _section(name: str, record: Claims, same_machine: bool) -> list[str]:
    """The paragraphs of one experiment."""
    more, title = record.more, record.title
    cost = more["cost"]
    [(source, _)] = Counter(one.source for one in record.claims).most_common(1)
    claims = [replace(one, source="") if one.source == source else one for one in record.claims]
    setting = f"{more['setting']} Source, unless the table names another: {source}." if source else more["setting"]
    parts = [f"## {title}", _filled(more["about"]), _filled(setting)]
    parts += ["\n".join(table_of(claims).markdown())]
    for table in more["tables"]:
        parts += [_filled(f"{table['title']}:"), "\n".join(Table(**table).markdown())]
    how = (
        f"`{more['command']}`{' (older program)' if more.get('before') else ''}: {cost['runs']} runs "
        f"({more['seeds']} seeds) in {cost['seconds'] / 60:.1f} minutes, {cost['processes']} at a time with one thread "
        f"each{'' if same_machine else ', ' + _machine(record)}."
    )
    pictures = [f"![{title}](experiments/{name}/{picture})" for picture in more["pictures"]]
    return [*parts, *pictures, *map(_filled, more["notes"]), _filled(how)]


def _machine(record: Claims) -> str:
    """Where a record was measured, in words."""
    where = record.more["machine"]
    return (
        f"on {where['processor']} ({where['cores']} cores shared with other jobs), Python "
        f"{where['versions']['python']}, torch {where['versions']['torch']}"
    )


def records_in(folder: Path) -> dict[str, Claims]:
    """The records of a folder, in the order of their names. Raises ConfigError where there is none."""
    places = sorted(path.parent for path in folder.glob(f"*/{CLAIMS}"))
    if not places:
        raise ConfigError(f"{folder} holds no record of an experiment: run one with --docs first.")
    return {place.name: record for place in places if (record := read_claims(place)) is not None}


def _filled(text: str) -> str:
    return fill(text, 119, break_long_words=False, break_on_hyphens=False)


def _number(value: Any, form: str = ".3g") -> str:
    return format(value, form) if isinstance(value, float | int) and math.isfinite(value) else str(value)
