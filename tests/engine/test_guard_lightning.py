"""The divergence guard with a LightningModule, and with one that steps its optimizers itself."""

import math

import pytest
import torch

from tests.engine.test_lightning import LIT, MODULES
from tests.engine.test_manual_update import GAN
from trainer.checkpoint.io import checkpoint_path
from trainer.lr import ConfigError
from trainer.run import fit

SHORT = ("trainer.duration=40", "trainer.validate=20", "trainer.checkpoint=6", "trainer.steps_per_execution=7")
CLASSIFIER = (*(word for word in LIT if "duration" not in word), f"{MODULES}Classifier", *SHORT)
ADVERSARIAL = (*(word for word in GAN if "duration" not in word), *SHORT)
BAD = 22


def poisoned(parts):
    """The run, with a NaN in each input of one batch."""
    order = parts.data._order(parts.data.splits.train)
    seed = order.micro_seed(BAD, 0)
    parts.data.augment = lambda inputs, one: inputs * math.nan if one == seed else inputs
    return parts


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.module.net.parameters(), other.module.net.parameters()))


def test_a_batch_that_a_module_is_not_given_leaves_no_trace(assembled):
    skipped, without = poisoned(assembled(*CLASSIFIER, "guard=skip")), assembled(*CLASSIFIER, folder="without")
    without.module.clock.left_out[:] = [BAD]
    fit(skipped)
    fit(without)
    assert skipped.module.clock.left_out == [BAD]
    assert same(skipped, without)


@pytest.mark.parametrize("words", [CLASSIFIER, ADVERSARIAL], ids=["automatic", "by hand"])
def test_a_module_rolls_back_and_a_resume_has_its_bits(assembled, words):
    words = (*words, "guard=rollback", "guard.rewarm=10")
    rolled = poisoned(assembled(*words))
    fit(rolled)
    assert rolled.module.clock.left_out == [BAD]
    again = assembled(*words, folder="again", resumed=checkpoint_path(rolled.folder / "checkpoints", 24))
    fit(again)
    assert same(rolled, again)


def test_a_module_that_steps_its_optimizers_itself_cannot_skip(assembled):
    with pytest.raises(ConfigError, match=r"guard=skip: Adversarial steps its optimizers itself.* guard=rollback"):
        assembled(*ADVERSARIAL, "guard=skip")
