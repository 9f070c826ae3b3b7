"""Short trainings of one run that differ in a few numbers and the seed: one after another or as one, in this process.

Imports and the composed config are shared. Each training has its own folder, with config, plan, log and result, as a
run of `cadence train` has, except for checkpoints and the test.
"""

import contextlib
import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from omegaconf import DictConfig

from trainer.cli.override import key_of
from trainer.config.components import Parts, build, task_of
from trainer.config.resolve import Resolved, resolve
from trainer.config.run_summary import announce, write_result
from trainer.config.settings import Settings, settings_of
from trainer.config.variants import with_words
from trainer.engine.guard import Diverged
from trainer.files.atomic import write_text
from trainer.files.plain import read_record
from trainer.lr import ConfigError
from trainer.run import fit
from trainer.tools.siblings import sibling, why_no_siblings
from trainer.tools.stacked import Stack, score, why_alone

RATE = "optimizer.lr="
RESULT, LOG = "result.json", "job.log"
BROKE = "Diverged"
"""How the error of a training begins that has diverged: it is not repeated, since it would diverge again."""


@dataclass(frozen=True)
class Member:
    """One training: its overrides beside those of the run, its seed and its length."""

    words: tuple[str, ...]
    seed: int
    updates: int

    @property
    def overrides(self) -> list[str]:
        """Its own overrides, with one validation at the end."""
        length = [f"trainer.duration={self.updates}", f"trainer.validate={self.updates}", "trainer.checkpoint=null"]
        return [*self.words, f"seed={self.seed}", *length]

    @property
    def folder(self) -> str:
        """The name of its folder."""
        numbers = [word.replace("optimizer.", "").replace("/", "-") for word in self.words]
        return ",".join([*numbers, f"seed={self.seed}", f"updates={self.updates}"])


@dataclass(frozen=True)
class Outcome:
    """How a training ended. `cost`: its metric, with the sign turned where more is better; infinite where it broke.

    `updates` is how many were made. `error` says why there is no finite metric. `reused`: an earlier start made it.
    """

    cost: float
    updates: int
    error: str = ""
    reused: bool = False


Many = Callable[[Sequence[Member]], Iterable[Outcome]]
"""Trains members at once, and gives their outcomes in their order."""


