"""What the jobs of a worker would train: each run is taken at its start, with its settings checked."""

import sys
from functools import partial
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from trainer.cli.command import run_program
from trainer.cli.override import key_of
from trainer.cli.run_cli import run_cli
from trainer.config.before_torch import checked
from trainer.config.settings import settings_of
from trainer.run import Start, takers
from trainer.sweep.alike_jobs import kind_of
from trainer.sweep.spawn import PROJECT
from trainer.sweep.worker import Order
from trainer.tools.worker.isolation import exit_code

Asked = tuple[Order, Start]
"""A job, and the run that it has asked for."""


def collect(order: Order, like: Asked | None) -> tuple[int, Start | None]:
    """The exit code of a job that only asks for its run, and this run; `like` is an alike job, if there is one.

    Call it while the job is isolated. A program that asks for no run has done what it does.
    """
    found: list[Start] = []
    numbers = None if like is None else _numbers(order, like)
    takers.append(found.append)
    try:
        if like is None or numbers is None:
            code = exit_code(lambda: run_program(order.words))
        else:
            derive = partial(_derived, order, like[1], numbers)
            code = exit_code(lambda: sys.exit(run_cli(lambda: found.append(derive()), trains=True)))
    finally:
        takers.pop()
    return code, found[0] if found and not code else None


def _numbers(order: Order, like: Asked) -> dict[str, tuple[str, str]] | None:
    """The numbers by key in which a job differs from another, before and now; None where more may differ."""
    other, start = like
    ours = order.words[:2] == ["-m", "cadence.train"] or Path(order.words[0]).resolve() == PROJECT / "train.py"
    pairs = [(a, b) for a, b in zip(other.words, order.words, strict=True) if a != b]
    pairs = [(a, b) for a, b in pairs if not b.startswith("hydra.run.dir=")]
    if not ours or any(start.overrides.count(word) != 1 for word, _ in pairs):
        return None
    keys = [key_of(word) for word in start.overrides]
    numbers = {key_of(now): (before, now) for before, now in pairs}
    known = all(keys.count(key) == 1 and _value(now) is not None for key, (_, now) in numbers.items())
    return numbers if known else None


def _derived(order: Order, start: Start, numbers: dict[str, tuple[str, str]]) -> Start:
    """The run of a job that differs in numbers only from another, without composing its config again."""
    cfg = OmegaConf.create(dict(start.settings.source))
    assert isinstance(cfg, DictConfig)
    for key, (_, now) in numbers.items():
        OmegaConf.update(cfg, key, _value(now), merge=False)
    replaced = dict(numbers.values())
    words = [replaced.get(word, word) for word in start.overrides]
    return Start(Path(order.log).parent, checked(settings_of(cfg)), words, start.program)


def _value(word: str) -> int | float | None:
    """The number of an override; None for another value, or one that begins with a needless zero."""
    text = word.partition("=")[2]
    (kind,) = kind_of([word])
    if kind.endswith("=int "):
        return int(text) if str(int(text)) == text else None
    return float(text) if kind.endswith("=float ") else None
