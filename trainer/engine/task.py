"""The loss that trains a model, and the metrics that score it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import Metric, SumMetric

from trainer.lr import ConfigError


@dataclass(frozen=True)
class Task:
    """`loss(outputs, targets)` is minimised; `metrics` are computed on validation and test data.

    `monitor` names the metric (or "loss") that decides the best checkpoint; `mode` is "min" or "max".
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    monitor: str = "loss"
    mode: str = "min"

    def __post_init__(self) -> None:
        for name, metric in self.metrics.items():
            if not isinstance(metric, Metric):
                raise ConfigError(f"task.metrics.{name}={metric!r} is not a metric: give the _target_ of one.")
        known = ["loss", *self.metrics]
        if self.monitor not in known:
            raise ConfigError(f"task.monitor={self.monitor!r} is not computed: choose one of {', '.join(known)}.")
        if self.mode not in ("min", "max"):
            raise ConfigError(f"task.mode={self.mode!r} is not known: choose min or max.")


class TokenCrossEntropy(nn.Module):
    """Mean cross entropy in nats over all tokens of logits (B, T, V) and targets (B, T)."""

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= label_smoothing <= 1.0:
            raise ConfigError(f"label_smoothing={label_smoothing} is out of range: give a share from 0 to 1.")
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), label_smoothing=self.label_smoothing)


class Scores(nn.Module):
    """The mean loss and the metrics over one pass of a data set, over all processes."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.total, self.count = SumMetric(nan_strategy="disable"), SumMetric(nan_strategy="disable")
        self.names = list(task.metrics)
        self.metrics = nn.ModuleList(metric.clone() for metric in task.metrics.values())

    @torch.no_grad()
    def update(self, loss: Tensor, outputs: Tensor, targets: Tensor) -> None:
        """Count one batch; `loss` is its mean."""
        self.total.update(loss * len(targets))
        self.count.update(len(targets))
        for metric in self.metrics:
            assert isinstance(metric, Metric)
            metric.update(outputs, targets)

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
