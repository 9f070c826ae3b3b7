"""The runs of an experiment: what an arm is, what it reached, and many of them trained one after the other."""

import contextlib
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.run import Assembly


@dataclass(frozen=True)
class Arm:
    """One way to train: `overrides` as on the command line of train.py, and the name that its results go by.

    Every `every` updates the loss over the whole training set is measured; the run ends there if it is below
    `target`. `prepare` gets the assembly before training, to attach what the arm needs; `look` gets it after, and
    what it returns is the trial's `seen`. Both are functions at the top of a module, for they go to other processes.
    """

    name: str
    overrides: tuple[str, ...]
    every: int | None = None
    target: float | None = None
    prepare: "Callable[[Assembly], None] | None" = None
    look: "Callable[[Assembly], Mapping[str, Any]] | None" = None


@dataclass(frozen=True)
class Trial:
    """What an arm reached from a seed. A run that diverged has the loss inf and the error 1.

    `train_loss` is the mean over the whole training set at the end (no dropout, running statistics), `test_error` the
    share of the test set that is wrong, `updates` how many were applied, `curve` (samples seen, training loss) at each
    measurement.
    """

    arm: str
    seed: int
    train_loss: float
    test_error: float
    updates: int
    seconds: float
    curve: tuple[tuple[int, float], ...] = ()
    seen: Mapping[str, Any] = field(default_factory=dict)


def trained(arms: Sequence[Arm], seeds: Sequence[int], processes: int = 1) -> dict[str, list[Trial]]:
    """Train every arm from every seed; the trials of each arm by its name, in the order of the seeds.

    A seed gives all arms the same initial weights and the same order of the data. Progress goes to stderr.
    ValueError where two arms have the same name.
    """
    if len({arm.name for arm in arms}) < len(arms):
        raise ValueError("two arms have the same name: give each its own.")
    jobs = [(arm, seed) for arm in arms for seed in seeds]
    found: dict[tuple[str, int], Trial] = {}
    with _workers(min(processes, len(jobs))) as mapped:
        for count, trial in enumerate(mapped(train, jobs), start=1):
            found[trial.arm, trial.seed] = trial
            _tell(
                f"[{count}/{len(jobs)}] {trial.arm}, seed {trial.seed}: loss {trial.train_loss:.4f}", count, len(jobs)
            )
    return {arm.name: [found[arm.name, seed] for seed in seeds] for arm in arms}


def train(job: tuple[Arm, int]) -> Trial:
    """Train one arm from one seed."""
    from experiments import training  # late: this brings torch

    return training.train(*job)


@contextlib.contextmanager
def _workers(processes: int) -> Iterator[Callable[..., Iterable[Trial]]]:
    """What maps jobs to trials: here, or in processes of their own."""
    if processes < 2:
        yield map
        return
    with multiprocessing.get_context("spawn").DevicePool(processes) as pool:
        yield pool.imap_unordered


_TOLD = [0.0]


def _tell(line: str, count: int, total: int) -> None:
    """A line of progress: in place on a terminal, every ten seconds elsewhere."""
    live, last = sys.stderr.isatty(), count == total
    if live or last or time.monotonic() - _TOLD[0] > 10:
        _TOLD[0] = time.monotonic()
        text = f"\r\033[K{line}" if live else line
        print(text, end="" if live and not last else "\n", file=sys.stderr, flush=True)
