"""Whole runs with weighted losses and steps of one's own: cut into processes, in half precision, by the config."""

import json

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.distributed import worlds
from tests.engine import equality
from trainer.checkpoint.io import checkpoint_path, read
from trainer.engine.guard import Diverged
from trainer.engine.step import PairStep
from trainer.lr import ConfigError
from trainer.run import evaluate, fit
from trainer.tools.noise_scale.probe import Probe, Sampling
from trainer.tools.range_test.sweep import sweep

OWN = (
    *("~task.loss", "task.metrics={}", "allow=[tests]", "+task.step._partial_=true"),
    "+task.step._target_=tests.engine.own_steps.classified",
)
RUNS = {
    "ignored": ("+task.loss.ignore_index=0", "task.loss.label_smoothing=0"),
    "class_weights": ("task.loss.weight=[1,2,3,4,5,6,7,8,9,10]",),
    "own": OWN,
}
SHORT = ("optimizer=sgd", "trainer.duration=20", "trainer.validate=10")
SMALL = (
    *("data.batch_size=32", "model.hidden=[16]", "trainer.duration=20", "trainer.validate=10", "logger=none"),
    *("trainer.accumulate=2", "trainer.keep=0"),
)


def train_all(rank, world, folder, runs):
    for name, words in runs.items():
        for accumulate, strategy in ((1, "ddp"), (2, "fsdp" if name == "own" else "ddp")):
            where = folder / f"{name}-{accumulate}"
            ended = equality.train(where, world, accumulate, *SHORT, *words, f"trainer.strategy={strategy}")
            torch.save({**ended, "loss": losses(where)}, folder / f"{where.name}.{rank}.pt")


def losses(folder):
    if not any(folder.glob("events.out.tfevents*")):
        return []
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return [point.value for point in events.Scalars("train/loss")]


def test_draws_from_any_generator_are_those_of_the_update_and_of_the_pass_that_scores(assembled):
    words = (*SMALL, *OWN[:-1], "+task.step._target_=tests.engine.own_steps.mixed", "trainer.checkpoint=1")
    whole = assembled(*words)
    fit(whole)
    seldom = assembled(*words, "trainer.validate=20", folder="seldom")
    on = assembled(*words, folder="on", resumed=checkpoint_path(whole.checkpointing.folder, 7))
    for other in (seldom, on):
        fit(other)
        assert all(map(torch.equal, whole.module.net.parameters(), other.module.net.parameters()))
        assert other.trainer.callback_metrics["val/loss"] == whole.trainer.callback_metrics["val/loss"]


@pytest.mark.slow
def test_the_config_trains_the_same_weights_on_one_process_and_on_two(tmp_path, all_cases):
    runs = RUNS if all_cases else {name: RUNS[name] for name in ("ignored", "own")}
    assert worlds.run(2, train_all, 2, tmp_path, runs) == [0, 0]
    for name, words in runs.items():
        whole = equality.train(tmp_path / f"{name}-whole", 1, 1, *SHORT, *words)
        cut = equality.train(tmp_path / f"{name}-cut", 1, 4, *SHORT, *words)
        others = [torch.load(tmp_path / f"{name}-{kind}.{rank}.pt") for kind in (1, 2) for rank in (0, 1)]
        for other in (cut, *others):
            assert (other["weights"] - whole["weights"]).abs().max() <= 1e-12
            assert other["scores"]["val/loss"] == pytest.approx(whole["scores"]["val/loss"], rel=1e-12)
        for other in others[::2]:
            assert other["loss"] == pytest.approx(losses(tmp_path / f"{name}-whole"), rel=1e-6)


@pytest.mark.parametrize("words", RUNS.values(), ids=RUNS)
def test_the_scores_of_a_run_do_not_depend_on_the_size_of_the_evaluated_batches(assembled, words):
    found = []
    for size in (180, 8, 2):
        run = assembled(
            *SMALL, *words, "trainer.precision=64-true", f"data.eval_batch_size={size}", folder=f"run{size}"
        )
        fit(run)
        lines = (run.folder / "validations.jsonl").read_text().splitlines()
        found.append([json.loads(line)["val/loss"] for line in lines])
    assert not any(torch.tensor(value).item() == value for value in found[0]), "they are rounded"
    assert all(values == pytest.approx(found[0], rel=1e-12) for values in found[1:])


