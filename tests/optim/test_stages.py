"""Groups by the stages of a model: layer-wise decay, backbone and head, hidden matrices, rates by width."""

from functools import partial

import pytest
import torch
from pytorch_optimizer import Muon
from torch import nn

from models.gpt import GPT
from models.mlp import MLP
from models.resnet import ResNet9, ResNet18
from tests.optim.test_groups import names, small
from trainer.lr import ConfigError
from trainer.optim.composite import assembled
from trainer.optim.groups import check_coverage
from trainer.optim.kinds import kinds
from trainer.optim.layers import backbone_head, layer_decay
from trainer.optim.matrices import matrix_groups, width_groups
from trainer.optim.stages import stages

ADAMW = partial(torch.optim.AdamW, lr=0.003, weight_decay=0.05)


@pytest.mark.parametrize(("model", "count"), [("mlp", 3), ("gpt", 4), ("resnet9", 7), ("resnet18", 10)])
def test_a_shipped_model_gives_its_stages_from_input_to_output(model, count):
    found = stages(small(model))
    assert len(found) == count
    assert all(found)
    once = [id(parameter) for stage in found for parameter in stage]
    assert len(set(once)) == len(once)


def test_a_model_that_gives_no_stages_is_taken_child_by_child():
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
            self.blocks = nn.Sequential(nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU()), nn.Conv2d(4, 4, 3))
            self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(4, 2)

    net = Plain()
    groups = layer_decay(net, 0.0, 1.0, decay=0.5)
    assert names(net, groups) == {
        "layer_00": ["stem.weight", "stem.bias", "norm.weight", "norm.bias"],
        "layer_01": ["blocks.0.0.weight", "blocks.0.0.bias"],
        "layer_02": ["blocks.1.weight", "blocks.1.bias"],
        "layer_03": ["head.weight", "head.bias"],
    }
    assert [group.lr_mult for group in groups] == [0.125, 0.25, 0.5, 1.0]


def test_a_module_called_stages_is_a_child_like_any_other():
    class Staged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stages = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))

    assert len(stages(Staged())) == 2


def test_parameters_in_no_stage_are_refused_by_name_and_may_be_given_as_they_are():
    class WithScale(MLP):
        def __init__(self) -> None:
            super().__init__(4, 2, (3,))
            self.scale = nn.Parameter(torch.zeros(1, 1, 4))

    class Covering(WithScale):
        def stages(self):
            return [[self.scale, *super().stages()[0]], *super().stages()[1:]]

    with pytest.raises(ConfigError, match="scale of WithScale belongs to no stage"):
        layer_decay(WithScale(), 0.1, 1.0)
    check_coverage(net := Covering(), layer_decay(net, 0.1, 1.0))


@pytest.mark.parametrize("given", [[], None, [nn.Linear(2, 2)], [[nn.Linear(2, 2)]], [["layers"]]])
def test_stages_that_are_no_lists_of_the_models_own_modules_are_refused(given):
    odd = type("Odd", (MLP,), {"stages": lambda self: given})(4, 2)
    with pytest.raises(ConfigError, match=r"Odd\.stages\(\)"):
        stages(odd)


# Layer decay, backbone and head.


def test_the_head_has_multiplier_one_and_each_stage_before_it_a_share_more():
    net = small("gpt")
    groups = layer_decay(net, 0.1, 1.0, decay=0.5, lowest=0.2)
    assert [(group.name, group.lr_mult, group.weight_decay) for group in groups] == [
        ("layer_00", 0.2, 0.0),
        ("layer_01", 0.25, 0.1),
        ("layer_01_no_decay", 0.25, 0.0),
        ("layer_02", 0.5, 0.1),
        ("layer_02_no_decay", 0.5, 0.0),
        ("layer_03", 1.0, 0.0),
    ]
    assert names(net, groups)["layer_00"] == ["tokens.weight", "positions.weight"]


