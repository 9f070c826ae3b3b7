"""The whole curve before training: it is what training will apply, to the bit, and is told in few numbers."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.lr import (
    ConfigError,
    Horizon,
    HyperSchedule,
    LRPolicy,
    Plan,
    Warmup,
    compose,
    constant,
    cosine,
    linear,
    linear_warmup,
    mirrored,
    multi_step,
    no_warmup,
    scheduled,
    tied,
    wsd_s,
)
from trainer.lr.schedule import annotate

GROUPS = {"decay": 1.0, "no_decay": 1.0, "head": 0.1, "frozen": 0.0}


def policy(schedule, total, warmup=no_warmup, base_lr=0.3, scale=1.0, warmup_mode="prefix", **more):
    return LRPolicy(base_lr, scale, *compose(Horizon(total, 1), warmup, schedule, warmup_mode), **more)


def plan(schedule=cosine, total=200, warmup=no_warmup, settings=None, **more):
    return Plan(policy(schedule, total, warmup, **more), Horizon(total, 1), settings or {})


def ten_percent(horizon):
    return linear_warmup(horizon, duration="10%")


@given(total=st.integers(20, 40000), scale=st.floats(0.01, 100), width=st.integers(0, 19))
def test_every_curve_is_the_policys_to_the_bit(total, scale, width):
    warmup = lambda h: linear_warmup(h, duration=width, start=0.1)  # noqa: E731
    own = {"head": compose(Horizon(total, 1), warmup, linear)[1]}
    for warmup_mode in ("prefix", "overlay"):
        made = plan(cosine, total, warmup, scale=scale, groups=GROUPS, own=own, warmup_mode=warmup_mode)
        for t in {*range(20), total // 3, 16383, 16384, total - 1} & {*range(total)}:
            assert [made.curves[group][t] for group in GROUPS] == made.policy.lrs(t)
        assert {len(curve) for curve in made.curves.values()} == {total}


@pytest.mark.parametrize("rule", [tied, mirrored, lambda h: scheduled(h, of=cosine)])
def test_every_scheduled_value_is_the_policys_to_the_bit(rule):
    run = Horizon(300, 1)
    hyper_schedules = {
        "weight_decay": HyperSchedule(rule(run), [0.1, 0.06, 0.2, 0.3]),
        "dropout": HyperSchedule(rule(run), [0.5]),
    }
    made = plan(linear, 300, ten_percent, groups=GROUPS, hyper_schedules=hyper_schedules)
    assert list(made.hyper_schedules["weight_decay"]) == list(GROUPS)
    assert list(made.hyper_schedules["dropout"]) == ["run"]
    for t in (0, 29, 30, 299):
        values = made.policy.values(t)
        assert [made.hyper_schedules["weight_decay"][group][t] for group in GROUPS] == values["weight_decay"]
        assert [made.hyper_schedules["dropout"]["run"][t]] == values["dropout"]


def test_warmup_and_each_schedule_are_evaluated_once_per_update():
    seen = {"warmup": 0, "common": 0, "own": 0}

    def counting(name):
        def factor(t):
            seen[name] += 1
            return 1.0

        return factor

    rule = HyperSchedule(lambda t, base, share: base * share, [0.1] * 4)
    rates = LRPolicy(0.1, 1.0, Warmup(0, counting("warmup")), counting("common"), GROUPS, {"head": counting("own")})
    made = Plan(LRPolicy(**{**vars(rates), "hyper_schedules": {"weight_decay": rule}}), Horizon(1000, 1))
    made.summary(), made.sketch(), made.milestones(), made.hyper_schedules
    assert seen == {"warmup": 1000, "common": 1000, "own": 1000}


def test_groups_that_differ_in_nothing_share_one_curve():
    made = plan(groups=GROUPS)
    assert made.curves["decay"] is made.curves["no_decay"]
    assert made.curves["decay"] is not made.curves["head"]
    assert made.alike() == [list(GROUPS)]
    assert plan(groups=GROUPS, own={"head": lambda t: 1.0}).alike() == [["decay", "no_decay", "frozen"], ["head"]]


def test_a_group_is_told_by_its_first_highest_and_last_rate_and_their_sum():
    made = plan(linear, 12, lambda h: linear_warmup(h, duration=4), base_lr=1.0, groups={"all": 1.0, "head": 0.5})
    assert made.courses["all"] == pytest.approx((0.25, 1.0, 3, 0.125, 2.5 + 4.5))
    assert made.courses["head"] == pytest.approx((0.125, 0.5, 3, 0.0625, 3.5))
    facts = made.summary()
    assert facts["curves"]["head"] == {**made.courses["head"]._asdict(), "decay_area": None}
    assert facts["mean_lr"] == pytest.approx(7 / 12)


def test_the_decay_of_the_weights_is_the_sum_of_rate_times_decay():
    settings = {"decay": {"weight_decay": 0.1, "momentum": 0.9}, "no_decay": {"weight_decay": 0.0}}
    made = plan(linear, 4, base_lr=1.0, groups={"decay": 1.0, "no_decay": 1.0, "head": 1.0}, settings=settings)
    assert made.decay_area("decay") == pytest.approx(0.1 * (1 + 0.75 + 0.5 + 0.25))
    assert (made.decay_area("no_decay"), made.decay_area("head")) == (0.0, None)
    assert (made.setting("momentum", "decay"), made.setting("momentum", "head")) == (0.9, None)


def test_the_scheduled_values_hold_in_place_of_the_setting():
    hyper_schedules = {"weight_decay": HyperSchedule(tied(Horizon(4, 1)), [0.1])}
    made = plan(linear, 4, base_lr=1.0, hyper_schedules=hyper_schedules, settings={"all": {"weight_decay": 7.0}})
    assert list(made.setting("weight_decay", "all")) == pytest.approx([0.1, 0.075, 0.05, 0.025])
    assert made.decay_area("all") == pytest.approx(0.1 * (1 + 0.75**2 + 0.5**2 + 0.25**2))


def test_milestones_say_where_the_warmup_ends_and_the_schedule_changes():
    made = plan(lambda h: multi_step(h, milestones=["50%", "75%"]), 200, ten_percent)
    assert made.milestones() == [(20, "warm-up ends"), (120, "jump"), (170, "jump")]


def test_milestones_at_the_same_update_are_told_together_and_those_of_a_group_with_its_name():
    made = plan(lambda h: wsd_s(h, periods=2, decay_share=0.4), 20)
    assert made.milestones() == [(6, "bend"), (10, "jump, cycle ends"), (16, "bend"), (20, "cycle ends")]
    own = {"head": annotate(lambda t: 1.0, jumps=[5])}
    assert plan(total=20, groups={"all": 1.0, "head": 1.0}, own=own).milestones() == [(5, "jump (head)")]


def test_of_many_milestones_the_first_and_the_last_are_told():
    rows = plan(lambda h: annotate(lambda t: 1.0, jumps=range(1, 101)), 200).milestones(most=8)
    assert [t for t, _ in rows] == [1, 2, 3, 4, 5, 98, 99, 100]
    assert rows[4][1] == "… and 93 such"


@pytest.mark.parametrize("value", [-1e-9, math.nan, math.inf, -math.inf, 1e300])
@pytest.mark.parametrize("place", [0, 7, 199])
@pytest.mark.parametrize("group", ["all", "head"])
def test_a_rate_that_is_negative_or_not_finite_is_refused_with_its_update_and_group(value, place, group):
    wrong = lambda t: value if t == place else 1.0  # noqa: E731
    groups = {"all": 1.0, "head": 0.5}
    with pytest.raises(ConfigError, match=rf"group {group} .* at update {place}: .*finite"):
        plan(lambda h: constant(h) if group == "head" else wrong, groups=groups, own={"head": wrong})


def test_a_plan_of_nothing_but_zeros_is_refused_and_a_frozen_first_group_is_not():
    with pytest.raises(ConfigError, match="0 at every update"):
        plan(groups={"frozen": 0.0, "other": 0.0})
    made = plan(groups={"frozen": 0.0, "all": 1.0})
    assert made.courses["frozen"].peak == 0.0
    assert set(made.sketch(group="frozen")) == {""}
    assert "█" in made.sketch(group="all")[0]


def test_landmarks_are_in_order_and_within_the_run():
    for total, width in ((2, 1), (20, 19), (1000, 0)):
        marked = plan(total=total, warmup=lambda h, w=width: linear_warmup(h, duration=w)).landmarks()
        assert marked[0] == 0
        assert marked[-1] == total - 1
        assert all(earlier < later for earlier, later in pairwise(marked))
