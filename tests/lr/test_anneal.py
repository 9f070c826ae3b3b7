"""Annealing: golden values from hand and from a second source, then the laws of every curve from peak to floor."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.lr.torch_scheduler import torch_curve
from trainer.lr import ConfigError, Horizon
from trainer.lr.anneal import (
    cosine,
    half_cosine,
    linear,
    linear_rate,
    polynomial,
    rex,
    sqrt_annealing,
    square_annealing,
    tanh,
)
from trainer.lr.constant import constant, constant_until
from trainer.lr.convention import Convention
from trainer.lr.schedule import annotations

RUN = Horizon(12, batch_size=1)
FAR = 10**12
R2, R3 = math.sqrt(2), math.sqrt(3)

# Worked out by hand. Each row: the schedule over a span of 12 updates, then t: m(t).
GOLDEN = [
    (lambda h: constant(h), {0: 1, 6: 1, 12: 1, FAR: 1}),
    (lambda h: constant_until(h), {0: 1 / 3, 1: 1, 6: 1, 11: 1, 12: 1, FAR: 1}),  # 10 % of 12 is 1 update
    (lambda h: constant_until(h, until=5, factor=0.2), {0: 0.2, 4: 0.2, 5: 1, 11: 1, 12: 1, FAR: 1}),
    (lambda h: constant_until(h, until=11, factor=0), {0: 0, 10: 0, 11: 1, FAR: 1}),
    (lambda h: constant_until(h, until=12, factor=0.2), {0: 0.2, 11: 0.2, 12: 0.2, FAR: 0.2}),
    (lambda h: linear(h, floor=0.2), {0: 1, 1: 14 / 15, 3: 0.8, 6: 0.6, 11: 4 / 15, 12: 0.2, FAR: 0.2}),
    (lambda h: linear_rate(h), {0: 1, 1: 11 / 12, 6: 0.5, 11: 1 / 12, 12: 0, FAR: 0}),
    (lambda h: linear_rate(h, rate=2, floor=0.1), {0: 1, 3: 0.5, 5: 1 / 6, 6: 0.1, 11: 0.1, 12: 0.1, FAR: 0.1}),
    (lambda h: linear_rate(h, rate=0.5, floor=0.1), {0: 1, 6: 0.75, 11: 1 - 5.5 / 12, 12: 0.5, FAR: 0.5}),
    (lambda h: cosine(h, floor=0.1), {0: 1, 4: 0.775, 6: 0.55, 10: 0.1 + 0.9 * (2 - R3) / 4, 12: 0.1, FAR: 0.1}),
    (lambda h: cosine(h, floor=0.2, exponent=2), {0: 1, 4: 0.65, 6: 0.4, 8: 0.25, 12: 0.2, FAR: 0.2}),
    (lambda h: cosine(h, k=2), {0: 1, 6: (2 + R2) / 4, 12: 0, FAR: 0}),
    (lambda h: cosine(h, k=0.5), {0: 1, 3: 0.5, 12: 0, FAR: 0}),
    (lambda h: cosine(h, floor=0.2, cycles=1), {0: 1, 3: 0.6, 6: 0.2, 9: 0.6, 12: 1, FAR: 1}),
    (lambda h: cosine(h, cycles=1.5), {0: 1, 2: 0.5, 4: 0, 6: 0.5, 8: 1, 11: (2 - R2) / 4, 12: 0, FAR: 0}),
    (lambda h: cosine(h, floor=0.2, cycles=0.25), {0: 1, 8: 0.8, 12: 0.6, FAR: 0.6}),
    (lambda h: half_cosine(h, floor=0.2), {0: 1, 4: 0.2 + 0.4 * R3, 6: 0.2 + 0.4 * R2, 8: 0.6, 12: 0.2, FAR: 0.2}),
    (lambda h: polynomial(h, floor=0.2), {0: 1, 3: 0.8, 6: 0.6, 11: 4 / 15, 12: 0.2, FAR: 0.2}),
    (lambda h: polynomial(h, power=2, floor=0.2), {0: 1, 3: 0.65, 6: 0.4, 11: 0.2 + 0.8 / 144, 12: 0.2, FAR: 0.2}),
    (lambda h: polynomial(h, power=3, decay=6), {0: 1, 3: 0.125, 5: 1 / 216, 6: 0, 7: 0, 11: 0, FAR: 0}),
    (lambda h: polynomial(h, decay=24), {0: 1, 6: 0.75, 11: 13 / 24, 12: 0.5, 13: 0.5, 24: 0.5, FAR: 0.5}),
    (lambda h: polynomial(h, decay="50%", floor=0.2), {0: 1, 3: 0.6, 6: 0.2, FAR: 0.2}),
    (
        lambda h: polynomial(h, decay=5, cycle=True, floor=0.2),
        {0: 1, 4: 0.36, 5: 0.2, 6: 0.52, 9: 0.28, 10: 0.2, 11: 0.2 + 0.8 * 4 / 15, 12: 0.36, FAR: 0.36},
    ),
    (lambda h: polynomial(h, decay=6, cycle=True), {0: 1, 3: 0.5, 6: 0, 7: 5 / 12, 9: 0.25, 11: 1 / 12, 12: 0, FAR: 0}),
    (lambda h: square_annealing(h, floor=0.2), {0: 1, 3: 0.65, 6: 0.4, 11: 0.2 + 0.8 / 144, 12: 0.2, FAR: 0.2}),
    (lambda h: sqrt_annealing(h, floor=0.2), {0: 1, 3: 0.2 + 0.4 * R3, 9: 0.6, 11: 0.2 + 0.4 / R3, 12: 0.2, FAR: 0.2}),
    (lambda h: rex(h, floor=0.1), {0: 1, 4: 0.82, 6: 0.7, 8: 0.55, 11: 0.1 + 1.8 / 13, 12: 0.1, FAR: 0.1}),
]

# These have the whole schedule to fall from exactly 1 to exactly their floor.
TO_THE_FLOOR = [
    linear,
    linear_rate,
    cosine,
    lambda h, floor: cosine(h, floor=floor, exponent=3.0, k=1.5),
    half_cosine,
    polynomial,
    lambda h, floor: polynomial(h, floor=floor, power=0.9),
    lambda h, floor: polynomial(h, floor=floor, power=2.0, decay="40%"),
    square_annealing,
    sqrt_annealing,
    rex,
]

CURVES = [
    *TO_THE_FLOOR,
    tanh,
    lambda h, floor: linear_rate(h, floor=floor, rate=3.0),
    lambda h, floor: linear_rate(h, floor=floor, rate=0.3),
    lambda h, floor: cosine(h, floor=floor, cycles=2.2),
    lambda h, floor: polynomial(h, floor=floor, decay="30%", cycle=True),
    lambda h, floor: constant_until(h, until="30%", factor=floor),
]


@pytest.mark.parametrize(("make", "points"), GOLDEN)
def test_a_curve_has_the_values_worked_out_by_hand(make, points):
    schedule = make(RUN)
    assert {t: schedule(t) for t in points} == pytest.approx(points, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("make", TO_THE_FLOOR)
def test_a_curve_after_a_warmup_still_comes_to_its_floor_at_the_end_of_the_run(make):
    run = Horizon(47, batch_size=1).after(7)
    schedule = make(run, floor=0.1)
    assert (schedule(0), schedule(40), schedule(FAR)) == (1.0, 0.1, 0.1)
    if not annotations(schedule).get("knots"):
        alone = make(Horizon(40, batch_size=1), floor=0.1)
        assert [schedule(t) for t in range(50)] == [alone(t) for t in range(50)]


@pytest.mark.parametrize("floor", [0.0, 0.1, 0.37])
def test_the_plain_line_and_cosine_are_their_formulas_to_the_bit(floor):
    line, wave = linear(Horizon(97, 1), floor=floor), cosine(Horizon(97, 1), floor=floor)
    for t in range(1, 97):
        assert line(t) == floor + (1.0 - floor) * (1.0 - t / 97)
        assert wave(t) == floor + (1.0 - floor) * (0.5 * (1.0 + math.cos(math.pi * (t / 97))))
    assert (line(0), wave(0), line(97), wave(97)) == (1.0, 1.0, floor, floor)


@pytest.mark.parametrize(("lower", "upper"), [(-7.0, 3.0), (-6.0, 4.0), (-1.0, 0.5)])
def test_tanh_is_a_logistic_curve_of_twice_the_slope_between_its_two_ends(lower, upper):
    schedule = tanh(RUN, lower=lower, upper=upper, floor=0.1)
    for t in (0, 1, 6, 11, 12):
        z = lower * (12 - t) / 12 + upper * t / 12
        assert schedule(t) == pytest.approx(0.1 + 0.9 / (1 + math.exp(2 * z)), rel=1e-12)
    assert schedule(0) < 1.0
    assert schedule(FAR) == schedule(12) > 0.1


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            lambda h: constant_until(h, until=20, factor=0.3),
            lambda o: torch.optim.lr_scheduler.ConstantLR(o, 0.3, total_iters=20),
        ),
        (linear, lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 1e-99, total_iters=50)),
        (
            lambda h: linear_rate(h, rate=0.7),
            lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.3, total_iters=50),
        ),
        (
            lambda h: cosine(h, floor=0.1),
            lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=50, eta_min=0.1),
        ),
        (
            lambda h: polynomial(h, power=2.5),
            lambda o: torch.optim.lr_scheduler.PolynomialLR(o, total_iters=50, power=2.5),
        ),
        (
            lambda h: polynomial(h, power=0.9, decay=30),
            lambda o: torch.optim.lr_scheduler.PolynomialLR(o, total_iters=30, power=0.9),
        ),
    ],
)
def test_a_curve_equals_torch_at_every_update_of_the_run(ours, theirs):
    schedule = ours(Horizon(50, batch_size=1))
    assert [schedule(t) for t in range(50)] == pytest.approx(torch_curve(theirs, 50), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("make", TO_THE_FLOOR)
@given(span=st.integers(5, 400), floor=st.floats(0, 1))
def test_a_curve_starts_at_one_never_rises_and_ends_at_exactly_its_floor(make, span, floor):
    schedule = make(Horizon(span, batch_size=1), floor=floor)
    values = [schedule(t) for t in range(span + 9)]
    assert values[0] == 1.0
    assert all(earlier >= later for earlier, later in zip(values, values[1:]))
    assert set(values[span:]) == {floor}


@given(
    span=st.integers(5, 400),
    floor=st.floats(0, 1),
    lower=st.floats(-20, 20),
    width=st.floats(0.01, 30),
)
def test_tanh_never_rises_and_stays_between_floor_and_peak(span, floor, lower, width):
    schedule = tanh(Horizon(span, batch_size=1), lower=lower, upper=lower + width, floor=floor)
    values = [schedule(t) for t in range(span + 9)]
    assert all(floor <= value <= 1.0 for value in values)
    assert all(earlier >= later - 1e-15 for earlier, later in zip(values, values[1:]))
    assert len(set(values[span:])) == 1


@pytest.mark.parametrize("make", CURVES)
@given(span=st.integers(5, 400), floor=st.floats(0, 1))
def test_a_curve_stays_between_floor_and_peak_and_holds_at_its_end_for_ever(make, span, floor):
    schedule = make(Horizon(span, batch_size=1), floor=floor)
    assert all(floor <= schedule(t) <= 1.0 for t in range(span))
    assert len({schedule(t) for t in (span, span + 1, 3 * span, FAR)}) == 1


@pytest.mark.parametrize("make", CURVES)
@given(times=st.integers(1, 9), t=st.integers(0, 70))
def test_a_run_k_times_as_long_has_the_same_curve_at_k_times_the_update(make, times, t):
    long, short = make(Horizon(50 * times, batch_size=1), floor=0.1), make(Horizon(50, batch_size=1), floor=0.1)
    assert long(t * times) == pytest.approx(short(t), rel=1e-12, abs=1e-15)


@given(
    span=st.integers(10, 300),
    decay=st.integers(2, 400),
    power=st.floats(0.1, 4.0),
    floor=st.floats(0, 0.9),
)
def test_a_polynomial_that_cycles_restarts_lower_each_time_and_touches_its_floor(span, decay, power, floor):
    schedule = polynomial(Horizon(span, batch_size=1), power=power, floor=floor, decay=decay, cycle=True)
    values = [schedule(t) for t in range(span + 1)]
    rises = [t for t in range(1, span + 1) if values[t] > values[t - 1]]
    noted = annotations(schedule)
    assert rises == list(noted["jumps"]) == [t + 1 for t in range(decay, span, decay)]
    assert all(values[t - 1] == floor for t in rises)
    peaks = [values[0], *(values[t] for t in rises)]
    assert all(earlier > later for earlier, later in zip(peaks, peaks[1:]))
    assert noted["ends"][-1] >= span > noted["ends"][-1] - decay


@given(span=st.integers(10, 300), cycles=st.floats(1.0, 5.0), k=st.floats(0.5, 3.0))
def test_a_cosine_of_several_cycles_is_at_its_peak_where_a_cycle_ends(span, cycles, k):
    schedule = cosine(Horizon(span, batch_size=1), cycles=cycles, k=k, floor=0.1)
    ends = annotations(schedule)["ends"]
    assert len(ends) == math.floor(cycles)
    for i, end in enumerate(ends, start=1):
        assert cycles * ((end - 1) / span) ** k < i + 1e-9
        assert cycles * (end / span) ** k > i - 1e-9


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda h: constant_until(h, until=5), {"jumps": (5,)}),
        (lambda h: constant_until(h, until=500), {"jumps": (500,)}),
        (lambda h: linear_rate(h), {"knots": ()}),
        (lambda h: linear_rate(h, rate=2.0), {"knots": (6,)}),
        (lambda h: linear_rate(h, rate=2.0, floor=0.3), {"knots": (5,)}),  # at 0.3 after 4.2 updates
        (lambda h: linear_rate(h, rate=1e-300), {"knots": ()}),
        (lambda h: polynomial(h), {"knots": ()}),
        (lambda h: polynomial(h, decay=7), {"knots": (7,)}),
        (lambda h: polynomial(h, decay=70), {"knots": (70,)}),
        (lambda h: polynomial(h, decay=4, cycle=True), {"jumps": (5, 9), "ends": (4, 8, 12)}),
        (lambda h: polynomial(h, decay=5, cycle=True), {"jumps": (6, 11), "ends": (5, 10, 15)}),
        (lambda h: polynomial(h, cycle=True), {"jumps": (), "ends": (12,)}),
        (lambda h: cosine(h), {}),
        (lambda h: cosine(h, cycles=3), {"ends": (4, 8, 12)}),
        (lambda h: cosine(h, cycles=2.5), {"ends": (5, 10)}),
    ],
)
def test_a_curve_notes_where_it_jumps_bends_or_completes_a_cycle(make, expected):
    assert annotations(make(RUN)) == expected


def test_a_curve_reaches_its_floor_on_the_last_update_where_the_convention_says_so():
    run = replace(RUN, convention=Convention(early=1))
    for make in TO_THE_FLOOR:
        assert make(run, floor=0.1)(11) == 0.1
    assert constant_until(run, until=11, factor=0.5)(11) == 1.0


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda h: constant_until(h, until=0), "until=0"),
        (lambda h: constant_until(h, until="soon"), "until='soon'"),
        (lambda h: constant_until(h, factor=1.5), "factor=1.5"),
        (lambda h: constant_until(h, factor=-0.1), "factor=-0.1"),
        (lambda h: constant_until(h, factor=math.nan), "factor=nan"),
        (lambda h: linear(h, floor=math.nan), "floor=nan"),
        (lambda h: linear_rate(h, rate=0.0), "rate=0.0"),
        (lambda h: linear_rate(h, rate=-1), "rate=-1"),
        (lambda h: linear_rate(h, rate=math.inf), "rate=inf"),
        (lambda h: linear_rate(h, floor=2), "floor=2"),
        (lambda h: cosine(h, floor=1.5), "floor=1.5"),
        (lambda h: cosine(h, floor="low"), "floor='low'"),
        (lambda h: cosine(h, exponent=0), "exponent=0"),
        (lambda h: cosine(h, exponent=1001), "exponent=1001"),
        (lambda h: cosine(h, k=-1.0), "k=-1.0"),
        (lambda h: cosine(h, k=math.nan), "k=nan"),
        (lambda h: cosine(h, cycles=0), "cycles=0"),
        (lambda h: cosine(h, cycles=6.5), "cycles=6.5"),
        (lambda h: cosine(h, cycles=True), "cycles=True"),
        (lambda h: half_cosine(h, floor=-1), "floor=-1"),
        (lambda h: polynomial(h, power=0), "power=0"),
        (lambda h: polynomial(h, power=math.inf), "power=inf"),
        (lambda h: polynomial(h, power="2"), "power='2'"),
        (lambda h: polynomial(h, floor=-0.1), "floor=-0.1"),
        (lambda h: polynomial(h, decay=0), "decay=0"),
        (lambda h: polynomial(h, decay=-5), "decay=-5"),
        (lambda h: polynomial(h, decay=1, cycle=True), "decay=1"),
        (lambda h: polynomial(h, cycle="yes"), "cycle='yes'"),
        (lambda h: polynomial(h, cycle=1), "cycle=1"),
        (lambda h: square_annealing(h, floor=1.1), "floor=1.1"),
        (lambda h: sqrt_annealing(h, floor=None), "floor=None"),
        (lambda h: tanh(h, lower=math.nan), "lower=nan"),
        (lambda h: tanh(h, lower=3.0), "lower=3.0"),
        (lambda h: tanh(h, upper=-8), "upper=-8"),
        (lambda h: tanh(h, upper=math.inf), "upper=inf"),
        (lambda h: tanh(h, floor=1.5), "floor=1.5"),
        (lambda h: rex(h, floor=True), "floor=True"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused_in_one_line_that_names_it(make, says):
    with pytest.raises(ConfigError) as error:
        make(RUN)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
