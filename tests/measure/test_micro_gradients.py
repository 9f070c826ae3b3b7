"""The norms of micro-batches' gradients are those of a direct computation, the same however they are spread."""

import json
import math
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from tests.measure.splits import LAYOUTS, ROOT
from tests.measure.test_norms import Micro, Unhurried, batches, smooth, updater
from trainer.lr import ConfigError
from trainer.measure.micro_gradients import MicroGradients
from trainer.measure.noise_scale import NoiseScale


def groups(net):
    return [[p for p in net.parameters() if p.ndim > 1], [p for p in net.parameters() if p.ndim < 2]]


def gradients(net, micros, recorder=None):
    """The mean gradient of some micro-batches, as an update makes it."""
    update = updater(net)
    update.micro_gradients = recorder
    update._gradients(micros)
    return [p.grad for p in net.parameters()]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_the_squares_of_all_and_of_each_group_are_those_of_a_direct_computation(count):
    net, micros = smooth(), batches(count)
    recorder = MicroGradients(groups(net))
    gradients(net, micros, recorder)
    each = [
        torch.autograd.grad(nn.functional.mse_loss(net(m.inputs), m.targets), list(net.parameters())) for m in micros
    ]
    mean = [torch.stack(parts).mean(0) for parts in zip(*each)]

    def squares(parts):
        of = [sum(part.square().sum() for part in parts if (part.ndim > 1) == matrices) for matrices in (True, False)]
        return torch.stack([of[0] + of[1], *of])

    expected = torch.stack([torch.stack([squares(one) for one in each]).mean(0), squares(mean)])
    assert torch.allclose(recorder.squares, expected, rtol=1e-12, atol=0)
    assert recorder.count == count


class Odd(nn.Module):
    """A net with a weight used twice, one used only where the inputs are large, and one never."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.shared, self.rare, self.never = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.last = nn.Linear(4, 2)

    def forward(self, inputs):
        hidden = torch.tanh(self.shared(torch.tanh(self.shared(inputs))))
        return self.last(self.rare(hidden) if inputs[0, 0] > 0.5 else hidden)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_optimizer_gets_the_same_bits_as_without(count):
    micros = [Micro((m.inputs.float(), m.targets.float()), m.seed) for m in batches(count)]
    plain, measured = Odd(), Odd()
    without = gradients(plain, micros)
    with_ = gradients(measured, micros, MicroGradients([list(measured.parameters())]))
    assert all((a is None) == (b is None) for a, b in zip(without, with_))
    assert all(torch.equal(a, b) for a, b in zip(without, with_) if a is not None)
    assert sum(a is None for a in without) >= 2


def test_nothing_is_read_from_the_device_while_it_measures():
    net, micros = smooth(), batches(3)
    recorder = MicroGradients(groups(net))
    for number, micro in enumerate(micros, start=1):
        (nn.functional.mse_loss(net(micro.inputs), micro.targets) / 3).backward()
        with Unhurried():
            recorder.take(number, of=3)


def sampled(small, big, updates=150):
    """The estimate from draws with replacement, its sizes told as `small` and `big`, and the truth by torch.func."""
    net = smooth()
    torch.manual_seed(1)
    inputs, targets = torch.randn(60, 4).double(), torch.randn(60, 2).double()
    weights = {name: p.detach() for name, p in net.named_parameters()}

    def loss(values, x, y):
        return nn.functional.mse_loss(torch.func.functional_call(net, values, (x[None],)), y[None])

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(weights, inputs, targets)
    flat = torch.cat([part.reshape(60, -1) for part in each.values()], dim=1)
    square = flat.mean(0).square().sum().item()
    trace = (flat - flat.mean(0)).square().sum().item() / 60
    generator = torch.Generator().manual_seed(2)
    recorder, scale = MicroGradients([list(net.parameters())]), NoiseScale(small, big, confidence=0.999)
    for _ in range(updates):
        drawn = torch.randint(60, (16, 2), generator=generator)
        gradients(net, [Micro((inputs[pick], targets[pick]), 0) for pick in drawn], recorder)
        scale.add(*recorder.squares[:, :1])
        for parameter in net.parameters():
            parameter.grad = None
    return scale.estimates()[0], square, trace


def test_the_estimate_agrees_with_exact_gradients_of_every_sample():
    found, square, trace = sampled(small=2, big=32)
    assert found.square_low <= square <= found.square_high
    assert found.trace_low <= trace <= found.trace_high
    assert found.low <= trace / square <= found.high
    assert found.high / found.low < 2


@pytest.mark.parametrize("factor", [2, 4])
def test_a_mis_stated_batch_size_disagrees_with_them(factor):
    found, square, trace = sampled(small=2 * factor, big=32 * factor)
    assert not found.trace_low <= trace <= found.trace_high
    assert not found.low <= trace / square <= found.high


def test_a_batch_that_grows_is_told_update_by_update():
    fixed, told = NoiseScale(2, 8), NoiseScale(2, 4)
    for small, big in ((5.0, 3.5), (4.0, 3.0)):
        fixed.add(torch.tensor([small]), torch.tensor([big]))
        told.add(torch.tensor([small]), torch.tensor([big]), batch=8)
    assert fixed.estimates() == told.estimates()


def test_an_estimate_goes_on_from_its_state_to_the_bit():
    torch.manual_seed(0)
    rows = [(torch.rand(3) + 5, torch.rand(3) + 1) for _ in range(20)]
    whole, first, second = (NoiseScale(2, 8, decay=0.9) for _ in range(3))
    for i, row in enumerate(rows):
        whole.add(*row)
        (first if i < 8 else second).add(*row)
        if i == 7:
            second.load_state_dict(first.state_dict())
    assert whole.estimates() == second.estimates()
    with pytest.raises(ConfigError, match="after 0 updates"):
        NoiseScale(2, 8).estimates()


@pytest.mark.sample(0)
@pytest.mark.slow
def test_every_split_of_a_batch_over_processes_and_accumulation_gives_equal_numbers(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    script = str(ROOT / "tests" / "measure" / "splits.py")
    done = subprocess.run([sys.executable, script, str(tmp_path)], env=environment, capture_output=True, timeout=200)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    rows = {}
    for world, accumulate in LAYOUTS:
        ranks = [json.loads((tmp_path / f"{world}-{accumulate}-{rank}.json").read_text()) for rank in range(world)]
        assert all(rank == ranks[0] for rank in ranks), "all processes have the same bits"
        rows[world, accumulate] = ranks[0]
    first = rows[1, 4]
    assert len(first["squares"]) == 4
    for row in rows.values():
        assert row["count"] == 4
        flat = zip(sum(sum(row["squares"], []), []), sum(sum(first["squares"], []), []))
        assert all(math.isclose(a, b, rel_tol=1e-12) for a, b in flat)
        assert row["plain"] == row["measured"], "the weights have the same bits with and without"
