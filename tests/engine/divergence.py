"""Twelve causes of divergence under each guard: how each run ends, beside a clean run.

    python tests/engine/divergence.py [--causes NAME …] [--guards NAME …] [--markdown]

Each run is a process of its own, forked from this one; a cause is planted by a callback of the config. A cause of the
data is there each time its batch is read; a fault, such as a weight that turns NaN, happens once. Exit code 1 where a
run does not end as `EXPECTED` says.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
GUARDS = ("stop", "skip", "rollback")
UPDATES, AT = 400, 230
"""The length of each run, and the update that a cause begins at."""
NEAR = 0.05
"""How far the last validation loss may lie above that of the clean run, as a share of it."""
BASE = (
    *("data=synthetic_regression", "task=regression", "data.samples=4096", "data.val_samples=512"),
    *("data.test_samples=0", "data.batch_size=32", "model.hidden=[16]", "optimizer=momentum", "optimizer.lr=0.01"),
    *("schedule=cosine_warmup", "warmup.duration=20", f"trainer.duration={UPDATES}", "trainer.validate=50"),
    *("trainer.accelerator=cpu", "trainer.threads=1", "trainer.steps_per_execution=1", "callbacks=none", "logger=none"),
)
CAUSES = {
    "bad batch": "one batch has inputs 1,000 times too large",
    "bad batch twice": "two batches have",
    "nan in data": "one training sample has a NaN; it comes again in each epoch",
    "inf target": "one training sample has an infinite target",
    "nan on one rank": "of two processes, one computes NaN once",
    "spike of the rate": "the rate is 3,000 times too high for one update",
    "overflow": "under loss scaling, a batch overflows at every scale",
    "nan weight": "a weight turns NaN between validation and save",
    "slow divergence": "for 60 updates all weights grow by 5 % each",
    "exploding norm": "one gradient is a million times too large, at a normal loss",
    "nan in optimizer": "a momentum buffer turns NaN",
    "rate too high": "optimizer.lr is 100 times too high from the start",
}


@dataclass(frozen=True)
class End:
    """How a run ended: exit code, updates, the last validation loss, the newest checkpoint, what was told."""

    code: int
    updates: int
    loss: float | None
    finite: bool
    text: str


class Plant(pl.Callback):
    """Plants a cause in a run; `t` is the update that it begins at."""

    def __init__(self, cause: str, t: int = AT) -> None:
        self.cause, self.t = cause, t
        self.begun = self.over = self.now = False
        self.seeds: set[int] = set()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        data: Any = trainer.datamodule
        if self.begun or stage != "fit":
            return
        self.begun, train = True, data.splits.train
        order = data._order(train)
        row = int(order.pick(self.t, 0).indices[3])
        if self.cause == "nan in data":
            train.inputs[row, 0] = torch.nan
        elif self.cause == "inf target":
            train.targets[row] = torch.inf
        elif self.cause in ("bad batch", "bad batch twice", "overflow"):
            places = (self.t, self.t + 7) if self.cause == "bad batch twice" else (self.t,)
            self.seeds = {order.micro_seed(place, 0) for place in places}
            factor = 1e30 if self.cause == "overflow" else 1e3
            data.augment = lambda inputs, seed: inputs * factor if seed in self.seeds else inputs

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        module: Any = pl_module
        if self.cause == "overflow":
            scaler = torch.amp.GradScaler("cpu")
            module.updater.backward = replace(module.updater.backward, scaler=scaler)
        if self.cause == "nan on one rank" and trainer.global_rank == 1:
            module.net.register_forward_hook(lambda net, _, out: out * torch.nan if self._now(module) else out)
        if self.cause == "exploding norm":
            for parameter in module.net.parameters():
                parameter.register_hook(lambda gradient: gradient * 1e6 if self.now else gradient)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *batch: Any) -> None:
        module: Any = pl_module
        t = module.clock.t
        if self.cause == "spike of the rate":
            module.control.plateau = 3000.0 if self._now(module) else 1.0
        elif self.cause == "exploding norm":
            self.now = self._now(module)
        elif self.cause == "nan in optimizer" and self._now(module):
            state = next(iter(module.updater.optimizer.state.values()))
            state["momentum_buffer"].view(-1)[0] = torch.nan
        elif self.cause == "slow divergence" and self.t <= t < self.t + 60 and not self.over:
            with torch.no_grad():
                torch._foreach_mul_(list(module.net.parameters()), 1.05)
            self.over = t == self.t + 59

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.over = True  # a fault comes once

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        module: Any = pl_module
        if self.cause == "nan weight" and module.clock.t >= self.t and not self.over:
            self.over = True
            with torch.no_grad():
                next(module.net.parameters()).view(-1)[0] = torch.nan

    def _now(self, module: Any) -> bool:
        """Whether this is the moment of a fault, which comes once."""
        now = module.clock.t == self.t and module.net.training and not self.over
        self.over |= now
        return now


def overrides(cause: str | None, guard: str) -> list[str]:
    """The command line of a run."""
    made = [*BASE, f"guard={guard}"]
    if cause == "rate too high":
        made[made.index("optimizer.lr=0.01")] = "optimizer.lr=1"
    elif cause is not None:
        made += [f"+callbacks.plant={{_target_: tests.engine.divergence.Plant, cause: {cause}}}", "allow=[tests]"]
    if cause == "nan on one rank":
        made[made.index("data.batch_size=32")] = "data.batch_size=16"
        made += ["trainer.strategy=ddp", "trainer.devices=2"]
    return made


def run(folder: Path, cause: str | None, guard: str, more: Sequence[str] = ()) -> End:
    """One run in a folder, in a process of its own."""
    words = [*overrides(cause, guard), *more]
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.parent / f"{folder.name}.log"
    if cause == "nan on one rank":
        with log.open("w") as out:
            command = [sys.executable, "train.py", f"name={folder.name}", f"hydra.run.dir={folder}", *words]
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            code = subprocess.run(command, cwd=ROOT, env=environment, stdout=out, stderr=out, check=False).returncode
    else:
        child = multiprocessing.get_context("fork").Process(target=_run, args=(folder, words, log))
        child.start()
        child.join()
        code = child.exitcode or 0
    return ended(folder, code, log.read_text())


def _run(folder: Path, words: list[str], log: Path) -> None:
    from hydra import compose, initialize_config_dir

    from trainer.cli.hydra_internals import VERSION_BASE
    from trainer.cli.run_cli import run_cli
    from trainer.cli.run_id import register_run_id
    from trainer.config.settings import settings_of
    from trainer.run import run_in

    with log.open("w") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
        sys.stdout = sys.stderr = out
        register_run_id()
        with initialize_config_dir(str(ROOT / "conf"), **VERSION_BASE):
            cfg = compose("train", [f"name={folder.name}", *words])
        code = run_cli(lambda: run_in(folder, settings_of(cfg), words, ["train"]))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(folder: Path, code: int, text: str) -> End:
    """What a run has left in its folder."""
    from trainer.checkpoint.io import checkpoints_in, read
    from trainer.resume.rollback import finite

    path = folder / "result.json"
    result = json.loads(path.read_text()) if path.exists() else {"updates": -1, "status": "none"}
    saved = checkpoints_in(folder / "checkpoints")
    content = read(saved[-1]) if saved else None
    loss = None
    if content is not None and result["status"] == "completed":
        rows = (folder / "validations.jsonl").read_text().splitlines()
        loss = json.loads(rows[-1])["val/loss"]
    sound = content is not None and finite([content["state_dict"], content["optimizer_states"]])
    return End(code, result["updates"], loss, sound, text)


EXPECTED = {
    "bad batch": ("stops", "ends", "ends"),
    "bad batch twice": ("stops", "ends", "ends"),
    "nan in data": ("stops", "ends", "ends"),
    "inf target": ("stops", "ends", "ends"),
    "nan on one rank": ("stops", "ends", "ends"),
    "spike of the rate": ("stops", "stops", "ends"),
    "overflow": ("stops", "ends", "ends"),
    "nan weight": ("stops", "stops", "ends"),
    "slow divergence": ("stops", "stops", "ends"),
    "exploding norm": ("stops", "ends", "ends"),
    "nan in optimizer": ("stops", "stops", "ends"),
    "rate too high": ("stops", "stops", "stops"),
}
"""How a run ends under stop, skip and rollback: after all its updates with exit code 0, or before them with 1."""
TOLD = {"stops": "Diverged: ", "skip": ": left out, ", "rollback": ": rolled back to update "}


def problems(cause: str, guard: str, end: End) -> list[str]:
    """What differs from `EXPECTED`: the end of the run, its exit code, the log, the checkpoint that it leaves."""
    expected = EXPECTED[cause][GUARDS.index(guard)]
    found = [] if end.code == (expected == "stops") else [f"exit code {end.code}"]
    if (end.updates == UPDATES) != (expected == "ends"):
        found.append(f"{end.updates} updates")
    if expected == "stops" and TOLD["stops"] not in end.text:
        found.append("the log does not tell which update diverged")
    if expected == "ends" and guard != "stop" and TOLD[guard] not in end.text:
        found.append(f"the log has no line{TOLD[guard]}")
    if cause == "nan in data" and "Its data is not finite, slice 0: sample " not in end.text:
        found.append("the log does not name the sample")
    if not end.finite and end.updates >= 50:
        found.append("the newest checkpoint is not finite")
    return found


def main() -> int:
    """Run the causes under the guards, and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--causes", nargs="+", default=list(CAUSES), choices=CAUSES)
    parser.add_argument("--guards", nargs="+", default=GUARDS, choices=GUARDS)
    options = parser.parse_args()
    failed, near = 0, dict.fromkeys(GUARDS, 0)
    with tempfile.TemporaryDirectory() as folder:
        clean = run(Path(folder, "clean"), None, "stop").loss
        assert clean is not None
        print(f"clean run: validation loss {clean:.4f}\n\n| cause | {' | '.join(options.guards)} |")
        print("| --- |" + " --- |" * len(options.guards), flush=True)
        for number, cause in enumerate(options.causes):
            cells = []
            for guard in options.guards:
                end = run(Path(folder, f"{number}-{guard}"), cause, guard)
                wrong = problems(cause, guard, end)
                failed += bool(wrong)
                close = end.loss is not None and end.loss <= (1 + NEAR) * clean
                near[guard] += close
                done = f"ends at {end.loss / clean - 1:+.1%}" if end.loss is not None else f"stops at {end.updates}"
                cells.append(f"{done}{' WRONG: ' + ', '.join(wrong) if wrong else ''}")
            print(f"| {cause} | {' | '.join(cells)} |", flush=True)
    within = ", ".join(f"{guard} {near[guard]}" for guard in options.guards)
    print(f"\nwithin {NEAR:.0%} of the clean run's loss, of {len(options.causes)}: {within}; {failed} not as expected")
    return int(failed > 0)


if __name__ == "__main__":
    from tests.engine.divergence import main as imported_main  # the callback is then found under its own name

    sys.exit(imported_main())
