"""Cycles restart and turn exactly where they should, agree with torch and Keras, and are quiet past the end."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.lr.torch_scheduler import torch_curve
from trainer.lr import ConfigError, Horizon
from trainer.lr.convention import Convention
from trainer.lr.cycles import cyclic, hard_restarts, restarts
from trainer.lr.schedule import annotations

RUN = Horizon(12, batch_size=1)
FAR = 10**12
R2 = 2**0.5
SPAN, SHARE, SHAPES = st.integers(20, 400), st.floats(0, 1), st.sampled_from(["linear", "cosine"])
MODES = st.sampled_from(["triangular", "triangular2", "exp_range"])

# Worked out by hand. Each row: the schedule over a span of 12 updates, then t: m(t).
GOLDEN = [
    (lambda h: restarts(h, first=4), {0: 1, 1: (2 + R2) / 4, 2: 0.5, 4: 1, 6: (2 + R2) / 4, 8: 0.5, 12: 0, FAR: 0}),
    (
        lambda h: restarts(h, first=4, length_mult=1.0, peak_mult=0.5, floor=0.2),
        {0: 1, 2: 0.6, 4: 0.6, 6: 0.4, 8: 0.4, 10: 0.3, 12: 0.2, FAR: 0.2},
    ),
    (
        lambda h: restarts(h, first=4, length_mult=1.0, peak_mult=0.5, floor=0.2, scales="cycle"),
        {0: 1, 2: 0.6, 4: 0.5, 6: 0.3, 8: 0.25, 10: 0.15, 12: 0.05, FAR: 0.05},
    ),
    (
        lambda h: restarts(h, first=6, length_mult=1.0, floor=0.1, warmup=2),
        {0: 0.55, 1: 1, 2: 1, 4: 0.55, 6: 0.55, 7: 1, 8: 1, 11: 0.1 + 0.9 * (2 - R2) / 4, 12: 0.1, FAR: 0.1},
    ),
    (lambda h: restarts(h, first=3, length_mult=1.5), {2: 0.25, 3: 1, 8: 1, 11: 0.5, 12: 0.25}),
    (lambda h: restarts(h, first=24), {0: 1, 8: 0.75, 12: 0.5, 13: 0.5, 24: 0.5, FAR: 0.5}),
    (lambda h: hard_restarts(h, cycles=3), {0: 1, 2: 0.5, 3: (2 - R2) / 4, 4: 1, 8: 1, 10: 0.5, 12: 0, FAR: 0}),
    (lambda h: hard_restarts(h, cycles=1, floor=0.1), {0: 1, 4: 0.775, 6: 0.55, 12: 0.1, FAR: 0.1}),
    (lambda h: cyclic(h, cycles=3), {0: 0.1, 1: 0.55, 2: 1, 3: 0.55, 4: 0.1, 6: 1, 11: 0.55, 12: 0.1, FAR: 0.1}),
    (lambda h: cyclic(h, cycles=3, mode="triangular2", floor=0.2), {2: 1, 4: 0.2, 6: 0.6, 10: 0.4, 12: 0.2, FAR: 0.2}),
    (
        lambda h: cyclic(h, period=4, cycles=None, mode="exp_range", gamma=0.5, floor=0.0),
        {0: 0, 1: 0.25, 2: 0.25, 3: 1 / 16, 6: 1 / 64, 12: 0, FAR: 0},
    ),
    (
        lambda h: cyclic(h, cycles=2, rise=1 / 3, shape="cosine", floor=0.0),
        {0: 0, 1: 0.5, 2: 1, 3: (2 + R2) / 4, 4: 0.5, 6: 0, 7: 0.5, 12: 0, FAR: 0},
    ),
    (lambda h: cyclic(h, period=8, cycles=None, mode="triangular2"), {4: 1, 8: 0.1, 12: 0.55, 13: 0.55, FAR: 0.55}),
    (lambda h: cyclic(h, cycles=3, rise=0, floor=0.0), {0: 1, 1: 0.75, 3: 0.25, 4: 1, 11: 0.25, 12: 0, FAR: 0}),
    (lambda h: cyclic(h, cycles=3, rise=1, floor=0.0), {0: 0, 1: 0.25, 3: 0.75, 4: 0, 11: 0.75, 12: 1, FAR: 1}),
]


@pytest.mark.parametrize(("make", "points"), GOLDEN)
def test_a_cycle_has_the_values_worked_out_by_hand(make, points):
    schedule = make(RUN)
    assert {t: schedule(t) for t in points} == pytest.approx(points, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
@pytest.mark.parametrize(("up", "down"), [(5, 5), (3, 7), (16, 4), (1, 1)])
def test_a_cyclic_schedule_is_torchs_at_every_update(mode, up, down):
    theirs = torch_curve(
        lambda o: torch.optim.lr_scheduler.CyclicLR(
            o, 0.2, 1.0, step_size_up=up, step_size_down=down, mode=mode, gamma=0.97, cycle_momentum=False
        ),
        67,
    )
    made = {"rise": up / (up + down), "mode": mode, "gamma": 0.97, "floor": 0.2}
    ours = cyclic(Horizon(67, batch_size=1), period=up + down, cycles=None, **made)
    assert [ours(t) for t in range(67)] == pytest.approx(theirs, rel=1e-12, abs=1e-12)
    split = cyclic(Horizon(3 * (up + down), batch_size=1), cycles=3, **made)
    assert [split(t) for t in range(6)] == pytest.approx(theirs[:6], rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("mult", [1, 2, 3])
def test_restarts_are_torchs_at_every_update(mult):
    ours = restarts(Horizon(100, batch_size=1), first=7, length_mult=float(mult))
    theirs = torch_curve(lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 7, T_mult=mult), 100)
    assert [ours(t) for t in range(100)] == pytest.approx(theirs, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("made", [(8, 2.0, 0.7, 0.1), (10, 1.5, 0.5, 0.0), (16, 1.0, 0.9, 0.2)])
def test_restarts_have_the_closed_form_of_keras(made):
    """Cycle and place from logarithms, over the cycles whose ends are whole updates."""
    first, mult, shrink, floor = made
    ours = restarts(Horizon(500, batch_size=1), first=first, length_mult=mult, peak_mult=shrink, floor=floor)
    for t in range(int(first * (1 + mult))):
        cycles = t / first
        if mult == 1.0:
            place, i = math.modf(cycles)
        else:
            i = math.floor(math.log(1.0 - cycles * (1.0 - mult)) / math.log(mult) + 1e-9)
            place = (cycles - (1.0 - mult**i) / (1.0 - mult)) / mult**i
        expected = (1.0 - floor) * 0.5 * shrink**i * (1.0 + math.cos(math.pi * place)) + floor
        assert ours(t) == pytest.approx(expected, rel=1e-12, abs=1e-12), t


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda h: restarts(h, first=4), {"jumps": (4,), "knots": (), "ends": (4, 12)}),
        (lambda h: restarts(h, first=3, warmup=2), {"jumps": (3, 9), "knots": (1, 4, 10), "ends": (3, 9, 21)}),
        (lambda h: restarts(h, first=99), {"jumps": (), "knots": (), "ends": (99,)}),
        (lambda h: hard_restarts(h, cycles=5), {"jumps": (3, 5, 8, 10), "ends": (3, 5, 8, 10, 12)}),
        (lambda h: cyclic(h, cycles=3), {"jumps": (), "knots": (2, 6, 10), "ends": (4, 8, 12)}),
        (lambda h: cyclic(h, period=8, cycles=None), {"jumps": (), "knots": (4, 12), "ends": (8, 16)}),
        (lambda h: cyclic(h, cycles=2, rise=0), {"jumps": (6,), "knots": (0, 6), "ends": (6, 12)}),
        (lambda h: cyclic(h, period=50, cycles=None), {"jumps": (), "knots": (25,), "ends": (50,)}),
    ],
)
def test_a_cycle_notes_where_it_turns_restarts_and_ends(make, expected):
    assert annotations(make(RUN)) == expected


@pytest.mark.parametrize("case", [("(t+1)/W", 0.5, 1, 1), ("t/W", 0, 0.5, 1), ("(t+1)/(W+1)", 1 / 3, 2 / 3, 1)])
def test_each_cycle_warms_up_as_the_convention_says(case):
    ramp, *rise = case
    schedule = restarts(replace(RUN, convention=Convention(ramp=ramp)), first=6, length_mult=1.0, warmup=2)
    assert [schedule(t) for t in (0, 1, 2, 6, 7, 8)] == pytest.approx([*rise, *rise])
    assert annotations(schedule)["knots"] == tuple(start + rise.index(1) for start in (0, 6))


@given(SPAN, st.integers(3, 200), st.floats(1, 3), st.floats(0.01, 1), SHARE, st.integers(0, 2))
def test_restarts_fall_between_their_marks_from_ever_lower_peaks_and_hold(span, first, mult, shrink, floor, warm):
    made = {"first": first, "length_mult": mult, "peak_mult": shrink, "floor": floor, "warmup": warm}
    schedule = restarts(Horizon(span, batch_size=1), **made)
    values, noted = [schedule(t) for t in range(span + 1)], annotations(schedule)
    starts = [0, *noted["jumps"]]
    assert noted["ends"][:-1] == noted["jumps"]
    assert noted["ends"][-1] >= span > starts[-1]
    assert noted["ends"][-1] == pytest.approx(first * sum(mult**i for i in range(len(starts))), abs=0.5 + 1e-6)
    for i, (begin, end) in enumerate(zip(starts, noted["ends"])):
        top = floor + (1 - floor) * shrink**i
        cycle = values[begin + max(warm - 1, 0) : min(end, span)]
        assert cycle[:1] in ([], [pytest.approx(top, rel=1e-9)])
        assert cycle == sorted(cycle, reverse=True)
        assert all(floor <= value <= 1.0 for value in values[begin:end])
    assert {schedule(span), schedule(span + 1), schedule(FAR)} == {values[span]}


@given(SPAN, st.integers(1, 10), st.floats(0.05, 0.95), SHAPES, MODES, SHARE)
def test_waves_start_and_end_at_their_floor_and_turn_only_at_their_marks(span, cycles, rise, shape, mode, floor):
    schedule = cyclic(Horizon(span, 1), cycles=cycles, rise=rise, shape=shape, mode=mode, floor=floor)
    values, noted = [schedule(t) for t in range(span + 1)], annotations(schedule)
    assert values[0] == schedule(span) == schedule(FAR) == floor
    assert all(floor <= value <= 1.0 for value in values)
    assert len(noted["knots"]) == len(noted["ends"]) == cycles
    turns = {t for t in range(1, span) if (values[t] - values[t - 1]) * (values[t + 1] - values[t]) < -1e-24}
    near = {t + off for t in (*noted["knots"], *noted["ends"]) for off in (-1, 0, 1)}
    assert turns <= near or mode == "exp_range"


@given(times=st.integers(1, 9), t=st.integers(0, 150))
def test_a_run_k_times_as_long_has_the_same_cycles_at_k_times_the_update(times, t):
    cosines = lambda h: restarts(h, first="10%")  # noqa: E731
    for make in (cosines, hard_restarts, cyclic, lambda h: cyclic(h, mode="triangular2", shape="cosine")):
        long, short = make(Horizon(100 * times, batch_size=1)), make(Horizon(100, batch_size=1))
        assert long(t * times) == pytest.approx(short(t), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda h: restarts(h, first=0), "first=0"),
        (lambda h: restarts(h, first=4, length_mult=0.5), "length_mult=0.5"),
        (lambda h: restarts(h, first=4, peak_mult=0), "peak_mult=0"),
        (lambda h: restarts(h, first=4, peak_mult=1.1), "peak_mult=1.1"),
        (lambda h: restarts(h, first=4, floor=-0.1), "floor=-0.1"),
        (lambda h: restarts(h, first=4, warmup=4), "warmup=4 is 4 updates, but the first cycle has 4"),
        (lambda h: restarts(h, first=4, scales="all"), "scales='all'"),
        (lambda h: hard_restarts(h, cycles=2.5), "cycles=2.5"),
        (lambda h: hard_restarts(h, cycles=7), "cycles=7 is out of range: the schedule has 12"),
        (lambda h: hard_restarts(h, floor=2), "floor=2"),
        (lambda h: cyclic(h, period=4), "period=4 and cycles=4"),
        (lambda h: cyclic(h, cycles=None), "period=None and cycles=None"),
        (lambda h: cyclic(h, period=1, cycles=None), "period=1"),
        (lambda h: cyclic(h, rise=1.5), "rise=1.5"),
        (lambda h: cyclic(h, shape="square"), "shape='square'"),
        (lambda h: cyclic(h, mode="exp"), "mode='exp'"),
        (lambda h: cyclic(h, gamma=1.01), "gamma=1.01"),
    ],
)
def test_a_cycle_that_makes_no_sense_is_refused_in_one_line_that_names_it(make, says):
    with pytest.raises(ConfigError) as error:
        make(RUN)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
