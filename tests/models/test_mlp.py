"""The perceptron's shapes and size are computed by hand, so that a change of architecture is seen."""

import pytest
import torch

from models.mlp import MLP


def parameters(net: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def test_it_flattens_what_it_gets() -> None:
    net = MLP(64, 10)
    assert net(torch.randn(5, 1, 8, 8)).shape == (5, 10)
    assert net(torch.randn(5, 64)).shape == (5, 10)


def test_it_has_a_layer_for_each_width() -> None:
    assert parameters(MLP(64, 10, hidden=(32, 16))) == (64 * 32 + 32) + (32 * 16 + 16) + (16 * 10 + 10)
    assert parameters(MLP(64, 10, hidden=())) == 64 * 10 + 10


def test_it_is_not_linear() -> None:
    net, x = MLP(4, 2).double(), torch.randn(3, 4, dtype=torch.float64)
    assert not torch.allclose(net(x) + net(-x), 2 * net(torch.zeros_like(x)))


def test_dropout_acts_in_training_only() -> None:
    net, x = MLP(4, 2, dropout=0.5), torch.randn(3, 4)
    assert not torch.equal(net(x), net(x))
    assert torch.equal(net.eval()(x), net(x))


@pytest.mark.parametrize("wrong", [{"hidden": (4, 0)}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_a_wrong_number_is_refused_in_one_line(wrong: dict) -> None:
    with pytest.raises(ValueError, match=f"model.{next(iter(wrong))}=") as error:
        MLP(4, 2, **wrong)
    assert "\n" not in str(error.value)


def test_a_gain_scales_hes_initialisation_and_sets_the_biases_to_zero() -> None:
    torch.manual_seed(0)
    net = MLP(64, 10, hidden=(400, 400), gain=2.5)
    for layer in (layer for layer in net.layers if isinstance(layer, torch.nn.Linear)):
        assert layer.weight.std().item() == pytest.approx(2.5 * (2 / layer.in_features) ** 0.5, rel=0.05)
        assert not layer.bias.any()


def test_without_a_gain_the_weights_are_those_that_pytorch_draws() -> None:
    torch.manual_seed(0)
    net = MLP(64, 10, hidden=(8,))
    torch.manual_seed(0)
    first, last = torch.nn.Linear(64, 8), torch.nn.Linear(8, 10)
    assert torch.equal(net.layers[1].weight, first.weight)
    assert torch.equal(net.layers[-1].weight, last.weight)
    assert not any("BatchNorm" in type(layer).__name__ for layer in net.layers)


def test_batch_norm_comes_before_each_relu_and_belongs_to_its_layer() -> None:
    net = MLP(64, 10, hidden=(16, 8), norm="batch")
    kinds = [type(layer).__name__ for layer in net.layers]
    assert kinds == ["Flatten", *2 * ["Linear", "BatchNorm1d", "ReLU", "Dropout"], "Linear"]
    assert [[type(part).__name__ for part in stage] for stage in net.stages()] == [
        *2 * [["Linear", "BatchNorm1d"]],
        ["Linear"],
    ]
    hidden = net.layers[:3](torch.randn(50, 64))
    assert hidden.mean(0).abs().max() < 1e-5
    assert hidden.std(0, correction=0).min() > 0.99


@pytest.mark.parametrize("wrong", [{"norm": "layer"}, {"gain": 0.0}, {"gain": -1.0}, {"gain": float("nan")}])
def test_a_wrong_norm_or_gain_is_refused_in_one_line(wrong: dict) -> None:
    with pytest.raises(ValueError, match=f"model.{next(iter(wrong))}=") as error:
        MLP(4, 2, **wrong)
    assert "\n" not in str(error.value)


def test_stages_keep_norms_that_have_been_exchanged_for_those_of_several_processes() -> None:
    net = torch.nn.SyncBatchNorm.convert_sync_batchnorm(MLP(64, 10, [32], norm="batch"))
    assert [[type(part).__name__ for part in stage] for stage in net.stages()] == [
        ["Linear", "SyncBatchNorm"],
        ["Linear"],
    ]
