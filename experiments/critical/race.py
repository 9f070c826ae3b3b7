"""Updates to a loss, for every learning rate and seed at once: one batched net instead of hundreds of runs."""

import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
from torch import Tensor
from torch.func import stack_module_state

from data.digits import Digits
from data.order import mix
from data.source import Memory
from models.mlp import MLP

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Problem:
    """The training set, standardised digits, and the net, models.mlp.MLP with 64-32-10, in stacks of weights."""

    inputs: Tensor
    targets: Tensor

    @classmethod
    def digits(cls) -> "Problem":
        """1,437 training digits, each pixel centred, all divided by one standard deviation."""
        data = Digits(split=[1437, 0, 360], split_seed=1234, standardize=True, batch_size=32)
        data.setup()
        train = data.splits.train
        assert isinstance(train, Memory)
        return cls(train.inputs.flatten(1), train.targets)

    def weights(self, seeds: Sequence[int]) -> Weights:
        """The weights at the start of each seed, stacked."""
        nets = []
        for seed in seeds:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(mix(seed))
                nets.append(MLP(64, 10, [32]))
        return {name: value.detach() for name, value in stack_module_state(nets)[0].items()}

    def losses(self, weights: Weights, inputs: Tensor, targets: Tensor) -> Tensor:
        """The mean cross-entropy of each stacked net on its batch: (R, B, 64) and (R, B) to (R,)."""
        first, second = ((weights[f"layers.{i}.weight"].mT, weights[f"layers.{i}.bias"][:, None]) for i in (1, 4))
        outputs = torch.baddbmm(second[1], torch.baddbmm(first[1], inputs, first[0]).relu(), second[0])
        return (outputs.logsumexp(-1) - outputs.gather(-1, targets[..., None])[..., 0]).mean(-1)

    def full_losses(self, weights: Weights) -> Tensor:
        """The loss of each stacked net on the whole training set."""
        count = len(next(iter(weights.values())))
        with torch.no_grad():
            return self.losses(weights, self.inputs.expand(count, -1, -1), self.targets.expand(count, -1))

    def gradients(self, weights: Weights, inputs: Tensor, targets: Tensor) -> Weights:
        """The gradient of each stacked net on its batch."""
        leaves = {name: value.detach().requires_grad_() for name, value in weights.items()}
        slopes = torch.autograd.grad(self.losses(leaves, inputs, targets).sum(), list(leaves.values()))
        return dict(zip(leaves, slopes))

    def step(self, weights: Weights, lr: Tensor, inputs: Tensor, targets: Tensor) -> Weights:
        """Plain SGD: each stacked net has its rate and its batch."""
        slopes = self.gradients(weights, inputs, targets)
        return {k: w - lr.view(-1, *[1] * (w.dim() - 1)) * slopes[k] for k, w in weights.items()}

    def batches(self, size: int, seeds: Sequence[int]) -> Iterator[Tensor]:
        """Indices of (seeds, size) samples without end, drawn one by one and with replacement."""
        draws = [torch.Generator().manual_seed(mix(seed, size)) for seed in seeds]
        while True:
            yield torch.stack([torch.randint(len(self.targets), (size,), generator=draw) for draw in draws])


@dataclass(frozen=True)
class Best:
    """The fewest updates to a loss at a batch size, and the learning rate that takes them."""

    steps: float
    lr: float


def races(
    batches: Sequence[int],
    lrs: Sequence[float],
    seeds: Sequence[int],
    targets: Sequence[float],
    limit: int,
    processes: int = 1,
) -> dict[int, dict[float, dict[float, float]]]:
    """`race` for each batch, in `processes` at a time."""
    one = partial(_race, lrs, seeds, targets, limit)
    if processes < 2:
        return dict(zip(batches, map(one, batches)))
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        return dict(zip(batches, pool.map(one, batches, chunksize=1)))


def _race(
    lrs: Sequence[float], seeds: Sequence[int], targets: Sequence[float], limit: int, batch: int
) -> dict[float, dict[float, float]]:
    torch.set_num_threads(1)
    return race(Problem.digits(), batch, lrs, seeds, targets, limit)


def race(
    problem: Problem, batch: int, lrs: Sequence[float], seeds: Sequence[int], targets: Sequence[float], limit: int
) -> dict[float, dict[float, float]]:
    """For each target, the median over `seeds` of the updates that each rate takes; inf where it fails to get there.

    The loss of the whole training set is read before every update, from update 50 on each time t has grown by 2 %,
    and interpolated between. It ends at 1.5 times the updates of the first rate that reaches the last target, or
    at `limit`.
    """
    start = problem.weights(seeds)
    weights = {k: w.repeat(len(lrs), *[1] * (w.dim() - 1)) for k, w in start.items()}
    rates = torch.tensor(lrs).repeat_interleave(len(seeds))
    arrived = torch.full((len(targets), len(rates)), torch.inf)
    goals = torch.tensor(targets).log()[:, None]
    draws, last, before, due, end = problem.batches(batch, seeds), 0, None, 0, limit
    for t in range(limit + 1):
        if t >= due:
            now = problem.full_losses(weights).log()
            here = (now < goals) & arrived.isinf()
            share = torch.zeros_like(goals) if before is None else (before - goals) / (before - now)
            arrived = torch.where(here, last + share * (t - last), arrived)
            last, before, due = t, now, t + max(1, t // 50)
            if medians(arrived[-1], len(lrs)).isfinite().any():
                end = min(end, int(1.5 * t))
        if t >= end:
            break
        chosen = next(draws).repeat(len(lrs), 1)
        weights = problem.step(weights, rates, problem.inputs[chosen], problem.targets[chosen])
    return {target: dict(zip(lrs, medians(row, len(lrs)).tolist())) for target, row in zip(targets, arrived)}


def medians(values: Tensor, count: int) -> Tensor:
    """The median over seeds, for each of `count` rates."""
    return torch.tensor([median(row) for row in values.view(count, -1).tolist()])


def best(steps: dict[float, float]) -> Best:
    """The rate that takes the fewest updates: the vertex of a parabola through its logarithm and its neighbours'."""
    lrs = sorted(steps)
    i = min(range(len(lrs)), key=lambda place: steps[lrs[place]])
    around = lrs[max(i - 1, 0) : i + 2]
    if len(around) < 3 or any(steps[lr] == float("inf") for lr in around):
        return Best(steps[lrs[i]], lrs[i])
    left, here, right = (torch.tensor(steps[lr], dtype=torch.float64).log().item() for lr in around)
    bend = left - 2 * here + right
    shift = (left - right) / (2 * bend) if bend > 0 else 0.0
    return Best(steps[lrs[i]], lrs[i] * (lrs[i + 1] / lrs[i]) ** shift if i + 1 < len(lrs) else lrs[i])
