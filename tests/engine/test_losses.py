"""Several losses by name: each is a mean of its own, their factors follow schedules, heads have their own targets."""

import re

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.nn import functional

from tests.engine import weighted as cuts
from tests.pages import section
from trainer.checkpoint.io import checkpoint_path, read
from trainer.engine.losses import WeightedLosses
from trainer.engine.step import StepOutput
from trainer.engine.task import Scores, Task
from trainer.log.validations import read_validations
from trainer.lr import ConfigError
from trainer.run import fit

LOSSES = (
    *("task=losses", "+task.step.losses.ce._target_=torch.nn.CrossEntropyLoss", "+task.step.losses.ce.ignore_index=3"),
    *("+task.step.losses.hinge._target_=torch.nn.MultiMarginLoss", "+task.step.loss_weights.hinge=0.5"),
    *(f"+task.metrics.{name}._target_=torchmetrics.classification.MulticlassF1Score" for name in ("f1",)),
)
SMALL = (
    *("data.batch_size=32", "model.hidden=[16]", "trainer.duration=12", "trainer.validate=6", "callbacks=none"),
    *("trainer.keep=0", "optimizer.lr=1e-2", "trainer.accumulate=2", "trainer.precision=64-true"),
)
FALLING = (
    *(
        "+hyper_schedule.loss_weights.hinge._target_=trainer.lr.scheduled",
        "+hyper_schedule.loss_weights.hinge.of=linear",
    ),
    "+hyper_schedule.loss_weights.hinge._partial_=true",
)


@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_each_loss_is_logged_as_the_mean_over_the_whole_update(accumulate):
    kind = cuts.KINDS["several"]
    net, _, generator = cuts.started(kind)
    inputs, targets = kind.batch(generator)
    expected = {
        "rare": functional.cross_entropy(net(inputs), targets, cuts.WEIGHTS, ignore_index=1),
        "most": functional.cross_entropy(net(inputs), targets, ignore_index=0),
        "sharp": net(inputs).square().mean(),
    }
    from tests.engine.test_update import updater

    update, rows = updater(net), []
    update.step = kind.step()
    update.weight_of = update.step.weight_of
    update.metric_buffer.add = lambda *given: rows.append((given[1].item(), given[-1]))
    update([cuts.Micro(cuts.cut((inputs, targets), place, accumulate), 0) for place in range(accumulate)])
    ((loss, logs),) = rows
    assert {name: value.item() for name, value in logs.items()} == pytest.approx(
        {name: value.item() for name, value in expected.items()}, rel=1e-12
    )
    assert loss == pytest.approx(
        (expected["rare"] + 0.3 * expected["most"] + 0.05 * expected["sharp"]).item(), rel=1e-12
    )


def test_scores_hold_each_loss_with_its_own_weights_and_their_sum():
    kind = cuts.KINDS["several"]
    net, _, generator = cuts.started(kind)
    batch, step = kind.batch(generator), kind.step()
    scores = Scores(Task(step=step))
    for place in range(4):
        piece = cuts.cut(batch, place, 4)
        scores.update(step(net, piece, t=0), piece)
    found = scores.compute()
    assert found["rare"] == pytest.approx(
        functional.cross_entropy(net(batch[0]), batch[1], cuts.WEIGHTS, ignore_index=1).item(), rel=1e-12
    )
    assert found["loss"] == pytest.approx(kind.by_hand(net, batch).item(), rel=1e-12)
    assert list(found) == ["loss", "rare", "most", "sharp"]


def test_a_factor_that_falls_trains_resumes_and_is_scored_as_configured(assembled):
    whole = assembled(*SMALL, *LOSSES, *FALLING, "task.monitor=ce")
    fit(whole)
    for logger in whole.trainer.loggers:
        logger.save()
    events = EventAccumulator(str(whole.folder), size_guidance={"scalars": 0}).Reload()

    def series(tag):
        return [point.value for point in events.Scalars(tag)]

    factors = series("hyper_schedule/loss_weights.hinge")
    assert factors == pytest.approx([0.5 * (1 - t / 12) for t in range(12)])
    sums = [ce + factor * hinge for ce, factor, hinge in zip(series("train/ce"), factors, series("train/hinge"))]
    assert series("train/loss") == pytest.approx(sums, rel=1e-6)
    last = read_validations(whole.folder)[-1]
    assert last["val/loss"] == pytest.approx(last["val/ce"] + 0.5 * last["val/hinge"], rel=1e-12)
    assert whole.checkpointing.best["value"] == min(line["val/ce"] for line in read_validations(whole.folder))
    resumed = assembled(
        *SMALL,
        *LOSSES,
        *FALLING,
        "task.monitor=ce",
        folder="on",
        resumed=checkpoint_path(whole.checkpointing.folder, 6),
    )
    fit(resumed)
    ends = [read(checkpoint_path(run.checkpointing.folder, 12))["state_dict"] for run in (whole, resumed)]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


