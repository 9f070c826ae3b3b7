"""The quick step of a fused Adam or SGD leaves the bits of torch's own and calls the same hooks; others use theirs."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.optim import SGD, Adam, AdamW

from trainer.optim.fused_step import FusedStep
from trainer.optim.shards import local


def made(kind=AdamW, **settings):
    """Two equal nets with the same optimizer in two groups; the first is stepped by torch."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    nets = [net, copy.deepcopy(net)]
    return nets, [
        kind([{"params": [*one[0].parameters()]}, {"params": [*one[2].parameters()], "lr": 0.02}], lr=0.01, **settings)
        for one in nets
    ]


def train(nets, optimizers, steps, each=lambda optimizer, t: None, inputs=None):
    quick = FusedStep(optimizers[1])
    for t in range(steps):
        batch = torch.randn(4, 5, generator=torch.Generator().manual_seed(t))
        for net, optimizer, step in zip(nets, optimizers, (lambda: optimizers[0].step(), quick)):
            each(optimizer, t)
            for parameter in net.parameters():
                parameter.grad = None
            net(batch).square().sum().backward()
            step()
    return quick


def equal(nets, optimizers):
    weights = [[*net.parameters()] for net in nets]
    states = [[value for state in one.state.values() for value in state.values()] for one in optimizers]
    return all(torch.equal(*pair) for pair in [*zip(*weights, strict=True), *zip(*states, strict=True)])


@pytest.mark.parametrize("kind", [Adam, AdamW])
@pytest.mark.parametrize("settings", [{}, {"weight_decay": 0.1, "maximize": True}, {"amsgrad": True}, {"eps": 1e-3}])
def test_settings_that_change_in_each_step_give_the_bits_of_torch(kind, settings):
    nets, optimizers = made(kind, fused=True, **settings)

    def each(optimizer, t):
        for i, group in enumerate(optimizer.param_groups):
            group["lr"], group["betas"] = 0.01 / (t + i + 1), (0.9 - t / 100, 0.99)

    quick = train(nets, optimizers, 30, each)
    assert equal(nets, optimizers)
    assert bool(quick._taken) != ("amsgrad" in settings)


SGDS = [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"momentum": 0.9, "dampening": 0.5}]


@pytest.mark.parametrize("settings", [*SGDS, {"momentum": 0.9, "weight_decay": 0.1, "maximize": True}])
@pytest.mark.parametrize("moving", [False, True])
def test_sgd_with_settings_that_change_in_each_step_gives_the_bits_of_torch(settings, moving):
    """Momentum that moves also passes through zero, where no buffer is used, and starts at zero, without any."""
    nets, optimizers = made(SGD, fused=True, **settings)

    def each(optimizer, t):
        for i, group in enumerate(optimizer.param_groups):
            group["lr"], group["weight_decay"] = 0.01 / (t + i + 1), t / 1000
            if moving:
                group["momentum"] = 0.0 if t % 5 == i and not group["nesterov"] else 0.5 + t / 100

    assert train(nets, optimizers, 30, each)._taken
    assert equal(nets, optimizers)
    for pair in zip(*(one.state.values() for one in optimizers)):
        assert pair[0].keys() == pair[1].keys()


def test_the_step_of_torch_is_not_called_again_once_sgd_has_its_state(monkeypatch):
    nets, optimizers = made(SGD, fused=True, momentum=0.9)
    quick = train(nets, optimizers, 2)
    monkeypatch.setattr(optimizers[1], "_init_group", None)
    quick()


