"""Which factors of the rate a run logs: those that are not 1 at every update."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer.log.metric_buffer import changing_factors
from trainer.lr import Horizon, LRPolicy, compose, constant_warmup, hold_warmup, no_warmup

GROUPS = {"decay": 1.0, "no_decay": 1.0}
ONE = lambda horizon: lambda t: 1.0  # noqa: E731


def policy(warm=no_warmup, schedule=ONE, total=100, **options):
    warmup, curve = compose(Horizon(total, 1), warm, schedule)
    return LRPolicy(0.1, 1.0, warmup, curve, GROUPS, **options)


@pytest.mark.parametrize("total", [20, 100, 1_000_000])
@pytest.mark.parametrize("warm", [no_warmup, hold_warmup])
def test_a_rate_that_is_always_the_peak_has_no_chart_of_a_factor(warm, total):
    assert changing_factors(policy(warm, total=total), total) == set()


def test_a_warmup_is_charted_for_each_group():
    tags = changing_factors(policy(constant_warmup), 100)
    assert tags == {"x_lr_factors/decay/warmup", "x_lr_factors/no_decay/warmup"}


@pytest.mark.parametrize("begin", [0, 1, 9_999, 500_000, 999_999])
def test_a_schedule_that_falls_at_any_update_is_charted(begin):
    tags = changing_factors(policy(schedule=lambda horizon: lambda t: 1.0 if t < begin else 0.5, total=10**6), 10**6)
    assert tags == {"x_lr_factors/decay/schedule", "x_lr_factors/no_decay/schedule"}


def test_a_group_with_a_schedule_of_its_own_is_charted_alone():
    tags = changing_factors(policy(own={"no_decay": lambda t: 1 / (t + 1)}), 100)
    assert tags == {"x_lr_factors/no_decay/schedule"}


@pytest.mark.parametrize(
    ("words", "factors"),
    [((), set()), (("warmup=linear", "warmup.duration=10", "schedule=linear"), {"schedule", "warmup"})],
)
def test_a_run_logs_the_factors_that_change(assembled, words, factors):
    run = assembled("data=synthetic", "schedule=constant", "trainer.duration=20", *words)
    run.trainer.fit(run.module, datamodule=run.data)
    run.trainer.logger.close()
    tags = EventAccumulator(str(run.folder)).Reload().Tags()["scalars"]
    assert {tag.rpartition("/")[2] for tag in tags if tag.startswith("x_lr_factors/")} == factors
