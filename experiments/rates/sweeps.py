"""Range tests of the tasks as the command makes them; those that an earlier start has made are taken from its file."""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

from experiments.rates.tasks import CONF, TASKS, composed
from trainer.config.settings import settings_of
from trainer.files.atomic import write_text
from trainer.lr.range_test import Sweep
from trainer.tools.range_test import command
from trainer.tools.range_test.steps import RangeTest

WIDE = ("--start", "1e-7", "--end", "10")


def sweeps_of(name: str, root: Path, *words: str) -> list[Sweep]:
    """Three sweeps of a task, with more options of the command."""
    path = root / name / f"sweeps{''.join(words)}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        test = range_test(name, *words)
        test.make_sweeps()
        write_text(path, json.dumps([asdict(one) for one in test.sweeps]) + "\n")
    return [Sweep(**one) for one in json.loads(path.read_text(encoding="utf-8"))]


def range_test(name: str, *words: str) -> RangeTest:
    """The range test of a task, before its sweeps."""
    options = command.parsed([*TASKS[name], "--config-dir", str(CONF), "--no-files", *words])
    settings = settings_of(composed(name))
    command.check(settings, options)
    return RangeTest(options, command.swept_values(options), settings.seed, partial(command.made, options))
