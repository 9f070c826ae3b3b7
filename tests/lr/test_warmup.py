"""A warm-up rises to exactly 1 and stays there: golden values in every convention, the peers' own curves, and laws."""

import inspect
import math
from dataclasses import replace
from decimal import Decimal, localcontext
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.lr.torch_scheduler import torch_curve
from trainer.lr import ConfigError, Convention, Horizon, compose, linear, untuned, warmup
from trainer.lr.convention import RAMPS
from trainer.lr.schedule import annotations
from trainer.lr.untuned import (
    auto_updates,
    radam_warmup,
    saturating_warmup,
    untuned_exponential_warmup,
    untuned_linear_warmup,
)
from trainer.lr.warmup import (
    constant_warmup,
    cosine_warmup,
    exponential_warmup,
    hold_warmup,
    linear_warmup,
    log_warmup,
    no_warmup,
    one_minus_sqrt_warmup,
    polynomial_warmup,
    sqrt_warmup,
)

OURS, ZERO, LATE = RAMPS
CONF = Path(__file__).parents[2] / "conf" / "warmup"
FAR = 10**15
R2, R3, R5 = math.sqrt(2), math.sqrt(3), math.sqrt(5)
LN2, LN4, LN5, LN6 = math.log(2), math.log(4), math.log(5), math.log(6)


def run(total=1000, ramp=OURS):
    return Horizon(total, batch_size=1, convention=Convention(ramp=ramp))


def from_a_fifth(*rises):
    return [0.2 + 0.8 * rise for rise in rises]


# Worked out by hand for W = 4, at t = 0, W-1, W, W+1 and far beyond: u is 1/4, 1 | 0, 3/4, 1 | 1/5, 4/5, 1.
GOLDEN = {
    linear_warmup: ({"start": 0.2}, {OURS: (0.4, 1), ZERO: (0.2, 0.8), LATE: (0.36, 0.84)}),
    exponential_warmup: (
        {"start": 1 / 16},
        {OURS: (1 / 8, 1), ZERO: (1 / 16, 1 / 2), LATE: (2**-3.2, 2**-0.8)},
    ),
    cosine_warmup: (
        {"start": 0.2},
        {
            OURS: from_a_fifth((2 - R2) / 4, 1),
            ZERO: from_a_fifth(0, (2 + R2) / 4),
            LATE: from_a_fifth((3 - R5) / 8, (5 + R5) / 8),
        },
    ),
    one_minus_sqrt_warmup: (
        {"start": 0.2},
        {
            OURS: from_a_fifth(1 - R3 / 2, 1),
            ZERO: from_a_fifth(0, 1 / 2),
            LATE: from_a_fifth(1 - 2 / R5, 1 - 1 / R5),
        },
    ),
    sqrt_warmup: (
        {"start": 0.2},
        {OURS: from_a_fifth(1 / 2, 1), ZERO: from_a_fifth(0, R3 / 2), LATE: from_a_fifth(1 / R5, 2 / R5)},
    ),
    log_warmup: (
        {"start": 0.2},
        {
            OURS: from_a_fifth(LN2 / LN5, 1),
            ZERO: from_a_fifth(0, LN4 / LN5),
            LATE: from_a_fifth(LN2 / LN6, LN5 / LN6),
        },
    ),
    polynomial_warmup: (
        {"start": 0.2, "power": 2},
        {
            OURS: from_a_fifth(1 / 16, 1),
            ZERO: from_a_fifth(0, 9 / 16),
            LATE: from_a_fifth(1 / 25, 16 / 25),
        },
    ),
    constant_warmup: ({"factor": 0.3}, dict.fromkeys(RAMPS, (0.3, 0.3))),
    hold_warmup: ({}, dict.fromkeys(RAMPS, (1, 1))),
}
RISING = [make for make in GOLDEN if make not in (constant_warmup, hold_warmup)]
ENDLESS = [
    lambda h, beta2: saturating_warmup(h, tau=round(1 / (1 - beta2))),
    lambda h, beta2: untuned_linear_warmup(h, beta2=beta2),
    lambda h, beta2: untuned_exponential_warmup(h, beta2=beta2),
    lambda h, beta2: radam_warmup(h, beta2=beta2),
]


