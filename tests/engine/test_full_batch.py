"""Gradient descent: with `trainer.accumulate=all` an update sees each training sample exactly once."""

import pytest
import torch

from trainer.lr import ConfigError
from trainer.run import fit

DESCENT = ("optimizer=gd", "trainer.duration=5", "warmup=none")


def trained(assembled, batch, folder):
    """The weights, in float64, after five updates on batches of this size."""
    words = (*DESCENT, "trainer.accumulate=all", f"data.batch_size={batch}", "model.hidden=[16]", "logger=none")
    assembly = assembled(*words, "trainer.validate=5", folder=folder)
    net = assembly.module.net.double()
    net.register_forward_pre_hook(lambda module, inputs: (inputs[0].double(),))
    assert assembly.module.horizon.batch_size == 1257
    fit(assembly)
    return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])


def test_descent_over_accumulated_batches_equals_one_full_batch(assembled):
    whole, thirds = trained(assembled, 1257, "whole"), trained(assembled, 419, "thirds")
    assert (whole - thirds).abs().max().item() < 1e-12
    assert not torch.equal(whole, torch.zeros_like(whole))


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["data.batch_size=32"], "take data.batch_size=1 or 3 or 419"),
        (["data.batch_size=419", "trainer.devices=2"], "take another number of devices"),
        (["data.samples=null"], "set data.samples"),
    ],
)
def test_batches_that_do_not_make_up_the_training_set_are_refused(assembled, overrides, says):
    with pytest.raises(ConfigError, match=says):
        assembled(*DESCENT, "trainer.accumulate=all", *overrides)


def test_descent_on_batches_that_are_less_than_the_training_set_is_refused(assembled):
    with pytest.raises(ConfigError, match="set trainer.accumulate=all"):
        assembled("optimizer=gd", "trainer.accumulate=3", "data.batch_size=419")
    with pytest.raises(ConfigError, match="take data.batch_size=1 or 3 or 419"):
        assembled("optimizer=gd")
