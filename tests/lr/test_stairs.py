"""Stairs fall exactly where they are told to, tables go through their points, and nothing moves past the end."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.lr.torch_scheduler import torch_curve
from trainer.lr import ConfigError, Horizon
from trainer.lr.convention import Convention
from trainer.lr.schedule import annotations
from trainer.lr.stairs import multi_step, piecewise, step

RUN = Horizon(12, batch_size=1)
TABLE = [[0, 0.2], [4, 1.0], [8, 0.4]]
FAR = 10**12

# Worked out by hand. Each row: the schedule over a span of 12 updates, then t: m(t).
GOLDEN = [
    (lambda h: step(h, every=5), {0: 1, 4: 1, 5: 0.1, 9: 0.1, 10: 0.01, 11: 0.01, 12: 0.01, FAR: 0.01}),
    (lambda h: step(h, every=5, gamma=0.5, floor=0.3), {4: 1, 5: 0.5, 10: 0.3, 11: 0.3, FAR: 0.3}),
    (lambda h: step(h, every=6), {0: 1, 5: 1, 6: 0.1, 11: 0.1, 12: 0.1, FAR: 0.1}),
    (lambda h: step(h, every=1, gamma=0.5), {0: 1, 1: 0.5, 11: 2**-11, 12: 2**-11, FAR: 2**-11}),
    (lambda h: step(h, every=12), {0: 1, 11: 1, 12: 1, FAR: 1}),
    (lambda h: multi_step(h, milestones=[3, 7]), {0: 1, 2: 1, 3: 0.1, 6: 0.1, 7: 0.01, 12: 0.01, FAR: 0.01}),
    (lambda h: multi_step(h, milestones=[1, 11], gamma=0.5), {0: 1, 1: 0.5, 10: 0.5, 11: 0.25, FAR: 0.25}),
    (lambda h: multi_step(h, milestones=["50%", "75%"], floor=0.05), {5: 1, 6: 0.1, 8: 0.1, 9: 0.05, FAR: 0.05}),
    (lambda h: multi_step(h, milestones=[2, 5], gamma=[0.5, 0.2]), {1: 1, 2: 0.5, 4: 0.5, 5: 0.1, 11: 0.1}),
    (lambda h: multi_step(h, milestones=[5, 12, 90]), {4: 1, 5: 0.1, 11: 0.1, 12: 0.1, 90: 0.1, FAR: 0.1}),
    (lambda h: piecewise(h, points=TABLE), {0: 0.2, 1: 0.4, 4: 1, 5: 0.85, 7: 0.55, 8: 0.4, 12: 0.4, FAR: 0.4}),
    (
        lambda h: piecewise(h, points=TABLE, interpolation="cosine"),
        {0: 0.2, 2: 0.6, 3: 0.2 + 0.8 * (2 + 2**0.5) / 4, 4: 1, 6: 0.7, 8: 0.4, 11: 0.4, FAR: 0.4},
    ),
    (
        lambda h: piecewise(h, points=TABLE, interpolation="constant"),
        {0: 0.2, 3: 0.2, 4: 1, 7: 1, 8: 0.4, 11: 0.4, 12: 0.4, FAR: 0.4},
    ),
    (lambda h: piecewise(h, points=[["0", 0.7]]), {0: 0.7, 6: 0.7, FAR: 0.7}),
    (lambda h: piecewise(h, points=[[0, 1.0], [6, 1.0], ["100%", 0.0]]), {6: 1, 9: 0.5, 11: 1 / 6, 12: 0, FAR: 0}),
    (lambda h: piecewise(h, points=[[0, 1], [24, 3]]), {0: 1, 6: 1.5, 12: 2, 13: 2, 24: 2, FAR: 2}),
    (lambda h: piecewise(h, points=[[0, 1], [12, 3]], interpolation="constant"), {11: 1, 12: 1, FAR: 1}),
]


@pytest.mark.parametrize(("make", "points"), GOLDEN)
def test_a_stair_or_table_has_the_values_worked_out_by_hand(make, points):
    schedule = make(RUN)
    assert {t: schedule(t) for t in points} == pytest.approx(points, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda h: step(h, every=7, gamma=0.3), lambda o: torch.optim.lr_scheduler.StepLR(o, 7, gamma=0.3)),
        (
            lambda h: multi_step(h, milestones=[1, 11, 29], gamma=0.3),
            lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [1, 11, 29], gamma=0.3),
        ),
        (
            lambda h: piecewise(h, points=[[0, 0.25], [20, 1.0]]),
            lambda o: torch.optim.lr_scheduler.LinearLR(o, 0.25, 1.0, total_iters=20),
        ),
    ],
)
def test_a_stair_equals_torch_at_every_update_of_the_run(ours, theirs):
    schedule = ours(Horizon(30, batch_size=1))
    assert [schedule(t) for t in range(30)] == pytest.approx(torch_curve(theirs, 30), rel=1e-12)


@pytest.mark.parametrize(("shift", "first"), [(0, 5), (1, 6), (-1, 4)])
def test_a_convention_moves_milestones_and_the_stairs_of_a_table_and_not_equal_steps(shift, first):
    run = replace(RUN, convention=Convention(shift=shift))
    for make in (
        lambda h: multi_step(h, milestones=[5, 9]),
        lambda h: piecewise(h, points=[[0, 1.0], [5, 0.1], [9, 0.01]], interpolation="constant"),
    ):
        schedule = make(run)
        assert [t for t in range(1, 12) if schedule(t) != schedule(t - 1)] == [first, first + 4]
        assert annotations(schedule)["jumps"] == (first, first + 4)
    plain, line = step(run, every=5), piecewise(run, points=[[0, 1.0], [5, 0.0]])
    assert (plain(4), plain(5), line(4), line(5)) == pytest.approx((1.0, 0.1, 0.2, 0.0))


def test_a_stair_on_the_last_update_falls_where_a_decay_ends_one_update_early():
    run = replace(RUN, convention=Convention(early=1))
    for schedule in (step(run, every=11), multi_step(run, milestones=[11])):
        assert (schedule(10), schedule(11), schedule(12)) == (1.0, 0.1, 0.1)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda h: step(h, every=5), {"jumps": (5, 10)}),
        (lambda h: step(h, every=12), {"jumps": (12,)}),
        (lambda h: step(h, every=500), {"jumps": (500,)}),
        (lambda h: multi_step(h, milestones=[3, 40]), {"jumps": (3, 40)}),
        (lambda h: piecewise(h, points=TABLE), {"knots": (4, 8)}),
        (lambda h: piecewise(h, points=[*TABLE, [50, 0.1]], interpolation="constant"), {"jumps": (4, 8, 50)}),
    ],
)
def test_a_stair_notes_where_it_falls_even_past_the_end(make, expected):
    assert annotations(make(RUN)) == expected


@given(
    span=st.integers(20, 500),
    gamma=st.floats(1e-3, 1.0),
    floor=st.floats(0, 1),
    cuts=st.lists(st.integers(1, 600), min_size=1, max_size=9, unique=True),
)
def test_stairs_start_at_the_peak_never_rise_and_stay_above_their_floor(span, gamma, floor, cuts):
    run = Horizon(span, batch_size=1)
    for schedule in (
        step(run, every=cuts[0], gamma=gamma, floor=floor),
        multi_step(run, milestones=sorted(cuts), gamma=gamma, floor=floor),
    ):
        values = [schedule(t) for t in range(span + 200)]
        falls = {t for t in range(1, span + 200) if values[t] != values[t - 1]}
        assert values[0] == 1.0
        assert sorted(values, reverse=True) == values
        assert min(values) >= floor
        assert falls <= set(annotations(schedule)["jumps"])
        assert all(t < span for t in falls)
        assert schedule(FAR) == values[span]


@given(
    span=st.integers(20, 300),
    times=st.lists(st.integers(1, 300), max_size=6, unique=True),
    values=st.lists(st.floats(0, 10), min_size=7, max_size=7),
    interpolation=st.sampled_from(["linear", "cosine"]),
)
def test_a_table_goes_through_its_points_and_stays_between_neighbours(span, times, values, interpolation):
    points = [list(pair) for pair in zip([0, *sorted(times)], values)]
    schedule = piecewise(Horizon(span, batch_size=1), points=points, interpolation=interpolation)
    for time, value in points:
        if time <= span:
            assert schedule(time) == pytest.approx(value, rel=1e-12, abs=1e-12)
    for (begin, first), (end, second) in zip(points, points[1:]):
        for t in range(begin, min(end, span)):
            assert min(first, second) - 1e-12 <= schedule(t) <= max(first, second) + 1e-12
            assert abs(schedule(t + 1) - schedule(t)) <= 1.6 * abs(first - second) / (end - begin) + 1e-12
    assert len({schedule(t) for t in (span, span + 1, FAR)}) == 1


@given(times=st.integers(1, 9), t=st.integers(0, 150))
def test_a_run_k_times_as_long_has_the_same_stairs_at_k_times_the_update(times, t):
    for make in (step, multi_step, piecewise):
        long, short = make(Horizon(100 * times, batch_size=1)), make(Horizon(100, batch_size=1))
        assert long(t * times) == pytest.approx(short(t), rel=1e-12)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda h: step(h, every=0), "every=0"),
        (lambda h: step(h, every=5, gamma=2.0), "gamma=2.0"),
        (lambda h: step(h, every=5, gamma=0.0), "gamma=0.0"),
        (lambda h: step(h, every=5, floor=1.5), "floor=1.5"),
        (lambda h: multi_step(h, milestones=[]), "milestones=[]"),
        (lambda h: multi_step(h, milestones="50%"), "milestones='50%'"),
        (lambda h: multi_step(h, milestones=[0, 5]), "milestones[0]=0"),
        (lambda h: multi_step(h, milestones=[5, 5]), "milestones[1]=5"),
        (lambda h: multi_step(h, milestones=[6, "25%"]), "milestones[1]='25%' is at update 3, not after 6"),
        (lambda h: multi_step(h, milestones=[3, None]), "milestones[1]=None"),
        (lambda h: multi_step(h, milestones=[3], gamma=float("nan")), "gamma=nan"),
        (lambda h: multi_step(h, milestones=[3], gamma=[0.1, 0.1]), "gamma=[0.1, 0.1] has 2 values for 1"),
        (lambda h: multi_step(h, milestones=[3, 5], gamma=[0.1, 7]), "gamma[1]=7"),
        (lambda h: multi_step(h, milestones=[3], floor=-1), "floor=-1"),
        (lambda h: piecewise(h, points=[]), "points=[]"),
        (lambda h: piecewise(h, points={0: 1.0}), "points={0: 1.0}"),
        (lambda h: piecewise(h, points=[0, 1.0]), "points[0]=0"),
        (lambda h: piecewise(h, points=[[0, 1.0], [5]]), "points[1]=[5]"),
        (lambda h: piecewise(h, points=[[0, 1.0], "50"]), "points[1]='50'"),
        (lambda h: piecewise(h, points=[[1, 1.0], [5, 2.0]]), "points[0]=[1, 1.0] is at update 1"),
        (lambda h: piecewise(h, points=[[0, 1.0], [5, -0.1]]), "points[1]=-0.1"),
        (lambda h: piecewise(h, points=[[0, float("nan")]]), "points[0]=nan"),
        (lambda h: piecewise(h, points=[[0, 2000]]), "points[0]=2000"),
        (lambda h: piecewise(h, points=[[0, 1.0], ["soon", 0.5]]), "points[1]='soon'"),
        (lambda h: piecewise(h, points=[[0, 1.0], [5, 0.5], [5, 0.1]]), "points[2]=[5, 0.1]"),
        (lambda h: piecewise(h, interpolation="spline"), "interpolation='spline'"),
    ],
)
def test_a_stair_that_makes_no_sense_is_refused_in_one_line_that_names_it(make, says):
    with pytest.raises(ConfigError) as error:
        make(RUN)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
