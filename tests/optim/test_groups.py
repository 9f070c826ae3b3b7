"""Every trainable parameter of every model belongs to exactly one group, by what it is and not by what it is called."""

import doctest
import importlib
import inspect
from functools import partial
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from models.gpt import GPT
from models.mlp import MLP
from models.resnet import ResNet9, ResNet18
from trainer.config.instantiate import instantiate
from trainer.config.model_data import build_net
from trainer.config.settings import settings_of
from trainer.lr import ConfigError
from trainer.optim.groups import Group, check_coverage, decay_groups, one_group
from trainer.optim.kinds import kinds
from trainer.optim.layers import backbone_head, layer_decay
from trainer.optim.patterns import pattern_groups

CONF = Path(__file__).parents[2] / "conf"
MODELS = sorted(file.stem for file in (CONF / "model").glob("*.yaml") if file.stem != "own")
OPTIONS = sorted(file.stem for file in (CONF / "groups").glob("*.yaml") if file.stem != "module")
"""The shipped nets, and the groups that any net has; groups=module are those of a LightningModule."""
SHAPE = {"in_features": 64, "in_channels": 3, "classes": 10, "vocab_size": 65, "context": 8}
ADAMW = partial(torch.optim.AdamW, lr=0.003, weight_decay=0.05)


def names(net, groups):
    """The names of the parameters in each group."""
    known = {id(parameter): name for name, parameter in net.named_parameters()}
    return {group.name: [known[id(parameter)] for parameter in group.parameters] for group in groups}


def small(name):
    if name == "gpt":
        return GPT(65, 8, layers=2, heads=2, width=8, bias=True)
    return {"mlp": MLP(64, 10, (8, 8)), "resnet9": ResNet9(3, 10, 4), "resnet18": ResNet18(3, 10, 4)}[name]


