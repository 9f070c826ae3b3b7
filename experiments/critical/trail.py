"""B_simple along a run at a tuned rate: exact, from the gradient of every sample, and as Cadence estimates it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from data.order import mix
from experiments.critical.race import Problem, Weights
from trainer.lr import ConfigError
from trainer.measure.noise_scale import Estimate, NoiseScale, squares

SMALL, BIG, UPDATES = 16, 256, 30


@dataclass(frozen=True)
class Point:
    """Before an update: the loss of the training set, the exact B_simple, and the estimates if they were made."""

    seed: int
    update: int
    loss: float
    exact: float
    estimate: Estimate | None
    misstated: Estimate | None


@dataclass(frozen=True)
class Run:
    """Plain SGD at `batch` and `lr` until the training loss is below `target`, with estimates every `every` updates.

    `factor`: how far both batch sizes are mis-stated in the control, as where the world size is forgotten.
    """

    batch: int
    lr: float
    target: float
    every: int
    factor: int
    limit: int

    def points(self, problem: Problem, seed: int) -> list[Point]:
        """B_simple before every update, and its estimates. Raises ConfigError where the loss is not reached."""
        weights, draws, found = problem.weights([seed]), problem.batches(self.batch, [seed]), list[Point]()
        rate = torch.tensor([self.lr])
        while not (loss := problem.full_losses(weights).item()) < self.target:
            t = len(found)
            if t == self.limit:
                raise ConfigError(f"seed {seed} has not reached a loss of {self.target} in {t} updates: raise --limit.")
            one = {name: value[0] for name, value in weights.items()}
            found_now = estimates(problem, one, mix(seed, t), self.factor) if t % self.every == 0 else (None, None)
            found.append(Point(seed, t, loss, exact(problem, one), *found_now))
            chosen = next(draws)
            weights = problem.step(weights, rate, problem.inputs[chosen], problem.targets[chosen])
        return found


def exact(problem: Problem, weights: Weights) -> float:
    """tr(Σ) / |G|² of the training set, from the gradient of each sample."""
    each = _each(problem, weights, problem.inputs[:, None], problem.targets[:, None])
    square = each.mean(0).square().sum()
    return ((each.square().sum(1).mean() - square) / square).item()


def estimates(problem: Problem, weights: Weights, seed: int, factor: int) -> tuple[Estimate, Estimate]:
    """The noise scale of micro-batches drawn with replacement; as it is, and with sizes mis-stated."""
    right, wrong = NoiseScale(SMALL, BIG), NoiseScale(factor * SMALL, factor * BIG)
    draw = torch.Generator().manual_seed(seed)
    for _ in range(UPDATES):
        chosen = torch.randint(len(problem.targets), (BIG // SMALL, SMALL), generator=draw)
        gradients = _each(problem, weights, problem.inputs[chosen], problem.targets[chosen])
        norms = squares(([row] for row in gradients), [0])
        right.add(*norms)
        wrong.add(*norms)
    return right.estimates()[0], wrong.estimates()[0]


def _each(problem: Problem, weights: Weights, inputs: Tensor, targets: Tensor) -> Tensor:
    """The gradient of one net on each batch, as a float64 row."""
    copies = {name: value.expand(len(inputs), *value.shape) for name, value in weights.items()}
    slopes = problem.gradients(copies, inputs, targets)
    return torch.cat([part.flatten(1) for part in slopes.values()], dim=1).double()
