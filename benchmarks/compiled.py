"""Compiled nets on the CPU: the speed-up of ResNet-9 and a GPT, and how often a run compiles anew."""

import tempfile
from argparse import Namespace
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import flag_override
from rich.console import Console
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.compared import Line, line
from benchmarks.compared import show_lines as lines_shown
from benchmarks.gpt import CALL, Turns
from benchmarks.loops import batches
from data.module import DataModule, Splits
from data.order import Layout
from data.source import Memory
from trainer.cli.compose import compose_config
from trainer.run import Parts, assemble, fit

COMMON = (
    *("name=benchmark", "allow=[benchmarks]", "callbacks=none", "trainer=cpu", "logger=none", "trainer.compile=true"),
    *("optimizer=adamw", "optimizer.lr=0.001", f"trainer.steps_per_execution={CALL}"),
)
NETS = {
    "ResNet-9 of width 16, batch 32": ("model=resnet9", "model.width=16", "task.loss.label_smoothing=0.0"),
    "a GPT of 0.8M, 12 × 64 tokens": ("model=gpt", "task=language_modelling"),
}
TINY = ("data=synthetic", "data.samples=256", "data.val_samples=32", "data.batch_size=16", "model.hidden=[16]")
RATES = {
    "warm-up and cosine": ("schedule=cosine_warmup", "warmup.duration=10"),
    "a plateau": ("schedule=constant", "warmup=none", "plateau=count", "plateau.patience=1", "plateau.threshold=0.9"),
    "a batch that doubles": (
        *("schedule=multi_step", "warmup=none", "schedule.milestones=[20]", "schedule.gamma=0.5"),
        *("batch_schedule=grow", "batch_schedule.max_batch_size=32"),
    ),
}
"""Runs in which the rate or the batch changes."""


class Made(DataModule):
    """Random images (3, 32, 32) of ten classes, or with `context` random tokens of a vocabulary of 65."""

    def __init__(self, *, context: int | None = None, **base: Any) -> None:
        super().__init__(**base)
        self.context = context

    @property
    def shape(self) -> dict[str, int]:
        return {"vocab_size": 65, "context": self.context} if self.context else {"in_channels": 3, "classes": 10}

    def read(self) -> Splits:
        source = torch.Generator().manual_seed(0)
        if self.context:
            rows = torch.randint(65, (1024, self.context + 1), generator=source)
            return Splits(Memory((rows[:, :-1].contiguous(), rows[:, 1:].contiguous())))
        return Splits(
            Memory((torch.randn(1024, 3, 32, 32, generator=source), torch.randint(10, (1024,), generator=source)))
        )


class Eager:
    """A bare loop with the same net, not compiled."""

    label = "bare, eager, float32"

    def __init__(self, net: nn.Module, assembly: Parts, device: str = "cpu") -> None:
        self.net = net.to(device)
        self.optimizer = torch.optim.AdamW(net.parameters(), lr=0.001, fused=True)
        self.batches = batches(assembly, Layout(assembly.data.batch_size), device)  # type: ignore[attr-defined]

    def advance(self, updates: int) -> None:
        """Make the next `updates` updates."""
        for _ in range(updates):
            inputs, targets = next(self.batches)
            outputs: Tensor = self.net(inputs)
            cross_entropy(outputs.flatten(0, -2), targets.flatten()).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()


class Graphs(pl.Callback):
    """How many graphs have been compiled after each chunk and each validation."""

    def __init__(self) -> None:
        self.trained, self.counts = False, list[int]()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *batch: Any) -> None:
        self.trained = True
        self._count()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._count()

    def _count(self) -> None:
        if self.trained:
            self.counts.append(graphs())


def measured(options: Namespace) -> dict[str, Any]:
    """The time of an update of each compiled net beside the net as it is, and the number of further compilations."""
    blocks = options.rounds + 2
    found = {name: recompiled(words) for name, words in RATES.items()}
    lines = [speed_up(name, words, blocks, options.updates or 20) for name, words in NETS.items()]
    return {"lines": lines, "recompiled": found}


