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


def sweeps_of(name: str, root: Path, loss: str = "", first: int = 0) -> list[Sweep]:
    """Three sweeps of a task, with the seeds from `first` on, of the loss "train" or "val"; "": the command chooses."""
    path = root / name / f"sweeps-{loss or 'default'}-{first}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        test = range_test(name, loss, first)
        test.make_sweeps()
        write_text(path, json.dumps([asdict(one) for one in test.sweeps]) + "\n")
    return [Sweep(**one) for one in json.loads(path.read_text(encoding="utf-8"))]


def range_test(name: str, loss: str, first: int) -> RangeTest:
    """The range test of a task, before its sweeps."""
    words = [*TASKS[name], f"seed={first}"]
    options = command.parsed([*words, "--config-dir", str(CONF), "--no-files", *(["--loss", loss] if loss else [])])
    settings = settings_of(composed(name, f"seed={first}"))
    command.check(settings, options)
    return RangeTest(options, command.swept_values(options), settings.seed, partial(command.made, options))
