"""The curves are what the project is for: golden values from hand and from torch, then laws for every schedule."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.lr.torch_scheduler import torch_curve
from trainer.lr import ConfigError, Horizon, constant, cosine, linear, linear_warmup, no_warmup, step, wsd

R2, R3 = math.sqrt(2), math.sqrt(3)

# Worked out by hand. Each row: the schedule over a span of 12 updates, then t: m(t).
GOLDEN = [
    (lambda h: constant(h), {0: 1, 6: 1, 11: 1, 12: 1, 999: 1}),
    (lambda h: linear(h), {0: 1, 1: 11 / 12, 6: 0.5, 11: 1 / 12, 12: 0, 999: 0}),
    (lambda h: linear(h, floor=0.2), {0: 1, 3: 0.8, 6: 0.6, 11: 0.2 + 0.8 / 12, 12: 0.2, 999: 0.2}),
    (lambda h: cosine(h), {0: 1, 2: (2 + R3) / 4, 3: (2 + R2) / 4, 6: 0.5, 8: 0.25, 12: 0, 999: 0}),
    (
        lambda h: cosine(h, floor=0.1),
        {0: 1, 4: 0.775, 6: 0.55, 10: 0.1 + 0.9 * (2 - R3) / 4, 12: 0.1, 999: 0.1},
    ),
    (lambda h: step(h, every=5), {0: 1, 4: 1, 5: 0.1, 9: 0.1, 10: 0.01, 11: 0.01, 12: 0.01, 999: 0.01}),
    (lambda h: step(h, every=5, gamma=0.5, floor=0.3), {4: 1, 5: 0.5, 10: 0.3, 11: 0.3, 999: 0.3}),
    (lambda h: step(h, every=6), {0: 1, 5: 1, 6: 0.1, 11: 0.1, 12: 0.1, 999: 0.1}),
    (lambda h: wsd(h, decay=4, shape="linear"), {0: 1, 8: 1, 9: 0.75, 11: 0.25, 12: 0, 999: 0}),
    (lambda h: wsd(h, decay=4, floor=0.2), {7: 1, 8: 1, 9: 0.6, 10: 1 - 0.8 * R2 / 2, 12: 0.2, 999: 0.2}),
    (lambda h: wsd(h, decay="25%", shape="cosine"), {8: 1, 9: 1, 10: 0.75, 11: 0.25, 12: 0}),
    (lambda h: wsd(h, decay=12, shape="linear"), {0: 1, 3: 0.75, 12: 0}),
]

DECAYS = [
    lambda h, floor: linear(h, floor=floor),
    lambda h, floor: cosine(h, floor=floor),
    lambda h, floor: step(h, every="30%", gamma=0.3, floor=floor),
    lambda h, floor: wsd(h, decay="40%", shape="linear", floor=floor),
    lambda h, floor: wsd(h, decay="40%", shape="cosine", floor=floor),
    lambda h, floor: wsd(h, decay="40%", shape="1-sqrt", floor=floor),
]


@pytest.mark.parametrize(("make", "points"), GOLDEN)
def test_a_schedule_has_the_values_worked_out_by_hand(make, points):
    schedule = make(Horizon(12, batch_size=1))
    assert {t: schedule(t) for t in points} == pytest.approx(points, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("shift", [0, 7])
def test_a_schedule_after_a_warmup_depends_on_the_updates_that_are_left_alone(shift):
    for make, points in GOLDEN:
        if make is not GOLDEN[10][0]:  # its 25 % are of the whole run, which is longer here
            schedule = make(Horizon(12 + shift, batch_size=1).after(shift))
            assert {t: schedule(t) for t in points} == pytest.approx(points, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (linear, lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 1e-99, total_iters=50)),
        (cosine, lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=50)),
        (lambda h: step(h, every=15, gamma=0.3), lambda o: torch.optim.lr_scheduler.StepLR(o, 15, gamma=0.3)),
    ],
)
def test_a_schedule_equals_torch_at_every_update_of_the_run(ours, theirs):
    schedule = ours(Horizon(50, batch_size=1))
    assert [schedule(t) for t in range(50)] == pytest.approx(torch_curve(theirs, 50), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("make", DECAYS)
@given(span=st.integers(5, 400), floor=st.floats(0, 1))
def test_a_decay_starts_at_the_peak_never_rises_and_ends_at_no_less_than_its_floor(make, span, floor):
    schedule = make(Horizon(span, batch_size=1), floor)
    values = [schedule(t) for t in range(span + 20)]
    assert values[0] == 1.0
    assert all(earlier >= later for earlier, later in zip(values, values[1:]))
    assert min(values) >= floor
    assert len(set(values[span:])) == 1


@pytest.mark.parametrize("make", [linear, cosine])
@given(span=st.integers(1, 300), times=st.integers(1, 9), t=st.integers(0, 400))
def test_a_run_k_times_as_long_has_the_same_curve_at_k_times_the_update(make, span, times, t):
    long, short = make(Horizon(span * times, batch_size=1)), make(Horizon(span, batch_size=1))
    assert long(t * times) == pytest.approx(short(t), rel=1e-12, abs=1e-15)


@given(length=st.integers(1, 200), start=st.floats(0, 1))
def test_a_linear_warmup_rises_by_equal_steps_to_exactly_one_at_its_last_update(length, start):
    warmup = linear_warmup(Horizon(1000, batch_size=1), duration=length, start=start)
    values = [warmup.factor(t) for t in range(length + 3)]
    assert warmup.updates == length
    assert values[length - 1 :] == [1.0] * 4
    assert values[0] == pytest.approx(start + (1 - start) / length, rel=1e-12)
    steps = [later - earlier for earlier, later in zip(values, values[1:length])]
    assert steps == pytest.approx([(1 - start) / length] * (length - 1), rel=1e-6, abs=1e-12)


def test_without_a_warmup_the_first_update_has_the_full_rate():
    warmup = no_warmup(Horizon(10, batch_size=1))
    assert (warmup.updates, warmup.factor(0)) == (0, 1.0)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda h: cosine(h, floor=1.5), "floor=1.5"),
        (lambda h: cosine(h, floor=-0.1), "floor=-0.1"),
        (lambda h: linear(h, floor=float("nan")), "floor=nan"),
        (lambda h: linear(h, floor="low"), "floor='low'"),
        (lambda h: linear(h, floor=True), "floor=True"),
        (lambda h: step(h, every=0), "every=0"),
        (lambda h: step(h, every=5, gamma=2.0), "gamma=2.0"),
        (lambda h: step(h, every=5, gamma=0.0), "gamma=0.0"),
        (lambda h: wsd(h, decay="200%"), "decay=200%"),
        (lambda h: wsd(h, decay=4, shape="sqrt"), "shape='sqrt'"),
        (lambda h: linear_warmup(h, duration=4, start=2), "start=2"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused_in_one_line_that_names_it(make, says):
    with pytest.raises(ConfigError) as error:
        make(Horizon(12, batch_size=1))
    assert says in str(error.value)
    assert "\n" not in str(error.value)
