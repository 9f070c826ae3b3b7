"""Updates that a GPU replays from one recording: forward, backward, clipping, norm and optimizer step in one launch."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from struct import Struct
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from trainer.engine.losses import combined
from trainer.engine.lr_control import LRControl
from trainer.engine.protocols import MicroBatch
from trainer.engine.update import Updater
from trainer.log.metric_buffer import Observation
from trainer.lr import ConfigError

OPTIMIZERS = (SGD, Adam, AdamW)
"""Optimizers whose fused kernel reads the rate from a tensor, and skips an update that is not finite by itself."""
WARM_UPS = 3
"""Updates before the recording, which make the optimizer's state and let the libraries choose their kernels."""
Made = TypeVar("Made")
Row = tuple[Tensor, tuple[str, ...]]
"""What an update gives: loss, norm, logs and rates in one vector (float64), and the names of the logs."""


class Recorder(Protocol):
    """What runs and records work on a device."""

    def run(self, work: Callable[[], Made]) -> Made:
        """Do the work once, where it can be recorded later."""

    def record(self, work: Callable[[], Made]) -> Callable[[], Made]:
        """Record the work; each call of the result does it again, on the same memory, and gives the same tensors."""


class CudaRecorder:
    """Records into a `torch.cuda.CUDAGraph`, on a stream of its own, as torch's notes on CUDA semantics ask."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.stream = device, torch.cuda.Stream(device)

    def run(self, work: Callable[[], Made]) -> Made:
        """Do the work on the stream of the recording, between what the present stream has begun and what follows."""
        present = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(present)
        with torch.cuda.stream(self.stream):
            made = work()
        present.wait_stream(self.stream)
        return made

    def record(self, work: Callable[[], Made]) -> Callable[[], Made]:
        """Threads that load data may go on with calls of their own meanwhile."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
            made = work()

        def replay() -> Made:
            graph.replay()
            return made

        return replay


class Rates:
    """The rate of each group in a tensor on the device, from which the kernels read it as float32."""

    def __init__(self, count: int, device: torch.device) -> None:
        self.each = torch.zeros(count, device=device).unbind()
        self._single = Struct(f"{count}f")

    def write(self, rates: Sequence[float]) -> list[float]:
        """Write the rates, without waiting for the device; gives them as float32 rounds them."""
        for own, rate in zip(self.each, rates, strict=True):
            own.fill_(rate)
        return list(self._single.unpack(self._single.pack(*rates)))


class RateProof:
    """Compares the rates that the kernels have read with those of the policy, when the metrics are flushed."""

    def __init__(self, control: LRControl) -> None:
        self.control, self.read = control, torch.empty(0)

    def before(self, t: int, update: Sequence[MicroBatch]) -> None:
        """Nothing: the rates are read on the device, beside the step."""

    def after(self, t: int) -> Observation:
        """The rates of update `t` on the device; RuntimeError where one is not the policy's, rounded to float32."""
        return Observation(self.read, partial(self._check, t, self.control.applied))

    def _check(self, t: int, right: list[float], found: list[float]) -> dict[str, float]:
        if found != right:
            raise RuntimeError(f"update {t}: {self.control.mismatch('lr', found, right)}")
        return {}