@pytest.mark.parametrize("words", [(), ("task.loss.weight=[1,2,3,4,5,6,7,8,9,10.1]",)], ids=["mean", "weighted"])
def test_a_net_in_half_precision_has_losses_in_single(assembled, words):
    run = assembled(*SMALL, "trainer.precision=bf16-true", *words)
    fit(run)
    loss, source, net = run.module.step.loss, run.data.splits.val, run.module.net.eval()
    assert not words or loss.weight.tolist() == torch.tensor([*range(1, 10), 10.1]).tolist()
    with torch.no_grad():
        expected = loss(net(source.inputs.bfloat16()).float(), source.targets).item()
    value = run.trainer.callback_metrics["val/loss"].item()
    assert value == pytest.approx(expected, rel=1e-6)
    assert value != torch.tensor(value).bfloat16().item()


def test_a_step_of_ones_own_reaches_the_log_and_resumes_to_the_same_bits(assembled):
    words = [word for word in SMALL if word != "logger=none"]
    whole = assembled(*words, *OWN, "+task.step.ignored=3")
    fit(whole)
    for logger in whole.trainer.loggers:
        logger.save()
    events = EventAccumulator(str(whole.folder), size_guidance={"scalars": 0}).Reload()
    counted = [point.value for point in events.Scalars("train/counted")]
    assert len(counted) == 20
    assert all(20 < count < 32 for count in counted)
    resumed = assembled(
        *words, *OWN, "+task.step.ignored=3", folder="on", resumed=checkpoint_path(whole.checkpointing.folder, 10)
    )
    fit(resumed)
    ends = [read(checkpoint_path(run.checkpointing.folder, 20))["state_dict"] for run in (whole, resumed)]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


LOGGED = (*OWN[:-1], "+task.step._target_=tests.engine.own_steps.logged", "trainer.precision=64-true")


def test_what_a_step_logs_is_scored_with_the_weights_of_its_loss_and_may_be_watched(assembled):
    found = []
    for size in (180, 7):
        words = (*SMALL, *LOGGED, "task.monitor=largest", "task.mode=max", f"data.eval_batch_size={size}")
        run = assembled(*words, folder=f"of{size}")
        fit(run)
        found.append((run.checkpointing.best, run.trainer.callback_metrics["val/largest"].item(), evaluate(run)))
    (best, last, tested), (other, other_last, other_tested) = found
    assert last == pytest.approx(other_last, rel=1e-12)
    assert tested["largest"] == pytest.approx(other_tested["largest"], rel=1e-12)
    assert best["value"] == best["scores"]["val/largest"] == pytest.approx(other["value"], rel=1e-12)
    source, net = run.data.splits.val, run.module.net
    net.load_state_dict({name[4:]: w for name, w in read(run.checkpointing.folder / "best.ckpt")["state_dict"].items()})
    with torch.no_grad():
        outputs = net.eval()(source.inputs.double()).max(1).values[source.targets != 0]
    assert best["value"] == pytest.approx(outputs.mean().item(), rel=1e-12)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            (*LOGGED, "task.monitor=largst", "task.mode=max"),
            "task.monitor=val/largst is not computed: choose one of val/",
        ),
        (
            (*LOGGED, "task.monitor=largest"),
            "task.monitor=largest is not computed: choose one of loss, accuracy, or give task.mode with a name",
        ),
        (
            ("task.monitor=val/accuracy",),
            "task.monitor=val/accuracy names a validation score without val/: set accuracy",
        ),
    ],
)
def test_a_score_that_is_not_there_is_refused_before_the_first_update(assembled, words, told):
    with pytest.raises(ConfigError, match=told):
        fit(assembled(*SMALL, *words))


def test_a_metric_counts_where_the_step_logs_its_name(assembled):
    run = assembled(*SMALL, *OWN[:1], *OWN[2:-1], "+task.step._target_=tests.engine.own_steps.named_as_a_metric")
    fit(run)
    net, source = run.module.net.eval(), run.data.splits.val
    with torch.no_grad():
        right = (net(source.inputs).argmax(1) == source.targets).float().mean().item()
    assert run.trainer.callback_metrics["val/accuracy"].item() == pytest.approx(right)


