"""What measures the range test: batched nets that train as PyTorch's own, and a summary that counts what it should."""

import math
import random

import pytest
import torch
from torch import nn

from data.order import permutation
from experiments.range_tasks import TASKS, Replicas, Task, digits, train
from experiments.range_test import GRID, at, linear_axis, quantile, regret, summary
from trainer.lr.range_test import Sweep, rates


def plain(net, seed):
    """PyTorch's own net with the weights of a replica."""
    weights = [parameter[0].detach() for parameter in Replicas(net, [seed], 64).parameters]
    count = len(weights) // 2 - (net == "bn")
    layers = []
    for i in range(count):
        layer = nn.Linear(*weights[2 * i].shape)
        layer.weight.data, layer.bias.data = weights[2 * i].T.contiguous(), weights[2 * i + 1][0].clone()
        layers += [layer, *([nn.BatchNorm1d(32)] if net == "bn" and i == 0 else []), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("optimizer", ["sgd.9", "adam"])
@pytest.mark.parametrize("kind", ["mlp", "deep", "bn"])
def test_a_replica_trains_as_pytorch_trains_that_net_alone(kind, optimizer):
    data, updates = digits(0.1), 45
    nets, losses = train(
        Task(kind, optimizer, 32, 0.1), data, [0, 1, 0], torch.tensor([0.02, 0.01, 0.005]).expand(updates, -1)
    )
    net, epoch = plain(kind, 1), len(data.inputs) // 32
    make = {"sgd.9": lambda p: torch.optim.SGD(p, 0.01, 0.9), "adam": lambda p: torch.optim.Adam(p, 0.01)}[optimizer]
    steps = make(net.parameters())
    for t in range(updates):
        start = t % epoch * 32
        chosen = permutation(len(data.inputs), 1, t // epoch)[start : start + 32]
        loss = nn.functional.cross_entropy(net(data.inputs[chosen]), data.targets[chosen])
        steps.zero_grad()
        loss.backward()
        steps.step()
        assert losses[t, 1].item() == pytest.approx(loss.item(), abs=2e-5)
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm1d):
            norm.momentum = 1.0
            net(data.inputs)  # its statistics are now those of all training samples, but for N / (N - 1)
    net.eval()
    mean = nn.functional.cross_entropy(net(data.held_inputs), data.held_targets).item()
    found = nets.losses(data.held_inputs, data.held_targets, data.inputs)[1].item()
    assert found == pytest.approx(mean, rel=2e-3)


def test_there_are_thirteen_tasks_and_the_noise_is_in_the_training_labels_alone():
    assert len(set(TASKS)) == 13
    clean, noisy = digits(0.0), digits(0.2)
    assert (len(clean.inputs), len(clean.held_inputs)) == (1257, 540)
    assert 0.14 < (clean.targets != noisy.targets).float().mean().item() < 0.22  # a tenth of those drawn are right
    assert torch.equal(clean.held_targets, noisy.held_targets)


def test_between_the_rates_of_the_grid_losses_are_interpolated_in_their_logarithms():
    curve = [10.0 ** (0.1 * abs(i - 10)) for i in range(21)]
    assert [at(curve, rate) for rate in GRID] == pytest.approx(curve)
    assert at(curve, 10**-1.375) == pytest.approx(10**0.05)
    assert (at(curve, 1e-9), at(curve, 1e9)) == pytest.approx((10.0, 10.0))
    assert regret(curve, GRID[10], random.Random(0)) == pytest.approx(0.0)
    assert regret(curve, GRID[14], random.Random(0)) == pytest.approx(10**0.2 - 1, rel=0.02)


def test_lightnings_rule_takes_a_tiny_rate_where_the_loss_is_noisy():
    draw, values = random.Random(0), rates(1e-7, 10.0, 100)
    losses = [2.3 - 1.5 * (rate > 1e-2) + draw.gauss(0, 0.05) for rate in values]
    assert linear_axis(Sweep(values, losses)) < 1e-5


def test_the_verdicts_follow_the_numbers():
    def told(error, three, control):
        one = {
            "best": {"train": 0.1, "held": 0.1},
            "found": {"edge/4": [0.1 * 10**error], "linear axis (Lightning)": [0.1 * 10**-control]},
            "regrets": {"edge/8 alone": [0.1], "three runs": three},
        }
        return [claim.holds for claim in summary([one])[0]]

    assert told(-0.39, [0.04, 0.05, 0.19], 2.5) == [True] * 4
    assert told(0.41, [0.06, 0.07, 0.21], 1.9) == [False] * 4
    assert [quantile(list(range(1, 11)), share) for share in (0.5, 0.9, 1.0)] == [5, 9, 10]
    assert not math.isnan(quantile([1.0], 0.9))
