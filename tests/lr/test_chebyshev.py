"""Chebyshev steps: the order from hand, the steps from the polynomial itself, and what they promise on a quadratic."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.lr import ConfigError, Horizon, annotations
from trainer.lr.chebyshev import chebyshev, fractal
from trainer.lr.convention import Convention


def chebyshev_polynomial(degree, x):
    """T_n(x) by its recurrence."""
    before, now = 1.0, x
    for _ in range(degree - 1):
        before, now = now, 2 * x * now - before
    return now


def stairs(count, condition, each=3):
    schedule = chebyshev(Horizon(count * each, batch_size=1), steps=count, condition=condition)
    values = [schedule(t) for t in range(count * each)]
    assert all(values[t] == values[t - t % each] for t in range(count * each))
    return values[::each]


def test_the_fractal_order_is_the_one_of_the_paper():
    assert fractal(1) == [1]
    assert fractal(2) == [1, 2]
    assert fractal(4) == [1, 4, 2, 3]
    assert fractal(8) == [1, 8, 4, 5, 2, 7, 3, 6]
    assert fractal(16) == [1, 16, 8, 9, 4, 13, 5, 12, 2, 15, 7, 10, 3, 14, 6, 11]


def test_two_steps_are_worked_out_by_hand():
    # The roots on [0.5, 1] are 0.75 ∓ 0.25 √½, so the second step is (3 - √½) / (3 + √½) of the first.
    assert stairs(2, 0.5) == pytest.approx([1, (3 - math.sqrt(0.5)) / (3 + math.sqrt(0.5))], rel=1e-12)


@pytest.mark.parametrize("count", [2, 4, 8, 16, 32])
@pytest.mark.parametrize("condition", [0.01, 0.1, 0.7])
def test_the_steps_are_the_inverse_roots_of_the_polynomial_and_the_longest_is_one(count, condition):
    values = stairs(count, condition)
    assert values[0] == max(values) == 1.0
    first = (1 + condition) / 2 - (1 - condition) / 2 * math.cos(math.pi / (2 * count))
    for value in values:
        root = first / value
        x = (2 * root - 1 - condition) / (1 - condition)
        assert chebyshev_polynomial(count, x) == pytest.approx(0, abs=1e-9)
    assert len(set(values)) == count


@pytest.mark.parametrize("count", [2, 8, 16])
def test_gradient_descent_on_a_quadratic_reaches_the_bound_of_chebyshev_and_no_more(count):
    condition, each = 0.05, 1
    first = condition + (1 - condition) * math.sin(math.pi / (4 * count)) ** 2
    left = []
    for curvature in [condition + (1 - condition) * i / 2000 for i in range(2001)]:
        x = 1.0
        for step in stairs(count, condition, each):
            x -= step / first * curvature * x
        left.append(abs(x))
    bound = 1 / math.cosh(count * math.acosh((1 + condition) / (1 - condition)))
    assert max(left) == pytest.approx(bound, rel=1e-6)


def test_in_the_fractal_order_long_steps_do_not_blow_up_what_short_ones_have_not_yet_made_small():
    count, condition = 64, 0.001
    values = stairs(count, condition)
    first = condition + (1 - condition) * math.sin(math.pi / (4 * count)) ** 2

    def worst(steps):
        x, high = 1.0, 1.0
        for step in steps:
            x *= abs(1 - step / first)
            high = max(high, x)
        return high

    assert worst(values) < 1e4 < 1e30 < worst(sorted(values, reverse=True))


@given(power=st.integers(0, 6), extra=st.integers(0, 200), condition=st.floats(1e-6, 1), early=st.integers(0, 1))
def test_every_stair_lasts_as_long_as_the_others_and_the_last_is_held(power, extra, condition, early):
    count = 2**power
    total = count + extra
    horizon = Horizon(total, batch_size=1, convention=Convention(early=early))
    schedule = chebyshev(horizon, steps=count, condition=condition)
    values = [schedule(t) for t in range(total)]
    jumps = annotations(schedule)["jumps"]
    bounds = (0, *jumps, total)
    lengths = [end - begin for begin, end in zip(bounds, bounds[1:])]
    assert len(jumps) == count - 1
    assert max(lengths) - min(lengths) <= 1
    assert all(len(set(values[begin:end])) == 1 for begin, end in zip(bounds, bounds[1:]))
    assert all(condition * 0.999 <= value <= 1.0 for value in values)
    assert [schedule(t) for t in (total, total + 1, 10**12)] == [values[-1]] * 3


def test_one_step_or_equal_curvatures_are_a_constant():
    assert stairs(1, 0.1) == [1.0]
    assert stairs(8, 1.0) == [1.0] * 8


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"steps": 6}, "steps=6 is not a power of two"),
        ({"steps": 0}, "steps=0"),
        ({"steps": 16}, "steps=16"),
        ({"steps": 8.0}, "steps=8.0"),
        ({"steps": True}, "steps=True"),
        ({"condition": 0}, "condition=0"),
        ({"condition": 1.5}, "condition=1.5"),
        ({"condition": math.nan}, "condition=nan"),
        ({"condition": "low"}, "condition='low'"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused_in_one_line_that_names_it(settings, says):
    with pytest.raises(ConfigError) as error:
        chebyshev(Horizon(12, batch_size=1), **settings)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
