"""What would end a run is told before it: a LightningModule, labels and weights are tried on one batch."""

import pytest
import torch
from torch import nn

from data.module import DataModule, Splits
from data.source import Memory, Workers
from tests.engine.test_lightning import LIT, MODULES, same
from tests.engine.test_metrics import SMALL
from trainer.engine.step import ModelStep
from trainer.lr import ConfigError
from trainer.run import fit

BAD = 77


def test_the_rehearsal_of_a_lightning_module_changes_nothing_and_logs_nothing(assembled, monkeypatch):
    words = [*(word for word in LIT if word != "logger=none"), f"{MODULES}Rehearsed", "callbacks=none"]
    runs = []
    for rehearsed in (True, False):
        if not rehearsed:
            monkeypatch.setattr("trainer.engine.module.rehearse", lambda trainer, module: None)
        run = assembled(*words, folder=f"run{rehearsed}")
        fit(run)
        runs.append(run)
    first, second = (run.module.net for run in runs)
    assert same(first, second)
    assert (len(first.losses), first.total, first.told) == (len(second.losses), second.total, second.told)
    assert torch.equal(first.draws.get_state(), second.draws.get_state())
    scores = [run.checkpointing.best["scores"] for run in runs]
    assert scores[0] == scores[1]
    assert "val/count" in scores[0]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((f"{MODULES}Classifier", "task.monitor=val_aux", "task.mode=max"), "task.monitor=aux is not logged"),
        ((f"{MODULES}WrongShape",), "a val batch cannot be scored, before the first update at .*lightning_modules.py"),
        (
            (f"{MODULES}Classifier", "callbacks=early_stopping", "callbacks.early_stopping.monitor=val_loss"),
            "EarlyStopping.monitor=val_loss is not computed: choose one of val/loss",
        ),
    ],
)
def test_a_lightning_module_that_cannot_be_scored_is_refused_before_the_first_update(assembled, words, told):
    run = assembled(*LIT, *words)
    with pytest.raises(ConfigError, match=told):
        fit(run)
    assert run.module.clock.t == 0


class Labelled(DataModule):
    """Random pairs of which training sample `at` has the label `label`; read by a worker where `kept` names how."""

    def __init__(self, *, at=150, label=BAD, kept=None, split="train", **base):
        super().__init__(**base)
        self.at, self.label, self.kept, self.split = at, label, kept, split

    @property
    def shape(self):
        return {"in_features": 4, "classes": 3}

    def read(self):
        inputs = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
        targets = (inputs[:, 0] > 0).long()
        found = {name: (inputs, targets.clone()) for name in ("train", "val")}
        found[self.split][1][self.at] = self.label
        return Splits(*(self._source(*pair) for pair in found.values()))

    def _source(self, inputs, targets):
        if self.kept is None:
            return Memory((inputs, targets))
        return Workers(Kept(inputs, targets, self.kept))


class Kept(torch.utils.data.Dataset):
    """Pairs. `targets` keeps the labels, or labels that are one too large, or there is nothing."""

    def __init__(self, inputs, targets, kept):
        self.pairs = inputs, targets
        if kept != "nowhere":
            self.targets = targets + (kept == "changed")

    def __len__(self):
        return len(self.pairs[0])

    def __getitem__(self, index):
        return self.pairs[0][index], self.pairs[1][index]


@pytest.fixture
def trained(compose, tmp_path):
    """A run on `Labelled` data with these settings."""
    from omegaconf import OmegaConf

    from trainer.run import assemble

    def make(*words, **data):
        cfg = compose(*SMALL, "logger=none", "allow=[tests]", "trainer.duration=3ep", *words)
        node = {"_target_": "tests.engine.test_rehearsal.Labelled", "batch_size": 32, "seed": 0, **data}
        OmegaConf.set_struct(cfg, False)
        cfg.data = node
        return assemble(cfg, tmp_path / "run")

    return make