class GraphUpdater(Updater):
    """An `Updater` whose updates of one micro-batch are recorded after the first `WARM_UPS`, and then replayed.

    Outside the recording are the seeds, the rates, the batch, which is copied to the memory of the recording, the hooks
    of the optimizer, the log, and averages of the weights. A batch of other shapes is computed without the recording.
    All updates read their rates as float32 from the same tensor, so that a resumed run has the same bits.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.observer is not None or self.control.policy.hyper_schedules:
            raise ConfigError(
                "trainer.cuda_graph=true: a tool measures or changes single updates: take trainer.cuda_graph=false."
            )
        self.rates = Rates(len(self.groups), self.backward.device)
        self.observer = self.proof = RateProof(self.control)
        self.recorder = self.make_recorder()
        self.warm_ups = WARM_UPS
        self.replay: Callable[[], Row] | None = None
        self._inputs: Any = None
        self._form: Any = None
        self._memory: list[Tensor] = []
        self._records = False

    def make_recorder(self) -> Recorder:
        """What records on the device of the run."""
        return CudaRecorder(self.backward.device)

    def _made(self, update: Sequence[MicroBatch]) -> bool:
        (micro,) = update
        self.control.write(self.optimizer, self.clock.at)
        self.backward.reseed(micro.seed, self.of_torch)
        made, names = self.make_step.between_hooks(partial(self._run, micro.batch))
        loss, norm, *logs = (row := made.clone())[: 2 + len(names)].unbind()
        self.proof.read = row[2 + len(names) :]
        self.conclude(loss, norm, dict(zip(names, logs)))
        return True

    def _run(self, batch: Any) -> Row:
        """The update on a batch: replayed, or computed where it warms up or has other shapes than the first."""
        self.control.applied = self.rates.write(self.control.applied)
        given: list[Tensor] = []
        rest = apply_to_collection(batch, Tensor, given.append)
        form = [(one.shape, one.dtype) for one in given], rest
        if self._form is None:
            self._form, self._inputs = form, apply_to_collection(batch, Tensor, torch.clone)
            apply_to_collection(self._inputs, Tensor, self._memory.append)
        if not _equal(form, self._form):
            return self.recorder.run(partial(self._work, batch))
        torch._foreach_copy_(self._memory, given)
        if self.warm_ups:
            self.warm_ups -= 1
            return self.recorder.run(partial(self._work, self._inputs))
        if self.replay is None:
            self.replay = self._recorded()
        return self.replay()

    def _recorded(self) -> Callable[[], Row]:
        """Record an update. `ConfigError` for one that waits for the device, or draws random numbers elsewhere."""
        drawn, self._records = _draws_of_the_host(self.backward.device), True
        try:
            replay = self.recorder.record(partial(self._work, self._inputs))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise ConfigError(
                f"trainer.cuda_graph=true: an update of {type(self.net).__name__} cannot be recorded, because net and "
                f"loss may not wait for the GPU: {_first_cause(error)}: take trainer.cuda_graph=false."
            ) from error
        finally:
            self._records = False
        if _draws_of_the_host(self.backward.device) != drawn:
            raise ConfigError(
                f"trainer.cuda_graph=true: {type(self.net).__name__} or its loss draws random numbers on the CPU, and "
                "each replay would have the same: draw them on the GPU, or take trainer.cuda_graph=false."
            )
        return replay

    def _work(self, batch: Any) -> Row:
        """An update from the batch to the step; nothing in it waits for the device or reads a setting of the run."""
        losses, _, given = self._forward(batch)
        self.backward(combined(losses, self.step.loss_weights) if losses.ndim else losses)  # type: ignore[attr-defined]
        loss, logs = self._means([losses.detach()], [given], None)
        with self.backward.full_precision():
            norm = self.treatment.apply(self.groups, 0)
            self.optimizer.found_inf = (~torch.isfinite(norm)).float()  # type: ignore[attr-defined]
            with _tensor_rates(self.optimizer, self.rates.each, self._records):
                type(self.optimizer).step.__wrapped__(self.optimizer)  # type: ignore[attr-defined]  # without the hooks
        self._clear()
        values = (loss, norm, *logs.values(), *self.rates.each)
        return torch.stack([value.detach().double().reshape(()) for value in values]), tuple(logs)


@contextmanager
def _tensor_rates(optimizer: Optimizer, rates: Sequence[Tensor], records: bool) -> Iterator[None]:
    """Inside, the optimizer reads its rates from tensors; torch asks for `capturable` while it records."""
    groups = optimizer.param_groups
    kept: list[dict[str, Any]] = [
        {name: group[name] for name in ("lr", "capturable") if name in group} for group in groups
    ]
    try:
        for group, rate in zip(groups, rates, strict=True):
            group |= {"lr": rate, **({"capturable": records} if "capturable" in group else {})}
        yield
    finally:
        for group, before in zip(groups, kept):
            group.update(before)


def _draws_of_the_host(device: torch.device) -> tuple[Any, ...]:
    """The state of every generator that a recording does not know."""
    of_numpy = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    of_torch = b"" if device.type == "cpu" else torch.default_generator.get_state().numpy().tobytes()
    return random.getstate(), of_numpy["key"].tobytes(), of_numpy["pos"], of_torch


def _equal(one: Any, other: Any) -> bool:
    """Whether two forms of batches are the same; False where they hold arrays, which have no single answer."""
    try:
        return bool(one == other)
    except (ValueError, RuntimeError):
        return False


def _first_cause(error: BaseException) -> str:
    """The first line of the error that led to all the others."""
    while error.__context__ is not None:
        error = error.__context__
    return str(error).strip().partition("\n")[0].rstrip(".")
