"""The examples as a user runs them: their own folder, their own configs, the command of their README."""

import os
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hydra import compose
from omegaconf import DictConfig

from tests.distributed.worlds import ROOT
from trainer.cli.compose import CONF, find_own_packages
from trainer.cli.hydra_internals import initialized
from trainer.cli.run_id import register_run_id
from trainer.run import Parts, assemble

EXAMPLES = ROOT / "examples"
QUIET = ("callbacks=none", "trainer.accelerator=cpu", "trainer.threads=1", "name=test")


@dataclass(frozen=True)
class Example:
    """An example, and the value of a score that says that it has learned.

    `cuts`: whether two processes train the same as two micro-batches. `bounded`: whether the loss cannot grow much, so
    that the range test may say that it finds no edge. `rates`: two learning rates for a sweep.
    """

    name: str
    score: str
    bound: float
    higher: bool = False
    cuts: bool = True
    bounded: bool = False
    rates: tuple[str, str] = ("optimizer.lr=0.001", "optimizer.lr=0.003")

    @property
    def folder(self) -> Path:
        """Its project."""
        return EXAMPLES / self.name

    @property
    def words(self) -> list[str]:
        """The overrides of the command in its README."""
        (command,) = re.findall(r"```bash\n(cadence train .*?)```", (self.folder / "README.md").read_text(), re.DOTALL)
        return shlex.split(command.replace("\\\n", " "))[2:]

    def learned(self, scores: dict[str, float]) -> bool:
        """Whether these scores are good enough."""
        found = scores[self.score]
        return found >= self.bound if self.higher else found <= self.bound


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """In the working folder `folder`, whose packages can be imported."""
    before, path = Path.cwd(), list(sys.path)
    os.chdir(folder)
    find_own_packages()
    try:
        yield
    finally:
        os.chdir(before)
        sys.path[:] = path


def composed(example: Example, *more: str) -> DictConfig:
    """The config of the example's command with more overrides; called inside its folder."""
    flag, folder, *words = example.words
    assert flag == "--config-dir"
    register_run_id()
    with initialized(CONF, Path(folder)):
        return compose("train", [*words, *QUIET, *more])


def assembled(example: Example, folder: Path, *more: str, resumed: Path | None = None) -> Parts:
    """The run of an example in a folder; called inside the example's."""
    going_on = [f"resume.path='{resumed}'"] if resumed else []
    return assemble(composed(example, *more, *going_on), folder, resumed)


ALL = [
    Example("tabular", "val/accuracy", 0.85, higher=True),
    Example("vae", "val/loss", 28.0),
    Example("contrastive", "val/loss", 2.7, bounded=True),
]
