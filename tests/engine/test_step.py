"""However a batch is cut, the loss of an update is the mean over what counts in it; and a step is what trains."""

import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.amp import GradScaler
from torch.nn import functional

from tests.distributed import worlds
from tests.engine import weighted as cuts
from tests.engine.test_update import batches, net, updater
from tests.engine.weighted import CUTS, KINDS, WEIGHTS, padded_step, train, whole
from tests.measure.test_norms import Unhurried
from trainer.engine import update as updates
from trainer.engine.gradient_treatment import GradientTreatment
from trainer.engine.step import ModelStep, PairStep, StepOutput, samples, weighted
from trainer.engine.task import Scores, Task, TokenCrossEntropy
from trainer.lr import ConfigError
from trainer.measure.micro_gradients import MicroGradients


def apart(one, other):
    return (one["weights"] - other["weights"]).abs().max().item()


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("accumulate", CUTS[1])
def test_micro_batches_end_with_the_weights_and_losses_of_a_plain_loop_over_the_whole_batch(name, accumulate):
    plain, ours = whole(name), train(name, 0, 1, accumulate)
    assert apart(plain, {"weights": 0.0 * plain["weights"]}) > 0.1
    assert apart(ours, plain) <= 1e-12
    assert ours["losses"] == pytest.approx(plain["losses"], rel=1e-12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every kind and cut on two and four processes."""

    def fill(place):
        assert worlds.run(2, cuts.train_all, 2, place) == [0, 0]
        assert worlds.run(4, cuts.train_all, 4, place) == [0, 0, 0, 0]

    return worlds.once(tmp_path_factory, "weighted", fill)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_processes_end_with_the_weights_and_losses_of_a_plain_loop_over_the_whole_batch(folder, name):
    plain = whole(name)
    for world in (2, 4):
        for accumulate in CUTS[world]:
            ranks = [torch.load(folder / f"{name}-{accumulate}x{world}.{rank}.pt") for rank in range(world)]
            assert all(apart(rank, plain) <= 1e-12 for rank in ranks)
            means = [sum(losses) / world for losses in zip(*(rank["losses"] for rank in ranks))]
            assert means == pytest.approx(plain["losses"], rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["class_weights", "own_step"])
def test_a_process_that_forgets_the_weights_of_the_others_is_seen(folder, name):
    assert apart(torch.load(folder / f"alone-{name}.0.pt"), whole(name)) > 1e-4


@pytest.mark.parametrize("name", ["class_weights", "ignored_by_default", "own_step", "model"])
def test_updates_without_the_weights_are_seen(name, monkeypatch):
    monkeypatch.setattr(updates, "weighted", lambda value, weight: value.where(weight > 0, 0.0))
    assert apart(train(name, 0, 1, 4), whole(name)) > 1e-4


def test_where_no_target_is_ignored_an_update_has_the_bits_of_one_without_weights(monkeypatch):
    monkeypatch.setitem(KINDS, "plain", KINDS["ignored_by_default"]._replace(batch=cuts.labelled(None)))

    def uncounted():
        step = PairStep(nn.CrossEntropyLoss())
        step.skip_count(lambda value: False)
        assert step.weigh is None
        return step

    monkeypatch.setitem(KINDS, "uncounted", KINDS["plain"]._replace(step=uncounted))
    for accumulate in CUTS[1]:
        assert apart(train("plain", 0, 1, accumulate), train("uncounted", 0, 1, accumulate)) == 0.0


def test_the_logs_of_a_step_are_means_with_the_weights_of_the_loss():
    kind = KINDS["own_step"]
    model, _, generator = cuts.started(kind)
    batch = kind.batch(generator)
    pieces = [padded_step(model, cuts.cut(batch, place, 4), t=0) for place in range(4)]
    expected = sum(one.weight * one.logs["longest"] for one in pieces) / sum(one.weight for one in pieces)
    ours = train("own_step", 0, 1, 4)["logs"]
    assert ours["train/longest"][0] == pytest.approx(expected.item(), rel=1e-12)
    assert ours["train/t"] == pytest.approx(list(range(cuts.UPDATES)))


@pytest.mark.parametrize("treatment", [GradientTreatment(sam=0.1), GradientTreatment(clip=0.05), GradientTreatment()])
@pytest.mark.parametrize("scaler", [None, lambda: GradScaler("cpu", init_scale=2.0**10)])
def test_ascent_clipping_and_loss_scaling_see_the_mean(treatment, scaler):
    def own(model, batch, *, t):
        inputs, targets = batch
        each = (model(inputs) - targets).square().mean(1)
        counts = (inputs[:, 0] > 0).to(each.dtype)
        return StepOutput((each * counts).sum() / counts.sum().clamp(min=1e-9), counts.sum())

    ends = []
    pieces = batches(4)
    if scaler:
        pieces = [piece._replace(batch=tuple(part.float() for part in piece.batch)) for piece in pieces]
    joined = [pieces[0]._replace(batch=tuple(torch.cat(parts) for parts in zip(*(piece.batch for piece in pieces))))]
    for micros in (pieces, joined):
        model = net().to(pieces[0].batch[0].dtype)
        update = updater(model, scaler=scaler and scaler(), treatment=treatment)
        update.step = own
        update(micros)
        update(micros)
        ends.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    assert torch.allclose(*ends, rtol=0, atol=1e-6 if scaler else 1e-14)


def scored(step, make, size, total=180):
    """The validation loss over `total` samples in batches of `size`."""
    model, _, generator = cuts.started(KINDS[make])
    pieces = [KINDS[make].batch(generator) for _ in range(-(-total // cuts.SAMPLES))]
    if isinstance(pieces[0], dict):
        batch = {name: torch.cat([piece[name] for piece in pieces])[:total].split(size) for name in pieces[0]}
        parts = [dict(zip(batch, values)) for values in zip(*batch.values())]
    else:
        parts = list(zip(*(torch.cat(part)[:total].split(size) for part in zip(*pieces))))
    scores = Scores(Task(step=step))
    for part in parts:
        with torch.no_grad():
            scores.update(step(model, part, t=0), part)
    return scores.compute()["loss"]


@pytest.mark.parametrize("name", KINDS)
def test_the_validation_loss_does_not_depend_on_the_size_of_its_batches(name):
    step = KINDS[name].step()
    losses = [scored(step, name, size) for size in (180, 8, 7, 2)]
    assert all(math.isfinite(loss) for loss in losses)
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-12)


def test_a_second_pass_of_scores_starts_anew_in_double_precision():
    scores = Scores(Task(nn.MSELoss()))
    for _ in range(2):
        for value in (1.0, 1e-9):
            scores.update(StepOutput(torch.tensor(value, dtype=torch.float64)), (torch.zeros(1), torch.zeros(1)))
        assert scores.compute() == {"loss": (1.0 + 1e-9) / 2}


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_losses_and_metrics_get_single_precision_from_a_net_in_half(half):
    model, step = nn.Linear(3, 5).to(half), PairStep(nn.CrossEntropyLoss(weight=WEIGHTS.float() / 3)).to(half)
    inputs, targets = torch.randn(8, 3).to(half), torch.randint(5, (8,))
    output = step(model, (inputs, targets), t=0)
    expected = nn.functional.cross_entropy(model(inputs).float(), targets, weight=WEIGHTS.float() / 3)
    assert output.loss.dtype == output.outputs.dtype == torch.float32
    assert output.loss == expected
    with torch.autocast("cpu", torch.bfloat16):
        mixed = step(nn.Linear(3, 5), (inputs.float(), targets), t=0)
    assert mixed.outputs.dtype == torch.float32


def test_class_weights_keep_the_precision_of_the_run_and_are_in_no_checkpoint():
    step = PairStep(nn.CrossEntropyLoss(weight=WEIGHTS.clone()))
    assert step.bfloat16().loss.weight.dtype == torch.float32
    assert step.double().loss.weight.dtype == torch.float64
    assert not step.state_dict()


def test_probabilities_as_targets_and_other_losses_have_no_weight():
    probabilities = torch.rand(4, 5)
    model = nn.Linear(3, 5)
    assert PairStep(nn.CrossEntropyLoss())(model, (torch.randn(4, 3), probabilities), t=0).weight is None
    assert PairStep(nn.MSELoss()).weight_of((None, probabilities)) is None
    assert PairStep(TokenCrossEntropy()).weight_of((None, torch.zeros(2, 3))) is None


def test_a_token_that_is_not_in_the_vocabulary_is_an_error_unless_it_is_the_ignored_one():
    logits, targets = torch.randn(2, 3, 5), torch.tensor([[1, 2, -100], [0, 0, 4]])
    assert TokenCrossEntropy(ignore_index=-100)(logits, targets).isfinite()
    with pytest.raises(IndexError):
        TokenCrossEntropy()(logits, targets)


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_a_loss_that_is_no_mean_is_refused(reduction):
    with pytest.raises(ConfigError, match=f"task.loss.reduction={reduction} .* take reduction=mean"):
        PairStep(nn.MSELoss(reduction=reduction))


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (lambda net, batch, *, t: net(batch[0]).mean(), "returns a Tensor: return trainer.engine.step.StepOutput"),
        (lambda net, batch, *, t: StepOutput(net(batch[0]).mean(), None, {"loss": 1.0}), "logs loss, which every run"),
        (
            lambda net, batch, *, t: StepOutput(net(batch[0]).mean(), 1.0 if batch[0][0, 0] > 0 else None),
            "a weight for some batches of update 0",
        ),
        (
            lambda net, batch, *, t: StepOutput(net(batch[0]).mean(), None, {"a" if batch[0][0, 0] > 0 else "b": 1.0}),
            "for one batch only",
        ),
    ],
)
def test_what_a_step_must_not_do_is_said_in_one_line(step, told):
    update = updater(net())
    update.step = step
    with pytest.raises(ConfigError, match=told):
        update(batches(4))


def test_micro_batches_of_unequal_weight_have_no_noise_scale():
    update = updater(net())
    update.micro_gradients = MicroGradients([list(update.net.parameters())])
    update.weight_of = lambda batch: len(batch[0])
    update(batches(2))
    update.weight_of = lambda batch: (batch[0][:, 0] > 0).sum()
    with pytest.raises(ConfigError, match="update 1 has micro-batches of unequal weight"):
        update(batches(2))


@pytest.mark.parametrize("name", ["class_weights", "ignored_by_default", "own_step"])
def test_nothing_is_read_from_the_device_for_the_weights(name):
    kind = KINDS[name]
    model, _, generator = cuts.started(kind)
    update = updater(model, kind=torch.optim.AdamW, fused=True)
    update.step, update.checks_each = kind.step(), False
    update.weight_of = getattr(update.step, "weight_of", None)
    micros = [cuts.Micro(cuts.cut(kind.batch(generator), place, 2), 0) for place in range(2)]
    with Unhurried():
        update(micros)


def test_a_model_may_give_its_loss_in_a_dictionary():
    class Net(nn.Linear):
        def forward(self, x, labels):
            logits = super().forward(x)
            return {"loss": functional.cross_entropy(logits, labels), "logits": logits}

    net, batch = Net(3, 2), {"x": torch.randn(4, 3), "labels": torch.tensor([0, 1, 1, 0])}
    found = ModelStep()(net, batch, t=0)
    assert torch.equal(found.loss, net(**batch)["loss"])
    assert torch.equal(found.outputs, net(**batch)["logits"])


def test_a_model_without_a_loss_is_refused():
    with pytest.raises(ConfigError, match="Linear gives no loss for a batch of input"):
        ModelStep()(nn.Linear(3, 2), {"input": torch.zeros(1, 3)}, t=0)
    with pytest.raises(ConfigError, match="task.step.weight='tokens' is not known"):
        ModelStep("tokens")


def test_metrics_get_a_row_for_each_token_where_the_step_flattens():
    logits, labels = torch.randn(2, 3, 4), torch.tensor([[1, 2, -100], [0, 3, 1]])
    net = lambda labels: SimpleNamespace(loss=logits.mean(), logits=logits)  # noqa: E731
    flat, shifted = (
        ModelStep(weight, flatten=True)(net, {"labels": labels}, t=0) for weight in ("labels", "shifted_labels")
    )
    assert torch.equal(flat.outputs, logits.view(6, 4))
    assert torch.equal(flat.targets, labels.view(6))
    assert torch.equal(shifted.outputs, logits[:, :2].reshape(4, 4))
    assert torch.equal(shifted.targets, labels[:, 1:].reshape(4))


def test_a_causal_model_of_transformers_trains_the_same_however_its_batch_is_cut():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=1, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0
    )
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(11, (8, 8), generator=generator)
    labels = ids.where(torch.arange(8) < torch.randint(1, 9, (8, 1), generator=generator), -100)
    ends = []
    for pieces in (1, 4):
        torch.manual_seed(0)
        model = transformers.GPT2LMHeadModel(config)
        update = updater(model)
        update.step, update.weight_of = ModelStep("shifted_labels"), ModelStep("shifted_labels").weight_of
        parts = zip(ids.chunk(pieces), labels.chunk(pieces))
        update([cuts.Micro({"input_ids": some, "labels": theirs}, 0) for some, theirs in parts])
        ends.append(cuts.flat(model))
    assert torch.allclose(*ends, rtol=0, atol=1e-6)


def test_a_causal_model_is_scored_on_the_labels_that_its_loss_compares():
    transformers, text = pytest.importorskip("transformers"), pytest.importorskip("torchmetrics.text")
    config = transformers.GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=1)
    model = transformers.GPT2LMHeadModel(config).eval()
    ids = torch.randint(11, (4, 8), generator=torch.Generator().manual_seed(0))
    labels = ids.where(torch.arange(8) < 6, -100)
    found = ModelStep("shifted_labels")(model, {"input_ids": ids, "labels": labels}, t=0)
    perplexity = text.Perplexity(ignore_index=-100)(found.outputs, found.targets)
    assert perplexity.log().item() == pytest.approx(found.loss.item(), rel=1e-5)


def test_functions_of_classes_are_means_as_their_modules():
    targets = torch.tensor([0, 1, 2, -100])
    assert PairStep(functional.cross_entropy).weight_of((None, targets)) == 3
    weight = torch.tensor([1.0, 2.0, 4.0])
    assert PairStep(partial(functional.nll_loss, weight=weight)).weight_of((None, targets)) == 7
    with pytest.raises(ConfigError, match="task.loss.reduction=sum"):
        PairStep(partial(functional.cross_entropy, reduction="sum"))


def test_a_weight_of_zero_leaves_out_even_what_is_not_finite():
    assert weighted(torch.tensor(math.nan), torch.tensor(0.0)) == 0.0
    assert samples({"a": torch.zeros(3, 2)}) == samples((torch.zeros(3, 2), torch.zeros(3))) == 3