class Heads(nn.Module):
    """A net with two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.kind, self.size = nn.Linear(3, 5), nn.Linear(3, 1)

    def forward(self, inputs):
        return {"kind": self.kind(inputs), "size": self.size(inputs)[:, 0]}


def test_heads_have_losses_and_metrics_of_their_own():
    from torchmetrics.classification import MulticlassAccuracy
    from torchmetrics.regression import MeanAbsoluteError
    from torchmetrics.wrappers import MultitaskWrapper

    net = Heads()
    batch = torch.randn(8, 3), {"kind": torch.arange(8) % 5, "size": torch.randn(8)}
    step = WeightedLosses(
        {"kind": nn.CrossEntropyLoss(), "far": nn.MSELoss(), "near": nn.L1Loss()},
        {"far": 0.1},
        {"far": "size", "near": "size"},
    )
    metrics = {"heads": MultitaskWrapper({"kind": MulticlassAccuracy(5, average="micro"), "size": MeanAbsoluteError()})}
    scores = Scores(Task(step=step, metrics=metrics, monitor="heads/kind"))
    output = step(net, batch, t=0)
    scores.update(output, batch)
    found, outputs = scores.compute(), net(batch[0])
    kind = functional.cross_entropy(outputs["kind"], batch[1]["kind"])
    far, near = (loss(outputs["size"], batch[1]["size"]) for loss in (functional.mse_loss, functional.l1_loss))
    assert found["loss"] == pytest.approx((kind + 0.1 * far + near).item())
    assert found["heads/size"] == pytest.approx(found["near"])
    assert found["heads/kind"] == pytest.approx((outputs["kind"].argmax(1) == batch[1]["kind"]).float().mean().item())
    assert output.loss.item() == pytest.approx((kind + 0.1 * far + near).item())
    with pytest.raises(ConfigError, match="task.step.losses.kind needs kind of the targets, which are size"):
        step(net, (batch[0], {"size": batch[1]["size"]}), t=0)


def test_the_command_of_the_page_trains(assembled):
    (line,) = re.findall(r"```(?:sh|console)\n(.*?)```", section("steps.md", "Several losses"), re.DOTALL)
    words = line.replace("\\\n", "").split()
    assert words[:2] == ["cadence", "train"]
    run = assembled(*SMALL, *words[2:], "logger=none")
    fit(run)
    assert {"val/ce", "val/hinge", "val/loss"} <= read_validations(run.folder)[-1].keys()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("task=losses",), "task.step.losses is empty"),
        (
            (*LOSSES, "+task.step.loss_weights.l1=1"),
            "task.step.loss_weights.l1: there is no such loss: choose one of ce,",
        ),
        ((*LOSSES, "+task.step.loss_weights.ce=-1"), "task.step.loss_weights.ce=-1"),
        ((*LOSSES, "+task.step.losses.loss._target_=torch.nn.L1Loss"), "every run logs train/loss itself"),
        ((*LOSSES, "+task.metrics.ce._target_=torchmetrics.MeanMetric"), "task.metrics.ce: ce is the name of a loss"),
        ((*LOSSES, "task.monitor=ce", "task.mode=max"), "of which lower is better"),
        (
            (*LOSSES, *(word.replace("hinge", "l1") for word in FALLING)),
            "hyper_schedule.loss_weights.l1: there is no such",
        ),
        (
            (*LOSSES, "+task.step.losses.ce.weight=[1,2]"),
            "a val batch cannot be scored.* weight tensor should be defined",
        ),
    ],
)
def test_bad_losses_are_refused_in_one_line(assembled, words, told):
    with pytest.raises(ConfigError, match=told):
        fit(assembled(*SMALL, *words))


def test_weights_of_several_losses_must_be_known_before_the_forward_pass():
    from tests.engine.test_update import batches, net, updater

    def own(model, batch, *, t):
        loss = model(batch[0]).square().mean()
        return StepOutput(loss, torch.ones(2), parts=torch.stack([loss, loss]))

    own.loss_weights = {"a": 1.0, "b": 1.0}
    update = updater(net())
    update.step = own
    with pytest.raises(ConfigError, match="several losses with weights: it needs a method weight_of"):
        update(batches(2))