class Norms(nn.Module):
    """Every norm that torch has, one of them with a scale of two dimensions, and one of the user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.bn1, self.bn2, self.bn3 = nn.BatchNorm1d(4), nn.BatchNorm2d(4), nn.BatchNorm3d(4)
        self.sync, self.inst = nn.SyncBatchNorm(4), nn.InstanceNorm2d(4, affine=True)
        self.plain, self.wide = nn.LayerNorm(4), nn.LayerNorm((3, 4))
        self.gn, self.rms, self.rms2 = nn.GroupNorm(2, 4), nn.RMSNorm(4), nn.RMSNorm((3, 4))
        self.own = nn.Module()
        self.own.gain = nn.Parameter(torch.ones(4))


@pytest.mark.parametrize("module", ["groups", "kinds", "layers", "matrices", "patterns", "stages"])
def test_the_examples_run(module):
    assert doctest.testmod(importlib.import_module(f"trainer.optim.{module}")).failed == 0


@pytest.mark.parametrize("weight_decay", [None, 0.0, 0.1])
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("model", MODELS)
def test_each_parameter_of_each_model_is_claimed_once_by_each_option(compose, model, option, weight_decay):
    narrow = {"mlp": ["model.hidden=[8,8]"], "gpt": ["model.width=8", "model.bias=true"]}.get(model, ["model.width=4"])
    convs = ["groups.convs=true"] if option == "muon" else []
    cfg = compose(f"model={model}", f"groups={option}", *narrow, *convs)
    settings = settings_of(cfg)
    net = build_net(settings, SHAPE)
    groups = instantiate(settings.curve.groups, "groups", [])(net, weight_decay, 0.01)
    check_coverage(net, groups)
    claimed = [id(parameter) for group in groups for parameter in group.parameters]
    assert sorted(claimed) == sorted({id(parameter) for parameter in net.parameters()})
    assert all(group.lr_mult > 0 for group in groups)


@pytest.mark.parametrize("option", OPTIONS)
def test_the_numbers_of_an_option_are_those_of_its_function(option):
    node = OmegaConf.to_container(OmegaConf.load(CONF / "groups" / f"{option}.yaml"), resolve=False)
    module, _, function = node.pop("_target_").rpartition(".")
    wanted = inspect.signature(getattr(importlib.import_module(module), function)).parameters
    switches = {name: node[name] for name in node if not name.startswith("_")}
    assert switches.keys() == wanted.keys() - {"net", "weight_decay", "lr"}
    for name, value in switches.items():
        if name not in ("optimizer", "schedule", "apart"):
            assert value == (list(wanted[name].default) if value == [] else wanted[name].default)
    for line in (CONF / "groups" / f"{option}.yaml").read_text().splitlines()[3:]:
        assert "#" in line or line.startswith("  "), line


def test_frozen_parameters_are_in_no_group():
    net = small("resnet9")
    net.features[0].requires_grad_(False)
    for groups in (decay_groups(net, 0.1, 0.1), layer_decay(net, 0.1, 0.1), backbone_head(net, 0.1, 0.1)):
        check_coverage(net, groups)
        assert not any(name.startswith("features.0.") for group in names(net, groups).values() for name in group)


def test_all_is_one_group_with_the_weight_decay_of_the_optimizer():
    (group,) = one_group(MLP(4, 2, (3,)), 0.1, 1.0)
    assert (group.name, group.weight_decay, group.size) == ("all", 0.1, 4 * 3 + 3 + 3 * 2 + 2)


# What is spared weight decay.


def test_every_norm_of_torch_and_a_vector_of_unknown_kind_have_no_weight_decay():
    net = Norms()
    (group,) = decay_groups(net, 0.1, 1.0)
    assert (group.name, group.weight_decay) == ("all", 0.0)
    assert set(kinds(net).values()) == {"norm"}
    assert [g.weight_decay for g in decay_groups(net, 0.1, 1.0, norm=True)] == [0.1]


@pytest.mark.parametrize("model", ["resnet9", "resnet18"])
def test_batch_norms_have_no_weight_decay_whatever_they_are_called(model):
    net = small(model)
    inside = names(net, decay_groups(net, 0.1, 1.0))
    of_norms = {
        f"{name}.{leaf}"
        for name, module in net.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for leaf in ("weight", "bias")
    }
    assert of_norms <= set(inside["no_decay"])
    assert set(inside["no_decay"]) - of_norms <= {"head.bias"}


def test_biases_norms_and_embeddings_are_each_switchable():
    net = small("gpt")
    spared = {
        switch: set(names(net, decay_groups(net, 0.1, 1.0, **{switch: True})).get("no_decay", []))
        for switch in ("bias", "norm", "embedding")
    }
    everything = set(names(net, decay_groups(net, 0.1, 1.0))["no_decay"])
    switched = {switch: everything - left for switch, left in spared.items()}
    assert switched["embedding"] == {"tokens.weight", "positions.weight"}
    assert switched["norm"] == {name for name in everything if "norm" in name}
    assert switched["bias"] == {name for name in everything if name.endswith("bias") and "norm" not in name}
    assert switched["bias"] | switched["norm"] | switched["embedding"] == everything
    (group,) = decay_groups(net, 0.1, 1.0, bias=True, norm=True, embedding=True)
    assert (group.name, group.weight_decay) == ("all", 0.1)


def test_a_weight_tied_to_an_embedding_counts_as_one_whichever_comes_first():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.bag = nn.Linear(3, 5, bias=False), nn.EmbeddingBag(5, 3)
            self.bag.weight = self.head.weight

    net = Tied()
    assert list(kinds(net).values()) == ["embedding"]
    assert list(kinds(small("gpt")).values()).count("embedding") == 2


def test_the_biases_of_attention_and_recurrence_are_biases():
    net = nn.ModuleList([nn.MultiheadAttention(4, 2, add_bias_kv=True), nn.LSTM(2, 3)])
    found = {name: kinds(net)[id(parameter)] for name, parameter in net.named_parameters()}
    assert {name for name, kind in found.items() if kind == "bias"} == {name for name in found if "bias" in name}
    assert {name for name, kind in found.items() if kind == "matrix"} == {name for name in found if "weight" in name}


def test_groups_and_parameters_come_in_the_order_of_the_net():
    net = small("resnet18")
    order = [name for name, _ in net.named_parameters()]
    for inside in names(net, decay_groups(net, 0.1, 1.0)).values():
        assert inside == sorted(inside, key=order.index)


@pytest.mark.parametrize(
    ("weight_decay", "apart", "expected"),
    [
        (0.1, False, [("decay", 0.1), ("no_decay", 0.0)]),
        (0.0, False, [("all", 0.0)]),
        (None, False, [("all", None)]),
        (0.0, True, [("decay", 0.0), ("no_decay", 0.0)]),
        (None, True, [("decay", None), ("no_decay", None)]),
    ],
)
def test_there_is_one_group_without_weight_decay_unless_they_are_kept_apart(weight_decay, apart, expected):
    groups = decay_groups(MLP(4, 2), weight_decay, 1.0, apart=apart)
    assert [(group.name, group.weight_decay) for group in groups] == expected


# Coverage.


def test_a_parameter_that_no_group_or_that_two_groups_claim_is_refused_by_name():
    net = MLP(4, 2, (3,))
    first, second, *rest = net.parameters()
    with pytest.raises(ConfigError, match=r"no group claims layers\.1\.bias\b"):
        check_coverage(net, [Group("a", [first, *rest])])
    with pytest.raises(ConfigError, match=r"layers\.1\.weight is claimed by a and by b"):
        check_coverage(net, [Group("a", [first, second]), Group("b", [first, *rest])])
    with pytest.raises(ConfigError, match="is not unique"):
        check_coverage(net, [Group("a", [first, second]), Group("a", rest)])


# Patterns.


def test_a_pattern_takes_its_parameters_out_of_the_default_groups():
    net = small("resnet18")
    entry = {"name": "head", "match": "head.*", "lr_mult": 10.0, "clip": 0.5, "schedule": "constant"}
    groups = pattern_groups(net, 0.1, 0.01, patterns=[entry])
    check_coverage(net, groups)
    assert [(group.name, group.weight_decay, group.lr_mult) for group in groups] == [
        ("decay", 0.1, 1.0),
        ("no_decay", 0.0, 1.0),
        ("head", 0.1, 10.0),
        ("head_no_decay", 0.0, 10.0),
    ]
    assert names(net, groups)["head_no_decay"] == ["head.bias"]
    assert {(group.clip, group.schedule) for group in groups[2:]} == {(0.5, "constant")}


def test_a_pattern_of_one_kind_is_one_group_and_may_have_a_weight_decay_of_its_own():
    net = MLP(4, 2, (3,))
    patterns = [{"name": "out", "match": "layers.4.weight", "weight_decay": 0.5}, {"name": "b", "match": "*.bias"}]
    groups = pattern_groups(net, 0.1, 0.01, patterns=patterns)
    assert [(group.name, group.weight_decay) for group in groups] == [("rest", 0.1), ("out", 0.5), ("b", 0.0)]


def test_an_optimizer_of_a_pattern_brings_its_own_rate_and_weight_decay():
    net = MLP(4, 2, (3,))
    entry = {"name": "out", "match": "layers.4.*", "lr_mult": 2.0, "optimizer": ADAMW}
    groups = pattern_groups(net, 0.1, 0.03, patterns=[entry])
    out = [group for group in groups if group.name.startswith("out")]
    assert [(group.lr_mult, group.weight_decay) for group in out] == [(2.0 * (0.003 / 0.03), 0.05), (0.2, 0.0)]
    assert all(group.optimizer is ADAMW for group in out)
    (plain,) = pattern_groups(net, 0.1, 0.5, patterns=[{**entry, "match": "*", "optimizer": torch.optim.Rprop}])
    assert (plain.lr_mult, plain.weight_decay) == (2.0 * (0.01 / 0.5), None)


def test_a_tied_parameter_goes_by_each_of_its_names():
    net = small("gpt")
    groups = pattern_groups(net, 0.1, 0.01, patterns=[{"name": "head", "match": "head.*"}])
    assert names(net, groups)["head"] == ["tokens.weight"]
    with pytest.raises(ConfigError, match=r"'tokens\.\*' of a and 'head\.\*' of b both match head\.weight"):
        pattern_groups(net, 0.1, 0.01, patterns=[{"name": "a", "match": "tokens.*"}, {"name": "b", "match": "head.*"}])


@pytest.mark.parametrize(
    ("patterns", "told"),
    [
        ([{"name": "head", "match": "haed.*"}], r"'haed\.\*' of head matches no trainable parameter of MLP"),
        (
            [{"name": "a", "match": "layers.1.*"}, {"name": "b", "match": "*.bias"}],
            r"'layers\.1\.\*' of a and '\*\.bias' of b both match layers\.1\.bias",
        ),
        ([{"name": "a", "match": "*", "lr_mul": 2.0}], r"patterns\.0\.lr_mul is not known: did you mean lr_mult\?"),
        ([{"match": "*"}], r"patterns\.0\.name=None is not a text"),
        ([{"name": "a"}], r"patterns\.0\.match=None is not a text"),
        ([{"name": "a b", "match": "*"}], "use letters, digits and _ only"),
        ([{"name": "a", "match": "*", "lr_mult": -1.0}], r"lr_mult=-1\.0 is out of range"),
        ([{"name": "a", "match": "*", "clip": 0.0}], r"clip=0\.0 must be above zero"),
        ([{"name": "a", "match": "*", "weight_decay": float("nan")}], "weight_decay=nan is not a finite number"),
        ([{"name": "a", "match": "*", "schedule": ADAMW}], "schedule is an object"),
        ([{"name": "a", "match": "*", "optimizer": "adam"}], "_partial_: true"),
        (["head.*"], "is not a pattern"),
    ],
)
def test_a_pattern_that_cannot_be_meant_is_refused(patterns, told):
    with pytest.raises(ConfigError, match=told):
        pattern_groups(MLP(4, 2, (3,)), 0.1, 0.01, patterns=patterns)


def test_a_weight_decay_that_the_optimizer_does_not_know_is_refused():
    with pytest.raises(ConfigError, match=r"weight_decay=0\.1, but the optimizer has none"):
        pattern_groups(MLP(4, 2), None, 0.1, patterns=[{"name": "a", "match": "*", "weight_decay": 0.1}])


# Stages.
