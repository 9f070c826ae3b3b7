"""Thirteen small tasks on digits, and many trainings of a task at once: each replica has its own rate and seed.

All replicas of a task are one batched net: their weights have a leading dimension, and `bmm` multiplies them. They
share no weight, so that the gradient of the sum of their losses is the gradient of each.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from data.digits import Digits
from data.order import mix, permutation

CLASSES, WIDTH = 10, 32


@dataclass(frozen=True)
class Task:
    """A net ("mlp" 64-32-10, "deep" 64-32-32-32-32-10, "bn" 64-32-BN-10), an optimizer, a batch, and label noise."""

    net: str
    optimizer: str
    batch: int
    noise: float

    @property
    def name(self) -> str:
        """The name in the tables."""
        return f"{self.net} {self.optimizer} B={self.batch} noise {100 * self.noise:g} %"


TASKS = [
    Task("mlp", "sgd.9", 8, 0.0),
    Task("mlp", "sgd.9", 32, 0.1),
    Task("mlp", "sgd.9", 128, 0.0),
    Task("mlp", "adam", 32, 0.0),
    Task("mlp", "adam", 128, 0.2),
    Task("bn", "sgd.9", 32, 0.0),
    Task("bn", "adam", 32, 0.2),
    Task("mlp", "sgd.9", 8, 0.2),
    Task("mlp", "sgd.9", 128, 0.2),
    Task("mlp", "adam", 8, 0.1),
    Task("deep", "sgd.9", 32, 0.1),
    Task("deep", "adam", 32, 0.2),
    Task("bn", "sgd.9", 128, 0.1),
]


@dataclass(frozen=True)
class Data:
    """Training samples, whose labels may be wrong, and the samples held out, whose labels are right."""

    inputs: Tensor
    targets: Tensor
    held_inputs: Tensor
    held_targets: Tensor


def digits(noise: float) -> Data:
    """1,257 training digits, a share `noise` of them with a label drawn at random, and 540 held out."""
    module = Digits(batch_size=1)
    module.setup()
    train, val, test = module.splits
    generator = torch.Generator().manual_seed(mix(7))
    targets = train.targets.clone()  # type: ignore[attr-defined]
    wrong = torch.rand(len(targets), generator=generator) < noise
    drawn = torch.randint(CLASSES, targets.shape, generator=generator)
    targets[wrong] = drawn[wrong]
    held = [torch.cat([getattr(part, name) for part in (val, test)]) for name in ("inputs", "targets")]
    return Data(train.inputs.flatten(1), targets, held[0].flatten(1), held[1])  # type: ignore[attr-defined]


class Replicas:
    """R nets of one kind, with the weights (R, in, out) and (R, 1, out) of each layer in `parameters`."""

    def __init__(self, net: str, seeds: Sequence[int], features: int) -> None:
        self.normed = net == "bn"
        widths = [features, *[WIDTH] * (4 if net == "deep" else 1), CLASSES]
        self.parameters: list[Tensor] = []
        for i, (before, after) in enumerate(zip(widths, widths[1:])):
            drawn = [
                torch.randn(before, after, generator=torch.Generator().manual_seed(mix(seed, i))) for seed in seeds
            ]
            self.parameters.append(torch.stack(drawn) * math.sqrt(2.0 / before))
            self.parameters.append(torch.zeros(len(seeds), 1, after))
        if self.normed:
            self.parameters += [torch.ones(len(seeds), 1, WIDTH), torch.zeros(len(seeds), 1, WIDTH)]
        for parameter in self.parameters:
            parameter.requires_grad_()

    def __call__(self, inputs: Tensor, statistics: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Logits (R, N, classes) of inputs (R, N, features); normed by these statistics, or by those of the batch."""
        layers = len(self.parameters) // 2 - self.normed
        hidden = inputs
        for i in range(layers):
            hidden = torch.baddbmm(self.parameters[2 * i + 1], hidden, self.parameters[2 * i])
            if i == 0 and self.normed:
                mean, var = self.statistics(hidden) if statistics is None else statistics
                hidden = (hidden - mean) / torch.sqrt(var + 1e-5) * self.parameters[-2] + self.parameters[-1]
            if i < layers - 1:
                hidden = torch.relu(hidden)
        return hidden

    @staticmethod
    def statistics(hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and the variance of each unit over the samples."""
        return hidden.mean(1, keepdim=True), hidden.var(1, unbiased=False, keepdim=True)

    @torch.no_grad()
    def losses(self, inputs: Tensor, targets: Tensor, train: Tensor) -> Tensor:
        """The mean loss (R,) of samples (N, features), normed by the statistics of the `train` samples."""
        count = len(self.parameters[0])
        statistics = None
        if self.normed:
            first = torch.baddbmm(self.parameters[1], train.expand(count, -1, -1), self.parameters[0])
            statistics = self.statistics(first)
        logits = self(inputs.expand(count, -1, -1), statistics)
        return each_loss(logits, targets.expand(count, -1))


def each_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean cross entropy of each replica, (R,)."""
    losses = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return losses.view(targets.shape).mean(1)


class Steps:
    """Heavy ball with 0.9, or Adam with 0.9 and 0.999, with a rate for each replica."""

    def __init__(self, kind: str, parameters: Sequence[Tensor]) -> None:
        self.kind, self.parameters, self.count = kind, list(parameters), 0
        self.first = [torch.zeros_like(parameter) for parameter in parameters]
        self.second = [torch.zeros_like(parameter) for parameter in parameters]

    @torch.no_grad()
    def __call__(self, rates: Tensor) -> None:
        """One update at these rates (R,); the gradients are cleared."""
        self.count += 1
        grads = [parameter.grad for parameter in self.parameters]
        for parameter, grad, first, second in zip(self.parameters, grads, self.first, self.second):
            assert grad is not None
            rate = rates.view(-1, 1, 1)
            if self.kind == "sgd.9":
                first.mul_(0.9).add_(grad)
                parameter.sub_(rate * first)
            else:
                first.lerp_(grad, 0.1)
                second.mul_(0.999).addcmul_(grad, grad, value=0.001)
                root = (second / (1 - 0.999**self.count)).sqrt_().add_(1e-8)
                parameter.sub_(rate / (1 - 0.9**self.count) * first / root)
            parameter.grad = None


def train(task: Task, data: Data, seeds: Sequence[int], rates: Tensor) -> tuple[Replicas, Tensor]:
    """Train replicas with these seeds at the rates (T, R); the nets, and the loss of each batch (T, R)."""
    nets = Replicas(task.net, seeds, data.inputs.shape[1])
    steps = Steps(task.optimizer, nets.parameters)
    epoch = len(data.inputs) // task.batch
    kinds = sorted(set(seeds))
    of = torch.tensor([kinds.index(seed) for seed in seeds])
    losses, orders = [], torch.empty(0)
    for t, now in enumerate(rates):
        if t % epoch == 0:
            orders = torch.stack([permutation(len(data.inputs), seed, t // epoch) for seed in kinds])[of]
        chosen = orders[:, t % epoch * task.batch : (t % epoch + 1) * task.batch]
        each = each_loss(nets(data.inputs[chosen]), data.targets[chosen])
        each.sum().backward()
        losses.append(each.detach())
        steps(now)
    return nets, torch.stack(losses)