def show(report: dict[str, Any]) -> None:
    """Print the table, and the compilations."""
    lines_shown(report["lines"], "The first updates, which compile, are left out.")
    for name, count in report["recompiled"].items():
        Console(highlight=False).print(f"{name}: {count} further compilations after the first update and validation")


def speed_up(
    name: str, words: Sequence[str], blocks: int, block: int, more: Sequence[str] = (), peer: type[Eager] = Eager
) -> Line:
    """The time of an update, compiled in Cadence and not compiled in a bare loop, in turn; `more` overrides."""
    anew()
    cfg = compose_config([*COMMON, *words, "schedule=constant", "warmup=none", *length(blocks * block), *more])
    device = "cuda" if cfg.trainer.accelerator == "gpu" else "cpu"
    gpt = "gpt" in words[0]
    with flag_override(cfg, "struct", False):
        data = {"_target_": "benchmarks.compiled.Made", "samples": 1024, "batch_size": 12 if gpt else 32}
        cfg.data = {**data, "context": 64 if gpt else None, "tokens_per_sample": None}
    with tempfile.TemporaryDirectory() as folder:
        assembly = assemble(cfg, Path(folder))
        turns = Turns(peer(uncompiled(assembly.module.net), assembly, device), block)  # type: ignore[arg-type]
        assembly.trainer.callbacks.append(turns)  # type: ignore[attr-defined]
        fit(assembly)
    if cfg.trainer.compile:
        check_compiled()
    if cfg.trainer.cuda_graph and assembly.module.updater.replay is None:  # type: ignore[attr-defined]
        raise RuntimeError("nothing was recorded: the measurement says nothing.")
    kept = turns.blocks[2:]
    ours, theirs = ([one[key].wall for one in kept] for key in ("cadence", "bare"))
    run, mode = cfg.trainer, "" if cfg.trainer.compile in (True, "default") else f" with {cfg.trainer.compile}"
    kind = [
        *([f"compiled{mode}"] if run.compile else []),
        *(["CUDA graph"] if run.cuda_graph else []),
        *([run.precision] if run.precision != "32-true" else []),
    ]
    return line(f"update, {', '.join(kind) or 'eager'}, {name}", ours, peer.label, theirs)


def of_mode(mode: str, blocks: int, block: int, more: Sequence[str]) -> dict[str, Any]:
    """The GPT in a mode of `torch.compile`: the time of an update, and the compilations while the rate changes."""
    (_, (name, words)), rates, more = NETS.items(), RATES["warm-up and cosine"], [*more, f"trainer.compile={mode}"]
    return {"line": speed_up(name, words, blocks, block, more), "anew": recompiled(rates, more)}


def uncompiled(net: nn.Module) -> nn.Module:
    """A copy of a net that has not run yet, without its compiled call."""
    compiled, net._compiled_call_impl = net._compiled_call_impl, None
    try:
        return deepcopy(net)
    finally:
        net._compiled_call_impl = compiled


def length(updates: int, every: int | None = None) -> list[str]:
    """The overrides for a run of so many updates, validated every so many."""
    return [f"trainer.duration={updates}", f"trainer.validate={every or updates}"]


def recompiled(words: Sequence[str], more: Sequence[str] = ()) -> int:
    """The compilations of a short run after its first update and its first validation; `more` overrides."""
    anew()
    seen = Graphs()
    with tempfile.TemporaryDirectory() as folder:
        assembly = assemble(compose_config([*COMMON, *TINY, *words, *length(40, 5), *more]), Path(folder))
        assembly.trainer.callbacks.append(seen)  # type: ignore[attr-defined]
        fit(assembly)
    check_compiled()
    return seen.counts[-1] - seen.counts[1]


def graphs() -> int:
    """How many graphs have been compiled since `anew`."""
    from torch._dynamo.utils import counters  # late: the module is another one until a net is compiled

    return int(counters["stats"]["unique_graphs"])


def anew() -> None:
    """Forget what was compiled and counted."""
    from torch._dynamo.utils import counters

    torch.compiler.reset()
    counters.clear()


def check_compiled() -> None:
    """RuntimeError where nothing was compiled since `anew`."""
    if not graphs():
        raise RuntimeError("nothing was compiled: the measurement says nothing.")
