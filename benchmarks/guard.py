"""Time an update under each guard, and without one: runs in one process, in shuffled order in each round.

    python benchmarks/guard.py --rounds 9

A 64-32-10 MLP on random data at batch 32, AdamW, one thread, every update logged. The time is that of the processor,
which other programs on the machine change less, from update 200 to the last. All runs must end with the same weights.
"""

import argparse
import contextlib
import io
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytorch_lightning as pl  # noqa: E402
import torch  # noqa: E402

import cadence  # noqa: E402
from benchmarks.report import machine  # noqa: E402
from trainer.engine.clock import Clock as RunClock  # noqa: E402
from trainer.engine.guard import Guard, check_finite  # noqa: E402
from trainer.lr.guard import Stop  # noqa: E402

BEGIN = 200
GUARDS = ("none", "stop", "skip", "rollback")


class Clock(pl.Callback):
    """Takes the time of the processor at update `BEGIN` and at the end; adds µs per update to `found`."""

    found: list[float] = []  # noqa: RUF012

    def __init__(self) -> None:
        self.begun = (0, 0.0)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *rest: Any) -> None:
        now, t = process_time(), pl_module.clock.t
        if not self.begun[0] and t >= BEGIN:
            self.begun = (t, now)
        elif t == pl_module.horizon.total:
            self.found.append(1e6 * (now - self.begun[1]) / (t - self.begun[0]))


@contextlib.contextmanager
def without_guard() -> Iterator[None]:
    """Neither look for what is not finite nor for spikes."""
    with (
        mock.patch("trainer.engine.module.check_finite"),
        mock.patch("trainer.engine.guard.Guard.check_spike"),
    ):
        yield


def update_time(guard: str, updates: int, name: str) -> tuple[float, torch.Tensor]:
    """µs of the processor per update, and the weights at the end."""
    with without_guard() if guard == "none" else contextlib.nullcontext(), contextlib.redirect_stdout(io.StringIO()):
        run = cadence.fit(
            *("data=synthetic", "data.features=64", "data.samples=4096", "data.batch_size=32", "model.hidden=[32]"),
            *("optimizer=adamw", "callbacks=none", "trainer.accelerator=cpu", "trainer.threads=1"),
            *(f"trainer.duration={updates}", f"trainer.validate={updates}", f"guard={guard.replace('none', 'stop')}"),
            *("+callbacks.clock._target_=benchmarks.guard.Clock", "allow=[benchmarks]", f"name={name}"),
        )
    from benchmarks import guard as imported  # as `allow` imports it

    weights = torch.nn.utils.parameters_to_vector(run.net.parameters())
    return imported.Clock.found.pop(), weights


def check_time(rule: Stop, updates: int = 5000) -> float:
    """µs of the processor per update of the checks alone, as the loop calls them."""
    guard, number = Guard(rule, RunClock()), random.Random(0)
    rows = [(t, 2 + number.random(), 1 + number.random()) for t in range(updates)]
    begun = process_time()
    for row in rows:
        check_finite(*row)
        guard.check_spike(*row)
    return 1e6 * (process_time() - begun) / updates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--updates", type=int, default=2000)
    options = parser.parse_args()
    times: dict[str, list[float]] = {guard: [] for guard in GUARDS}
    first: torch.Tensor | None = None
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for number in range(-1, options.rounds):  # the first round warms up
            for guard in random.sample(GUARDS, len(GUARDS)):
                found, weights = update_time(guard, options.updates, f"{guard}{number}")
                first = weights if first is None else first
                if not torch.equal(first, weights):
                    sys.exit(f"guard={guard} changes the weights")
                if number >= 0:
                    times[guard].append(found)
    for guard, each in times.items():
        ratios = [one / bare for one, bare in zip(each, times["none"], strict=True)]
        print(
            f"{guard:>8}  {median(each):.0f} µs ({min(each):.0f} to {max(each):.0f})  × {median(ratios):.3f} "
            f"({min(ratios):.3f} to {max(ratios):.3f})"
        )
    for name, rule in {"without spikes": Stop(), "with spikes": Stop(threshold=20)}.items():
        each = [check_time(rule) for _ in range(options.rounds)]
        print(f"checks {name}: {median(each):.2f} µs ({min(each):.2f} to {max(each):.2f})")
    print(f"load {machine(1)['load']:.1f}")


if __name__ == "__main__":
    main()
