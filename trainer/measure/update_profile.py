"""Where the time of an update goes: a few updates under the profiler of torch."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.profilers import Profiler
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from trainer.engine.module import Module
from trainer.lr import ConfigError

TRACE = "trace.json.gz"
UPDATES, FEWEST = 5, 3
"""The updates that are profiled, after as many that warm up and as many more that warm the profiler up; the fewest of
a run."""
CHUNKS = 6
"""The data is read ahead: so many chunks are of equal length, that the time to read one belongs to as many updates."""
PARTS = {
    "data": "train_dataloader_next",
    "forward, loss": "cadence: step",
    "backward": "autograd::engine::evaluate_function",
    "optimizer": "Optimizer.step#",
}
"""The parts of an update, and what the names of their events hold."""
OPERATORS = 5


class UpdateProfile(pl.Callback):
    """Profiles the third `UPDATES` updates after `start` on rank zero, or the last third of a shorter run.

    Then it prints their mean times by part and by operator, and writes a trace for Perfetto or chrome://tracing.

    Raises:
        ConfigError: fewer than `FEWEST` updates are left.
    """

    def __init__(self, folder: Path, start: int, total: int) -> None:
        if total - start < FEWEST:
            raise ConfigError(
                f"trainer.profile=true needs {FEWEST} updates, since the first ones take longer, and {total - start} "
                "are left: lengthen trainer.duration."
            )
        self.folder, self.start, self.total = folder, start, total
        self.count = min(UPDATES, (total - start) // FEWEST)
        self._profile: profile | None = None
        self._began = 0.0

    def next_end(self, t: int) -> int:
        """The end of the chunk of updates that begins at `t`."""
        done = t - self.start
        return t - done % self.count + self.count if done < CHUNKS * self.count else self.total

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, i: int) -> None:
        """Begin with the second chunk, which warms the profiler up, and end after the third."""
        assert isinstance(pl_module, Module)
        done = pl_module.clock.t - self.start
        if done == self.count and trainer.is_global_zero:
            self._begin(trainer, pl_module)
        elif done == 2 * self.count and self._profile is not None:
            self._profile.step()
            self._began = time.perf_counter()
        elif done > 2 * self.count:
            self._end(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End where an update was profiled: a validation belongs to none."""
        self._end(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End."""
        self._end(trainer, pl_module)

    def _begin(self, trainer: pl.Trainer, module: Module) -> None:
        self._before = trainer.profiler, module.updater.step  # type: ignore[attr-defined]
        trainer.profiler = Regions()  # type: ignore[attr-defined]
        module.updater.step = RecordedStep(module.updater.step)
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if module.device.type == "cuda" else [])]
        self._profile = profile(activities=activities, schedule=schedule(wait=0, warmup=1, active=1, repeat=1))
        self._profile.start()

    def _end(self, trainer: pl.Trainer, module: Any) -> None:
        updates = module.clock.t - self.start - 2 * self.count
        if self._profile is None or updates < 1:
            return
        if module.device.type == "cuda":
            torch.cuda.synchronize(module.device)
        seconds, made, self._profile = time.perf_counter() - self._began, self._profile, None
        made.step()
        trainer.profiler, module.updater.step = self._before  # type: ignore[attr-defined]
        path = self.folder / TRACE
        for line in format_profile(list(made.events() or ()), seconds, updates, module.device.type == "cuda"):
            print(line)
        try:
            made.export_chrome_trace(str(path))
            made.stop()
            print(f"trace       {path}, for ui.perfetto.dev or chrome://tracing", flush=True)
        except OSError as error:
            print(f"warning: {path} cannot be written ({error.strerror}).", file=sys.stderr, flush=True)


class Regions(Profiler):
    """Names what Lightning's loop does, for the profiler of torch."""

    def __init__(self) -> None:
        super().__init__()
        self._open: dict[str, record_function] = {}

    def start(self, action_name: str) -> None:
        """Begin a region."""
        self._open[action_name] = record_function(action_name)
        self._open[action_name].__enter__()

    def stop(self, action_name: str) -> None:
        """End a region; one that began before the profile is not known."""
        if (region := self._open.pop(action_name, None)) is not None:
            region.__exit__(None, None, None)


class RecordedStep:
    """A step whose calls are a region of the profile."""

    def __init__(self, step: Any) -> None:
        self._step = step

    def __call__(self, *given: Any, **named: Any) -> Any:
        with record_function(PARTS["forward, loss"]):
            return self._step(*given, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_step"], name)


def format_profile(events: list[FunctionEvent], seconds: float, updates: int, on_gpu: bool) -> list[str]:
    """The lines of the table: the milliseconds of an update by part, and by the operators that take the longest."""
    whole = 1e3 * seconds / updates
    rows = [("", "ms", "%", *(["GPU ms"] if on_gpu else []))]

    def row(name: str, cpu: float, gpu: float) -> None:
        rows.append((name, f"{cpu:.3g}", f"{100 * cpu / whole:.0f}", *([f"{gpu:.3g}"] if on_gpu else [])))

    times = {part: _time_of(events, word, updates) for part, word in PARTS.items()}
    for part, (cpu, gpu) in times.items():
        if cpu:  # a module that optimizes by hand calls no step
            row(part, cpu, gpu)
    row("other", max(0.0, whole - sum(cpu for cpu, _ in times.values())), 0.0)
    row("an update", whole, sum(gpu for _, gpu in times.values()))
    for name, cpu, gpu in _operators(events, updates, on_gpu):
        row(f"  {name}", cpu, gpu)
    width = max(len(name) for name, *_ in rows)
    lines = [f"{name:<{width}}" + "".join(f"{cell:>9}" for cell in cells) for name, *cells in rows]
    after = (
        f"profile     {updates} update{'s' * (updates > 1)} after the first ones, where the time goes; below, operators"
    )
    return [after, *(line.rstrip() for line in lines)]


def _time_of(events: list[FunctionEvent], word: str, updates: int) -> tuple[float, float]:
    """Milliseconds of an update, on the CPU and the GPU, inside events whose name holds a word; each counted once."""
    own = [event for event in events if word in event.name]
    outer = [event for event in own if not any(word in above.name for above in _parents(event))]
    return (
        sum(event.cpu_time_total for event in outer) / 1e3 / updates,
        sum(event.device_time_total for event in outer) / 1e3 / updates,
    )


def _parents(event: FunctionEvent) -> Iterator[FunctionEvent]:
    while event.cpu_parent is not None:
        event = event.cpu_parent
        yield event


def _operators(events: list[FunctionEvent], updates: int, on_gpu: bool) -> list[tuple[str, float, float]]:
    """The operators that take the longest themselves."""
    cpu: dict[str, float] = {}
    gpu: dict[str, float] = {}
    for event in events:
        if event.name.startswith("aten::"):
            cpu[event.name] = cpu.get(event.name, 0.0) + event.self_cpu_time_total / 1e3 / updates
            gpu[event.name] = gpu.get(event.name, 0.0) + event.self_device_time_total / 1e3 / updates
    by = gpu if on_gpu else cpu
    return [(name, cpu[name], gpu[name]) for name in sorted(by, key=lambda name: -by[name])[:OPERATORS]]
