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
    with pytest.raises(ValueError, match=f"model.{next(iter(wrong))}=") as refusal:
        MLP(4, 2, **wrong)
    assert "\n" not in str(refusal.value)
