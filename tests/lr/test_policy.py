"""The one formula: its factors, their product to the bit, and how warm-up and schedule share a run."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.lr import (
    ConfigError,
    Horizon,
    LRPolicy,
    Plan,
    compose,
    constant,
    cosine,
    linear,
    linear_scaling,
    linear_warmup,
    no_scaling,
    no_warmup,
    sqrt_scaling,
    step,
    wsd,
)

WARMUPS = [
    no_warmup,
    lambda h: linear_warmup(h, duration="10%"),
    lambda h: linear_warmup(h, duration=7, start=0.2),
]
SCHEDULES = [constant, linear, lambda h: cosine(h, floor=0.1), lambda h: step(h, every="30%"), wsd]


def policy(warmup, schedule, total=200, warmup_mode="prefix", **more):
    rise, fall = compose(Horizon(total, batch_size=1), warmup, schedule, warmup_mode)
    return LRPolicy(more.pop("base_lr", 0.3), more.pop("scale", 4.0), rise, fall, **more)


@pytest.mark.parametrize("warmup_mode", ["prefix", "overlay"])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup", WARMUPS)
def test_the_factors_multiply_to_the_learning_rate_to_the_bit(warmup, schedule, warmup_mode):
    rates = policy(warmup, schedule, warmup_mode=warmup_mode, groups={"decay": 1.0, "head": 0.1, "frozen": 0.0})
    for t in (0, 1, 6, 7, 19, 20, 21, 100, 199, 200, 5000):
        assert rates.lrs(t) == [rates.lr(t, group) for group in rates.groups]
        for group in rates.groups:
            assert math.prod(rates.explain(t, group).values()) == rates.lr(t, group)
            stateful = ["plateau", "backoff"]
            assert list(rates.explain(t, group)) == ["base_lr", "scale", "group_mult", "warmup", "schedule", *stateful]


def test_with_prefix_the_schedule_has_the_updates_after_the_warmup():
    rates = policy(lambda h: linear_warmup(h, duration=4), linear, total=12, base_lr=1.0, scale=1.0)
    ramp, fall = [0.25, 0.5, 0.75, 1.0], [1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]
    assert [rates.lr(t) for t in range(14)] == pytest.approx(ramp + fall + [0.0, 0.0], rel=1e-12)


def test_with_overlay_the_schedule_spans_the_run_and_the_warmup_multiplies_it():
    warmup = lambda h: linear_warmup(h, duration=4)  # noqa: E731
    rates = policy(warmup, linear, total=8, warmup_mode="overlay", base_lr=1.0, scale=1.0)
    expected = [0.25 * 1, 0.5 * 7 / 8, 0.75 * 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0]
    assert [rates.lr(t) for t in range(9)] == pytest.approx(expected, rel=1e-12)


@given(total=st.integers(100, 300), share=st.integers(1, 60))
def test_there_is_no_jump_where_the_warmup_meets_the_schedule(total, share):
    rates = policy(lambda h: linear_warmup(h, duration=f"{share}%"), cosine, total=total)
    width = rates.warmup.updates
    assert rates.lr(width - 1) == rates.lr(width) == rates.peak_lr


def test_any_update_can_be_asked_for_in_any_order():
    rates = policy(WARMUPS[1], SCHEDULES[2])
    forward = [rates.lr(t) for t in range(200)]
    assert [rates.lr(t) for t in reversed(range(200))] == forward[::-1]


@pytest.mark.parametrize(("rule", "scale"), [(no_scaling, 1.0), (linear_scaling, 4.0), (sqrt_scaling, 2.0)])
def test_a_rule_scales_by_the_ratio_of_the_global_batch_to_the_base_batch(rule, scale):
    assert rule(256, 64) == scale
    assert rule(64, 64) == 1.0


@pytest.mark.parametrize("base", [None, 0, -64, 6.5, "64", True, math.nan])
def test_a_rule_refuses_a_base_batch_that_is_none(base):
    for rule in (linear_scaling, sqrt_scaling):
        with pytest.raises(ConfigError, match=r"scaling\.base_batch_size"):
            rule(256, base)


@pytest.mark.parametrize("lr", [0, 0.0, -0.1, math.nan, math.inf, "fast", None, True, 1e308])
def test_a_base_rate_that_is_no_positive_finite_number_is_refused(lr):
    with pytest.raises(ConfigError, match=r"optimizer\.lr"):
        policy(no_warmup, constant, base_lr=lr, groups={"all": 10.0})


@pytest.mark.parametrize(
    ("width", "warmup_mode"), [(200, "prefix"), (300, "prefix"), (200, "overlay"), ("100%", "prefix")]
)
def test_a_warmup_that_leaves_nothing_of_the_run_is_refused_with_the_numbers(width, warmup_mode):
    with pytest.raises(ConfigError, match="200"):
        policy(lambda h: linear_warmup(h, duration=width), cosine, warmup_mode=warmup_mode)


def test_an_unknown_composition_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="prefix, overlay"):
        policy(no_warmup, constant, warmup_mode="product")


def test_a_plan_knows_its_peak_its_ends_and_its_area():
    plan = Plan(policy(lambda h: linear_warmup(h, duration=4), linear, total=12, base_lr=1.0), Horizon(12, 1))
    facts = plan.summary()
    assert (facts["peak_lr"], facts["peak_update"], facts["first_lr"], facts["last_lr"]) == (4.0, 3, 1.0, 0.5)
    assert facts["mean_lr"] == pytest.approx(4.0 * (2.5 + 4.5) / 12)
    assert plan.landmarks() == [0, 3, 4, 6, 9, 11]


def test_a_plan_refuses_a_curve_that_is_negative_not_finite_or_zero_everywhere():
    for schedule in (lambda h: lambda t: -1.0, lambda h: lambda t: math.nan, lambda h: lambda t: 0.0):
        with pytest.raises(ConfigError):
            Plan(policy(no_warmup, schedule, total=5), Horizon(5, 1))


def test_a_sketch_is_full_at_the_peak_and_empty_at_the_floor():
    sketch = Plan(policy(no_warmup, linear, total=400), Horizon(400, 1)).sketch(width=40, height=5)
    assert (len(sketch), len(sketch[-1]), sketch[0][0], sketch[-1][0]) == (5, 39, "█", "█")
    assert len(sketch[0]) < len(sketch[2]) < len(sketch[4])
