"""Decays along a power of time: the values of six peers at every update of a run, values from hand, laws, refusals."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.lr import ConfigError, Horizon, annotations, compose, linear_warmup, no_warmup
from trainer.lr.convention import Convention
from trainer.lr.inverse_sqrt import inverse_sqrt, noam, noam_hold, power_law

W, T = 10, 200
RUN = Horizon(T, batch_size=1)
AFTER = RUN.after(W)
R2 = math.sqrt(2)

# The rate of update n of the run after a warm-up of W updates, as each tool writes it.
PEERS = {
    "Hugging Face": (lambda h: inverse_sqrt(h, timescale=10000), lambda n: 1 / math.sqrt((n + 10000 - W) / 10000)),
    "timm": (lambda h: inverse_sqrt(h, floor=0.4, clip=True), lambda n: max((1 + (n - W) / W) ** -0.5, 0.4)),
    "big_vision": (
        lambda h: inverse_sqrt(h, timescale=300, shift=70),
        lambda n: 1 / math.sqrt(1 + (n + 70 - W) / 300),
    ),
    "fairseq": (lambda h: inverse_sqrt(h), lambda n: W**0.5 * n**-0.5),
    "Megatron": (lambda h: inverse_sqrt(h, floor=0.3, clip=True), lambda n: max(0.3, W**0.5 / n**0.5)),
    "NeMo": (lambda h: inverse_sqrt(h, timescale=W + 1), lambda n: 1 / ((n + 1) / (W + 1)) ** 0.5),
    "OLMo-core": (lambda h: inverse_sqrt(h, floor=0.1), lambda n: 0.1 + (1 - 0.1) * math.sqrt(W / n)),
    "LLM Foundry": (
        lambda h: inverse_sqrt(h, timescale=40, floor=0.2),
        lambda n: 0.2 + (1 - 0.2) / math.sqrt((n - W + 40) / 40),
    ),
    "OLMo-core power": (lambda h: power_law(h, power=0.51, timescale=None), lambda n: (n / W) ** -0.51),
    "timm power": (lambda h: power_law(h, power=0.7, timescale=W), lambda n: (1.0 + (n - W) / W) ** -0.7),
}

# Worked out by hand over 200 updates. Each row: the schedule, then t: m(t).
GOLDEN = [
    (lambda h: inverse_sqrt(h, timescale=25), {0: 1, 75: 0.5, 200: 1 / 3, 201: 1 / 3, 10**12: 1 / 3}),
    (lambda h: inverse_sqrt(h, timescale=25, floor=0.4), {0: 1, 75: 0.7, 200: 0.6, 10**12: 0.6}),
    (lambda h: inverse_sqrt(h, timescale=25, floor=0.4, clip=True), {0: 1, 75: 0.5, 200: 0.4, 10**12: 0.4}),
    (lambda h: inverse_sqrt(h, timescale=25, shift=25), {0: R2 / 2, 50: 0.5, 175: 1 / 3}),
    (lambda h: inverse_sqrt(h), {0: 1, 60: 0.5, 160: 1 / 3}),  # 10 % of the run is 20 updates
    (lambda h: power_law(h, power=2.0, timescale=50), {0: 1, 50: 0.25, 200: 0.04, 10**12: 0.04}),
    (lambda h: power_law(h, power=1.0, floor=0.5), {0: 1, 20: 0.75, 180: 0.55}),
    (lambda h: noam(h, warmup=4), {0: 0.25, 1: 0.5, 3: 1, 4: 2 / math.sqrt(5), 15: 0.5, 99: 0.2, 199: 0.1 * R2}),
    (lambda h: noam(h, warmup=4, width=25), {0: 0.025, 3: 0.1, 15: 0.05}),
    (lambda h: noam_hold(h, warmup=4, hold=12), {0: 0.25, 3: 1, 4: 1, 15: 1, 16: 2 / math.sqrt(5), 27: 0.5, 111: 0.2}),
    (lambda h: noam_hold(h, warmup=4, hold=12, rate=1.0, floor=0.3), {0: 0.25, 15: 1, 19: 0.5, 199: 0.3, 10**12: 0.3}),
]

MAKES = [
    lambda h, floor: inverse_sqrt(h, floor=floor),
    lambda h, floor: inverse_sqrt(h, floor=floor, clip=True),
    lambda h, floor: power_law(h, power=0.51, floor=floor),
]
HILLS = [
    lambda h: noam(h),
    lambda h: noam_hold(h),
    lambda h: noam_hold(h, warmup="25%", hold="50%", rate=1.0, floor=0.2),
]


@pytest.mark.parametrize("peer", PEERS)
def test_each_variant_of_a_peer_is_a_setting_and_gives_its_rate_at_every_update(peer):
    ours, theirs = PEERS[peer]
    schedule = ours(AFTER)
    assert [schedule(n - W) for n in range(W, T)] == pytest.approx([theirs(n) for n in range(W, T)], rel=1e-12)


@pytest.mark.parametrize(("make", "points"), GOLDEN)
def test_a_power_of_time_has_the_values_worked_out_by_hand(make, points):
    schedule = make(RUN)
    assert {t: schedule(t) for t in points} == pytest.approx(points, rel=1e-12)


def test_noam_with_a_width_is_the_formula_of_the_paper():
    schedule = noam(RUN, warmup=16, width=512)
    paper = [512**-0.5 * min(step**-0.5, step * 16**-1.5) for step in range(1, T + 1)]
    assert [schedule(t) for t in range(T)] == pytest.approx(paper, rel=1e-12)


def test_the_timescale_is_the_warmup_and_ten_percent_of_the_run_where_there_is_none():
    for make in (inverse_sqrt, lambda h: power_law(h, timescale=None)):
        assert make(AFTER)(W) == pytest.approx(2**-0.5, rel=1e-12)
        assert make(RUN)(T // 10) == pytest.approx(2**-0.5, rel=1e-12)


@given(updates=st.integers(20, 2000), percent=st.integers(5, 90))
def test_after_any_warmup_the_rate_is_the_root_of_warmup_over_updates_and_has_no_jump(updates, percent):
    horizon = Horizon(updates, batch_size=1)
    warmup, schedule = compose(horizon, lambda h: linear_warmup(h, duration=f"{percent}%"), inverse_sqrt)
    width = warmup.updates
    rates = [warmup.factor(t) * schedule(t) for t in range(updates)]
    assert rates[: width + 1] == pytest.approx([min(1.0, (t + 1) / width) for t in range(width + 1)], rel=1e-12)
    assert rates[width:] == pytest.approx([math.sqrt(width / t) for t in range(width, updates)], rel=1e-12)


@pytest.mark.parametrize("make", MAKES)
@given(total=st.integers(20, 500), floor=st.floats(0, 1))
def test_a_power_of_time_starts_at_the_peak_never_rises_and_stays_above_its_floor(make, total, floor):
    schedule = make(Horizon(total, batch_size=1), floor)
    values = [schedule(t) for t in range(total + 5)]
    assert values[0] == 1.0
    assert all(earlier >= later for earlier, later in zip(values, values[1:]))
    assert min(values) >= floor
    assert len(set(values[total:])) == 1


@pytest.mark.parametrize("make", HILLS)
@given(total=st.integers(20, 500))
def test_a_hill_rises_to_one_once_and_then_falls(make, total):
    schedule = make(Horizon(total, batch_size=1))
    values = [schedule(t) for t in range(total + 5)]
    top = annotations(schedule)["knots"][0]
    assert values[top] == max(values) == 1.0
    assert all(earlier < later for earlier, later in zip(values[:top], values[1 : top + 1]))
    assert all(earlier >= later for earlier, later in zip(values[top:], values[top + 1 :]))
    assert len(set(values[total:])) == 1
    assert max(abs(a - b) for a, b in zip(values[top:], values[top + 1 :])) < 0.5


@pytest.mark.parametrize("make", [lambda h: inverse_sqrt(h, floor=0.1), power_law])
@given(total=st.integers(2, 50), times=st.integers(1, 9), t=st.integers(0, 600))
def test_a_run_k_times_as_long_has_the_same_curve_at_k_times_the_update(make, total, times, t):
    short, long = Horizon(10 * total, batch_size=1), Horizon(10 * total * times, batch_size=1)
    assert make(long)(t * times) == pytest.approx(make(short)(t), rel=1e-12)


def test_without_a_hold_and_at_the_rate_of_one_half_noam_hold_is_noam():
    noam_alone, held = noam(RUN, warmup=30), noam_hold(RUN, warmup=30, hold=0)
    assert [held(t) for t in range(T + 1)] == pytest.approx([noam_alone(t) for t in range(T + 1)], rel=1e-12)


@pytest.mark.parametrize(
    ("ramp", "rises"),
    [
        ("(t+1)/W", [0.25, 0.5, 0.75, 1.0]),
        ("t/W", [0, 0.25, 0.5, 0.75, 1.0]),
        ("(t+1)/(W+1)", [0.2, 0.4, 0.6, 0.8, 1.0]),
    ],
)
def test_a_hill_rises_as_the_convention_says(ramp, rises):
    horizon = Horizon(T, batch_size=1, convention=Convention(ramp=ramp))
    for schedule in (noam(horizon, warmup=4), noam_hold(horizon, warmup=4, hold=6)):
        assert [schedule(t) for t in range(len(rises))] == pytest.approx(rises, rel=1e-12)
        assert annotations(schedule)["knots"][0] == len(rises) - 1


def test_a_warmup_longer_than_the_run_is_noted_and_the_rise_stops_at_the_end():
    schedule = noam(Horizon(10, batch_size=1), warmup=40)
    assert annotations(schedule) == {"knots": (39,)}
    assert schedule(10) == schedule(10**12) == pytest.approx(11 / 40)


def test_with_a_decay_that_ends_at_the_last_update_the_value_there_is_held():
    horizon = Horizon(T, batch_size=1, convention=Convention(early=1))
    for make in (inverse_sqrt, power_law, noam, noam_hold):
        schedule = make(horizon)
        assert schedule(T - 2) > schedule(T - 1) == schedule(T) == schedule(10**12)


def test_the_defaults_work_on_short_and_on_long_runs():
    for total in (20, 10**6, 10**15):
        for make in (inverse_sqrt, power_law, noam, noam_hold):
            _, schedule = compose(Horizon(total, batch_size=1), no_warmup, make)
            assert all(0 <= schedule(t) <= 1 for t in (0, 1, total // 2, total - 1, total, 10**18))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda h: inverse_sqrt(h, timescale=0), "timescale=0 is 0 updates"),
        (lambda h: inverse_sqrt(h, timescale=-5), "timescale=-5"),
        (lambda h: inverse_sqrt(h, timescale=math.nan), "timescale=nan"),
        (lambda h: inverse_sqrt(h, shift="soon"), "shift='soon'"),
        (lambda h: inverse_sqrt(h, floor=1.5), "floor=1.5"),
        (lambda h: inverse_sqrt(h, clip=1), "clip=1"),
        (lambda h: power_law(h, power=0), "power=0"),
        (lambda h: power_law(h, power=-0.51), "power=-0.51"),
        (lambda h: power_law(h, power=math.inf), "power=inf"),
        (lambda h: power_law(h, floor=math.nan), "floor=nan"),
        (lambda h: noam(h, warmup=0), "warmup=0 is 0 updates"),
        (lambda h: noam(h, width=0), "width=0"),
        (lambda h: noam(h, width=512.0), "width=512.0"),
        (lambda h: noam_hold(h, hold="-1%"), "hold='-1%'"),
        (lambda h: noam_hold(h, rate=0.0), "rate=0.0"),
        (lambda h: noam_hold(h, floor=-0.1), "floor=-0.1"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused_in_one_line_that_names_it(make, says):
    with pytest.raises(ConfigError) as error:
        make(RUN)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
