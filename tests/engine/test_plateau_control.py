"""A metric lowers the learning rate through the one formula: to the bit, told in the log, and kept when resumed."""

import math
import os
import signal

import pytest
import pytorch_lightning as pl
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader, TensorDataset

from trainer.checkpoint.checkpointing import Checkpointing
from trainer.checkpoint.io import checkpoint_path, checkpoints_in, read
from trainer.engine.lr_control import LRControl
from trainer.engine.plateau import PlateauControl
from trainer.lr import (
    ConfigError,
    CountPlateau,
    Greedy,
    Horizon,
    LRPolicy,
    TrendPlateau,
    compose,
    cosine,
    linear_warmup,
)
from trainer.run import fit

SYNTHETIC = (
    *("data=synthetic", "data.samples=256", "data.val_samples=64", "data.test_samples=0", "data.batch_size=16"),
    *("model.hidden=[8]", "optimizer=nesterov", "optimizer.lr=0.5", "schedule=cosine_warmup"),
    *("trainer.duration=40", "trainer.validate=4", "trainer.steps_per_execution=3"),
)
COUNT = ("plateau=count", "plateau.patience=0", "plateau.factor=0.5", "plateau.threshold=0.2")


def record(assembly):
    """Note the rates that the optimizer really steps with, by update."""
    applied, begin = {}, assembly.module.on_fit_start

    def on_fit_start():
        begin()
        (optimizer,) = assembly.trainer.optimizers
        clock = assembly.module.clock
        optimizer.register_step_post_hook(
            lambda opt, *_: applied.update({clock.t: [group["lr"] for group in opt.param_groups]})
        )

    assembly.module.on_fit_start = on_fit_start
    return applied


def with_rule(assembly, rule):
    """The run with a rule of its own, before what saves the checkpoints."""
    callbacks = assembly.trainer.callbacks
    place = next(i for i, callback in enumerate(callbacks) if isinstance(callback, Checkpointing))
    callbacks.insert(place, PlateauControl(rule))
    return assembly


def rule_of(assembly):
    return next(callback.rule for callback in assembly.trainer.callbacks if isinstance(callback, PlateauControl))