def test_measurements_averages_and_sweeps_go_through_the_step(assembled):
    run = assembled(*SMALL, *OWN, "measure=all", "measure.sharpness=5", "average=ema", "model.norm=batch")
    seen, step = [], run.module.step
    run.module.step = lambda net, batch, *, t: (
        seen.append((net.training, torch.is_grad_enabled(), t)),
        step(net, batch, t=t),
    )[1]
    swept = [sweep(run, "lr", [1e-3, 1e-2], measured).losses for measured in ("train", "val")]
    assert all(0 < loss < 10 for losses in swept for loss in losses)
    swept_calls = len(seen)
    fit(run)
    updates = {t for training, grad, t in seen[swept_calls:] if training and grad}
    assert updates == set(range(20))
    calls = [training for training, grad, _ in seen[swept_calls:] if grad]
    assert len(calls) == 20 * 2 + 4, "two micro-batches of each update, and the sharpness of every fifth"
    recalibrated = [t for training, grad, t in seen[swept_calls:] if not training and not grad]
    assert {9, 19} <= set(recalibrated), "batches of the last update before each validation"
    probed = assembled(*SMALL, *OWN, folder="probed")
    probe = Probe(probed, [1], Sampling(updates=4, micro=4, batch=8, seed=1))
    probed.module.observers = probed.module.observers.with_probe(probe.attach)
    with pytest.raises(ConfigError, match="unequal weights, and the noise scale"):
        fit(probed)


def test_targets_in_memory_are_counted_only_where_one_is_ignored(assembled):
    assert assembled(*SMALL).module.step.weigh is None
    assert assembled(*SMALL, "+task.loss.ignore_index=0", folder="other").module.step.weigh is not None


@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_update_in_which_no_target_counts_is_told_as_that(assembled, accumulate):
    run = assembled(*SMALL, "+task.loss.ignore_index=0", f"trainer.accumulate={accumulate}")
    run.data.splits.train.targets.zero_()
    with pytest.raises(Diverged, match="update 0 has no target that counts, so its loss is nan"):
        fit(run)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (OWN[1:], "task.loss beside task.step: .* by ~task.loss"),
        (
            [*OWN[:3], OWN[4]],
            "task.step._target_=.*classified would be called without a net: add .task.step._partial_=true",
        ),
        (["~task.loss"], "task.loss is not set, nor task.step"),
        (["+task.loss.reduction=sum"], "task.loss.reduction=sum does not give the mean"),
        (["task.loss.weight=[1,2]"], "task.loss.weight has 2 numbers for the 10 classes"),
        (
            ["task.loss.weight=[a,b]"],
            r"task.loss.weight=\['a', 'b'\] does not fit CrossEntropyLoss: give a list of numbers",
        ),
        (["measure=noise", "task.loss.weight=[1,2,3,4,5,6,7,8,9,10]"], "update 0 has micro-batches of unequal weight"),
    ],
)
def test_a_bad_setting_is_refused_in_one_line(assembled, words, told):
    with pytest.raises(ConfigError, match=told):
        fit(assembled(*SMALL, *words))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("without_t", "takes no t: add it, as in def step"),
        ("a_tensor", r"returns a Tensor: return trainer.engine.step.StepOutput\(loss\)"),
        ("a_vector", r"gives loss with shape \(90,\): give one number for a batch"),
        ("a_vector_in_logs", r"gives means with shape \(10,\): give one number"),
        ("negative", "task.step gives batches the weight -2 in all: give each batch 0 or more"),
        ("detached", "update 0 cannot be computed: its loss depends on no parameter that trains. Compute it from what"),
    ],
)
def test_a_step_that_is_none_is_refused_before_the_first_update(assembled, name, says):
    words = [*OWN[:-1], f"+task.step._target_=tests.engine.own_steps.{name}"]
    with pytest.raises(ConfigError, match=says):
        fit(assembled(*SMALL, *words))


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        ({"x": 1, "y": 2}, "is a dict with the keys x, y, and the step of this task takes pairs"),
        ((1, 2, 3), "is a tuple of 3, and"),
        (torch.ones(2), "is a Tensor, and"),
    ],
)
def test_a_batch_that_is_no_pair_is_named(batch, says):
    with pytest.raises(ConfigError, match=says):
        PairStep(torch.nn.MSELoss())(torch.nn.Identity(), batch, t=0)
