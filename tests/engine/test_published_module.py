"""A module of a published library trains unchanged by config, to the bits of Lightning's own trainer.

The library is TabularS3L (`ts3l`), which adds no other package: self-supervised learning on tables, here VIME (Yoon et
al. 2020). Its modules set their steps and hooks as attributes, log in `on_validation_start`, have BatchNorm and
dropout, and read tables by a data set of the library.
"""

import pytest
import torch

from tests.engine.test_lightning import same, stock
from trainer.checkpoint.io import checkpoint_path
from trainer.log.validations import read_validations
from trainer.run import fit

pytest.importorskip("ts3l", reason="ts3l is not installed")
CONFIG = "+model.config"
VIME = (
    *("task=lightning", "model=own", "model._target_=ts3l.pl_modules.VIMELightning", "allow=[ts3l,tests]"),
    *(f"{CONFIG}._target_=ts3l.utils.vime_utils.VIMEConfig", f"{CONFIG}.task=classification", f"{CONFIG}.output_dim=2"),
    *(f"{CONFIG}.cat_cardinality=[3,2]", f"{CONFIG}.num_continuous=6", f"{CONFIG}.loss_fn=CrossEntropyLoss"),
    f"{CONFIG}.embedding_config._target_=ts3l.utils.embedding_utils.IdentityEmbeddingConfig",
    f"{CONFIG}.embedding_config.input_dim=8",
    f"{CONFIG}.backbone_config._target_=ts3l.utils.backbone_utils.MLPBackboneConfig",
    *(f"{CONFIG}.backbone_config.input_dim=8", f"{CONFIG}.backbone_config.hidden_dims=32"),
    *(f"{CONFIG}.optim=AdamW", f"{CONFIG}.optim_hparams={{lr: 0.003, weight_decay: 5e-5}}"),
    *("optimizer=module", "trainer.duration=5ep", "logger=none", "trainer.keep=0"),
    *("~data", "+data._target_=tests.engine.published.MaskedTable", "+data.batch_size=50", "+data.samples=400"),
)


def test_weights_and_scores_are_those_of_lightnings_own_trainer(assembled):
    words = (*VIME, "schedule=constant")
    net, trainer = stock(assembled(*words, "trainer.validate=1000", folder="stock"), None)
    run = assembled(*words)
    fit(run)
    assert same(run.module.net, net)
    for name in ("val_loss", "train_loss"):
        ours = run.module.net.trainer.callback_metrics[name].item()
        assert ours == pytest.approx(trainer.callback_metrics[name].item(), rel=1e-5), name


def test_it_learns_by_a_schedule_and_resumes_to_the_same_bits(assembled):
    words = (*VIME, "schedule=cosine", "warmup=linear", "warmup.duration=5", "trainer.checkpoint=5")
    whole = assembled(*words)
    fit(whole)
    losses = [line["val/loss"] for line in read_validations(whole.folder)]
    assert losses[-1] < 0.8 * losses[0]
    for t in (5, 16):
        resumed = assembled(*words, folder=f"from{t}", resumed=checkpoint_path(whole.checkpointing.folder, t))
        fit(resumed)
        assert same(whole.module, resumed.module), t
    assert all(torch.isfinite(value).all() for value in whole.module.net.state_dict().values())
