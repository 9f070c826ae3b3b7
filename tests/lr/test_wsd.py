"""The peak held for long, then a decay: values from hand and from the peers' formulas, laws, refusals."""

import math
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.lr import ConfigError, Horizon, annotations, compose, linear_warmup
from trainer.lr.convention import Convention
from trainer.lr.wsd import tri_stage, wsd, wsd_s

R2, R3 = math.sqrt(2), math.sqrt(3)
RUN = Horizon(12, batch_size=1)

# Worked out by hand over 12 updates. Each row: the schedule, then t: m(t).
GOLDEN = [
    (lambda h: wsd(h, decay=4, shape="linear"), {0: 1, 8: 1, 9: 0.75, 11: 0.25, 12: 0, 999: 0}),
    (lambda h: wsd(h, decay=4, floor=0.2), {0: 1, 8: 1, 9: 0.6, 10: 1 - 0.4 * R2, 11: 1 - 0.4 * R3, 12: 0.2, 99: 0.2}),
    (lambda h: wsd(h, decay="25%", shape="cosine"), {0: 1, 9: 1, 10: 0.75, 11: 0.25, 12: 0}),
    (lambda h: wsd(h, decay=4, shape="1-square"), {8: 1, 9: 15 / 16, 10: 0.75, 11: 7 / 16, 12: 0}),
    (lambda h: wsd(h, decay=4, shape="square"), {8: 1, 9: 9 / 16, 10: 0.25, 11: 1 / 16, 12: 0}),
    (lambda h: wsd(h, decay=4, shape="power", power=3, floor=0.5), {8: 1, 9: 0.5 + 27 / 128, 10: 0.5625, 12: 0.5}),
    (lambda h: wsd(h, decay=4, shape="1-power", power=3), {8: 1, 9: 63 / 64, 10: 0.875, 12: 0}),
    (lambda h: wsd(h, decay=4, shape="exponential"), {8: 1, 10: 0.09 / 0.99, 12: 0, 10**12: 0}),
    (lambda h: wsd(h, decay=4, shape="exponential", ratio=0.25, floor=0.1), {8: 1, 10: 0.1 + 0.9 / 3, 12: 0.1}),
    (lambda h: wsd_s(h, periods=2, decay_share=0.5), {0: 1, 3: 1, 4: 2 / 3, 5: 1 / 3, 6: 1, 9: 1, 11: 1 / 3, 12: 0}),
    (
        lambda h: wsd_s(h, periods=[8], decay_share=0.5, peaks=[1, 0.5], floor=0.1),
        {0: 1, 4: 1, 5: 0.775, 7: 0.325, 8: 0.5, 10: 0.5, 11: 0.3, 12: 0.1, 10**12: 0.1},
    ),
    (lambda h: wsd_s(h, periods=["50%", "100%"], decay_share=0.5), {3: 1, 4: 2 / 3, 6: 1, 11: 1 / 3, 12: 0}),
    (lambda h: wsd_s(h, periods=1, decay_share=1.0, floor=0.4), {0: 1, 1: 0.95, 6: 0.7, 12: 0.4}),
    (
        lambda h: tri_stage(h, warmup=4, hold=4, start=0.2, floor=0.0625),
        {0: 0.4, 1: 0.6, 2: 0.8, 3: 1, 4: 1, 8: 1, 9: 0.5, 10: 0.25, 11: 0.125, 12: 0.0625, 10**12: 0.0625},
    ),
    (lambda h: tri_stage(h, warmup=0, hold=0, floor=0.5), {0: 1, 6: R2 / 2, 12: 0.5}),
]

SHAPES = ["linear", "cosine", "1-sqrt", "1-square", "square", "power", "1-power", "exponential"]


