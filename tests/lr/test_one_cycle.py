"""One cycle is torch's, update by update, where it ends as torch's does, and ours by default."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.lr import ConfigError, Horizon
from trainer.lr.convention import Convention
from trainer.lr.one_cycle import flat_cosine, one_cycle, one_cycle_stairs
from trainer.lr.schedule import annotations

RUN = Horizon(12, batch_size=1)
EARLY = Convention(early=1)
FAR = 10**12
LINE = {"start": 0.2, "floor": 0.1, "shape": "linear"}
WAVE = {"start": 0.2, "floor": 0.1, "shape": "cosine"}
R2, R3 = 2**0.5, 3**0.5

# Worked out by hand. Each row: the schedule over a span of 12 updates, then t: m(t).
GOLDEN = [
    (lambda h: one_cycle(h, rise=4, **LINE), {0: 0.2, 1: 0.4, 4: 1, 5: 0.8875, 11: 0.2125, 12: 0.1, FAR: 0.1}),
    (
        lambda h: one_cycle(h, rise=4, **WAVE),
        {0: 0.2, 1: 0.2 + 0.8 * (2 - R2) / 4, 2: 0.6, 4: 1, 6: 0.1 + 0.9 * (2 + R2) / 4, 8: 0.55, 12: 0.1, FAR: 0.1},
    ),
    (
        lambda h: one_cycle(h, rise=4, phases=3, **LINE),
        {0: 0.2, 2: 0.6, 4: 1, 6: 0.6, 8: 0.2, 9: 0.175, 11: 0.125, 12: 0.1, FAR: 0.1},
    ),
    (lambda h: one_cycle(h, rise=3, phases=3, **WAVE), {3: 1, 5: 0.4, 6: 0.2, 8: 0.1 + 0.1 * 0.75, 9: 0.15, 12: 0.1}),
    (lambda h: one_cycle(h, rise="25%", start=1.0, floor=1.0), {0: 1, 3: 1, 11: 1, FAR: 1}),
    (lambda h: one_cycle(h), {0: 0.04, 2: 0.52, 4: 1, 8: 2e-6 + 0.5, 12: 4e-6, FAR: 4e-6}),
    (
        lambda h: one_cycle_stairs(h, rise=4, stairs=2, start=0.2, floor=0.1),
        {0: 0.2, 1: 0.2, 2: 0.6, 3: 0.6, 4: 1, 7: 1, 8: 0.55, 11: 0.55, 12: 0.1, FAR: 0.1},
    ),
    (
        lambda h: one_cycle_stairs(h, rise=6, stairs=4, start=0.0, floor=0.2),
        {0: 0, 1: 0, 2: 0.25, 3: 0.5, 4: 0.5, 5: 0.75, 6: 1, 7: 1, 8: 0.8, 9: 0.6, 11: 0.4, 12: 0.2},
    ),
    (lambda h: flat_cosine(h, flat=6), {0: 1, 6: 1, 8: 0.75, 9: 0.5, 10: 0.25, 12: 0, FAR: 0}),
    (lambda h: flat_cosine(h, flat="75%", floor=0.2), {8: 1, 9: 1, 10: 0.8, 11: 0.4, 12: 0.2, FAR: 0.2}),
    (lambda h: flat_cosine(h, flat=0), {0: 1, 2: (2 + R3) / 4, 6: 0.5, 12: 0}),
]


@pytest.mark.parametrize(("make", "points"), GOLDEN)
def test_one_cycle_has_the_values_worked_out_by_hand(make, points):
    schedule = make(RUN)
    assert {t: schedule(t) for t in points} == pytest.approx(points, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("total", [20, 50, 1000])
@pytest.mark.parametrize("percent", [10, 30, 40])
@pytest.mark.parametrize("shape", ["cosine", "linear"])
@pytest.mark.parametrize("phases", [2, 3])
def test_one_cycle_that_ends_one_update_early_is_torchs_at_every_update(total, percent, shape, phases):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=1.0,
        total_steps=total,
        pct_start=percent / 100,
        anneal_strategy={"cosine": "cos"}.get(shape, shape),
        cycle_momentum=False,
        div_factor=20.0,
        final_div_factor=50.0,
        three_phase=phases == 3,
    )
    run = Horizon(total, batch_size=1, convention=EARLY)
    ours = one_cycle(run, rise=f"{percent}%", start=0.05, floor=0.001, shape=shape, phases=phases)
    for t in range(total):
        assert ours(t) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12, abs=1e-12), t
        optimizer.step()
        if t < total - 1:
            theirs.step()
    assert ours(total) == ours(FAR) == 0.001


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda h: one_cycle(h, rise=4), {"knots": (4,)}),
        (lambda h: one_cycle(h, rise=4, phases=3), {"knots": (4, 8)}),
        (lambda h: one_cycle_stairs(h, rise=4, stairs=2), {"jumps": (2, 4, 8)}),
        (lambda h: one_cycle_stairs(h, rise=6, stairs=4), {"jumps": (2, 3, 5, 6, 8, 9, 11)}),
        (lambda h: one_cycle_stairs(h, rise=4, stairs=10**9), {"jumps": tuple(range(1, 12))}),
        (lambda h: flat_cosine(h, flat="50%"), {"knots": (6,)}),
    ],
)
def test_one_cycle_notes_where_it_bends_and_jumps(make, expected):
    assert annotations(make(RUN)) == expected


def test_every_phase_and_stair_ends_one_update_early_where_the_convention_says_so():
    run = replace(RUN, convention=EARLY)
    assert annotations(one_cycle(run, rise=4, phases=3)) == {"knots": (3, 6)}
    stairs = one_cycle_stairs(run, rise=5, stairs=1, start=0.5, floor=0.1)
    assert [stairs(t) for t in (0, 3, 4, 10, 11, 12)] == pytest.approx([0.5, 0.5, 1.0, 1.0, 0.1, 0.1])
    assert annotations(stairs) == {"jumps": (4, 11)}
    assert flat_cosine(run, flat=9)(11) == 0.0


@given(
    span=st.integers(20, 400),
    start=st.floats(0, 1),
    floor=st.floats(0, 1),
    early=st.sampled_from([0, 1]),
    stairs=st.integers(1, 500),
)
def test_one_cycle_rises_to_the_peak_and_falls_to_its_floor_for_ever(span, start, floor, early, stairs):
    run = Horizon(span, batch_size=1, convention=Convention(early=early))
    peak = run.updates("30%") - early
    for schedule in (
        one_cycle(run, start=start, floor=floor),
        one_cycle(run, start=start, floor=floor, shape="linear"),
        one_cycle_stairs(run, stairs=stairs, start=start, floor=floor),
    ):
        values = [schedule(t) for t in range(span + 10)]
        assert (values[0], values[peak]) == (pytest.approx(start), 1.0)
        assert values[: peak + 1] == sorted(values[: peak + 1])
        assert values[peak:] == sorted(values[peak:], reverse=True)
        assert {*values[run.span :], schedule(FAR)} == {floor}


@given(span=st.integers(20, 300), stairs=st.integers(1, 50))
def test_the_stairs_of_one_cycle_change_where_they_say_and_meet_its_line_there(span, stairs):
    run = Horizon(span, batch_size=1)
    line = one_cycle(run, rise="30%", start=0.1, floor=0.01, shape="linear")
    stair = one_cycle_stairs(run, rise="30%", start=0.1, floor=0.01, stairs=stairs)
    peak = run.updates("30%")
    assert tuple(t for t in range(1, span) if stair(t) != stair(t - 1)) == annotations(stair)["jumps"]
    for t in range(span):
        gap = (line(t) - stair(t)) if t < peak else (stair(t) - line(t))
        assert -1e-12 <= gap <= 1 / stairs + 1e-12


@given(times=st.integers(1, 9), t=st.integers(0, 150), phases=st.sampled_from([2, 3]))
def test_a_run_k_times_as_long_has_the_same_cycle_at_k_times_the_update(times, t, phases):
    for make in (lambda h: one_cycle(h, phases=phases), one_cycle_stairs, flat_cosine):
        long, short = make(Horizon(100 * times, batch_size=1)), make(Horizon(100, batch_size=1))
        assert long(t * times) == pytest.approx(short(t), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda h: one_cycle(h, rise=0), "rise=0"),
        (lambda h: one_cycle(h, rise=12), "rise=12 is 12 updates, and 2 phases do not fit in the 12"),
        (lambda h: one_cycle(h, rise="50%", phases=3), "rise=50% is 6 updates, and 3 phases"),
        (lambda h: one_cycle(replace(h, convention=EARLY), rise=1), "rise=1"),
        (lambda h: one_cycle(h, start=1.5), "start=1.5"),
        (lambda h: one_cycle(h, start=float("nan")), "start=nan"),
        (lambda h: one_cycle(h, floor=-0.1), "floor=-0.1"),
        (lambda h: one_cycle(h, shape="cos"), "shape='cos'"),
        (lambda h: one_cycle(h, shape="1-sqrt"), "shape='1-sqrt'"),
        (lambda h: one_cycle(h, phases=4), "phases=4"),
        (lambda h: one_cycle(h, phases=2.0), "phases=2.0"),
        (lambda h: one_cycle_stairs(h, stairs=0), "stairs=0"),
        (lambda h: one_cycle_stairs(h, stairs=1.5), "stairs=1.5"),
        (lambda h: one_cycle_stairs(h, start="low"), "start='low'"),
        (lambda h: one_cycle_stairs(h, rise="100%"), "rise=100%"),
        (lambda h: flat_cosine(h, flat=12), "flat=12 is 12 updates, but the schedule has 12"),
        (lambda h: flat_cosine(h, flat="soon"), "flat='soon'"),
        (lambda h: flat_cosine(h, floor=2), "floor=2"),
    ],
)
def test_one_cycle_that_makes_no_sense_is_refused_in_one_line_that_names_it(make, says):
    with pytest.raises(ConfigError) as error:
        make(RUN)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
