"""The loss that trains a model, and the metrics that score it."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import Metric, MetricCollection, SumMetric

from trainer.engine.frozen import check_modules
from trainer.engine.metrics import Numbers, check_length, direction, numbers_by_name
from trainer.engine.step import PairStep, Step, StepOutput, as_weight, converted, samples, weighted
from trainer.lr import ConfigError

NO_TOKEN = torch.iinfo(torch.int64).min
"""An `ignore_index` that no target is."""


@dataclass(frozen=True)
class Task:
    """`loss(outputs, targets)` is minimised, or the loss of `step`; `metrics` are computed on validation and test data.

    `monitor` names the number that decides the best checkpoint: "loss", a metric, or an entry of one, as f1/0. `mode`
    is "min" or "max", or None for what the metric says itself. Vectors are logged by `class_names` where they fit.
    """

    loss: Callable[[Tensor, Tensor], Tensor] | None = None
    metrics: Mapping[str, Metric | MetricCollection] = field(default_factory=dict)
    monitor: str = "loss"
    mode: str | None = None
    step: Step | None = None
    class_names: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.loss is None and self.step is None:
            raise ConfigError("task.loss is not set, nor task.step: give one of them.")
        if self.loss is not None and self.step is not None:
            raise ConfigError(
                "task.loss beside task.step: a step gives the loss itself. Leave the other out by ~task.loss."
            )
        if self.step is not None and not callable(self.step):
            raise ConfigError(
                f"task.step={self.step!r} cannot be called: name a function or class by task.step._target_=MODULE.NAME."
            )
        for name, metric in self.metrics.items():
            if not isinstance(metric, Metric | MetricCollection):
                raise ConfigError(f"task.metrics.{name}={metric!r} is not a metric: give the _target_ of one.")
        if taken := [name for name in self.metrics if name == "loss" or name in self.loss_weights]:
            raise ConfigError(f"task.metrics.{taken[0]}: {taken[0]} is the name of a loss: give the metric another.")
        if self.mode not in ("min", "max", None):
            raise ConfigError(f"task.mode={self.mode!r} is not known: choose min or max, or null for the metric's own.")
        if name_of := getattr(self.step, "score_name", None):  # a step that logs its scores itself
            object.__setattr__(self, "monitor", name_of(self.monitor))
        elif self.monitor.startswith("val/"):
            name = self.monitor.removeprefix("val/")
            raise ConfigError(f"task.monitor={self.monitor} names a validation score without val/: set {name}.")
        else:
            self.check_monitor("task", self.monitor, self.mode)
        if self.mode is None and self.better(self.monitor) is None:
            raise ConfigError(
                f"task.monitor={self.monitor}: its metric does not say whether higher is better: "
                "give task.mode=min or task.mode=max."
            )

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """The factors of several losses by name, as they are now; empty for one loss."""
        return getattr(self.step, "loss_weights", {})

    @property
    def scored(self) -> list[str]:
        """The names of what is scored: the losses, and the metrics, each of which may give several numbers."""
        return ["loss", *self.loss_weights, *self.metrics]

    @property
    def direction(self) -> str:
        """The better direction of the monitor, "min" or "max"."""
        found = self.mode or self.better(self.monitor)
        assert found is not None
        return found

    def better(self, name: str) -> str | None:
        """The better direction of a score, min or max; None where its metric does not say it."""
        if name == "loss" or name in self.loss_weights:
            return "min"
        key = self._metric_of(name)
        return None if key is None else direction(self.metrics[key], name[len(key) + 1 :])

    def check_monitor(self, what: str, monitor: str, mode: str | None) -> None:
        """Refuse a monitor that no metric gives, and a `mode` that contradicts it; `what` has them as settings.

        With a mode, it may be what a step logs, of which the names are known when a batch is scored.
        """
        name = monitor.removeprefix("val/")
        own = ["loss", *self.loss_weights]
        if name not in own and self._metric_of(name) is None and (self.step is None or mode is None):
            known = ", ".join(monitor.removesuffix(name) + one for one in self.scored)
            logged = "" if self.step is None else f", or give {what}.mode with a name that the step logs"
            raise ConfigError(f"{what}.monitor={monitor} is not computed: choose one of {known}{logged}.")
        right = self.better(name)
        if mode in ("min", "max") and right not in (mode, None):
            better = "higher" if right == "max" else "lower"
            raise ConfigError(
                f"{what}.mode={mode} with {what}.monitor={monitor}, of which {better} is better: set {right}."
            )

    def _metric_of(self, name: str) -> str | None:
        """The metric that gives the score of this name."""
        return next((key for key in self.metrics if name == key or name.startswith(f"{key}/")), None)

    def make_step(self) -> Step:
        """The step, by default that of pairs with the loss."""
        if self.step is not None:
            check_modules(self.step)
            return self.step
        assert self.loss is not None
        return PairStep(self.loss)


class TokenCrossEntropy(nn.Module):
    """Mean cross entropy in nats over all tokens of logits (B, T, V) and targets (B, T) that are not `ignore_index`.

    With `ignore_index` None every token counts, and each target must be a token.
    """

    def __init__(self, label_smoothing: float = 0.0, ignore_index: int | None = None) -> None:
        super().__init__()
        if not 0.0 <= label_smoothing <= 1.0:
            raise ConfigError(f"label_smoothing={label_smoothing} is out of range: give a share from 0 to 1.")
        self.label_smoothing, self.ignore_index = label_smoothing, ignore_index

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(
            logits.flatten(0, 1),
            targets.flatten(),
            ignore_index=NO_TOKEN if self.ignore_index is None else self.ignore_index,
            label_smoothing=self.label_smoothing,
        )

    def weight_of(self, targets: Tensor) -> Tensor | None:
        """The number of tokens that are not ignored; None where none can be."""
        return None if self.ignore_index is None else (targets != self.ignore_index).sum()


class Mean(nn.Module):
    """A mean loss over one pass of a data set, over all processes: Σ weight · loss / Σ weight."""

    def __init__(self) -> None:
        super().__init__()
        self.total, self.count = SumMetric(nan_strategy="disable"), SumMetric(nan_strategy="disable")

    def update(self, loss: Tensor, weight: Tensor | float | None, batch: Any) -> None:
        """Count a batch. Without a weight, its samples count."""
        if loss.dtype == torch.float64 or weight is not None:
            self._widen(loss.device)
        if weight is None:
            weight = samples(batch)
            self.total.update(loss * weight)
        else:
            weight = as_weight(weight, loss.device)
            self.total.update(weighted(loss.to(weight.dtype), weight))
        self.count.update(weight)

    def _widen(self, device: torch.device) -> None:
        """Sum up in double precision, where the device has it."""
        if self.total.dtype != torch.float64 and device.type != "mps":
            self.total.set_dtype(torch.float64)
            self.count.set_dtype(torch.float64)

    def compute(self) -> float:
        """The mean; resets it. `ConfigError` where the weights are below 0 in all."""
        count = self.count.compute()
        if (found := count.item()) < 0:
            raise ConfigError(f"task.step gives batches the weight {found:g} in all: give each batch 0 or more.")
        found = (self.total.compute() / count).item()
        self.total.reset()
        self.count.reset()
        return found


class Scores(nn.Module):
    """The mean loss, or losses, the means of what the step logs, and the metrics, over one pass of a data set.

    They are over all processes.
    """

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.loss_weights = task.loss_weights
        self.losses = nn.ModuleList(Mean() for _ in self.loss_weights or [""])
        self.log_names, self.logs = list[str](), nn.ModuleList()
        self.names, self.labels = list(task.metrics), tuple(task.class_names)
        self.metrics = nn.ModuleList(metric.clone() for metric in task.metrics.values())
        self.arrays: dict[str, Numbers] = {}

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the mean loss."""
        return self.losses[0].total.dtype  # type: ignore[return-value]

    @torch.no_grad()
    def update(self, output: StepOutput, batch: Any) -> None:
        """Count one batch and what a step gave for it."""
        weight: Any = output.weight
        if output.parts is None:
            self.losses[0].update(output.loss, weight, batch)  # type: ignore[operator]
        else:
            for i, loss in enumerate(self.losses):
                loss.update(output.parts[i], None if weight is None else weight[i], batch)  # type: ignore[operator]
        if output.logs:
            self._update_logs(output, None if output.parts is not None else weight, batch)
        if self.names and output.outputs is None:
            raise ConfigError("task.metrics: the step gives no outputs. Return StepOutput(loss, outputs=…, targets=…).")
        for name, metric in zip(self.names, self.metrics):
            with _naming(name):
                metric.update(output.outputs, output.targets)  # type: ignore[operator]

    def _update_logs(self, output: StepOutput, weight: Any, batch: Any) -> None:
        """Count what a step logs, with the weights of its loss, unless a metric or a loss has the name."""
        for name, value in output.logs.items():
            if name in ("loss", *self.loss_weights, *self.names):
                continue
            if name not in self.log_names:
                self.log_names.append(name)
                self.logs.append(Mean().to(output.loss.device))
            mean: Any = self.logs[self.log_names.index(name)]
            mean.update(torch.as_tensor(value).to(output.loss).reshape(()), weight, batch)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Scores":
        """Move and convert what the metrics have summed up, but never below float32."""
        super()._apply(lambda tensor: converted(tensor, fn(tensor)), recurse)
        return self

    def compute(self) -> dict[str, float]:
        """The scores by name; resets them. Matrices and curves are then in `arrays`."""
        means = [loss.compute() for loss in self.losses]  # type: ignore[operator]
        scores = {"loss": means[0]}
        if self.loss_weights:
            named = dict(zip(self.loss_weights, means))
            scores = {"loss": math.fsum(self.loss_weights[name] * mean for name, mean in named.items()), **named}
        self.arrays = {}
        for name, metric in zip(self.names, self.metrics):
            with _naming(name):
                found = list(numbers_by_name(name, metric.compute(), self.labels))  # type: ignore[operator]
            metric.reset()  # type: ignore[operator]
            for key, value in found:
                if key in scores or key in self.arrays:
                    raise ConfigError(f"task.metrics.{name} gives {key}, which there is already: rename one of them.")
                if isinstance(value, list):
                    check_length(key, value, metric)
                    self.arrays[key] = value
                else:
                    scores[key] = value
        logged = {name: log.compute() for name, log in zip(self.log_names, self.logs)}  # type: ignore[operator]
        return scores | {name: mean for name, mean in logged.items() if name not in scores and name not in self.arrays}


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """An error of a metric is one line that names it."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        kind = "" if isinstance(error, ValueError | RuntimeError | TypeError) else f"{type(error).__name__}: "
        raise ConfigError(f"task.metrics.{name}: {kind}{' '.join(str(error).split())}") from error
