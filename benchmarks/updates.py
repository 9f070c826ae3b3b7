"""The updates of a tiny MLP in Cadence, a bare loop and the peers, in turn."""

import gc
import importlib
import random
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

from torch.nn.utils import parameters_to_vector

from benchmarks.loops import Loop, Spent, Work

LINES = {
    "cadence": ("update, all logged, MLP 64-32-10, batch 32", "bare loop, nothing logged", "<= 1.00"),
    "unlogged": ("update, logger=none, MLP 64-32-10, batch 32", "bare loop, nothing logged", "<= 0.95"),
}
VARIANTS = {
    "bare": "loops",
    "cadence": "loops",
    "unlogged": "loops",
    "lightning": "lightning",
    "lightning_sparse": "lightning",
    "transformers": "huggingface",
}
"""The module of each loop."""


def measured(options: Namespace) -> dict[str, Any]:
    """The time of an update in each round of every loop that can run here."""
    loops, skipped = available(["bare", *(name for name in options.variants if name != "bare")])
    work = Work.of(options.updates or 1000, options.threads)
    times = measure(work, loops, options.rounds)
    return {"updates": work.updates, "times": times, "unit": "rounds", "skipped": skipped}


def available(names: list[str]) -> tuple[dict[str, Loop], dict[str, str]]:
    """The loops by name, and the reason for each that cannot run here."""
    loops, skipped = {}, {}
    for name in names:
        try:
            loops[name] = getattr(importlib.import_module(f"benchmarks.{VARIANTS[name]}"), name)
        except ImportError as error:
            skipped[name] = f"{' '.join(str(error).split())}: pip install '.[peers]' brings it"
    return loops, skipped


def measure(work: Work, loops: dict[str, Loop], rounds: int) -> list[dict[str, Spent]]:
    """The time of an update of each loop in each round, in shuffled order, after one round to warm up.

    Raises:
        RuntimeError: a loop ends with other weights than the bare one.
    """
    names, order, times = list(loops), random.Random(0), []
    for _ in range(rounds + 1):
        order.shuffle(names)
        spent, weights = {}, {}
        for name in names:
            gc.collect()
            with tempfile.TemporaryDirectory() as folder:
                total, net = loops[name](work, Path(folder))
            spent[name], weights[name] = total / work.updates, parameters_to_vector(net.parameters())
        for name in names:
            if not weights[name].equal(weights["bare"]):
                raise RuntimeError(f"{name} ends with other weights than the bare loop: it did not do the same work.")
        times.append({name: spent[name] for name in loops})
    return times[1:]