def events_of(assembly):
    assembly.trainer.logger.close()
    return EventAccumulator(str(assembly.folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()


def factor_at(events, t):
    """The factor of update `t` by the log: the newest from before it."""
    return next((point.value for point in reversed(events.Scalars("plateau/factor")) if point.step < t), 1.0)


RULES = [
    lambda: CountPlateau(patience=0, factor=0.5, threshold=0.2),
    lambda: TrendPlateau(window=4, confidence=0.9, factor=0.5),
    lambda: Greedy(patience=0, factor=0.5, floor=0.1, highest=4.0),
]


@pytest.mark.parametrize("make", RULES)
def test_every_applied_rate_is_the_policys_times_the_factor_to_the_bit(assembled, make):
    assembly = with_rule(assembled(*SYNTHETIC), make())
    applied = record(assembly)
    fit(assembly)
    policy, events = assembly.module.spec.policy, events_of(assembly)
    assert list(applied) == list(range(40))
    factors = [factor_at(events, t) for t in range(40)]
    assert len(set(factors)) > 2
    assert applied == {t: policy.lrs(t, factors[t]) for t in range(40)}
    for i, name in enumerate(policy.groups):
        assert [applied[t][i] for t in range(40)] == [policy.lr(t, name) * factors[t] for t in range(40)]
        shown = [point.value for point in events.Scalars(f"x_lr_factors/{name}/plateau")]
        assert shown == factors[-len(shown) :]
        assert all(factor == 1.0 for factor in factors[: -len(shown)])  # the chart begins with the first change


@pytest.mark.sample(1)
@pytest.mark.parametrize("make", RULES)
def test_a_run_resumed_at_any_checkpoint_applies_the_rates_of_one_never_stopped(assembled, make, all_cases):
    whole = with_rule(assembled(*SYNTHETIC, "trainer.checkpoint=3", "trainer.keep=0", folder="whole"), make())
    expected = record(whole)
    fit(whole)
    assert whole.module.control.plateau != 1.0
    points = checkpoints_in(whole.checkpointing.folder)[:-1]
    assert len(points) == 19
    for point in points if all_cases else points[2::5]:
        resumed = with_rule(assembled(*SYNTHETIC, folder=f"from-{point.stem}", resumed=point), make())
        applied = record(resumed)
        fit(resumed)
        start = int(point.stem.rpartition("-")[2])
        assert applied == {t: expected[t] for t in range(start, 40)}
        assert rule_of(resumed).state_dict() == rule_of(whole).state_dict()


def test_each_change_is_told_once_in_the_log_and_on_stderr(assembled, capsys):
    assembly = with_rule(assembled(*SYNTHETIC), RULES[0]())
    fit(assembly)
    events = events_of(assembly)
    texts = [point.tensor_proto.string_val[0].decode() for point in events.Tensors("events")]
    points = events.Scalars("plateau/factor")
    assert [point.step for point in points] == list(range(3, 40, 4))
    values = [1.0, *(point.value for point in points)]
    changed = [point.step + 1 for before, point in zip(values, points) if point.value != before]
    assert [text.partition(" has ")[0] for text in texts] == [f"update {t}: plateau: val/loss" for t in changed]
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("update ")] == texts


def test_an_event_at_the_update_of_a_checkpoint_stays_in_the_log_of_a_run_resumed_there(assembled):
    first = with_rule(assembled(*SYNTHETIC, "trainer.keep=0"), RULES[0]())
    fit(first)
    before = events_of(first)
    factor = {point.step: point.value for point in before.Scalars("plateau/factor")}
    t = next(step + 1 for step, value in factor.items() if value < 1.0)
    for path in checkpoints_in(first.checkpointing.folder):
        if path.name > checkpoint_path(first.checkpointing.folder, t).name:
            path.unlink()
    second = with_rule(assembled(*SYNTHETIC, resumed=checkpoint_path(first.checkpointing.folder, t)), RULES[0]())
    fit(second)
    assert {point.step: point.value for point in events_of(second).Scalars("plateau/factor")} == factor


def test_the_state_lies_in_the_checkpoint_of_the_validation_it_follows_from(assembled):
    assembly = with_rule(assembled(*SYNTHETIC, "trainer.keep=0"), RULES[0]())
    fit(assembly)
    events = events_of(assembly)
    for path in checkpoints_in(assembly.checkpointing.folder):
        saved = read(path)
        state = saved["callbacks"]["PlateauControl"]
        assert state["value"] == factor_at(events, saved["cadence"]["updates"])


def test_sigterm_in_the_middle_of_a_validation_loses_no_observation_of_the_rule(assembled, watching):
    several = (*SYNTHETIC, "data.eval_batch_size=16", "trainer.keep=0")
    whole, stopped = (with_rule(assembled(*several, folder=name), RULES[0]()) for name in "ab")
    expected, step = record(whole), stopped.module.validation_step
    fit(whole)

    def terminated(batch, batch_idx):
        if stopped.module.clock.t == 12 and batch_idx == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        step(batch, batch_idx)

    stopped.module.validation_step = terminated
    with pytest.raises(watching.Interrupted):
        fit(stopped)
    watching._received.clear()
    point = checkpoints_in(stopped.checkpointing.folder)[-1]
    resumed = with_rule(assembled(*several, folder="c", resumed=point), RULES[0]())
    applied = record(resumed)
    fit(resumed)
    assert applied == {t: expected[t] for t in applied}


def test_a_loss_that_is_no_number_lowers_the_rate(assembled):
    assembly = with_rule(assembled(*SYNTHETIC), CountPlateau(patience=2))
    assembly.module.scores["val"].compute = lambda: {"loss": math.nan, "accuracy": 0.0}
    fit(assembly)
    assert assembly.module.control.plateau == pytest.approx(1e-3)  # after validations 3, 6 and 9 of 10


def test_a_rule_without_validation_data_is_refused_before_the_first_update(assembled):
    assembly = with_rule(assembled(*SYNTHETIC, "data.val_samples=0"), CountPlateau())
    with pytest.raises(ConfigError, match="the run never validates"):
        fit(assembly)
    assert assembly.module.clock.t == 0


class Theirs(pl.LightningModule):
    """A user's module, whose validation loss never falls."""

    def __init__(self):
        super().__init__()
        self.net, self.seen = torch.nn.Linear(4, 1), []

    def training_step(self, batch, batch_idx):
        return self.net(batch[0]).square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", 1.0)

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=9.0)
        optimizer.register_step_post_hook(lambda opt, *_: self.seen.append(opt.param_groups[0]["lr"]))
        return optimizer


