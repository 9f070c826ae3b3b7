"""Lookahead: every k updates the slow weights follow the fast ones, which go back to them."""

import functools

import pytest
import torch
from torch import nn

from trainer.checkpoint.io import checkpoints_in, read
from trainer.lr import ConfigError
from trainer.optim.lookahead import Lookahead
from trainer.run import fit

SMALL = (
    *("data.batch_size=32", "model.hidden=[16]", "logger=none", "trainer.duration=20", "trainer.validate=10"),
    *("trainer.checkpoint=3", "trainer.keep=0", "optimizer=lookahead"),
)


def nets(count):
    made = []
    for _ in range(count):
        torch.manual_seed(0)
        made.append(nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double())
    return made


@pytest.mark.parametrize("base", [torch.optim.SGD, functools.partial(torch.optim.AdamW, betas=(0.8, 0.9))])
def test_it_is_the_formula_of_the_paper(base):
    ours, theirs = nets(2)
    lookahead = Lookahead(ours.parameters(), base, lr=0.05, weight_decay=0.1, k=3, alpha=0.3)
    inner = base(theirs.parameters(), lr=0.05, weight_decay=0.1)
    slow = [parameter.detach().clone() for parameter in theirs.parameters()]
    for t in range(1, 11):
        inputs = torch.randn(4, 3, dtype=torch.float64)
        for net, optimizer in ((ours, lookahead), (theirs, inner)):
            optimizer.zero_grad()
            net(inputs).pow(2).mean().backward()
            optimizer.step()
        if t % 3 == 0:
            with torch.no_grad():
                slow = [s + 0.3 * (fast - s) for s, fast in zip(slow, theirs.parameters())]
                for fast, s in zip(theirs.parameters(), slow):
                    fast.copy_(s)
        for a, b in zip(ours.parameters(), theirs.parameters()):
            assert torch.allclose(a, b, rtol=1e-12, atol=1e-14)


def test_a_learning_rate_written_into_its_groups_reaches_the_base():
    (net,) = nets(1)
    lookahead = Lookahead(net.parameters(), torch.optim.SGD, lr=1.0)
    before = [parameter.detach().clone() for parameter in net.parameters()]
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    lookahead.param_groups[0]["lr"] = 0.25
    lookahead.step()
    assert all(torch.equal(b - 0.25, a) for b, a in zip(before, net.parameters()))
    lookahead.load_state_dict(lookahead.state_dict())
    lookahead.param_groups[0]["lr"] = 0.5
    lookahead.step()
    assert all(torch.allclose(b - 0.75, a) for b, a in zip(before, net.parameters()))


@pytest.mark.sample(0)
def test_a_resumed_run_ends_with_the_same_bits(assembled):
    whole = assembled(*SMALL, folder="whole")
    fit(whole)
    points = checkpoints_in(whole.checkpointing.folder)[:-1]
    for point in points:
        resumed = assembled(*SMALL, folder=f"from-{point.stem}", resumed=point)
        fit(resumed)
        ends = [read(checkpoints_in(run.checkpointing.folder)[-1]) for run in (whole, resumed)]
        state = [end["optimizer_states"][0]["state"] for end in ends]
        assert {"lookahead_slow", "exp_avg"} <= state[0][0].keys()
        for i, entry in state[0].items():
            assert all(torch.equal(value, state[1][i][key]) for key, value in entry.items())
        assert all(torch.equal(v, ends[1]["state_dict"][k]) for k, v in ends[0]["state_dict"].items())


def test_numbers_of_the_base_come_from_the_config_and_its_state_from_the_checkpoint(assembled):
    first = assembled(*SMALL, folder="first")
    fit(first)
    point = checkpoints_in(first.checkpointing.folder)[1]
    second = assembled(*SMALL, "optimizer.base.betas=[0.5,0.7]", "optimizer.k=2", folder="second", resumed=point)
    fit(second)
    group = second.trainer.optimizers[0].param_groups[0]
    assert list(group["betas"]) == [0.5, 0.7]
    since = read(point)["optimizer_states"][0]["param_groups"][0]["lookahead_since"]
    left = 20 - read(point)["cadence"]["updates"]
    assert group["lookahead_since"] == (since + left) % 2


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["optimizer.k=0"], "optimizer.k=0"),
        (["optimizer.alpha=0.0"], "optimizer.alpha=0"),
        (["optimizer.alpha=1.5"], "optimizer.alpha=1.5"),
        (["optimizer.base._target_=pytorch_optimizer.ScheduleFreeAdamW", "~optimizer.base.fused"], "take another"),
    ],
)
def test_what_it_cannot_do_is_refused_in_one_line(assembled, overrides, says):
    with pytest.raises(ConfigError, match=says) as refusal:
        assembled(*SMALL, *overrides)
    assert "\n" not in str(refusal.value)
