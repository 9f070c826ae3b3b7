"""Several optimizers as one: each group is stepped exactly as its own optimizer would step it alone."""

import copy

import pytest
import torch
from torch import nn

from trainer.checkpoint.io import checkpoint_path
from trainer.optim.composite import Composite, assembled
from trainer.optim.groups import Group
from trainer.run import fit

torch.manual_seed(0)
NET = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double()


def muon(options):
    return torch.optim.Muon(options, lr=0.02, weight_decay=0.01)


def adamw(options):
    return torch.optim.AdamW(options, lr=0.003, betas=(0.9, 0.95))


def split(net):
    """Matrices for the run's optimizer, vectors for AdamW, in turns, so that the order of groups is mixed."""
    first, last = net[0], net[2]
    return [
        Group("a", [first.weight], 0.01),
        Group("b", [first.bias], 0.0, optimizer=adamw),
        Group("c", [last.weight], 0.02),
        Group("d", [last.bias], 0.1, optimizer=adamw),
    ]


def gradients(net, t):
    generator = torch.Generator().manual_seed(t)
    for parameter in net.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)


def stepped(net, optimizers, updates=10):
    """Ten steps at rates that change, group by group."""
    for t in range(updates):
        gradients(net, t)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = (0.02 if group["name"] in "ac" else 0.003) / (1 + t)
            optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])


def test_the_composite_of_muon_and_adamw_equals_the_two_run_apart():
    together, apart = copy.deepcopy(NET), copy.deepcopy(NET)
    composite = assembled(split(together), muon)
    assert isinstance(composite, Composite)
    assert [group["name"] for group in composite.param_groups] == ["a", "b", "c", "d"]
    own = split(apart)
    alone = [muon([own[0].options(), own[2].options()]), adamw([own[1].options(), own[3].options()])]
    assert torch.equal(stepped(together, [composite]), stepped(apart, alone))


def test_its_state_is_saved_and_restored_to_the_bit():
    straight, broken = copy.deepcopy(NET), copy.deepcopy(NET)
    first = assembled(split(straight), muon)
    stepped(straight, [first], 4)
    broken.load_state_dict(straight.state_dict())
    second = assembled(split(broken), muon)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert torch.equal(stepped(straight, [first], 3), stepped(broken, [second], 3))


def test_groups_without_an_optimizer_of_their_own_need_no_composite():
    groups = [Group("a", [NET[0].weight]), Group("b", [NET[2].weight])]
    assert isinstance(assembled(groups, muon), torch.optim.Muon)


def test_a_closure_is_evaluated_once():
    net = copy.deepcopy(NET)
    gradients(net, 0)
    calls = []
    assembled(split(net), muon).step(lambda: calls.append(1) or 0.0)
    assert calls == [1]


@pytest.mark.parametrize("option", ["muon", "layer_decay"])
def test_a_run_with_groups_of_their_own_resumes_to_the_bit_under_one_clock(assembled, option):
    words = (f"{'optimizer' if option == 'muon' else 'groups'}={option}", "model.hidden=[16,16]", "trainer.keep=0")
    small = (*words, "trainer.duration=20", "trainer.validate=10", "trainer.steps_per_execution=5", "logger=none")
    whole = assembled(*small, folder="whole")
    fit(whole)
    middle = checkpoint_path(whole.checkpointing.folder, 10)
    again = assembled(*small, folder="again", resumed=middle)
    fit(again)
    assert whole.module.clock.t == whole.trainer.global_step == 20
    for mine, theirs in zip(again.module.net.parameters(), whole.module.net.parameters()):
        assert torch.equal(mine, theirs)
