"""The other hyper-parameters: each a function of the update, around the user's own number."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.lr import (
    ConfigError,
    Horizon,
    HyperSchedule,
    LRPolicy,
    Plan,
    compose,
    coupled,
    linear,
    linear_warmup,
    mirrored,
    scheduled,
    tied,
)

RUN = Horizon(12, batch_size=1)


def policy(**hyper_schedules):
    warmup, schedule = compose(RUN, lambda h: linear_warmup(h, duration=4), linear)
    return LRPolicy(0.3, 2.0, warmup, schedule, {"body": 1.0, "head": 0.1}, hyper_schedules=hyper_schedules)


def test_a_scheduled_value_is_the_users_number_times_the_schedule_over_the_whole_run():
    rates = policy(weight_decay=HyperSchedule(scheduled(RUN, of=linear), (0.1, 0.0)))
    assert [rates.values(t)["weight_decay"] for t in (0, 3, 6, 12)] == [[0.1, 0], [0.1 * 0.75, 0], [0.05, 0], [0, 0]]


def test_a_tied_value_follows_the_learning_rate_through_warmup_schedule_and_plateau():
    rates = policy(weight_decay=HyperSchedule(tied(RUN), (0.1, 0.2)))
    for t in range(15):
        for plateau in (1.0, 0.25):
            share = rates.warmup.factor(t) * rates.schedule(t) * plateau
            assert rates.values(t, plateau)["weight_decay"] == [0.1 * share, 0.2 * share]


def test_mirrored_momentum_swings_around_the_users_own_number_against_the_learning_rate():
    rates = policy(momentum=HyperSchedule(mirrored(RUN, swing=0.05), (0.9, 0.9)))
    values = [rates.values(t)["momentum"][0] for t in range(13)]
    assert values[3] == min(values) == pytest.approx(0.85, rel=1e-12)
    assert values[12] == max(values) == pytest.approx(0.95, rel=1e-12)
    assert values[8] == pytest.approx(0.9, rel=1e-12)


@given(base=st.floats(0.0, 0.99), t=st.integers(0, 11))
def test_coupled_momentum_keeps_the_rate_over_one_minus_momentum_at_its_value_at_the_peak(base, t):
    rates = policy(momentum=HyperSchedule(coupled(RUN, highest=0.9999), (base, base)))
    value = rates.values(t)["momentum"][0]
    assert rates.lr(t) / (1 - value) == pytest.approx(rates.peak_lr / (1 - base), rel=1e-6) or value == 0.9999
    assert base <= value <= 0.9999


def test_a_value_of_the_whole_run_is_one_number():
    assert policy(dropout=HyperSchedule(scheduled(RUN, of=linear), [0.4])).values(3) == {"dropout": [0.4 * 0.75]}


def test_without_schedules_there_are_no_values():
    assert policy().values(3) == {}


@pytest.mark.parametrize(
    ("name", "base", "says"),
    [
        ("momentum", 1.0, r"momentum is 1 at update 3.*below 1"),
        ("beta2", 1.2, "at update 3"),
        ("label_smoothing", 1.1, "at most 1"),
        ("dropout", -0.1, "at update 0"),
        ("weight_decay", math.inf, "finite"),
        ("eps", math.nan, "finite"),
    ],
)
def test_a_plan_refuses_a_value_that_leaves_its_range(name, base, says):
    with pytest.raises(ConfigError, match=f"hyper_schedule.{name}.*{says}" if "is 1" not in says else says):
        Plan(policy(**{name: HyperSchedule(tied(RUN), (base, base))}), RUN)
    Plan(
        policy(weight_decay=HyperSchedule(tied(RUN), (2.0, 0.0)), label_smoothing=HyperSchedule(tied(RUN), (1.0,))), RUN
    )


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: mirrored(RUN, swing=0), "swing=0"),
        (lambda: mirrored(RUN, swing=float("nan")), "swing=nan"),
        (lambda: coupled(RUN, highest=1.0), "highest=1.0"),
        (lambda: coupled(RUN, highest="high"), "highest='high'"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused(make, says):
    with pytest.raises(ConfigError, match=says):
        make()