@pytest.mark.parametrize("ramp", RAMPS)
@pytest.mark.parametrize("make", GOLDEN)
def test_a_warmup_has_the_values_worked_out_by_hand_in_every_convention(make, ramp):
    settings, rows = GOLDEN[make]
    rise = make(run(ramp=ramp), duration=4, **settings)
    first, last = rows[ramp]
    assert rise.updates == 4
    assert [rise.factor(0), rise.factor(3)] == pytest.approx([first, last], rel=1e-12)
    assert [rise.factor(t) for t in (4, 5, FAR)] == [1.0, 1.0, 1.0]


def test_the_middle_of_a_warmup_has_the_values_worked_out_by_hand():
    middle = {linear_warmup: 1 / 2, cosine_warmup: 1 / 2, one_minus_sqrt_warmup: 1 - R2 / 2, sqrt_warmup: R2 / 2}
    middle |= {log_warmup: math.log(3) / LN5, polynomial_warmup: 1 / 4}
    for make, value in middle.items():
        assert make(run(), duration=4).factor(1) == pytest.approx(value, rel=1e-12)
    assert exponential_warmup(run(), duration=4, start=1 / 16).factor(1) == pytest.approx(1 / 4, rel=1e-12)
    assert polynomial_warmup(run(), duration=4, power=0.5).factor(1) == pytest.approx(R2 / 2, rel=1e-12)


@pytest.mark.parametrize("ramp", RAMPS)
def test_a_linear_warmup_is_its_formula_to_the_bit(ramp):
    lead, extra = RAMPS[ramp]
    rise = linear_warmup(run(ramp=ramp), duration=37, start=0.3).factor
    for t in range(37 + extra - lead):
        assert rise(t) == 0.3 + (1.0 - 0.3) * (t + lead) / (37 + extra)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            lambda h: linear_warmup(h, duration=49, start=0.04),
            lambda o: torch.optim.lr_scheduler.LinearLR(o, 0.04, total_iters=49),
        ),
        (
            lambda h: constant_warmup(h, duration=49, factor=0.3),
            lambda o: torch.optim.lr_scheduler.ConstantLR(o, 0.3, total_iters=49),
        ),
        (
            lambda h: cosine_warmup(h, duration=49, start=0.04),
            lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 1.0, 100, pct_start=0.5, cycle_momentum=False),
        ),
    ],
)
def test_a_warmup_that_begins_at_its_start_equals_torch_at_every_update(ours, theirs):
    rise = ours(run(ramp=ZERO)).factor
    assert [rise(t) for t in range(50)] == pytest.approx(torch_curve(theirs, 50), rel=1e-9)


@given(length=st.integers(1, 300))
def test_the_logarithm_is_that_of_deepspeed_without_its_first_update_at_zero(length):
    theirs = [math.log(t + 1) / math.log(length + 1) for t in range(length + 1)]  # its W is length + 1
    ours, same = log_warmup(run(), duration=length).factor, log_warmup(run(ramp=ZERO), duration=length).factor
    assert [ours(t) for t in range(length)] == pytest.approx(theirs[1:], rel=1e-12)
    assert [same(t) for t in range(length + 1)] == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize("make", RISING)
@given(length=st.integers(0, 300), start=st.floats(0.001, 1), ramp=st.sampled_from(list(RAMPS)))
def test_a_warmup_never_falls_and_is_exactly_one_from_its_end_on(make, length, start, ramp):
    rise = make(run(ramp=ramp), duration=length, start=start)
    values = [rise.factor(t) for t in range(length + 3)]
    assert rise.updates == length
    assert all(earlier <= later for earlier, later in zip(values, values[1:]))
    assert start - 1e-15 <= values[0] <= max(values) <= 1.0
    end = max(0, length - 1) if ramp == OURS else length
    assert set(values[end:]) == {1.0}
    assert all(value < 1.0 for value in values[:end]) or start > 0.99
    if ramp == ZERO and length:
        assert values[0] == pytest.approx(start, rel=1e-12)