@pytest.mark.parametrize(("make", "points"), GOLDEN)
def test_a_decay_after_a_plateau_has_the_values_worked_out_by_hand(make, points):
    schedule = make(RUN)
    assert {t: schedule(t) for t in points} == pytest.approx(points, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(
    ("settings", "theirs"),
    [
        ({"shape": "exponential", "ratio": 0.5}, lambda x: 2.0 * 0.5**x - 1.0),  # Megatron
        ({"shape": "exponential", "ratio": 0.1}, lambda x: (0.1**x - 0.1) / 0.9),  # timm
        ({"shape": "1-power", "power": 0.5}, lambda x: 1 - math.sqrt(x)),  # timm's power
        ({"shape": "1-sqrt"}, lambda x: 1 - math.sqrt(x)),
        ({"shape": "cosine"}, lambda x: math.cos(math.pi * x / 2) ** 2),
        ({"shape": "power", "power": 2.0}, lambda x: 1 - 2 * x + x * x),
    ],
)
def test_a_shape_with_its_setting_is_the_one_of_the_peer_that_has_it(settings, theirs):
    schedule = wsd(Horizon(1000, batch_size=1), decay=400, floor=0.1, **settings)
    wanted = [0.1 + 0.9 * theirs((t - 600) / 400) for t in range(600, 1000)]
    assert [schedule(t) for t in range(600, 1000)] == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@given(span=st.integers(5, 300), percent=st.integers(20, 100), floor=st.floats(0, 1))
def test_a_wsd_holds_the_peak_and_then_never_rises_down_to_its_floor(shape, span, percent, floor):
    schedule = wsd(Horizon(span, batch_size=1), decay=f"{percent}%", shape=shape, floor=floor)
    values = [schedule(t) for t in range(span + 20)]
    (begin,) = annotations(schedule)["knots"]
    assert values[: begin + 1] == [1.0] * (begin + 1)
    assert all(earlier >= later for earlier, later in zip(values, values[1:]))
    assert values[span:] == [floor] * 20


@given(
    span=st.integers(30, 400),
    peaks=st.lists(st.floats(0.5, 2), min_size=1, max_size=6),
    share=st.floats(0.2, 1),
    floor=st.floats(0, 0.5),
)
def test_a_wsd_s_is_a_wsd_in_every_period(span, peaks, share, floor):
    periods, horizon = len(peaks), Horizon(span, batch_size=1)
    schedule = wsd_s(horizon, periods=periods, decay_share=share, peaks=peaks, floor=floor, shape="1-sqrt")
    ends, starts = annotations(schedule)["ends"], (0, *annotations(schedule)["jumps"])
    assert (len(ends), ends[-1], ends[:-1]) == (periods, span, starts[1:])
    assert max(b - a for a, b in zip(starts, ends)) - min(b - a for a, b in zip(starts, ends)) <= 1
    for start, end, peak in zip(starts, ends, peaks):
        width = math.floor(share * (end - start) + 0.5)
        one = wsd(Horizon(end - start, batch_size=1), decay=width, floor=floor / peak)
        wanted = [peak * one(t) for t in range(end - start)]
        assert [schedule(t) for t in range(start, end)] == pytest.approx(wanted, rel=1e-12, abs=1e-15)
    assert [schedule(t) for t in (span, span + 1, 10**12)] == [floor] * 3


def test_one_period_is_a_wsd():
    periodic, single = wsd_s(RUN, periods=1, decay_share=0.25, floor=0.1), wsd(RUN, decay=3, shape="linear", floor=0.1)
    assert [periodic(t) for t in range(15)] == [single(t) for t in range(15)]


def test_the_periods_of_a_wsd_s_may_end_where_one_says_and_the_run_ends_the_last():
    schedule = wsd_s(Horizon(100, batch_size=1), periods=["10%", 30, "70%"])
    assert annotations(schedule) == {"jumps": (10, 30, 70), "knots": (8, 26, 62, 94), "ends": (10, 30, 70, 100)}


def test_a_period_that_ends_after_the_run_is_noted_and_cut():
    schedule = wsd_s(RUN, periods=[6, 18], decay_share=0.5)
    assert annotations(schedule)["ends"] == (6, 18)
    assert schedule(11) == schedule(12) == schedule(10**12) == 1.0


@pytest.mark.parametrize("periods", [3, ["30%", "60%"]])
def test_after_a_warmup_the_last_period_still_ends_with_the_run(periods):
    warmup, part = partial(linear_warmup, duration=10), partial(wsd_s, periods=periods)
    _, schedule = compose(Horizon(100, batch_size=1), warmup, part)
    assert annotations(schedule)["ends"][-1] == 100
    assert schedule(100) == 0.0 < schedule(99) < 0.2


@given(span=st.integers(20, 400), start=st.floats(0, 1), floor=st.floats(1e-6, 1))
def test_a_tri_stage_rises_in_a_line_holds_and_falls_by_equal_factors(span, start, floor):
    schedule = tri_stage(Horizon(span, batch_size=1), start=start, floor=floor)
    values = [schedule(t) for t in range(span + 5)]
    top, begin = annotations(schedule)["knots"]
    steps = [later - earlier for earlier, later in zip(values[:top], values[1 : top + 1])]
    assert steps == pytest.approx([(1 - start) / (top + 1)] * top, rel=1e-6, abs=1e-12)
    assert values[top : begin + 1] == [1.0] * (begin + 1 - top)
    factors = [later / earlier for earlier, later in zip(values[begin:span], values[begin + 1 :])]
    assert factors == pytest.approx([floor ** (1 / (span - begin))] * (span - begin), rel=1e-9)
    assert values[span:] == [floor] * 5


def test_a_tri_stage_is_the_one_of_fairseq_where_the_warmup_starts_at_its_first_value():
    horizon = Horizon(100, batch_size=1, convention=Convention(ramp="t/W"))
    schedule = tri_stage(horizon, warmup=10, hold=40, start=0.01, floor=0.05)
    decay = -math.log(0.05) / 50

    def fairseq(n):
        if n < 10:
            return 0.01 + (1 - 0.01) / 10 * n
        return 1.0 if n < 50 else math.exp(-decay * (n - 50))

    assert [schedule(t) for t in range(101)] == pytest.approx([fairseq(n) for n in range(101)], rel=1e-12)


@given(span=st.integers(2, 60), times=st.integers(1, 9), t=st.integers(0, 700))
def test_a_run_k_times_as_long_has_the_same_curve_at_k_times_the_update(span, times, t):
    for make in (lambda h: wsd(h, floor=0.1), lambda h: wsd_s(h, periods=2)):
        short, long = Horizon(10 * span, batch_size=1), Horizon(10 * span * times, batch_size=1)
        assert make(long)(t * times) == pytest.approx(make(short)(t), rel=1e-9, abs=1e-12)


def test_a_decay_that_ends_at_the_last_update_has_its_floor_there():
    horizon = Horizon(100, batch_size=1, convention=Convention(early=1))
    for make in (wsd, wsd_s, tri_stage):
        schedule = make(horizon, floor=0.25)
        assert schedule(98) > schedule(99) == schedule(100) == 0.25


def test_the_defaults_work_on_short_and_on_long_runs():
    for total in (20, 10**6, 10**15):
        for make in (wsd, wsd_s, tri_stage):
            schedule = make(Horizon(total, batch_size=1).after(total // 10))
            assert all(0 <= schedule(t) <= 1 for t in (0, 1, total // 2, total - 1, total, 10**18))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda h: wsd(h, decay="200%"), "decay=200% is 24 updates, but the schedule has 12"),
        (lambda h: wsd(h, decay=4, shape="sqrt"), "shape='sqrt' is not known: choose one of linear, cosine"),
        (lambda h: wsd(h, decay=4, shape=["linear"]), "shape=['linear']"),
        (lambda h: wsd(h, decay=4, power=0), "power=0"),
        (lambda h: wsd(h, decay=4, ratio=1), "ratio=1"),
        (lambda h: wsd(h, decay=4, ratio=0), "ratio=0"),
        (lambda h: wsd(h, decay=4, floor=math.nan), "floor=nan"),
        (lambda h: wsd_s(h, periods=0), "periods=0"),
        (lambda h: wsd_s(h, periods=13), "periods=13"),
        (lambda h: wsd_s(h, periods="3"), "periods='3'"),
        (lambda h: wsd_s(h, periods=[]), "periods=[]"),
        (lambda h: wsd_s(h, periods=[6, 6]), "periods[1]=6 is at update 6, not after 6"),
        (lambda h: wsd_s(h, decay_share=0), "decay_share=0"),
        (lambda h: wsd_s(h, periods=6), "decay_share=0.2 of a period of 2 updates is no update"),
        (lambda h: wsd_s(h, peaks=[1, 1]), "peaks=[1, 1] is not a list of 3 values"),
        (lambda h: wsd_s(h, peaks=[1, 0.1, 1], floor=0.2), "peaks[1]=0.1"),
        (lambda h: wsd_s(h, peaks=[1, 1, math.inf]), "peaks[2]=inf"),
        (lambda h: wsd_s(h, shape="power"), "shape='power'"),
        (lambda h: tri_stage(h, warmup=4, hold=8), "warmup=4 and hold=8 are 12 updates of the 12"),
        (lambda h: tri_stage(h, start=-1), "start=-1"),
        (lambda h: tri_stage(h, floor=0), "floor=0"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused_in_one_line_that_names_it(make, says):
    with pytest.raises(ConfigError) as error:
        make(RUN)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
