"""A callback that harms one rank at one moment of a run, and a way to start `train.py` as the processes of a world."""

import json
import os
import resource
import runpy
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from tests.distributed.worlds import ROOT


def harm(how: str, net: torch.nn.Module | None = None) -> None:
    """Do this to the present process, or to its net."""
    if how == "not_a_number" and net is not None:
        with torch.no_grad():
            next(net.parameters()).mul_(float("nan"))
        return
    if how == "memory":
        fill_memory()
    if how == "raise":
        raise ValueError("planted")
    if how == "leave":
        sys.exit(0)
    if how == "hang":
        time.sleep(600)
    os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[how])


def fill_memory() -> None:
    """Ask for more than this process may have."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (1 << 28),) * 2)
    torch.zeros(1 << 30)


class Fault(pl.Callback):
    """Harms `rank` at `moment`."""

    def __init__(self, rank: int, moment: str, how: str) -> None:
        self.rank, self.moment, self.how = rank, moment, how

    def at(self, moment: str, trainer: pl.Trainer, module: Any = None) -> None:
        if moment == self.moment and trainer.global_rank == self.rank:
            Path("harmed").touch()
            harm(self.how, getattr(module, "net", None))

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *rest: Any) -> None:
        if trainer.global_step >= 20:
            self.at("training", trainer, pl_module)

    def on_validation_batch_start(self, trainer: pl.Trainer, *rest: Any) -> None:
        self.at("validation", trainer)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.at("after fit", trainer)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.at("after test", trainer)


def words(name: str, *more: str, timeout: float = 16) -> list[str]:
    """A run of 40 updates on two processes, validated twice."""
    return [
        *(f"name={name}", "trainer=ddp", "trainer.accelerator=cpu", "trainer.threads=1", "callbacks=none"),
        *("trainer.duration=40", "trainer.validate=20", "warmup=none", "logger=none", "model.hidden=[8]"),
        *("trainer.steps_per_execution=4", f"trainer.timeout={timeout}", *more),
    ]


def fault(rank: int, moment: str, how: str) -> list[str]:
    """The words that plant a fault."""
    told = {"rank": rank, "moment": f"'{moment}'", "how": how}
    inner = ",".join(f"{key}:{value}" for key, value in {"_target_": "tests.distributed.faults.Fault", **told}.items())
    return [f"+callbacks.fault={{{inner}}}", "allow=[tests]"]


def train(rank: int, folder: Path, name: str, argv: list[str], per_rank: dict[int, list[str]], early: str = "") -> None:
    """`python train.py ARGV`, as rank `rank` of the world that the environment names; its stderr is kept in a file."""
    os.chdir(folder)
    os.environ["CADENCE_RUN_ID"] = name
    said = os.open(f"{name}.{rank}.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(said, 1)
    os.dup2(said, 2)
    if early and rank == 1:
        harm(early)
    sys.argv = [str(ROOT / "train.py"), *argv, *per_rank.get(rank, [])]
    runpy.run_path(sys.argv[0], run_name="__main__")


def result(folder: Path, name: str) -> dict[str, Any]:
    """What the run has left of itself."""
    return json.loads((folder / "outputs" / name / "result.json").read_text())