@pytest.fixture
def mesh():
    """This process alone, as a world."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


@pytest.mark.parametrize("kind", [Adam, AdamW])
def test_the_step_of_shards_gives_the_bits_of_torch(mesh, monkeypatch, kind):
    nets, _ = made()
    for net in nets:
        fully_shard(net, mesh=mesh)
    groups = [[{"params": [*net[0].parameters()]}, {"params": [*net[2].parameters()], "lr": 0.02}] for net in nets]
    optimizers = [kind(one, lr=0.01, weight_decay=0.1, fused=True) for one in groups]
    quick = train(nets, optimizers, 20)
    weights = [[local(parameter.detach()) for parameter in net.parameters()] for net in nets]
    states = [[local(v) for state in one.state.values() for v in state.values()] for one in optimizers]
    assert all(torch.equal(*pair) for pair in [*zip(*weights, strict=True), *zip(*states, strict=True)])
    monkeypatch.setattr(optimizers[1], "_init_group", None)  # torch's own step is not called
    quick()


@pytest.mark.parametrize(("kind", "settings"), [(SGD, {"foreach": True}), (AdamW, {"foreach": True})])
def test_other_optimizers_make_their_own_step(kind, settings):
    nets, optimizers = made(kind, **settings)
    assert not train(nets, optimizers, 3)._taken
    assert equal(nets, optimizers)


def test_a_loaded_state_a_new_group_or_parameter_other_settings_and_a_missing_gradient_are_seen():
    nets, optimizers = made(fused=True)
    extra, late = ([nn.Parameter(torch.ones(2)) for _ in nets] for _ in range(2))

    def each(optimizer, t):
        if t == 4:
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        if t == 8:
            optimizer.add_param_group({"params": [extra[optimizers.index(optimizer)]], "lr": 0.1})
        if t == 11:
            optimizer.param_groups[0] = {**optimizer.param_groups[0], "lr": 0.3}
        if t == 13:
            optimizer.param_groups[2]["params"].append(late[optimizers.index(optimizer)])
        which = nets[optimizers.index(optimizer)]
        which[0].requires_grad_(t % 3 > 0)
        for one in (extra, late):
            one[optimizers.index(optimizer)].grad = torch.full((2,), 0.1)

    train(nets, optimizers, 16, each)
    assert equal(nets, optimizers)
    assert all(len(optimizer.state) == 6 for optimizer in optimizers)


def test_hooks_are_called_once_in_their_order_and_may_change_gradients():
    nets, optimizers = made(fused=True)
    calls = []
    for name, optimizer in zip(("torch", "quick"), optimizers):

        def before(one, args, kwargs, name=name):
            calls.append((name, "before", one.param_groups[0]["lr"]))
            for parameter in one.param_groups[0]["params"]:
                parameter.grad = parameter.grad.clamp(-0.01, 0.01)

        optimizer.register_step_pre_hook(before)
        optimizer.register_step_post_hook(lambda one, args, kwargs, name=name: calls.append((name, "after", args[0])))
    train(nets, optimizers, 5)
    assert equal(nets, optimizers)
    assert [one[1] for one in calls] == ["before", "after"] * 10
    assert [one[0] for one in calls] == ["torch", "torch", "quick", "quick"] * 5


def test_a_hook_that_gives_other_arguments_is_refused():
    nets, optimizers = made(fused=True)
    quick = train(nets, optimizers, 2)
    optimizers[1].register_step_pre_hook(lambda one, args, kwargs: (args, kwargs))
    with pytest.raises(RuntimeError, match="changes the arguments of the optimizer's step"):
        quick()


@pytest.mark.parametrize(("kind", "settings"), [(AdamW, {}), (SGD, {"momentum": 0.9})])
def test_updates_that_are_not_finite_are_left_out_as_by_torch(kind, settings):
    nets, optimizers = made(kind, fused=True, **settings)

    def each(optimizer, t):
        optimizer.found_inf = torch.tensor(float(t % 3 == 1))

    train(nets, optimizers, 9, each)
    assert equal(nets, optimizers)
    assert next(iter(optimizers[1].state.values())).get("step", 6) == 6


def test_the_step_has_its_name_in_a_profile():
    nets, optimizers = made(fused=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        train(nets, optimizers, 3)
    (named,) = (one for one in profile.key_averages() if one.key.startswith("Optimizer.step#AdamW"))
    assert named.count == 6


def cleared(optimizer):
    optimizer.state.clear()


def reset(optimizer):
    for state in optimizer.state.values():
        for name in state.keys() - {"step"}:
            state[name] = torch.zeros_like(state[name])


def unfused(optimizer):
    optimizer.param_groups[0]["fused"] = False


def wrapped(optimizer):
    step = optimizer.step

    def halved():
        for parameter in optimizer.param_groups[0]["params"]:
            parameter.grad.mul_(0.5)
        step()

    optimizer.step = halved


def scaled(optimizer):
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(2.0), torch.tensor(0.0)


@pytest.mark.parametrize("change", [cleared, reset, unfused, wrapped, scaled])
@pytest.mark.parametrize(("kind", "settings"), [(AdamW, {}), (SGD, {"momentum": 0.9})])
def test_what_others_change_in_a_prepared_optimizer_is_seen(change, kind, settings):
    nets, optimizers = made(kind, fused=True, **settings)
    train(nets, optimizers, 8, lambda optimizer, t: t == 4 and change(optimizer))
    assert equal(nets, optimizers)
