"""The update does what the textbook says, in order, and nothing when its gradients are not finite."""

import math
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.amp import GradScaler

from trainer.engine.clock import Clock
from trainer.engine.gradient_treatment import GradientTreatment
from trainer.engine.gradients import clip_norms
from trainer.engine.lr_control import LRControl
from trainer.engine.step import PairStep
from trainer.engine.update import Backward, Diverged, Updater, check_finite
from trainer.log.metric_buffer import MetricBuffer
from trainer.lr import Horizon, LRPolicy, compose, linear, linear_warmup

T = 20


class Micro(NamedTuple):
    batch: tuple[torch.Tensor, torch.Tensor]
    seed: int

    inputs = property(lambda micro: micro.batch[0])
    targets = property(lambda micro: micro.batch[1])


def policy(lr=0.1):
    return LRPolicy(lr, 1.0, *compose(Horizon(T, 1), lambda h: linear_warmup(h, duration=4), linear))


def updater(net, *, kind=torch.optim.SGD, scaler=None, fused=False, treatment=None, **numbers):
    optimizer = kind(net.parameters(), lr=1.0, fused=fused, **numbers)
    control = LRControl(policy())
    control.attach(optimizer)
    backward = Backward(torch.device("cpu"), scaler=scaler)
    treatment = treatment or GradientTreatment()
    return Updater(net, PairStep(nn.MSELoss()), optimizer, control, Clock(), MetricBuffer(), backward, treatment)


def batches(count, size=6):
    generator = torch.Generator().manual_seed(3)
    draw = lambda n: torch.randn(size, n, generator=generator, dtype=torch.float64)  # noqa: E731
    return [Micro((draw(4), draw(2)), seed=i) for i in range(count)]


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).double()


def test_ten_updates_equal_a_bare_loop_that_sets_the_rate_by_hand():
    ours, theirs = net(), net()
    update = updater(ours, kind=torch.optim.AdamW, weight_decay=0.1)
    optimizer = torch.optim.AdamW(theirs.parameters(), weight_decay=0.1)
    for t, batch in enumerate(batches(10)):
        update([batch])
        optimizer.param_groups[0]["lr"] = policy().lr(t)
        optimizer.zero_grad()
        nn.functional.mse_loss(theirs(batch.inputs), batch.targets).backward()
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters()))
    assert update.clock.t == 10


def test_accumulated_micro_batches_equal_one_large_batch():
    small, large = net(), net()
    pieces = batches(12)
    accumulate, at_once = updater(small), updater(large)
    for i in range(0, 12, 4):
        group = pieces[i : i + 4]
        accumulate(group)
        at_once([Micro((torch.cat([g.inputs for g in group]), torch.cat([g.targets for g in group])), 0)])
    assert accumulate.clock.t == 3
    for a, b in zip(small.parameters(), large.parameters()):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("clip", [0.01, 1e6])
def test_clipping_bounds_the_norm_of_all_gradients_together(clip):
    ours, theirs = net(), net()
    (batch,) = batches(1)
    update = updater(ours, treatment=GradientTreatment(clip=clip))
    update([batch])
    nn.functional.mse_loss(theirs(batch.inputs), batch.targets).backward()
    norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), clip)
    for a, b in zip(ours.parameters(), theirs.parameters()):
        assert torch.allclose(a, b - policy().lr(0) * b.grad, rtol=1e-12)
    assert update.metric_buffer.measures[1].item() == pytest.approx(norm.item(), rel=1e-12)


