"""Trains every schedule × warm-up × accumulation, fresh and resumed, and notes what a step hook saw.

Started by the test beside it, in this process or in the processes of a world.
"""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir

from trainer.checkpoint.io import checkpoints_in
from trainer.cli.hydra_internals import VERSION_BASE
from trainer.cli.run_id import register_run_id
from trainer.run import Parts, assemble, fit

ROOT = Path(__file__).parents[2]
SCHEDULES = ("constant", "linear", "cosine", "step", "wsd", "cosine_warmup", "linear_warmup")
WARMUPS = ("none", "linear")
ACCUMULATIONS = (1, 3)
COMBINATIONS = list(itertools.product(SCHEDULES, WARMUPS, ACCUMULATIONS))
THIRD = COMBINATIONS[::3]
"""Each schedule, and each warm-up with each accumulation."""
UPDATES, MIDDLE = 23, 9


def overrides(schedule: str, warmup: str, accumulate: int, processes: int) -> list[str]:
    """A run of 23 updates with two parameter groups, validated every 7, in blocks of 4."""
    return [
        *(f"schedule={schedule}", f"warmup={warmup}", f"trainer.accumulate={accumulate}"),
        *(["warmup.duration=6"] if warmup == "linear" else []),
        *("data=synthetic", "data.samples=192", "data.batch_size=4", "data.val_samples=16", "model.hidden=[8]"),
        *("scaling=sqrt", "scaling.base_batch_size=8", "optimizer.lr=0.003", "trainer.checkpoint=9", "trainer.keep=0"),
        *(f"trainer.duration={UPDATES}", "trainer.validate=7", "trainer.steps_per_execution=4", "trainer.log_every=3"),
        *(f"trainer.devices={processes}", "trainer.accelerator=cpu", "trainer.threads=1", "callbacks=none", "name=x"),
    ]


def applied(parts: Parts) -> list[list[float]]:
    """Fit, and return the learning rates that stood in the parameter groups at each optimizer step."""
    seen: list[list[float]] = []
    configure = parts.module.configure_optimizers

    def watched() -> torch.optim.Optimizer:
        optimizer = configure()
        optimizer.register_step_post_hook(lambda opt, *_: seen.append([group["lr"] for group in opt.param_groups]))
        return optimizer

    parts.module.configure_optimizers = watched  # type: ignore[method-assign]
    fit(parts)
    for logger in parts.trainer.loggers:
        logger.close()  # type: ignore[attr-defined]
    return seen


def train_all(folder: Path, processes: int, combinations: Sequence[tuple[str, str, int]] = COMBINATIONS) -> list[dict]:
    """What was applied in each combination: over the whole run, and from the resumed update on."""
    register_run_id()
    rows = []
    for schedule, warmup, accumulate in combinations:
        where = folder / f"{schedule}-{warmup}-{accumulate}"
        with initialize_config_dir(str(ROOT / "conf"), **VERSION_BASE):
            cfg = compose("train", overrides(schedule, warmup, accumulate, processes))
        first = assemble(cfg, where)
        row = {"name": where.name, "fresh": applied(first)}
        middle = next(path for path in checkpoints_in(where / "checkpoints") if path.stem.endswith(f"{MIDDLE:08d}"))
        second = assemble(cfg, where / "resumed", middle)
        row["resumed"] = applied(second)
        policy = first.module.spec.policy
        row["planned"] = [policy.lrs(t) for t in range(UPDATES)]
        row["groups"] = list(policy.groups)
        row["accumulate"], row["batch"] = accumulate, first.module.horizon.batch_size
        rows.append(row)
    return rows


def train_third(rank: int, folder: Path) -> None:
    """As one of two processes: a third of the combinations."""
    (folder / f"rank{rank}.json").write_text(json.dumps(train_all(folder, 2, THIRD)))