@pytest.mark.parametrize("kept", [None, "exactly"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_label_that_is_no_class_of_the_net_is_told_before_training_with_its_sample(trained, kept, split):
    run = trained(kept=kept, split=split)
    with pytest.raises(ConfigError, match=f"data.{split}: sample 150 has the label 77, and the net gives 3 classes"):
        fit(run)
    assert run.module.clock.t == 0


def test_labels_that_a_data_set_keeps_in_another_form_are_not_refused(trained):
    fit(trained(kept="changed", label=1))
    fit(trained(label=-100))


def test_an_update_that_cannot_be_computed_is_told_with_its_sample(trained):
    run = trained(kept="nowhere")
    with pytest.raises(ConfigError) as error:
        fit(run)
    told = f"update {run.module.clock.t} cannot be computed, because of training sample 150: Target 77 is out of bounds"
    assert str(error.value).startswith(told)
    order = run.trainer.train_dataloader.order
    assert 150 in order.pick(run.module.clock.t, 0).indices.tolist()


def test_an_error_that_the_batch_does_not_raise_again_stays_as_it_was(trained):
    run = trained(label=0)
    step, calls = run.module.step, []
    del run.module.step

    def failing(net, batch, *, t):
        calls.append(t)
        if len(calls) == 3:
            torch.zeros(2) @ torch.zeros(3)
        return step(net, batch, t=t)

    run.module.step = failing
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        fit(run)


def small(kind):
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    if kind == "causal":
        config = transformers.GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=1)
        return transformers.GPT2LMHeadModel(config)
    if kind == "tokens":
        return transformers.BertForTokenClassification(transformers.BertConfig(**sizes, num_labels=11))
    if kind == "sequences":
        return transformers.BertForSequenceClassification(transformers.BertConfig(**sizes, num_labels=11))
    config = transformers.T5Config(vocab_size=11, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=1)
    config.decoder_start_token_id = 0
    return transformers.T5ForConditionalGeneration(config)


@pytest.mark.parametrize(
    ("kind", "right"), [("causal", "shifted_labels"), ("tokens", "labels"), ("encoder and decoder", "labels")]
)
@pytest.mark.parametrize("zero", [False, True])
def test_a_weight_that_counts_other_labels_than_the_loss_of_the_model_is_refused(kind, right, zero):
    model = small(kind).eval()
    if zero:
        nn.init.zeros_(next(part for part in reversed(list(model.modules())) if isinstance(part, nn.Linear)).weight)
    ids = torch.randint(1, 11, (4, 8), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(8) >= torch.tensor([[3], [0], [2], [1]])).long()  # padded on the left
    batch = {"input_ids": ids, "attention_mask": mask, "labels": ids.where(mask > 0, -100)}
    ModelStep(right).check(model, batch)
    ModelStep(None).check(model, batch)
    (wrong,) = {"labels", "shifted_labels"} - {right}
    with pytest.raises(
        ConfigError, match=f"task.step.weight={wrong}, but the loss of .*: set task.step.weight={right}"
    ):
        ModelStep(wrong).check(model, batch)


def test_labels_of_sequences_are_counted_and_a_batch_without_labels_is_named():
    model, ids = small("sequences").eval(), torch.ones(4, 8, dtype=torch.int64)
    ModelStep("labels").check(model, {"input_ids": ids, "labels": torch.arange(4)})
    with pytest.raises(ConfigError, match="task.step.weight=labels counts labels, and a batch has input_ids: add"):
        ModelStep("labels").weight_of({"input_ids": ids})


def test_a_step_checks_the_net_once_and_changes_no_bit(assembled, monkeypatch):
    weights, calls = [], []
    for checked in (True, False):
        run = assembled(*SMALL, "logger=none", "model.norm=batch", "model.dropout=0.1", folder=f"run{checked}")
        if checked:
            run.module.step.check = lambda net, batch: (calls.append(net.training), net(batch[0]), torch.rand(3))
        fit(run)
        weights.append({name: value.clone() for name, value in run.module.net.state_dict().items()})
    assert calls == [False]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_batch_norm_over_one_sample_is_told_before_the_first_update(assembled):
    run = assembled(*SMALL, "model.norm=batch", "data.batch_size=1", "trainer.accumulate=2")
    with pytest.raises(ConfigError, match="update 0 cannot be computed: BatchNorm needs more than one sample"):
        fit(run)
    assert run.module.clock.t == 0


def test_a_regression_of_class_labels_is_told_before_the_first_update(assembled):
    run = assembled(*SMALL, "task=regression")
    with pytest.raises(ConfigError) as refused:
        fit(run)
    assert "\n" not in str(refused.value)
    assert run.module.clock.t == 0
