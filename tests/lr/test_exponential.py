"""Exponential and inverse-time decays: golden values from hand and from a second source, then their laws."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.lr.torch_scheduler import torch_curve
from trainer.lr import ConfigError, Horizon
from trainer.lr.convention import Convention
from trainer.lr.exponential import (
    exponential,
    exponential_decay,
    final_exponential,
    inverse_time,
    natural_exponential,
)
from trainer.lr.schedule import annotations

RUN = Horizon(12, batch_size=1)
FAR = 10**12
R2 = math.sqrt(2)

# Worked out by hand. Each row: the schedule over a span of 12 updates, then t: m(t).
GOLDEN = [
    (lambda h: exponential(h, gamma=0.5), {0: 1, 1: 0.5, 6: 2**-6, 11: 2**-11, 12: 2**-12, FAR: 2**-12}),
    (lambda h: exponential(h, gamma=0.5, floor=0.2), {0: 1, 2: 0.25, 3: 0.2, 11: 0.2, 12: 0.2, FAR: 0.2}),
    (lambda h: exponential(h, gamma=1), {0: 1, 6: 1, FAR: 1}),
    (lambda h: natural_exponential(h, rate=math.log(2)), {0: 1, 1: 0.5, 6: 2**-6, 12: 2**-12, FAR: 2**-12}),
    (lambda h: natural_exponential(h, rate=math.log(2), floor=0.2), {0: 1, 2: 0.25, 3: 0.2, 12: 0.2, FAR: 0.2}),
    (lambda h: final_exponential(h, final=1 / 64), {0: 1, 1: 1 / R2, 6: 0.125, 10: 2**-5, 12: 2**-6, FAR: 2**-6}),
    (lambda h: final_exponential(h), {0: 1, 3: 10**-0.5, 6: 0.1, 12: 0.01, 13: 0.01, FAR: 0.01}),
    (lambda h: exponential_decay(h, every=4, rate=0.25), {0: 1, 1: 1 / R2, 6: 0.125, 12: 2**-6, FAR: 2**-6}),
    (lambda h: exponential_decay(h, every="50%", rate=0.25, floor=0.2), {0: 1, 3: 0.5, 6: 0.25, 7: 0.2, FAR: 0.2}),
    (lambda h: exponential_decay(h, every=24, rate=0.25), {0: 1, 6: 1 / R2, 12: 0.5, 24: 0.5, FAR: 0.5}),
    (
        lambda h: exponential_decay(h, every=5, rate=0.5, staircase=True),
        {0: 1, 4: 1, 5: 0.5, 9: 0.5, 10: 0.25, 11: 0.25, 12: 0.25, 15: 0.25, FAR: 0.25},
    ),
    (
        lambda h: exponential_decay(h, every=4, rate=0.5, staircase=True, floor=0.3),
        {0: 1, 3: 1, 4: 0.5, 7: 0.5, 8: 0.3, 11: 0.3, 12: 0.3, FAR: 0.3},
    ),
    (lambda h: exponential_decay(h, every=6, rate=0.1, staircase=True), {5: 1, 6: 0.1, 11: 0.1, 12: 0.1, FAR: 0.1}),
    (lambda h: exponential_decay(h, every=50, rate=0.1, staircase=True), {0: 1, 11: 1, 12: 1, 50: 1, FAR: 1}),
    (lambda h: inverse_time(h, every=4), {0: 1, 1: 0.8, 4: 0.5, 6: 0.4, 11: 4 / 15, 12: 0.25, FAR: 0.25}),
    (lambda h: inverse_time(h, rate=3, every=3, floor=0.1), {0: 1, 1: 0.5, 5: 1 / 6, 8: 1 / 9, 9: 0.1, FAR: 0.1}),
    (
        lambda h: inverse_time(h, rate=2, every=4, staircase=True),
        {0: 1, 3: 1, 4: 1 / 3, 7: 1 / 3, 8: 0.2, 11: 0.2, 12: 0.2, FAR: 0.2},
    ),
]

# Each from 1, never rising, never below its floor.
CURVES = [
    lambda h, floor: exponential(h, gamma=0.97, floor=floor),
    lambda h, floor: natural_exponential(h, rate=0.03, floor=floor),
    lambda h, floor: final_exponential(h, final=max(floor, 1e-6)),
    lambda h, floor: exponential_decay(h, floor=floor),
    lambda h, floor: exponential_decay(h, every="30%", rate=0.2, staircase=True, floor=floor),
    lambda h, floor: inverse_time(h, floor=floor),
    lambda h, floor: inverse_time(h, rate=0.3, every="7%", staircase=True, floor=floor),
]


@pytest.mark.parametrize(("make", "points"), GOLDEN)
def test_a_decay_has_the_values_worked_out_by_hand(make, points):
    schedule = make(RUN)
    assert {t: schedule(t) for t in points} == pytest.approx(points, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda h: exponential(h, gamma=0.93), lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.93)),
        (
            lambda h: natural_exponential(h, rate=0.07),
            lambda o: torch.optim.lr_scheduler.ExponentialLR(o, math.exp(-0.07)),
        ),
        (
            lambda h: final_exponential(h, final=0.02),
            lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.02 ** (1 / 50)),
        ),
        (
            lambda h: exponential_decay(h, every=7, rate=0.6),
            lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.6 ** (1 / 7)),
        ),
        (
            lambda h: exponential_decay(h, every=7, rate=0.6, staircase=True),
            lambda o: torch.optim.lr_scheduler.StepLR(o, 7, gamma=0.6),
        ),
    ],
)
def test_a_decay_equals_torch_at_every_update_of_the_run(ours, theirs):
    schedule = ours(Horizon(50, batch_size=1))
    assert [schedule(t) for t in range(50)] == pytest.approx(torch_curve(theirs, 50), rel=1e-12)


@pytest.mark.parametrize("make", CURVES)
@given(span=st.integers(20, 400), floor=st.floats(0, 1))
def test_a_decay_starts_at_one_never_rises_and_holds_at_its_end_for_ever(make, span, floor):
    schedule = make(Horizon(span, batch_size=1), floor)
    values = [schedule(t) for t in range(span + 60)]
    assert values[0] == 1.0
    assert all(earlier >= later for earlier, later in zip(values, values[1:]))
    assert min(values) >= floor
    assert len({*values[span:], schedule(FAR)}) == 1


@given(span=st.integers(20, 400), every=st.integers(1, 500), rate=st.floats(0.01, 0.99), floor=st.floats(0, 1))
def test_stairs_fall_only_where_noted_and_never_on_an_update_past_the_end(span, every, rate, floor):
    for make in (exponential_decay, inverse_time):
        schedule = make(Horizon(span, batch_size=1), every=every, rate=rate, staircase=True, floor=floor)
        falls = {t for t in range(1, span + 600) if schedule(t) != schedule(t - 1)}
        assert falls <= set(annotations(schedule)["jumps"]) & set(range(span))


@given(span=st.integers(20, 400), every=st.integers(1, 60), rate=st.floats(0.01, 0.99), n=st.integers(0, 400))
def test_smooth_and_staircase_meet_where_each_stair_begins(span, every, rate, n):
    run = Horizon(span, batch_size=1)
    for make in (exponential_decay, inverse_time):
        smooth, stairs = (make(run, every=every, rate=rate, staircase=staircase) for staircase in (False, True))
        t = n % -(-span // every) * every
        assert stairs(t) == pytest.approx(smooth(t), rel=1e-12)
        assert all(stairs(s) >= smooth(s) for s in range(span))


@pytest.mark.parametrize("make", [final_exponential, exponential_decay, inverse_time])
@given(times=st.integers(1, 9), t=st.integers(0, 70))
def test_a_run_k_times_as_long_has_the_same_curve_at_k_times_the_update(make, times, t):
    long, short = make(Horizon(50 * times, batch_size=1)), make(Horizon(50, batch_size=1))
    assert long(t * times) == pytest.approx(short(t), rel=1e-12)


@pytest.mark.parametrize("make", [exponential, natural_exponential])
def test_a_rate_for_each_update_gives_the_same_value_at_the_same_update_of_any_run(make):
    short, long = make(Horizon(100, batch_size=1)), make(Horizon(10**6, batch_size=1))
    assert [short(t) for t in range(101)] == [long(t) for t in range(101)]
    assert 0.98 < short(99) < 1.0
    assert long(10**6 - 1) > 0.0


def test_the_rates_of_inverse_time_add_up_as_the_harmonic_series_does():
    schedule = inverse_time(Horizon(1000, batch_size=1), rate=1.0, every=1)
    assert math.fsum(schedule(t) for t in range(1000)) == pytest.approx(7.485470860550345, rel=1e-12)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda h: exponential(h, gamma=0.5), ()),
        (lambda h: exponential(h, gamma=0.5, floor=0.2), (3,)),
        (lambda h: exponential(h, gamma=0.5, floor=0.25), (2,)),
        (lambda h: exponential(h, gamma=0.5, floor=1.0), ()),
        (lambda h: exponential(h, gamma=0.5, floor=1e-9), ()),
        (lambda h: natural_exponential(h, rate=0.5, floor=0.3), (3,)),  # at 0.3 after 2.4 updates
        (lambda h: exponential_decay(h, every=4, rate=0.25, floor=0.3), (4,)),  # after 3.5
        (lambda h: inverse_time(h, every=4, floor=0.3), (10,)),  # after 9.3
    ],
)
def test_a_smooth_decay_notes_where_it_comes_to_its_floor(make, expected):
    assert annotations(make(RUN)) == {"knots": expected}


@pytest.mark.parametrize(("every", "expected"), [(5, (5, 10)), (6, (6,)), (12, (12,)), (500, (500,))])
def test_a_staircase_notes_its_stairs_and_a_first_one_past_the_end(every, expected):
    for make in (exponential_decay, inverse_time):
        assert annotations(make(RUN, every=every, staircase=True)) == {"jumps": expected}


def test_a_decay_that_ends_one_update_early_is_at_its_end_on_the_last_update_and_a_stair_is_not_moved():
    run = replace(RUN, convention=Convention(early=1))
    assert (final_exponential(run, final=0.25)(11), final_exponential(run, final=0.25)(12)) == (0.25, 0.25)
    assert exponential_decay(run, every=11, staircase=True)(11) == 0.5
    assert inverse_time(run, every=11, staircase=True)(12) == 0.5


@pytest.mark.parametrize(
    "make",
    [
        lambda h: exponential(h, gamma=1e-300),
        lambda h: natural_exponential(h, rate=3e38),
        lambda h: final_exponential(h, final=5e-324),
        lambda h: exponential_decay(h, every=1, rate=1e-300),
        lambda h: exponential_decay(h, every="0.1%", rate=1e-300, staircase=True),
        lambda h: inverse_time(h, every=1, rate=3e38),
        lambda h: inverse_time(h, every="0.1%", rate=3e38, staircase=True),
    ],
)
def test_an_extreme_rate_on_an_endless_run_stays_finite_at_every_update(make):
    schedule = make(Horizon(10**15, batch_size=1))
    assert all(0.0 <= schedule(t) <= 1.0 for t in (0, 1, 10**6, FAR, 10**15, 10**18))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda h: exponential(h, gamma=0.0), "gamma=0.0"),
        (lambda h: exponential(h, gamma=1.01), "gamma=1.01"),
        (lambda h: exponential(h, gamma=-0.5), "gamma=-0.5"),
        (lambda h: exponential(h, gamma=math.nan), "gamma=nan"),
        (lambda h: exponential(h, gamma=True), "gamma=True"),
        (lambda h: exponential(h, floor=1.5), "floor=1.5"),
        (lambda h: natural_exponential(h, rate=0), "rate=0"),
        (lambda h: natural_exponential(h, rate=-0.1), "rate=-0.1"),
        (lambda h: natural_exponential(h, rate=math.inf), "rate=inf"),
        (lambda h: natural_exponential(h, floor=-1), "floor=-1"),
        (lambda h: final_exponential(h, final=0), "final=0"),
        (lambda h: final_exponential(h, final=1.5), "final=1.5"),
        (lambda h: final_exponential(h, final="1%"), "final='1%'"),
        (lambda h: exponential_decay(h, every=0), "every=0"),
        (lambda h: exponential_decay(h, every="2 dozen"), "every='2 dozen'"),
        (lambda h: exponential_decay(h, rate=2), "rate=2"),
        (lambda h: exponential_decay(h, rate=0.0), "rate=0.0"),
        (lambda h: exponential_decay(h, staircase="no"), "staircase='no'"),
        (lambda h: exponential_decay(h, staircase=1), "staircase=1"),
        (lambda h: exponential_decay(h, floor=math.nan), "floor=nan"),
        (lambda h: exponential_decay(h, floor=3, staircase=True), "floor=3"),
        (lambda h: inverse_time(h, rate=0), "rate=0"),
        (lambda h: inverse_time(h, rate=-1), "rate=-1"),
        (lambda h: inverse_time(h, every=-4), "every=-4"),
        (lambda h: inverse_time(h, staircase=None), "staircase=None"),
        (lambda h: inverse_time(h, floor="low"), "floor='low'"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused_in_one_line_that_names_it(make, says):
    with pytest.raises(ConfigError) as error:
        make(RUN)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
