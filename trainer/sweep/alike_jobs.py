"""Jobs of a grid that differ in numbers only, as 500 learning rates do: the config of the first tells of all of them.

A launcher composes the config of a job for its folder, its devices and threads, and whether it resumes. Where no number
that differs can change them, they are those of the first such job, and the job itself composes its config.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from trainer.sweep.job import Job

NUMBERS = {"int": re.compile(r"[+-]?\d+"), "float": re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d+)?")}
VALUE = re.compile(r"(seed|(?!(hydra|trainer|resume|name|allow)\.)\w+(\.\w+)+)=([^=]+)")
"""An override of a single value that decides neither where nor how a job runs."""


@dataclass(frozen=True)
class AlikeJobs:
    """The first job of each kind: with the same choices, and numbers for the same keys."""

    _known: dict[tuple[str, ...], tuple[Job, bool]] = field(default_factory=dict)

    def find(self, number: int, overrides: Sequence[str]) -> tuple[Path, Job, bool] | None:
        """The folder of this job, a job whose needs it has, and whether it may resume; None where that is not known."""
        if (known := self._known.get(kind_of(overrides))) is None:
            return None
        job, resumes = known
        return job.folder.parent / str(number), job, resumes

    def keep(self, overrides: Sequence[str], config: Any, job: Job, resumes: bool) -> None:
        """Take note of a job with its composed config, unless a number may decide where or how it runs."""
        if not any("${" in word for word in overrides) and _decided(config):
            self._known[kind_of(overrides)] = job, resumes


def kind_of(overrides: Sequence[str]) -> tuple[str, ...]:
    """What jobs have in common that differ in numbers only: the choices, and the keys of the numbers."""
    return tuple(_kind_of(word) for word in overrides)


def _kind_of(word: str) -> str:
    """`key=int` or `key=float` for a number; any other override as it is."""
    if (found := VALUE.fullmatch(word)) is None:
        return word
    kinds = [kind for kind, form in NUMBERS.items() if form.fullmatch(found[4])]
    return f"{found[1]}={kinds[0]} " if kinds else word


def _decided(config: Any) -> bool:
    """Whether folder, devices and resumption follow from the choices alone."""
    raw: Any = OmegaConf.to_container(config, resolve=False)
    sweep = raw["hydra"]["sweep"]
    name = str(raw.get("name")).replace("${run_id:}", "")
    folder = str(sweep["dir"]).replace("${name}", name)
    parts = (folder, raw.get("trainer"), raw.get("resume"))
    return sweep["subdir"] == "${hydra.job.num}" and not any("${" in repr(part) for part in parts)
