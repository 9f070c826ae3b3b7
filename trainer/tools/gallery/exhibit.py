"""The entries of the gallery: each option of the curve's groups, and combinations, with the plan of its command."""

import importlib
import inspect
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from hydra import compose
from omegaconf import OmegaConf

from trainer.cli.compose import CONF
from trainer.cli.hydra_internals import initialized
from trainer.cli.run_id import register_run_id
from trainer.config.instantiate import Node
from trainer.config.resolve import plan_of
from trainer.config.settings import CurveSettings, settings_of
from trainer.lr import Plan
from trainer.tools.gallery.examples import COMBINATIONS, FILES, HYPERS, READS, SCHEDULES, WARMUPS

UPDATES = 400
FAMILIES = {
    "anneal": "Down in one go",
    "constant": "Constant",
    "exponential": "Exponential and 1/t",
    "inverse_sqrt": "Powers of time",
    "wsd": "A plateau, then down",
    "one_cycle": "One cycle",
    "cycles": "Cycles and restarts",
    "stairs": "Steps and points",
    "chebyshev": "Steps and points",
    "combine": "Schedules of schedules",
    "noise": "Schedules of schedules",
    "table": "Your own",
}
"""Schedules by the module of trainer.lr that makes them; what is made elsewhere is `OTHERS`."""
OTHERS = "Others"
WARMUP, COOLDOWN, COMBINED, HYPER = "Warm-up", "Cooldown", "Combinations", "Other hyper-parameters"


class Exhibit(NamedTuple):
    """One picture of the gallery, and the text beside it.

    `words` are the command; `yaml` is the option's file, or the combination as an experiment.
    """

    stem: str
    family: str
    title: str
    note: str
    formula: str
    words: list[str]
    yaml: str
    reads: str
    floor: float
    plan: Plan


def exhibits() -> list[Exhibit]:
    """All entries, by families in the order of the page."""
    register_run_id()
    found = []
    with _files() as place, initialized(CONF):
        for group, settings in (
            ("schedule", SCHEDULES),
            ("warmup", WARMUPS),
            ("cooldown", {}),
            ("hyper_schedule", HYPERS),
        ):
            for name in options(group):
                found.append(_option(group, name, settings.get(name, []), place))
        for one in COMBINATIONS:
            curve, plan = planned(one.words, place)
            yaml = experiment(one.words)
            words = (f"combined-{one.name}", COMBINED, one.title, one.note, "", one.words, yaml, "")
            found.append(Exhibit(*words, _floor(curve), plan))
    families = [*dict.fromkeys(FAMILIES.values()), OTHERS, WARMUP, COOLDOWN, COMBINED, HYPER]
    return sorted(found, key=lambda exhibit: families.index(exhibit.family))


def options(group: str) -> list[str]:
    """The options of a group that the gallery shows."""
    names = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    return [name for name in names if (group, name) != ("hyper_schedule", "none")]


def planned(words: list[str], place: Path) -> tuple[CurveSettings, Plan]:
    """The settings of the curve that these overrides give, and the plan of 400 updates; files are read from `place`."""
    path = next((word.partition("=")[2] for word in words if word.startswith("schedule.path=")), None)
    cfg = compose("train", [*words, f"trainer.duration={UPDATES}"])
    if path is not None:
        cfg.schedule.path = str(place / path)
    settings = settings_of(cfg)
    return settings.curve, plan_of(settings)


def experiment(words: list[str]) -> str:
    """The words of a command line as a file of conf/experiment."""
    chosen, settings = [], OmegaConf.create()
    for word in words:
        key, _, value = word.lstrip("+").partition("=")
        if (CONF / key).is_dir():
            chosen.append(f"  - override /{key}: {value}\n")
        else:
            OmegaConf.update(settings, key, OmegaConf.create(f"_: {value}")._)
    overrides = OmegaConf.to_yaml(settings) if settings else ""
    return "# @package _global_\ndefaults:\n" + "".join(chosen) + ("\n" + overrides if overrides else "")


def _option(group: str, name: str, settings: list[str], place: Path) -> Exhibit:
    text = (CONF / group / f"{name}.yaml").read_text(encoding="utf-8")
    words = [f"{group}={name}", *settings]
    if group == "warmup":
        timed = "duration: 5%" in text
        words = ["schedule=linear", words[0], *(["warmup.duration=30%"] if timed else []), *settings]
    elif group == "cooldown":
        words = ["schedule=constant", words[0], *([] if name == "none" else ["cooldown.duration=50%"])]
    note, _, yaml = text.partition("\n")
    curve, plan = planned(words, place)
    node = next(iter(curve.hyper_schedule.values())) if group == "hyper_schedule" else getattr(curve, group)
    target = _target(node)
    families = {"warmup": WARMUP, "cooldown": COOLDOWN, "hyper_schedule": HYPER}
    return Exhibit(
        stem=f"{group}-{name}",
        family=families.get(group) or FAMILIES.get(target.__module__.rpartition(".")[2], OTHERS),
        title=f"{group}={name}",
        note=note.lstrip("# "),
        formula=(inspect.getdoc(target) or "").partition("\n")[0],
        words=words,
        yaml=yaml,
        reads=READS.get(name, "") if group == "schedule" else "",
        floor=_floor(curve),
        plan=plan,
    )


def _target(node: Node) -> Any:
    module, _, name = node["_target_"].rpartition(".")
    return getattr(importlib.import_module(module), name)


def _floor(curve: CurveSettings) -> float:
    """The floor that the curve names, where there is one."""
    return next((node["floor"] for node in (curve.cooldown, curve.schedule) if "floor" in node), 0.0)


@contextmanager
def _files() -> Iterator[Path]:
    """A folder with the files that examples read, on the path of imports."""
    with TemporaryDirectory() as folder:
        for name, text in FILES.items():
            Path(folder, name).write_text(text, encoding="utf-8")
        sys.path.insert(0, folder)
        importlib.invalidate_caches()
        try:
            yield Path(os.path.realpath(folder))
        finally:
            sys.path.remove(folder)
            sys.modules.pop("curves", None)