@pytest.mark.parametrize("share", [0.5, 0.9989, 0.9991, 0.9999999, 1.0, 1.0000001, 1.1, 100.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gradients_near_the_limit_have_the_bits_of_the_formula(share, dtype):
    weights = [nn.Parameter(torch.zeros(size, dtype=dtype)) for size in (5, 3)]
    gradients = [torch.linspace(-1, 2, len(weight)).to(dtype) for weight in weights]
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    limit = norm.item() / share
    for weight, gradient in zip(weights, gradients):
        weight.grad = gradient.clone()
    clip_norms([weights], [None], limit)
    for weight, gradient in zip(weights, gradients):
        assert torch.equal(weight.grad, gradient * torch.clamp(limit / (norm + 1e-6), max=1.0))


class Marked(torch.Tensor):
    """A tensor of a class of its own, whose backward pass torch hands to the class."""


@pytest.mark.parametrize("kind", [torch.Tensor, Marked])
def test_gradients_are_those_of_torch_also_with_a_hook_that_changes_that_of_the_loss(kind):
    weights = [torch.tensor([1.0, 2.0], requires_grad=True) for _ in range(2)]
    for weight, backward in zip(weights, (torch.Tensor.backward, Backward(torch.device("cpu")))):
        for _ in range(2):
            loss = weight.square().sum().as_subclass(kind)
            loss.register_hook(lambda gradient: gradient.mul_(3))
            backward(loss)
    assert torch.equal(weights[0].grad, weights[1].grad)
    assert weights[0].grad.tolist() == [12.0, 24.0]


def test_a_loss_without_gradient_is_refused_as_by_torch():
    with pytest.raises(RuntimeError, match="does not require grad"):
        Backward(torch.device("cpu"))(torch.tensor(1.0))


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_an_update_that_is_not_finite_is_not_applied_and_stops_the_clock(poison):
    model = net()
    update = updater(model)
    good, bad = batches(2)
    update([good])
    before = [p.clone() for p in model.parameters()]
    bad.targets[0, 0] = poison
    with pytest.raises(Diverged, match="update 1 has loss"):
        update([bad])
    assert update.clock.t == 1
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before))


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run_though_its_gradient_is_finite(poison):
    model = net()
    update = updater(model)
    update.step = PairStep(lambda outputs, targets: nn.functional.mse_loss(outputs, targets) + poison)
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(Diverged, match=rf"update 0 has loss {poison} and gradient norm \d"):
        update(batches(1))
    assert update.clock.t == 0
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before))
    with pytest.raises(Diverged, match=rf"update 7 has loss {poison} and gradient norm 0.5"):
        check_finite(7, 0.5, poison)
    check_finite(7, 0.5, 2.0)


def test_without_a_look_at_each_update_a_fused_optimizer_still_leaves_the_weights_alone():
    model = net().float()
    update = updater(model, kind=torch.optim.AdamW, fused=True)
    update.checks_each = False
    good, bad = (Micro((b.inputs.float(), b.targets.float()), b.seed) for b in batches(2))
    update([good])
    before = [p.clone() for p in model.parameters()]
    bad.targets[0, 0] = math.nan
    update([bad])
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before))
    update([good])
    assert not any(torch.equal(a, b) for a, b in zip(model.parameters(), before))


def test_an_update_that_loss_scaling_skips_is_made_again_and_the_clock_counts_it_once():
    plain, scaled = net().float(), net().float()
    scaler = GradScaler("cpu", init_scale=2.0**127)
    update, reference = updater(scaled, scaler=scaler), updater(plain)
    for batch in batches(5):
        batch = Micro((100 * batch.inputs.float(), 100 * batch.targets.float()), batch.seed)
        update([batch])
        reference([batch])
    assert scaler.get_scale() < 2.0**127
    assert update.clock.t == reference.clock.t == 5
    assert update.metric_buffer.lrs == reference.metric_buffer.lrs
    for a, b in zip(scaled.parameters(), plain.parameters()):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_gradient_that_no_scale_makes_finite_ends_the_run():
    update = updater(net().float(), scaler=GradScaler("cpu", init_scale=4.0))
    bad = Micro((torch.full((6, 4), math.nan), torch.zeros(6, 2)), 0)
    with pytest.raises(Diverged, match="update 0"):
        update([bad])
    assert update.clock.t == 0


def test_a_rate_that_something_else_writes_stops_the_run_and_names_the_group():
    update = updater(net())
    (batch,) = batches(1)
    update([batch])
    write = update.control.write
    update.control.write = lambda optimizer, t: (write(optimizer, t), optimizer.param_groups[0].update(lr=0.5))
    with pytest.raises(RuntimeError, match=r"group all has lr=0\.5 where the policy says 0\.05"):
        update([batch])


def test_dropout_is_a_function_of_the_seed_of_the_micro_batch():
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(0)
        update = updater(nn.Sequential(net(), nn.Dropout(0.5)))
        torch.rand(losses and 5 or 1)
        (batch,) = batches(1)
        update([batch._replace(seed=seed)])
        losses.append(update.metric_buffer.measures[0].item())
    assert losses[0] == losses[1] != losses[2]


def test_a_hook_that_changes_the_gradient_of_the_loss_in_place_changes_this_update_alone():
    weight, found = nn.Parameter(torch.ones(3)), []
    for factor in (1.0, 5.0, 1.0):
        loss = weight.sum()
        loss.register_hook(lambda gradient, factor=factor: gradient.mul_(factor))
        Backward(torch.device("cpu"))(loss)
        found.append(weight.grad.tolist())
        weight.grad = None
    assert found == [[1.0] * 3, [5.0] * 3, [1.0] * 3]
