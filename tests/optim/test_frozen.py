"""Frozen parts: they keep every bit, BatchNorm's statistics included, and the rest learns as if they were constants."""

import doctest

import pytest
import torch
from torch import nn

from models.mlp import MLP
from models.resnet import ResNet9
from trainer.checkpoint.io import checkpoint_path
from trainer.config.run_summary import format_run, summary_of_run
from trainer.engine.averaging import batch_norms
from trainer.lr import ConfigError
from trainer.optim import frozen as module
from trainer.optim.frozen import freeze, frozen, has_fixed_statistics
from trainer.run import fit

SMALL = (
    *("model.hidden=[8,8]", "model.norm=batch", "data=synthetic", "data.samples=64", "data.batch_size=8"),
    *("data.val_samples=16", "logger=none", "trainer.duration=20", "trainer.validate=10", "trainer.keep=0"),
    *("lint.ignore=[unreached]", "optimizer=momentum", "optimizer.weight_decay=0.1"),
)


def state(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def test_the_example_runs():
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("more", [(), ("average=ema",), ("trainer.sam=0.05", "trainer.clip=1.0")])
def test_a_frozen_part_keeps_every_bit_and_the_rest_learns(assembled, more):
    run = assembled(*SMALL, "freeze=['layers.1.*','layers.2.*']", *more)
    before = state(run.module.net)
    cold = [name for name in before if name.startswith(("layers.1.", "layers.2."))]
    assert [name for name in cold if "running" in name], "a BatchNorm is among them"
    fit(run)
    after = state(run.module.net)
    kept = [name for name in before if torch.equal(before[name], after[name])]
    assert [name for name in kept if name != "layers.5.bias"] == cold  # a bias before a BatchNorm has no gradient
    rows = dict(format_run(summary_of_run(run.resolved)))
    assert rows["frozen"].endswith("in 4 of 10 tensors, statistics of 1 BatchNorm fixed")
    best = run.checkpointing.best_checkpoint()["state_dict"]
    assert all(torch.equal(best[f"net.{name}"], before[name]) for name in cold)


def test_it_trains_the_weights_of_a_plain_loop_with_the_part_in_evaluation_mode():
    torch.manual_seed(0)
    ours, theirs = (ResNet9(3, 4, 4) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    freeze(ours, ["features.0.*", "features.1.*"])
    for part in theirs.features[:2]:
        part.requires_grad_(False)
    for net in (ours, theirs):
        optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
        generator = torch.Generator().manual_seed(1)
        for _ in range(3):
            net.train()
            if net is theirs:
                theirs.features[:2].eval()
            net(torch.randn(5, 3, 8, 8, generator=generator)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert all(torch.equal(one, other) for one, other in zip(ours.state_dict().values(), theirs.state_dict().values()))


def test_a_norm_without_parameters_goes_by_its_name_and_one_with_a_trained_scale_is_not_fixed():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, affine=False), nn.BatchNorm1d(2), nn.Linear(2, 1))
    freeze(net, ["0.*", "1.*", "2.weight"])
    net.train()
    assert [has_fixed_statistics(part) for part in net] == [False, True, False, False]
    assert [part.training for part in net] == [True, False, True, True]
    assert [name for name, _ in batch_norms(net)] == ["2"]


def test_a_net_without_patterns_is_left_alone_and_frozen_by_its_author_is_told():
    net = MLP(4, 2, (3,), norm="batch")
    freeze(net, [])
    assert frozen(net) is None
    net.layers[1].requires_grad_(False)
    freeze(net, [])
    assert frozen(net).text() == "15 of 29 numbers in 2 of 6 tensors"
    with pytest.raises(ConfigError, match="leaves nothing to train"):
        freeze(net, ["*"])


def test_a_frozen_run_resumes_to_the_same_bits_and_refuses_another_part(assembled):
    words = (*SMALL, "freeze=['layers.1.*','layers.2.*']")
    whole = assembled(*words, folder="whole")
    fit(whole)
    half = checkpoint_path(whole.folder / "checkpoints", 10)
    resumed = assembled(*words, folder="resumed", resumed=half)
    fit(resumed)
    expected = state(whole.module.net)
    assert all(torch.equal(value, expected[name]) for name, value in state(resumed.module.net).items())
    with pytest.raises(ConfigError, match="keep freeze, and optimizer"):
        assembled(*SMALL, folder="other", resumed=half)


def test_the_plan_knows_the_groups_that_are_left(compose):
    from trainer.config.resolve import plan_of
    from trainer.config.settings import settings_of

    words = [word for word in SMALL if "norm" not in word]
    assert list(plan_of(settings_of(compose(*words))).curves) == ["decay", "no_decay"]
    assert list(plan_of(settings_of(compose(*words, "freeze=['*.bias']"))).curves) == ["all"]
