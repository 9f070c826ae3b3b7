"""The residual nets must have the published sizes, and zero_gamma must give identities that can still learn."""

import pytest
import torch
import torch.nn.functional as F

from models.resnet import Residual, ResNet9, ResNet18

NETS = [ResNet9, ResNet18]


def parameters(net: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def test_the_sizes_are_those_computed_by_hand() -> None:
    convolutions = [3 * 64, 64 * 128, 128 * 128, 128 * 128, 128 * 256, 256 * 512, 512 * 512, 512 * 512]
    norms = [64, 128, 128, 128, 256, 512, 512, 512]
    assert parameters(ResNet9(3, 10)) == 9 * sum(convolutions) + 2 * sum(norms) + 512 * 10 == 6_573_120
    assert parameters(ResNet18(3, 10)) == 11_173_962


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize(("channels", "side"), [(3, 32), (1, 8)])
def test_it_takes_colour_photographs_and_small_digits(net: type, channels: int, side: int) -> None:
    assert net(channels, 7, width=8)(torch.randn(4, channels, side, side)).shape == (4, 7)


@pytest.mark.parametrize("net", NETS)
def test_it_runs_in_bfloat16_and_channels_last_with_finite_gradients(net: type) -> None:
    model = net(3, 10, width=8).to(memory_format=torch.channels_last)
    images = torch.randn(4, 3, 32, 32).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(images)
    assert logits.dtype == torch.bfloat16
    logits.float().square().mean().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@pytest.mark.parametrize("training", [True, False])
def test_with_zero_gamma_a_block_starts_as_the_identity_on_what_a_relu_gave(training: bool) -> None:
    inputs = torch.randn(4, 6, 5, 5).relu()
    assert torch.equal(Residual(6, 6, zero_gamma=True).train(training)(inputs), inputs)
    assert not torch.equal(Residual(6, 6).train(training)(inputs), inputs)


def test_with_zero_gamma_a_block_that_changes_the_shape_starts_as_its_shortcut() -> None:
    block, inputs = Residual(6, 12, stride=2, zero_gamma=True).eval(), torch.randn(4, 6, 8, 8)
    assert torch.equal(block(inputs), F.relu(block.shortcut(inputs)))


@pytest.mark.parametrize(("net", "blocks"), [(ResNet9, 2), (ResNet18, 8)])
def test_zero_gamma_reaches_every_block_and_every_zero_can_learn(net: type, blocks: int) -> None:
    model = net(3, 10, width=8, zero_gamma=True)
    residuals = [module for module in model.modules() if isinstance(module, Residual)]
    model(torch.randn(8, 3, 32, 32)).square().mean().backward()
    assert len(residuals) == blocks
    for block in residuals:
        assert not block.branch[-1].weight.any()
        assert block.branch[-1].weight.grad.any()


def test_the_head_of_resnet9_is_scaled_by_an_eighth() -> None:
    model, images = ResNet9(3, 10, width=8).eval(), torch.randn(2, 3, 32, 32)
    assert torch.equal(model(images), model.head(model.features(images).amax((2, 3))) / 8)


@pytest.mark.parametrize("net", NETS)
def test_a_net_without_channels_is_refused_in_one_line(net: type) -> None:
    with pytest.raises(ValueError, match="model.width=0") as error:
        net(3, 10, width=0)
    assert "\n" not in str(error.value)
