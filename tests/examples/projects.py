"""The examples as a user runs them: their own folder, their own configs, the command of their README."""

import os
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hydra import compose
from omegaconf import DictConfig

from tests.distributed.worlds import ROOT
from trainer.cli.compose import CONF, find_own_packages
from trainer.cli.hydra_internals import initialized
from trainer.cli.run_id import register_run_id
from trainer.run import Parts, assemble, fit

EXAMPLES = ROOT / "examples"
QUIET = ("callbacks=none", "trainer.accelerator=cpu", "trainer.threads=1", "name=test")


@dataclass(frozen=True)
class Example:
    """An example, and the value of a score that says that it has learned.

    `cuts`: whether two processes train the same as two micro-batches. `bounded`: whether the loss hardly falls or grows
    in a short range test, which then may say that it finds no edge. `rates`: two learning rates for a sweep. `range`:
    options of the range test.
    """

    name: str
    score: str
    bound: float
    higher: bool = False
    cuts: bool = True
    bounded: bool = False
    rates: tuple[str, str] = ("optimizer.lr=0.001", "optimizer.lr=0.003")
    range: tuple[str, ...] = ("--updates=40",)

    @property
    def folder(self) -> Path:
        """Its project."""
        return EXAMPLES / self.name

    @property
    def commands(self) -> list[list[str]]:
        """The commands of its README."""
        blocks = re.findall(r"```bash\n(.*?)```", (self.folder / "README.md").read_text(), re.DOTALL)
        return [shlex.split(line) for block in blocks for line in block.replace("\\\n", " ").splitlines()]

    @property
    def trained(self) -> list[list[str]]:
        """What its commands `cadence train` are given; of a sweep, what its first run is."""
        given = [words[2:] for words in self.commands if words[:2] == ["cadence", "train"]]
        first = [re.sub(r"(=[^\[{,]*),.*", r"\1", " ".join(words)) if "-m" in words else None for words in given]
        return [words if one is None else one.split()[1:] for words, one in zip(given, first)]

    @property
    def words(self) -> list[str]:
        """What its own command is given: the first one with its name."""
        return next(words for words in self.trained if f"experiment={self.name}" in words)

    @property
    def before(self) -> list[list[str]]:
        """The commands before its own, which make what it needs."""
        own = next(i for i, words in enumerate(self.commands) if f"experiment={self.name}" in words)
        return self.commands[:own]

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


def composed_of(words: list[str], *more: str) -> DictConfig:
    """The config of words that begin with --config-dir FOLDER, and of more overrides."""
    flag, folder, *overrides = words
    assert flag == "--config-dir"
    register_run_id()
    with initialized(CONF, Path(folder)):
        return compose("train", [*QUIET, *overrides, *more])


@cache
def composed(example: Example, *more: str) -> DictConfig:
    """The config of the example's command with more overrides, to be copied; called inside its folder."""
    return composed_of(example.words, *more)


@cache
def home(example: Example, base: Path) -> Path:
    """Where it is trained: its folder, or a copy in `base` in which the commands before its own have been run."""
    if not example.before:
        return example.folder
    copy = Path(shutil.copytree(example.folder, base / example.name))
    with inside(copy):
        for tool, *words in example.before:
            if tool == "python":
                runpy.run_path(words[0], run_name="__main__")
            else:
                config = composed_of(words[1:])
                fit(assemble(config, Path("outputs", config.name)))
    return copy


def assembled(
    example: Example, folder: Path, *more: str, resumed: Path | None = None, checkpoint: int | None = None
) -> Parts:
    """The run of an example in a folder; called inside the example's.

    Two settings need no new composing: `resumed`, a checkpoint to go on from, and `checkpoint`, the interval of saving.
    """
    config = deepcopy(composed(example, *more))
    if resumed is not None:
        config.resume.path = str(resumed)
    if checkpoint is not None:
        config.trainer.checkpoint = checkpoint
    return assemble(config, folder, resumed)


ALL = [
    Example("tabular", "val/accuracy", 0.85, higher=True),
    Example(
        *("transformers_classifier", "val/accuracy", 0.8),
        higher=True,
        range=("--start=1e-4", "--end=1", "--updates=60"),  # it learns nothing in the first few updates
    ),
    Example("causal_lm", "val/perplexity", 1.4),
    Example("distillation", "val/accuracy", 0.93, higher=True, bounded=True),
    Example("fine_tuning", "val/accuracy", 0.85, higher=True, bounded=True),
    Example("gan", "val/distance", 0.05, cuts=False, bounded=True),
    Example("image_folder", "val/accuracy", 0.85, higher=True),
    Example("k_fold", "val/f1/1", 0.7, higher=True),
    Example("lightning_module", "val/acc", 0.9, higher=True, rates=("optimizer.lr=0.002", "optimizer.lr=0.005")),
    Example("lora", "val/loss", 0.3),
    Example("multi_task", "val/loss", 0.9),
    Example("reinforcement", "val/steps", 90, higher=True, bounded=True),
    Example("segmentation", "val/iou/disc", 0.8, higher=True, rates=("optimizer.lr=0.005", "optimizer.lr=0.02")),
    Example("streaming", "val/mse", 0.005),
    Example("token_classification", "val/f1/TO", 0.9, higher=True),
    Example("vae", "val/loss", 25.0),
    Example("contrastive", "val/loss", 2.7, bounded=True),
]
