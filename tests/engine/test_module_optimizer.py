"""`optimizer=module` takes class, groups and numbers of the module's optimizer; the policy sets its rates."""

import math

import pytest
import torch

from tests.engine.test_lightning import MODULES, TASK, same, stock
from trainer.checkpoint.io import checkpoint_path, read
from trainer.config import module_optimizer, resolve
from trainer.config.resolve import plan_of
from trainer.config.run_summary import format_run, summary_of_run
from trainer.config.settings import settings_of
from trainer.lr import ConfigError
from trainer.run import fit

OWN = (
    *(*TASK, "optimizer=module", "data.batch_size=32", "trainer.duration=2ep", "logger=none", "trainer.keep=0"),
    f"{MODULES}TwoRates",
)
LINEAR = ("model._target_=torch.nn.Linear", "+model.in_features=64", "+model.out_features=10")
RATES = [3e-4, 0.1 * 7e-3]


def test_weights_are_those_of_lightnings_own_trainer_with_the_modules_own_optimizer(assembled):
    net, _ = stock(assembled(*OWN, "trainer.validate=1000", folder="stock"), None)
    run = assembled(*OWN)
    fit(run)
    assert same(run.module.net, net)
    assert run.module.control.applied == RATES


def test_the_policy_sets_the_rates_and_the_module_reads_them(assembled):
    run = assembled(*OWN, "schedule=cosine", "warmup=linear", "warmup.duration=10", "optimizer.lr=0.006")
    rows, add = [], run.module.metric_buffer.add
    run.module.metric_buffer.add = lambda *given: (rows.append((run.module.control.applied, given[-1])), add(*given))
    fit(run)
    plan = run.resolved.plan
    assert list(plan.curves) == ["group_0", "group_1"]
    assert [list(rates) for rates in zip(*plan.curves.values())] == [rates for rates, _ in rows]
    assert [logs["read_lr"].item() for _, logs in rows] == pytest.approx([rates[1] for rates, _ in rows])
    assert plan.curves["group_0"][9] == 0.006
    assert plan.curves["group_1"][9] == pytest.approx(0.006 * RATES[1] / RATES[0])
    text = [line for name, line in format_run({**summary_of_run(run.resolved), "lint": []}) if line]
    assert "configure_optimizers gives torch.optim.adamw.AdamW" in text
    assert any("weight decay 0.1" in line for line in text)


def test_a_rate_that_the_module_writes_has_no_effect_and_is_told_once(assembled, capsys):
    plain, impatient = (
        assembled(*OWN, f"model._target_=tests.engine.lightning_modules.{kind}", "trainer.duration=4", folder=kind)
        for kind in ("TwoRates", "Impatient")
    )
    fit(plain)
    assert "without effect" not in capsys.readouterr().err
    fit(impatient)
    told = capsys.readouterr().err
    assert told.count("warning: Impatient writes a rate, without effect: group group_1 has lr=0.5 where") == 1
    assert same(impatient.module.net, plain.module.net)


def test_the_plan_is_that_of_the_run(compose, assembled):
    words = (*OWN, "schedule=cosine")
    plan = plan_of(settings_of(compose(*words)))
    assert plan.curves == assembled(*words).resolved.plan.curves
    assert resolve.MODULE == module_optimizer.OPTIMIZER


def test_a_resumed_run_has_the_same_bits_and_the_class_of_the_optimizer_must_stay(assembled):
    words = (*OWN, "schedule=cosine", "trainer.checkpoint=13")
    whole = assembled(*words)
    fit(whole)
    path = checkpoint_path(whole.checkpointing.folder, 52)
    resumed = assembled(*words, folder="on", resumed=path)
    fit(resumed)
    assert same(whole.module, resumed.module)
    with pytest.raises(ConfigError, match="has the state of torch.optim.adamw.AdamW, not of torch.optim.sgd.SGD"):
        assembled(*words, f"{MODULES}Classifier", folder="other", resumed=path)


def test_a_rule_of_the_batch_changes_the_numbers_of_the_module(assembled):
    run = assembled(*OWN, "scaling=adam_sde", "scaling.base_batch_size=8")
    groups = run.module.configure_optimizers().param_groups
    numbers = run.resolved.numbers
    assert numbers.scale == 2
    assert [group["betas"] for group in groups] == [tuple(numbers.curve.optimizer["betas"])] * 2
    assert groups[0]["betas"] == pytest.approx((1 - 4 * 0.2, 1 - 4 * 0.05))
    fit(run)
    assert run.module.control.applied == [2 * rate for rate in RATES]


def test_a_scheduler_is_refused_or_left_out_by_name(assembled):
    words = (*OWN, f"{MODULES}Scheduled")
    with pytest.raises(ConfigError, match=r"gives a OneCycleLR, and .* task.step.ignore=\[lr_scheduler\]"):
        assembled(*words)
    run = assembled(*words, "task.step.ignore=[lr_scheduler]")
    fit(run)
    assert all(math.isclose(a, b) for a, b in zip(run.module.control.applied, [3e-3 / 25, 7e-3 / 25]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*LINEAR,), "optimizer=module: model makes a Linear, which has none"),
        (("groups=all",), "optimizer=module has groups of its own"),
        (("optimizer=adamw", "groups=module"), "groups=module are those of optimizer=module"),
        (("+optimizer.weight_decay=0.1",), "optimizer.weight_decay is set by the module"),
        ((f"{MODULES}Autoencoder",), "optimizer=module: Autoencoder has no configure_optimizers"),
    ],
)
def test_what_does_not_fit_is_refused(assembled, words, message):
    with pytest.raises(ConfigError, match=message):
        assembled(*OWN, *words)


def test_a_range_test_sweeps_the_rates_of_both_groups(assembled):
    from trainer.tools.range_test.sweep import sweep

    run = assembled(*OWN)
    before = {name: value.clone() for name, value in run.module.net.state_dict().items()}
    assert all(0 < loss < 5 for loss in sweep(run, "lr", [1e-4, 1e-3, 1e-2]).losses)
    assert all(torch.equal(value, before[name]) for name, value in run.module.net.state_dict().items())
    fit(run)
    assert read(checkpoint_path(run.checkpointing.folder, 78))["cadence"]["config"]["optimizer"]["lr"] == 3e-4
