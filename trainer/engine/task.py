"""The loss that trains a model, and the metrics that score it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import Metric, SumMetric

from trainer.engine.step import PairStep, Step, StepOutput, as_weight, converted, samples, weighted
from trainer.lr import ConfigError

NO_TOKEN = torch.iinfo(torch.int64).min
"""An `ignore_index` that no target is."""


@dataclass(frozen=True)
class Task:
    """`loss(outputs, targets)` is minimised, or the loss of `step`; `metrics` are computed on validation and test data.

    `monitor` names the metric (or "loss") that decides the best checkpoint; `mode` is "min" or "max".
    """

    loss: Callable[[Tensor, Tensor], Tensor] | None = None
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    monitor: str = "loss"
    mode: str = "min"
    step: Step | None = None

    def __post_init__(self) -> None:
        if self.loss is None and self.step is None:
            raise ConfigError("task.loss is not set, nor task.step: give one of them.")
        if self.loss is not None and self.step is not None:
            raise ConfigError(
                "task.loss beside task.step: a step gives the loss itself. Leave the other out by ~task.loss."
            )
        for name, metric in self.metrics.items():
            if not isinstance(metric, Metric):
                raise ConfigError(f"task.metrics.{name}={metric!r} is not a metric: give the _target_ of one.")
        known = ["loss", *self.metrics]
        if name_of := getattr(self.step, "score_name", None):  # a step that logs its scores itself
            object.__setattr__(self, "monitor", name_of(self.monitor))
        elif self.monitor not in known:
            raise ConfigError(f"task.monitor={self.monitor!r} is not computed: choose one of {', '.join(known)}.")
        if self.mode not in ("min", "max"):
            raise ConfigError(f"task.mode={self.mode!r} is not known: choose min or max.")

    def make_step(self) -> Step:
        """The step, by default that of pairs with the loss."""
        if self.step is not None:
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


class Scores(nn.Module):
    """The mean loss and the metrics over one pass of a data set, over all processes."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.total, self.count = SumMetric(nan_strategy="disable"), SumMetric(nan_strategy="disable")
        self.names = list(task.metrics)
        self.metrics = nn.ModuleList(metric.clone() for metric in task.metrics.values())

    @torch.no_grad()
    def update(self, output: StepOutput, batch: Any) -> None:
        """Count one batch and what a step gave for it."""
        loss, weight = output.loss, output.weight
        if loss.dtype == torch.float64 or weight is not None:
            self._widen(loss.device)
        if weight is None:
            weight = samples(batch)
            self.total.update(loss * weight)
        else:
            weight = as_weight(weight, loss.device)
            self.total.update(weighted(loss.to(weight.dtype), weight))
        self.count.update(weight)
        if self.names and output.outputs is None:
            raise ConfigError("task.metrics: the step gives no outputs. Return StepOutput(loss, outputs=…, targets=…).")
        for metric in self.metrics:
            assert isinstance(metric, Metric)
            metric.update(output.outputs, output.targets)

    def _widen(self, device: torch.device) -> None:
        """Sum up in double precision, where the device has it."""
        if self.total.dtype != torch.float64 and device.type != "mps":
            self.total.set_dtype(torch.float64)
            self.count.set_dtype(torch.float64)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Scores":
        """Move and convert what the metrics have summed up, but never below float32."""
        super()._apply(lambda tensor: converted(tensor, fn(tensor)), recurse)
        return self

    def compute(self) -> dict[str, float]:
        """The scores by name; resets them."""
        scores = {"loss": (self.total.compute() / self.count.compute()).item()}
        self.total.reset()
        self.count.reset()
        for name, metric in zip(self.names, self.metrics):
            assert isinstance(metric, Metric)
            scores[name] = metric.compute().item()
            metric.reset()
        return scores