def fit_theirs(module, *callbacks):
    loader = DataLoader(TensorDataset(torch.randn(20, 4)), batch_size=2)
    trainer = pl.Trainer(
        max_epochs=4, accelerator="cpu", callbacks=list(callbacks), num_sanity_val_steps=2,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, loader, loader)


def curve():
    return LRPolicy(0.1, 2.0, *compose(Horizon(40, 2), lambda h: linear_warmup(h, duration=5), cosine))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("order", [1, -1])
def test_it_serves_a_foreign_module_beside_an_lr_control(order):
    module, policy = Theirs(), curve()
    fit_theirs(module, *[LRControl(policy), PlateauControl(CountPlateau(patience=0, factor=0.5))][::order])
    assert module.seen == [policy.lr(t, plateau=0.5 ** max(0, t // 10 - 1)) for t in range(40)]


@pytest.mark.filterwarnings("ignore")
def test_a_foreign_module_without_an_lr_control_or_the_metric_is_refused_in_one_line():
    with pytest.raises(ConfigError, match="LRControl"):
        fit_theirs(Theirs(), PlateauControl(CountPlateau()))
    with pytest.raises(ConfigError, match=r"plateau.monitor=val/acc is not computed: choose one of val/loss\."):
        fit_theirs(Theirs(), LRControl(curve()), PlateauControl(CountPlateau(monitor="val/acc")))


@pytest.mark.parametrize("option", ["count", "trend", "greedy"])
def test_an_option_puts_its_rule_before_what_saves(assembled, option):
    callbacks = assembled(*SYNTHETIC, f"plateau={option}").trainer.callbacks
    names = [type(callback).__name__ for callback in callbacks]
    assert names.index("PlateauControl") < names.index("Checkpointing")


def test_by_config_the_rate_falls_and_a_resumed_run_goes_on_with_it(assembled):
    whole = assembled(*SYNTHETIC, *COUNT, "trainer.keep=0", folder="whole")
    expected = record(whole)
    fit(whole)
    policy = whole.module.spec.policy
    assert whole.module.control.plateau < 0.5
    assert expected[39] == policy.lrs(39, 0.5 ** round(math.log(expected[39][0] / policy.lr(39), 0.5)))
    point = checkpoint_path(whole.checkpointing.folder, 24)
    resumed = assembled(*SYNTHETIC, *COUNT, folder="resumed", resumed=point)
    applied = record(resumed)
    fit(resumed)
    assert applied == {t: expected[t] for t in range(24, 40)}


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["plateau.monitor=val/f1"], "val/f1"),
        (["plateau.factor=2"], "plateau: factor=2"),
        (["+plateau.patiense=3"], "patiense"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_before_training(assembled, overrides, says):
    with pytest.raises(ConfigError) as refusal:
        assembled(*SYNTHETIC, "plateau=count", *overrides)
    assert says in str(refusal.value)
