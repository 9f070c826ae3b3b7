"""A batch that grows keeps lr / batch^exponent what the schedule says at each sample, on a clock of fewer updates."""

import itertools
import math

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from trainer.lr import (
    ConfigError,
    Growth,
    Horizon,
    HyperSchedule,
    LRPolicy,
    Plan,
    compose,
    constant,
    cosine,
    exponential_decay,
    grow,
    grown,
    linear,
    linear_warmup,
    lint,
    multi_step,
    no_warmup,
    one_cycle_stairs,
    piecewise,
    step,
    tied,
)
from trainer.lr.grow import BATCH

RUN = Horizon(100, batch_size=8, updates_per_epoch=500)


def plan(schedule, most, run=RUN, warmup=no_warmup, exponent=1.0, noise_batch=None, **more):
    """The plan of a run whose batch grows, and the policy that it was made of."""
    before = LRPolicy(0.1, 1.0, *compose(run, warmup, schedule), **more)
    growth = grow(run, before.schedule, max_batch_size=most, exponent=exponent, noise_batch=noise_batch)
    return Plan(grown(before, growth, run.batch_size), run.grown(growth)), before


def stairs(*rows):
    return lambda horizon: piecewise(horizon, points=[list(row) for row in rows], interpolation="constant")


def test_a_table_worked_by_hand():
    """100 updates of 8: to 50 at 1, to 75 at 1/4, then at 1/10, with a batch of at most 64.

    50 updates of 8 samples; ⌈25 / 4⌉ = 7 of 32, which end at reference update 78; ⌈22 / 8⌉ = 3 of 64 at 8/10.
    """
    made, _ = plan(stairs((0, 1.0), (50, 0.25), (75, 0.1)), 64)
    assert made.batches() == [
        {"update": 0, "samples": 0, "batch": 8, "schedule": 1.0},
        {"update": 50, "samples": 400, "batch": 32, "schedule": 1.0},
        {"update": 57, "samples": 624, "batch": 64, "schedule": 0.8},
    ]
    assert made.horizon.total == len(made.curve) == 60
    assert list(made.curve) == pytest.approx([0.1] * 57 + [0.08] * 3, rel=1e-15)
    batches = list(next(iter(made.hyper_schedules[BATCH].values())))
    assert batches == [8.0] * 50 + [32.0] * 7 + [64.0] * 3
    assert made.milestones() == [(50, "batch grows"), (57, "jump, batch grows")]
    assert [made.horizon.growth.at(t) for t in (0, 49, 50, 51, 56, 57, 58, 59, 60)] == [
        *(0, 49, 50, 54, 74, 78, 86, 94, 102),
    ]


def test_the_square_root_rule_squares_the_batch():
    made, _ = plan(lambda h: multi_step(h, milestones=[40], gamma=0.5), 1024, exponent=0.5)
    assert [(part["update"], part["batch"], part["schedule"]) for part in made.batches()] == [
        (0, 8, 1.0),
        (40, 32, 1.0),
    ]
    short, _ = plan(lambda h: multi_step(h, milestones=[40], gamma=0.5), 16, exponent=0.5)
    assert short.batches()[1]["schedule"] == 0.5 * math.sqrt(2)


def test_powers_of_a_tenth_give_whole_ratios_and_a_rate_that_is_constant_to_the_bit():
    run = Horizon(4000, batch_size=1)
    made, _ = plan(lambda h: step(h, every=1000), 1000, run=run)
    assert [part["batch"] for part in made.batches()] == [1, 10, 100, 1000]
    assert set(made.curve) == {0.1}
    assert made.horizon.total == 1000 + 100 + 10 + 1
    assert made.peak == 0


def test_the_warmup_is_that_of_the_samples_and_ends_where_it_did():
    made, before = plan(lambda h: multi_step(h, gamma=0.5), 32, warmup=lambda h: linear_warmup(h, duration=20))
    assert made.policy.warmup.updates == 20
    assert [made.policy.lr(t) for t in range(60)] == [before.lr(t) for t in range(60)]
    assert made.policy.lr(61) == before.lr(59)
    assert made.policy.schedule(61) == 1.0