@pytest.mark.parametrize("make", [make for make in RISING if make is not log_warmup])
@given(length=st.integers(1, 200), times=st.integers(1, 9), start=st.floats(0.001, 1))
def test_a_warmup_k_times_as_long_has_the_same_curve_at_k_times_the_update(make, length, times, start):
    short = make(run(ramp=ZERO), duration=length, start=start).factor
    long = make(run(10_000, ZERO), duration=length * times, start=start).factor
    for t in range(0, length + 2, 1 + length // 10):
        assert long(t * times) == pytest.approx(short(t), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("make", RISING)
def test_no_update_of_a_warmup_is_wasted_at_zero_in_our_convention(make):
    assert make(run(), duration=500).factor(0) > 0
    if make is not exponential_warmup:
        assert make(run(), duration=500, start=0).factor(0) > 0
        assert make(run(ramp=ZERO), duration=500, start=0).factor(0) == 0


@pytest.mark.parametrize("ramp", RAMPS)
@pytest.mark.parametrize("make", GOLDEN)
def test_a_warmup_of_no_updates_is_no_warmup(make, ramp):
    rise = make(run(ramp=ramp), duration=0)
    assert (rise.updates, rise.factor(0), rise.factor(FAR)) == (0, 1.0, 1.0)
    assert no_warmup(run(ramp=ramp)).updates == 0
    assert saturating_warmup(run(ramp=ramp), tau=0).factor(0) == 1.0


def test_a_warmup_of_one_update_is_at_the_peak_unless_the_convention_says_otherwise():
    for make in RISING:
        assert make(run(), duration=1).factor(0) == 1.0
        assert make(run(ramp=ZERO), duration=1, start=0.25).factor(0) == pytest.approx(0.25)
        assert 0.25 < make(run(ramp=LATE), duration=1, start=0.25).factor(0) < 1.0
    assert [constant_warmup(run(), duration=1).factor(t) for t in (0, 1)] == [0.01, 1.0]


def test_a_constant_warmup_says_where_it_jumps():
    assert annotations(constant_warmup(run(), duration=7).factor)["jumps"] == (7,)
    assert annotations(constant_warmup(run(), duration=0).factor)["jumps"] == ()
    assert annotations(constant_warmup(run(), duration=7, factor=1).factor)["jumps"] == ()


def test_a_held_warmup_lets_the_schedule_wait():
    rise, fall = compose(run(12), lambda h: hold_warmup(h, duration=4), linear)
    assert [rise.factor(t) * fall(t) for t in (0, 4, 8, 12)] == [1.0, 1.0, 0.5, 0.0]


@pytest.mark.parametrize("make", ENDLESS)
def test_a_warmup_without_an_end_leaves_the_schedule_the_whole_run(make):
    rise, fall = compose(run(12), lambda h: make(h, 0.999), linear)
    assert rise.updates == 0
    assert [fall(t) for t in (0, 6)] == [1.0, 0.5]
    assert 0 < rise.factor(0) < rise.factor(11) < 0.1


@pytest.mark.parametrize("make", ENDLESS)
@given(beta2=st.floats(0.601, 0.9999))
def test_a_warmup_without_an_end_never_falls_and_comes_to_exactly_one(make, beta2):
    factor = make(run(), beta2).factor
    points = [*range(200), *(int(1.1**i) + 200 for i in range(200)), FAR]
    values = [factor(t) for t in points]
    assert all(earlier <= later for earlier, later in zip(values, values[1:]))
    assert 0 < values[0] <= 1.0
    assert values[-2:] == [1.0, 1.0]


def test_a_warmup_without_an_end_has_the_values_worked_out_by_hand():
    e = math.e
    curve = saturating_warmup(run(), tau=10).factor
    assert [curve(t) for t in (0, 9, 29)] == pytest.approx([1 - e**-0.1, 1 - e**-1, 1 - e**-3], rel=1e-12)
    curve = untuned_exponential_warmup(run(), beta2=0.75).factor
    assert [curve(t) for t in (0, 3, 7)] == pytest.approx([1 - e**-0.25, 1 - e**-1, 1 - e**-2], rel=1e-12)
    # 2 / (1 - 0.95) = 40
    rows = {OURS: (0.025, 1, 1), ZERO: (0, 0.975, 1), LATE: (1 / 41, 40 / 41, 1)}
    for ramp, values in rows.items():
        curve = untuned_linear_warmup(run(ramp=ramp), beta2=0.95).factor
        assert [curve(t) for t in (0, 39, 40)] == pytest.approx(list(values), rel=1e-12)
        assert (curve(40), curve(FAR)) == (1.0, 1.0)


@pytest.mark.parametrize("make", [saturating_warmup, untuned_exponential_warmup, radam_warmup])
def test_a_warmup_that_is_no_ramp_is_the_same_in_every_convention(make):
    settings = {} if make is saturating_warmup else {"beta2": 0.99}
    curves = [[make(run(ramp=ramp), **settings).factor(t) for t in (0, 1, 50)] for ramp in RAMPS]
    assert curves[0] == curves[1] == curves[2]


def rectification(beta2, n):
    """Equation by equation from the RAdam paper, to 60 digits."""
    with localcontext() as context:
        context.prec = 60
        b = Decimal(beta2)
        limit = 2 / (1 - b) - 1
        rho = limit - 2 * n * b**n / (1 - b**n)
        if rho <= 4:
            return None
        return float((((rho - 4) * (rho - 2) * limit) / ((limit - 4) * (limit - 2) * rho)).sqrt())


@pytest.mark.parametrize(
    ("beta2", "first"), [(0.61, 11), (0.8, 5), (0.9, 5), (0.95, 5), (0.99, 5), (0.999, 5), (1 - 1e-7, 5)]
)
def test_radam_begins_where_its_rectification_does_and_follows_the_paper(beta2, first):
    factor = radam_warmup(run(), beta2=beta2).factor
    assert rectification(beta2, first - 1) is None
    for t in (0, 1, 2, 10, 100, 1000, 10_000):
        assert factor(t) == pytest.approx(rectification(beta2, first + t), rel=1e-12 / (1 - beta2))


def test_radam_has_the_known_values():
    factor = radam_warmup(run(), beta2=0.999).factor
    assert [round(factor(t), 3) for t in (0, 100, 1000)] == [0.017, 0.221, 0.647]


def test_radam_is_what_torch_multiplies_its_update_by():
    # With β1 = 0 and a gradient of 1, an update of torch's RAdam is the learning rate times its factor.
    weight = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.RAdam([weight], lr=1.0, betas=(0.0, 0.99), eps=0.0)
    weight.grad, steps = torch.ones_like(weight), []
    for _ in range(300):
        before = weight.item()
        optimizer.step()
        steps.append(before - weight.item())
    factor = radam_warmup(run(), beta2=0.99).factor
    begin = 8  # torch waits for ρ > 5; its update 1 is n = 1, ours n = 5
    assert [factor(n - 5) for n in range(begin, 301)] == pytest.approx(steps[begin - 1 :], rel=1e-9)


def test_the_automatic_length_follows_the_optimizer_up_to_a_tenth_of_the_run():
    lengths = {(100_000, 0.999): 2000, (100_000, 0.95): 40, (1000, 0.999): 100, (39, 0.99): 3, (9, 0.9): 0}
    lengths |= {(1000, None): 50, (30, None): 2, (9, None): 0, (1, None): 0, (100, 0): 2}
    assert {key: auto_updates(run(key[0]), key[1]) for key in lengths} == lengths


@given(total=st.integers(1, 10**6), beta2=st.none() | st.floats(0, 1, exclude_max=True))
def test_the_automatic_length_always_leaves_most_of_the_run(total, beta2):
    assert 0 <= auto_updates(run(total), beta2) <= (total + 5) // 10


@pytest.mark.parametrize("file", sorted(CONF.glob("*.yaml")), ids=lambda file: file.stem)
def test_an_option_has_the_defaults_of_its_function_and_works_on_short_and_long_runs(file):
    first, values = file.read_text().splitlines()[0], yaml.safe_load(file.read_text())
    name = values.pop("_target_").removeprefix("trainer.lr.")
    make = getattr(warmup, name, None) or getattr(untuned, name)
    assert (first[:2], first[-1], values.pop("_partial_")) == ("# ", ".", True)
    parameters = list(inspect.signature(make).parameters.values())[1:]
    assert list(values) == [parameter.name for parameter in parameters]
    if file.stem == "auto":
        return
    assert values == {parameter.name: parameter.default for parameter in parameters}
    if "beta2" in values:
        values["beta2"] = 0.999
    for total in (20, 1000, 10**6):
        rise = make(replace(run(), total=total), **values)
        assert 0 <= rise.updates <= total // 20
        assert 0 < rise.factor(0) <= rise.factor(total // 20) <= rise.factor(total) <= 1.0


REFUSED = [
    *((lambda h, make=make: make(h, duration=-1), "duration=-1") for make in GOLDEN),
    *((lambda h, make=make: make(h, duration="5epochs"), "duration='5epochs'") for make in GOLDEN),
    *((lambda h, make=make: make(h, duration=2.5), "duration=2.5") for make in GOLDEN),
    *((lambda h, make=make: make(h, duration="0.01 samples"), "duration=0.01 samples is 0 updates") for make in GOLDEN),
    *((lambda h, make=make: make(h, duration=4, start=2), "start=2") for make in RISING),
    *((lambda h, make=make: make(h, duration=4, start=-0.1), "start=-0.1") for make in RISING),
    *((lambda h, make=make: make(h, duration=4, start=math.nan), "start=nan") for make in RISING),
    *((lambda h, make=make: make(h, duration=4, start="low"), "start='low'") for make in RISING),
    *((lambda h, make=make: make(h, duration=4, start=True), "start=True") for make in RISING),
    (lambda h: exponential_warmup(h, duration=4, start=0), "start=0 must be above zero"),
    (lambda h: constant_warmup(h, duration=4, factor=0), "factor=0"),
    (lambda h: constant_warmup(h, duration=4, factor=1.5), "factor=1.5"),
    (lambda h: constant_warmup(h, duration=4, factor=math.nan), "factor=nan"),
    (lambda h: polynomial_warmup(h, duration=4, power=0), "power=0"),
    (lambda h: polynomial_warmup(h, duration=4, power=-1), "power=-1"),
    (lambda h: polynomial_warmup(h, duration=4, power=1e4), "power=10000.0"),
    (lambda h: polynomial_warmup(h, duration=4, power="2"), "power='2'"),
    (lambda h: saturating_warmup(h, tau=-1), "tau=-1"),
    (lambda h: saturating_warmup(h, tau=None), "tau=None"),
    *(
        (lambda h, make=make, value=value: make(h, value), f"beta2={value!r}")
        for make in ENDLESS[1:]
        for value in (None, 0, 0.0, 1, 1.0, -0.5, 1.5, math.nan, "0.9", True)
    ),
    (lambda h: radam_warmup(h, beta2=0.6), "beta2=0.6 is too small"),
    (lambda h: radam_warmup(h, beta2=0.3), "beta2=0.3 is too small"),
    *((lambda h, value=value: auto_updates(h, value), f"beta2={value!r}") for value in (1.0, -1, math.nan, "0.9")),
]


@pytest.mark.parametrize(("make", "says"), REFUSED)
def test_a_number_that_makes_no_sense_is_refused_in_one_line_that_names_it(make, says):
    with pytest.raises(ConfigError) as error:
        make(Horizon(100, batch_size=1))
    assert says in str(error.value)
    assert "\n" not in str(error.value)