@dataclass
class Members:
    """Makes trainings in the folder `root`. `cfg` is the composed config of the run, `overrides` are its own.

    `program`: the words that start the run, up to its overrides.
    """

    cfg: DictConfig
    overrides: Sequence[str]
    root: Path
    program: Sequence[str]
    together: ClassVar[bool] = True
    """Whether trainings are stacked where they can be."""
    alone_because: str = ""
    """Why trainings are not stacked, once that is known."""

    def train_all(self, members: Sequence[Member], many: Many | None = None) -> Iterator[Outcome]:
        """Train members, as one where their nets can be stacked, else one after another, or by `many`; their outcomes.

        Raises:
            ConfigError: the config is invalid.
        """
        waiting = [one for one in members if self._earlier(self.root / one.folder) is None]
        if len(waiting) > 1 and self.together and not self.alone_because:
            self._train_stacked(waiting)
        fresh = {one for one in waiting if (self.root / one.folder / RESULT).exists()}
        for one, made in zip(members, many(members) if many else map(self.train, members)):
            yield replace(made, reused=made.reused and one not in fresh)

    def _train_stacked(self, members: Sequence[Member]) -> None:
        """Train members as one, each into its own folder; where that fails, note why, and leave no result."""
        started, folders = time.time(), [self._emptied(one) for one in members]
        with (folders[0] / LOG).open("w", encoding="utf-8") as log, contextlib.redirect_stdout(log):
            parts = self._built(members, folders)
            if self.alone_because:
                return
            try:
                failures = Stack(parts).fit()
                for one in parts:
                    score(one)
            except (RuntimeError, ValueError, TypeError, NotImplementedError, UserWarning) as error:
                self.alone_because = f"they cannot be stacked: {' '.join(str(error).split())[:200]}"
                return
            seconds = (time.time() - started) / len(parts)
            for member, one, failure in zip(members, parts, failures):
                printed = one is parts[0]  # the log is in its folder
                announce(one, self._all_overrides(member), self.program, printed)
                conclude(one, _ending(failure), seconds, printed)

    def _built(self, members: Sequence[Member], folders: Sequence[Path]) -> list[Parts]:
        """The parts of members; of those that differ from an earlier one in the rate alone, by copying its parts."""
        made: dict[Any, Parts] = {}
        parts: list[Parts] = []
        for member, folder in zip(members, folders):
            rates = [word for word in member.words if word.startswith(RATE)]
            key = (*(word for word in member.words if word not in rates), member.seed, member.updates)
            if key in made and rates and not why_no_siblings(made[key]):
                parts.append(sibling(made[key], float(rates[0].removeprefix(RATE)), member.folder, folder))
                continue
            parts.append(build(resolve(self.settings(member)), folder))
            made.setdefault(key, parts[-1])
            if why := why_alone(parts):
                self.alone_because = why
                break
        return parts

    def _emptied(self, member: Member) -> Path:
        """The folder of a member, without what an earlier start left."""
        folder = self.root / member.folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def train(self, member: Member) -> Outcome:
        """Train one member to its end, or take the result of an earlier start.

        Raises:
            ConfigError: the config is invalid.
        """
        folder = self.root / member.folder
        if (earlier := self._earlier(folder)) is not None:
            return earlier
        self._emptied(member)
        with (folder / LOG).open("w", encoding="utf-8") as log, contextlib.redirect_stdout(log):
            return self._trained(self.settings(member), member, folder)

    def score(self, resolved: Resolved) -> str:
        """What is compared, in words."""
        task = task_of(resolved.settings, resolved.data)
        return f"val/{task.monitor}" + (" with its sign turned" if task.direction == "max" else "")

    def check(self, member: Member) -> None:
        """Raise ConfigError where the run of a member is refused."""
        with tempfile.TemporaryDirectory() as folder:
            build(resolve(self.settings(member)), Path(folder))

    def settings(self, member: Member) -> Settings:
        """The settings of a member."""
        cfg = with_words(self.cfg, member.overrides)
        cfg.name = member.folder
        return settings_of(cfg)

    def _trained(self, settings: Settings, member: Member, folder: Path) -> Outcome:
        started = time.time()
        parts = build(resolve(settings), folder)
        announce(parts, self._all_overrides(member), self.program)
        outcome = _ending(None)
        try:
            fit(parts)
        except Diverged as error:
            outcome = _ending(error)
            parts.module.flush(alone=True)
        except (ConfigError, OSError, KeyboardInterrupt, SystemExit):
            raise  # a full disk says nothing of the rate
        except Exception as error:  # noqa: BLE001 - one training that fails stops no other
            outcome = {"status": "failed", "error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
        return conclude(parts, outcome, time.time() - started)

    def _all_overrides(self, member: Member) -> list[str]:
        """All overrides of a member: those of the run that it does not replace, and its own."""
        own = {key_of(word) for word in member.overrides}
        return [*(word for word in self.overrides if key_of(word) not in own), *member.overrides]

    def _earlier(self, folder: Path) -> Outcome | None:
        """The outcome of an earlier start, if it is final."""
        result = read_record(folder / RESULT)
        if result.get("status") != "completed" and not str(result.get("error", "")).startswith(BROKE):
            return None
        return _outcome(result, reused=True)


def conclude(parts: Parts, outcome: dict[str, Any], seconds: float, printed: bool = True) -> Outcome:
    """Drop the checkpoints of a member, and write its result."""
    shutil.rmtree(parts.checkpointing.folder, ignore_errors=True)
    write_result(parts, outcome, seconds, printed)
    path = parts.folder / RESULT
    result = json.loads(path.read_text(encoding="utf-8"))
    if outcome["status"] == "completed" and result["best"].get("value") is None:
        result["best"] |= {"metric": "train/loss", "mode": "min", "value": parts.module.recent.get("loss")}
        result["metrics"]["train/loss"] = result["best"]["value"]
        write_text(path, json.dumps(result, indent=2) + "\n")
    return _outcome(result)


def _ending(failure: Diverged | None) -> dict[str, Any]:
    """What the result says of a training that ended, or broke."""
    if failure is None:
        return {"status": "completed", "test": {}}
    return {"status": "failed", "error": f"{BROKE}: {failure}"}


def _outcome(result: Mapping[str, Any], reused: bool = False) -> Outcome:
    best = result.get("best") or {}
    value = best.get("value")
    if result.get("status") != "completed" or value is None or not math.isfinite(value):
        error = str(result.get("error") or "its metric is not finite")
        return Outcome(math.inf, int(result.get("updates", 0)), error, reused)
    return Outcome(float(value) * (-1 if best.get("mode") == "max" else 1), int(result["updates"]), "", reused)
