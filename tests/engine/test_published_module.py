"""Modules of published libraries train unchanged by config, to the bits of Lightning's own trainer.

TabularS3L (`ts3l`, on `pytorch_lightning`) adds no other package: self-supervised learning on tables, here VIME (Yoon
et al. 2020). Its modules set their steps and hooks as attributes, log in `on_validation_start`, have BatchNorm and
dropout, and read tables by a data set of the library. mlcolvar (`mlcolvar`, on `lightning.pytorch`) adds only KDEpy,
4 MB together: slow coordinates of a trajectory, here Deep-TICA (Bonati et al. 2021). Its batches are dictionaries, its
loss takes eigenvalues of the whole batch, and each step, of validation too, stores them in the module. Chemprop
(`chemprop`, on `lightning.pytorch`) predicts numbers of molecules (Heid et al. 2024). Its batches are graphs in named
tuples, its loss is an object of torchmetrics that it logs, and its own optimizer has a scheduler. It brings RDKit, so
it is tested where it is installed, and not by `make setup`.
"""

import importlib.util

import pytest
import torch

from tests.engine.test_lightning import same, stock
from trainer.checkpoint.io import checkpoint_path
from trainer.log.validations import read_validations
from trainer.lr import ConfigError
from trainer.run import fit
from trainer.tools.trained.batches import batches_of

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
TICA = (
    *("task=lightning", "model=own", "model._target_=mlcolvar.cvs.DeepTICA", "allow=[mlcolvar,tests]"),
    *("+model.layers=[3,16,16,2]", "+model.n_cvs=1", "+model.options.norm_in=false", "+model.options.nn.dropout=0.05"),
    *("+model.options.optimizer={lr: 0.003, weight_decay: 1e-5}", "task.monitor=valid_loss", "task.mode=min"),
    *("optimizer=module", "trainer.duration=10ep", "logger=none", "trainer.keep=0", "data=dataset"),
    *("data.train={_target_: tests.engine.published.lagged_pairs, count: 600, seed: 0}", "data.batch_size=100"),
    *("data.val={_target_: tests.engine.published.lagged_pairs, count: 300, seed: 1}", "data.eval_batch_size=300"),
)
TICA_OWN_DATA = (
    *(word for word in TICA if not word.startswith("data")),
    *("data=lightning", "data.module={_target_: tests.engine.published.lagged_module, batch_size: ${data.batch_size}}"),
    *("data.batch_size=100", "data.eval_batch_size=300"),
)
MPNN = (
    *("task=lightning", "model=own", "model._target_=chemprop.models.MPNN", "allow=[chemprop,tests]"),
    *("+model.message_passing._target_=chemprop.nn.BondMessagePassing", "+model.message_passing.d_h=32"),
    *("+model.agg._target_=chemprop.nn.MeanAggregation", "+model.batch_norm=true", "+model.init_lr=0.003"),
    *("+model.predictor._target_=chemprop.nn.RegressionFFN", "+model.predictor.input_dim=32"),
    *("task.step.ignore=[lr_scheduler]", "optimizer=module", "trainer.duration=6ep", "logger=none", "trainer.keep=0"),
    *("~data", "+data._target_=tests.engine.published.Molecules", "+data.batch_size=36", "+data.samples=360"),
)


def adam(parameters):
    """Chemprop's optimizer, without its scheduler."""
    return torch.optim.Adam(parameters, 0.003)


def needs(package):
    return pytest.mark.skipif(not importlib.util.find_spec(package), reason=f"{package} is not installed")


EACH = pytest.mark.parametrize(
    ("words", "package", "optimizer"),
    [
        pytest.param(VIME, "pytorch_lightning", None, marks=needs("ts3l"), id="ts3l"),
        pytest.param(TICA, "lightning.pytorch", None, marks=needs("mlcolvar"), id="mlcolvar"),
        pytest.param(MPNN, "lightning.pytorch", adam, marks=needs("chemprop"), id="chemprop"),
    ],
)


@pytest.mark.sample(1)
@EACH
def test_weights_and_scores_are_those_of_lightnings_own_trainer(assembled, words, package, optimizer):
    words = (*words, "schedule=constant")
    first = assembled(*words, "trainer.validate=1000", folder="stock")
    net, trainer = stock(first, optimizer, package)
    run = assembled(*words)
    fit(run)
    assert same(run.module.net, net)
    known, scored = run.module.net.trainer.callback_metrics, trainer.callback_metrics
    names = {"val_loss", "train_loss", "val/mse", "valid_loss_epoch", "valid_eigval_1_epoch"} & scored.keys()
    assert names
    for name in names:
        assert known[name].item() == pytest.approx(scored[name].item(), rel=1e-5), name


@pytest.mark.sample(1)
@EACH
def test_it_learns_by_a_schedule_and_resumes_to_the_same_bits(assembled, words, package, optimizer):
    words = (*words, "schedule=cosine", "warmup=linear", "warmup.duration=5", "trainer.checkpoint=5")
    whole = assembled(*words)
    fit(whole)
    losses = [line["val/loss"] for line in read_validations(whole.folder)]
    assert losses[-1] < losses[0] - 0.2 * abs(losses[0])
    for t in (5, 20):
        resumed = assembled(*words, folder=f"from{t}", resumed=checkpoint_path(whole.checkpointing.folder, t))
        fit(resumed)
        assert same(whole.module, resumed.module), t


@needs("mlcolvar")
def test_a_data_module_of_a_library_with_loaders_of_its_own_class_trains_and_resumes(assembled):
    whole = assembled(*TICA_OWN_DATA, "trainer.duration=3ep", "trainer.checkpoint=5")
    data = whole.data
    assert [None if part is None else len(part) for part in data.splits] == [600, 300, None]
    loader, (batch,) = data.module.val_dataloader(), data.val_dataloader()
    assert type(loader).__name__ == "DictLoader"
    assert batch.keys() == {"data", "data_lag", "weights", "weights_lag"}
    assert all(torch.equal(batch[name], loader.dataset[name]) for name in batch)
    fit(whole)
    resumed = assembled(
        *TICA_OWN_DATA, "trainer.duration=3ep", folder="on", resumed=checkpoint_path(whole.checkpointing.folder, 5)
    )
    fit(resumed)
    assert same(whole.module, resumed.module)
    with pytest.raises(ConfigError, match="this data module has no test data"):
        batches_of(data.module, 100, stage="predict")