@pytest.mark.parametrize("setting", [{"decay": 0.0}, {"decay": 1.5}, {"lowest": -0.1}, {"decay": float("nan")}])
def test_a_layer_decay_out_of_range_is_refused(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        layer_decay(MLP(4, 2), 0.1, 1.0, **setting)


def test_all_but_the_last_stage_is_the_backbone():
    net = small("resnet18")
    groups = backbone_head(net, 0.1, 1.0)
    assert [(group.name, group.lr_mult) for group in groups] == [
        ("backbone", 0.1),
        ("backbone_no_decay", 0.1),
        ("head", 1.0),
        ("head_no_decay", 1.0),
    ]
    assert names(net, groups)["head"] == ["head.weight"]
    with pytest.raises(ConfigError, match="MLP has no backbone before its last stage"):
        backbone_head(MLP(4, 2, ()), 0.1, 1.0)


# Matrices and widths.


def test_hidden_matrices_are_neither_embeddings_nor_of_the_head_nor_vectors():
    net = small("gpt")
    groups = matrix_groups(net, 0.1, 0.03, optimizer=ADAMW)
    inside = names(net, groups)
    assert inside["hidden"] == [name for name, p in net.named_parameters() if "blocks" in name and p.ndim == 2]
    assert {"tokens.weight", "positions.weight"} <= set(inside["rest"])
    assert [(g.lr_mult, g.weight_decay, g.optimizer) for g in groups] == [(1.0, 0.1, None), (0.1, 0.0, ADAMW)]


def test_kernels_of_convolutions_are_hidden_by_choice_only():
    net = small("resnet18")
    inside = names(net, matrix_groups(net, 0.1, 0.03, optimizer=ADAMW, convs=True))
    assert inside["hidden"] == [name for name, p in net.named_parameters() if p.ndim == 4]
    assert inside["rest"] == ["head.weight"]
    with pytest.raises(ConfigError, match=r"ResNet18 has no hidden matrix.*convs=true"):
        matrix_groups(net, 0.1, 0.03, optimizer=ADAMW)


@pytest.mark.parametrize(
    ("make", "hidden", "head"),
    [
        (lambda width: MLP(64, 10, (width, width)), ["layers.4.weight"], ["layers.7.weight"]),
        (lambda width: GPT(65, 8, layers=1, heads=1, width=width), None, None),
        (lambda width: ResNet9(3, 10, width), None, ["head.weight"]),
        (lambda width: ResNet18(3, 10, width), None, ["head.weight"]),
    ],
)
@pytest.mark.parametrize("width", [4, 8, 16])
def test_hidden_matrices_and_the_head_learn_at_base_over_width_and_all_else_at_one(make, hidden, head, width):
    net = make(width)
    groups = width_groups(net, 0.1, 1.0, base_width=8)
    inside = names(net, groups)
    mult = {name: group.lr_mult for group in groups for name in inside[group.name]}
    assert hidden is None or inside["hidden"] == hidden
    assert inside.get("head") == head
    ratio = {name: mult[name] for name in inside["hidden"] + (head or [])}
    assert set(ratio.values()) == {8 / width}
    assert {mult[name] for name in mult.keys() - ratio.keys()} == {1.0}
    wider = dict(make(2 * width).named_parameters())
    for name, parameter in net.named_parameters():
        widens = parameter.ndim >= 2 and wider[name].shape[1] == 2 * parameter.shape[1]
        assert (name in ratio) == (widens and kinds(net)[id(parameter)] == "matrix"), name


def test_kernels_of_convolutions_are_stepped_by_a_muon_that_flattens_them():
    net = small("resnet9")
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    groups = matrix_groups(net, 0.0, 0.02, optimizer=ADAMW, convs=True)
    for parameter in net.parameters():
        parameter.grad = torch.randn_like(parameter)
    assembled(groups, partial(Muon, lr=0.02)).step()
    assert all((before[name] != parameter).any() for name, parameter in net.named_parameters())
    kernel = net.features[1][0].weight
    step = (before["features.1.0.weight"] - kernel).flatten(1)
    assert torch.linalg.svdvals(step).min() > 0.4 * torch.linalg.svdvals(step).max()