@st.composite
def falling(draw):
    """A run, stairs that fall, the largest ratio and the exponent."""
    total = draw(st.integers(4, 300))
    starts = sorted(draw(st.sets(st.integers(1, (total - 1) // 2), min_size=1, max_size=5)))
    first = draw(st.sampled_from([1.0, 0.7, 2.0]))
    drops = draw(st.lists(st.floats(0.01, 0.95), min_size=len(starts), max_size=len(starts)))
    shares = list(itertools.accumulate(drops, lambda share, drop: share * drop, initial=first))
    points = [(2 * start, share) for start, share in zip([0, *starts], shares)]
    exponent = draw(st.sampled_from([1.0, 0.5, 0.75]))
    assume(shares[-1] / first < 0.5**exponent)  # or it never grows
    return total, points, draw(st.integers(2, 40)), exponent, draw(st.integers(1, 64))


@given(falling())
@example((4, [(0, 1.0), (2, 0.01)], 40, 1.0, 1))
@settings(max_examples=150, deadline=None)
def test_rate_over_batch_is_the_schedule_at_the_same_sample_and_the_samples_follow_each_other(case):
    total, points, most, exponent, batch = case
    run = Horizon(total, batch)
    made, before = plan(stairs(*points), most * batch, run=run, exponent=exponent)
    growth, policy, at = made.horizon.growth, made.policy, 0
    for t in range(made.horizon.total):
        assert growth.at(t) == at, "an update begins where the one before has ended"
        ratio = growth.ratio(t)
        assert made.horizon.batch(t) == ratio * batch == policy.values(t)[BATCH][0]
        assert policy.lr(t) / ratio**exponent == pytest.approx(before.lr(at), rel=2e-9)
        exact = (before.schedule(0) / before.schedule(at)) ** (1 / exponent)
        assert (
            ratio == min(most, exact)
            or ratio == pytest.approx(min(most, exact), rel=1e-6)
            or (ratio <= min(most, exact) < ratio + 1)
        )
        at += ratio
    assert total <= at < total + growth.ratio(made.horizon.total - 1), "the end comes with the update that reaches it"
    rest = [end - begin for (begin, _), (end, _) in itertools.pairwise([*points, (total, 0)])]
    ratios = [min(most, (points[0][1] / share) ** (1 / exponent)) for _, share in points]
    least = sum(length / (ratio + 1e-6) for length, ratio in zip(rest, ratios))
    assert (
        least - 1e-3
        <= made.horizon.total
        <= sum(math.ceil(length / max(1, math.floor(ratio - 1e-6))) for length, ratio in zip(rest, ratios))
    )


@given(falling(), st.integers(1, 60))
@settings(max_examples=100, deadline=None)
def test_a_leg_ends_with_the_first_update_that_has_reached_each_multiple_wherever_it_is_asked_from(case, every):
    total, points, most, exponent, batch = case
    made, _ = plan(stairs(*points), most * batch, run=Horizon(total, batch), exponent=exponent)
    growth = made.horizon.growth
    last = made.horizon.total
    ends = sorted(
        {next(t for t in range(last + 1) if growth.at(t) >= place) for place in range(every, total + 1, every)}
    )
    for t in range(last):
        later = [end for end in ends if end > t]
        assert not later or growth.next(every, t) == later[0]
    assert [growth.first(place) for place in range(total + 1)] == [
        next(t for t in range(last + 1) if growth.at(t) >= place) for place in range(total + 1)
    ]


def test_a_stair_that_one_update_steps_over_is_left_out():
    made, _ = plan(stairs((0, 1.0), (10, 0.1), (12, 0.05), (14, 0.01)), 8 * 100, run=Horizon(60, 8))
    assert [(part["update"], part["samples"] // 8, part["batch"] // 8) for part in made.batches()] == [
        *((0, 0, 1), (10, 10, 10), (11, 20, 100)),
    ]


def test_beyond_the_largest_batch_and_at_a_rate_of_zero_the_rate_does_the_rest():
    made, _ = plan(stairs((0, 1.0), (40, 0.5), (60, 0.1), (80, 0.0)), 16)
    assert [(part["update"], part["batch"], part["schedule"]) for part in made.batches()] == [
        (0, 8, 1.0),
        (40, 16, 1.0),
    ]
    assert [made.policy.schedule(t) for t in (49, 50, 59, 60, 69, 500)] == [1.0, 0.2, 0.2, 0.0, 0.0, 0.0]


def test_other_hyper_parameters_are_read_at_the_place_and_follow_the_rate_in_use():
    rising = HyperSchedule(lambda t, base, share: base + t, (1.0,))
    decay = HyperSchedule(tied(RUN), (0.5,))
    made, _ = plan(
        lambda h: multi_step(h, milestones=[50], gamma=0.25),
        32,
        hyper_schedules={"dropout_": rising, "weight_decay": decay},
    )
    assert [made.policy.values(t)["dropout_"] for t in (10, 50, 51)] == [[11.0], [51.0], [55.0]]
    assert made.policy.values(51)["weight_decay"] == [0.5]


def test_durations_of_a_run_that_grows_are_read_on_the_reference_clock():
    made, _ = plan(lambda h: multi_step(h, milestones=[50], gamma=0.25), 32)
    assert (made.horizon.total, made.horizon.reference.total, made.horizon.reference.updates("10%")) == (63, 100, 10)
    assert made.horizon.reference == RUN
    assert [made.horizon.updates(given) for given in ("50%", "75%", 75, "600 samples", "100%")] == [50, 57, 57, 57, 63]
    assert RUN.reference is not made.horizon
    assert Growth().next(7, 13) == 14


@pytest.mark.parametrize(
    ("schedule", "most", "more", "says"),
    [
        (lambda h: cosine(h), 64, {}, "not made of stairs, it changes at update 1 and again at 2: it needs stairs"),
        (lambda h: linear(h), 64, {}, "schedule=step, multi_step, piecewise_constant"),
        (lambda h: one_cycle_stairs(h), 64, {}, "rises from 0.04 to"),
        (lambda h: constant(h), 64, {}, "is 1 at every update"),
        (lambda h: step(h), 4, {}, "max_batch_size=4 lies below the starting batch of 8"),
        (lambda h: step(h), 8, {}, "max_batch_size=8 is the starting batch, so it never grows: take 16 or more"),
        (lambda h: step(h), 12, {}, "max_batch_size=12 is not a multiple of 8: take 16."),
        (lambda h: step(h), 60, {}, "max_batch_size=60 is not a multiple of 8: take 56 or 64."),
        (stairs((0, 1.0), (50, 0.6)), 64, {}, "falls to 0.6 of its first stair, but the batch doubles only at 0.5, "),
        (stairs((0, 1.0), (50, 0.72)), 64, {"exponent": 0.5}, "falls to 0.72 of its first stair, but the batch"),
        (
            lambda h: multi_step(h),
            64,
            {"warmup": lambda h: linear_warmup(h, duration="60%")},
            "first falls at update 110, and the last update is 99: place its milestones within the run",
        ),
        (lambda h: step(h), 4008, {}, "more than the 4000 samples of an epoch"),
        (lambda h: step(h), 0, {}, "max_batch_size=0"),
        (lambda h: step(h), -8, {}, "max_batch_size=-8"),
        (lambda h: step(h), 64.0, {}, "max_batch_size=64.0 is not a whole number"),
        (lambda h: step(h), True, {}, "max_batch_size=True"),
        (lambda h: step(h), None, {}, "max_batch_size=None"),
        (lambda h: step(h), math.nan, {}, "max_batch_size=nan"),
        (lambda h: step(h), "64", {}, "max_batch_size='64'"),
        (lambda h: step(h), 64, {"exponent": 0.0}, "exponent=0.0 is out of range"),
        (lambda h: step(h), 64, {"exponent": 1.5}, "exponent=1.5 is out of range"),
        (lambda h: step(h), 64, {"exponent": math.nan}, "exponent=nan"),
        (lambda h: step(h), 64, {"noise_batch": 0}, "noise_batch=0"),
        (lambda h: step(h), 64, {"noise_batch": 2.5}, "noise_batch=2.5"),
    ],
)
def test_what_cannot_grow_is_refused_in_one_line(schedule, most, more, says):
    with pytest.raises(ConfigError) as error:
        plan(schedule, most, **more)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "schedule",
    [
        lambda h: step(h, every=5, gamma=0.9),
        lambda h: exponential_decay(h, every=10, staircase=True),
        stairs((0, 0.5), (9, 0.1)),
        lambda h: lambda t: 1.0 if t < 30 else 0.1,
    ],
)
def test_any_schedule_of_stairs_grows_marked_or_not_and_no_jump_of_it_is_a_surprise(schedule):
    made, _ = plan(schedule, 32)
    assert made.horizon.growth.grows
    assert not {"jump", "last-lr", "unreached"} & {found.rule for found in lint.lint(made)}


def test_a_batch_beyond_a_tenth_of_an_epoch_or_beyond_the_noise_scale_is_warned_of():
    def told(most, **more):
        made, _ = plan(lambda h: step(h, every=30), most, **more)
        return [found.message for found in lint.lint(made) if found.rule == "large-batch"]

    assert told(400) == []
    (tenth,) = told(408)
    assert "from update 33 on lies above a tenth of the 4,000 samples" in tenth
    assert "max_batch_size=400" in tenth
    (noise,) = told(80, noise_batch=79)
    assert "grows to 80 samples, and from update 30 on lies above the noise scale of 79" in noise
    assert "max_batch_size=72" in noise
    assert told(80, noise_batch=80) == []
    for near in (8, 15):
        assert told(80, noise_batch=near)[0].endswith("set batch_schedule=none."), "no batch that may be set is advised"
