"""The range test on curves whose answer is known: its rates, its edge, the published rules, and when it is silent."""

import math
import random
from itertools import pairwise
from statistics import median

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.lr import ConfigError
from trainer.lr.range_rules import (
    OURS,
    PUBLISHED,
    agreed_edge,
    edges,
    minimum,
    slide,
    steep,
    suggestions,
    trimmed,
    valley,
)
from trainer.lr.range_test import (
    Smooth,
    Stop,
    Sweep,
    edge,
    fall,
    middle_rate,
    pooled,
    rates,
    running_median,
    smoothed,
)

CURVES = st.lists(st.floats(0.0, 5.0).map(lambda x: round(x, 2)), min_size=17, max_size=60)


def textbook(edge_at=1.0, noise=0.0, seed=0, count=100, ends=(1e-7, 10.0), between=(2.3, 0.5)):
    """Flat, then down from two decades below the edge, then steeply up through half-way at the edge."""
    draw = random.Random(seed)
    (first, low), values, losses = between, rates(*ends, count), []
    for rate in values:
        x = math.log10(rate / edge_at)
        fall = first - (first - low) * min(max((x + 2.0) / 1.9, 0.0), 1.0)
        losses.append(fall + 0.5 * (first - low) * 100.0**x * (x > -0.5) + draw.gauss(0.0, noise))
    return Sweep(values, losses, None, seed, count)


def quadratic(curvatures, momentum, values, seed=0, noise=0.0):
    """Heavy ball on ½ Σ λ x², at the rates of a sweep."""
    draw = random.Random(seed)
    x, v, losses, stop = [draw.gauss(0, 1) for _ in curvatures], [0.0] * len(curvatures), [], Stop()
    for rate in values:
        losses.append(0.5 * sum(c * y * y for c, y in zip(curvatures, x)))
        if stop(losses[-1]):
            return Sweep(values[: len(losses)], losses, rate, seed, len(values))
        v = [momentum * w + c * y + draw.gauss(0, noise) for w, c, y in zip(v, curvatures, x)]
        x = [y - rate * w for y, w in zip(x, v)]
    return Sweep(list(values), losses, None, seed, len(values))


def test_rates_run_from_start_to_end_in_equal_steps_of_the_logarithm_or_of_the_rate():
    values = rates(1e-7, 10.0, 100)
    assert (values[0], values[-1]) == (1e-7, 10.0)
    assert [math.log10(b / a) for a, b in pairwise(values)] == pytest.approx([8 / 99] * 99)
    assert np.diff(rates(0.1, 1.0, 50, "linear")) == pytest.approx(0.9 / 49)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((1.0, 0.1, 100), "--start=1 is not below --end=0.1"),
        ((0.0, 0.1, 100), "--start=0.0 must be above zero"),
        ((1e-3, math.nan, 100), "--end=nan"),
        ((1e-3, 1.0, 19), "--updates=19"),
        ((1e-3, 1.0, 100, "cubic"), "--spacing=cubic"),
    ],
)
def test_rates_that_make_no_sweep_are_refused(words, told):
    with pytest.raises(ConfigError, match=told):
        rates(*words)


@given(CURVES, st.floats(0.0, 0.99))
def test_the_running_mean_is_the_weighted_mean_of_what_it_has_seen(losses, beta):
    last = len(losses) - 1
    weights = [beta ** (last - i) for i in range(last + 1)]
    assert smoothed(losses, beta)[-1] == pytest.approx(np.average(losses, weights=weights), abs=1e-9)


def test_a_constant_is_not_moved_by_smoothing_from_its_first_point_on():
    smooth = Smooth()
    assert [smooth(2.3) for _ in range(5)] == pytest.approx([2.3] * 5, rel=1e-12)


def test_a_sweep_stops_above_four_times_the_lowest_and_at_what_is_not_finite():
    assert [Stop(Smooth(0.0))(loss) for loss in (1.0, math.nan, math.inf)] == [False, True, True]
    stop = Stop(Smooth(0.0))
    assert [stop(loss) for loss in (2.0, 0.5, 2.0, 2.0001)] == [False, False, False, True]
    stop = Stop(Smooth(0.0))
    assert not any(stop(loss) for loss in (-1.0, -2.0, 5.0))  # a loss below zero has no multiple


@given(CURVES)
def test_the_running_median_is_that_of_the_windows(values):
    found = running_median(values)
    padded = [math.nan] * 3 + values + [math.nan] * 3
    assert found == [float(np.nanmedian(padded[i : i + 7])) for i in range(len(values))]


# The published rules, against their definitions written another way.


def falling_end(losses):
    """The index that fastai's two loops give, transcribed from the definition with its running maximum."""
    lengths, start, end = [1] * len(losses), 0, 0
    for i in range(1, len(losses)):
        for j in range(i):
            if losses[i] < losses[j] and lengths[i] < lengths[j] + 1:
                lengths[i] = lengths[j] + 1
            if lengths[end] < lengths[i]:
                end, start = i, i - lengths[i]
    return start + int((end - start) / 3) + int((end - start) / 3 / 2)


@given(CURVES)
@settings(deadline=None)
def test_valley_slide_steep_and_minimum_are_what_numpy_says(losses):
    values, array = rates(1e-5, 1.0, len(losses) + 20)[: len(losses)], np.array(losses)
    slope = np.diff(array) / np.diff(np.log(values))
    assert slope[values.index(steep(values, losses))] == pytest.approx(slope.min(), rel=1e-9)
    assert minimum(values, losses) == values[int(array.argmin())] / 10
    slopes, right, left = np.gradient(array), -1, -16
    found = values[left]
    while left >= -len(losses) and abs(slopes[right] - slopes[left]) > 0.005:
        found, right, left = values[left], right - 1, left - 1
    assert slide(values, losses) == found
    assert valley(values, losses) == values[max(0, falling_end(losses))]  # of a fall at the very start it gives -1


def test_a_sweep_of_100_000_updates_is_read_at_once():
    values = [float(i) for i in range(100_000)]
    assert valley(values, values[::-1]) == 99_999 - 100_000 + 33_333 + 16_666


def test_the_published_rules_read_a_smoothed_curve_without_a_tenth_at_its_start_and_five_at_its_end():
    sweep = textbook()
    values, losses = trimmed(sweep)
    assert values == sweep.rates[10:-5]
    assert losses == smoothed(sweep.losses)[10:-5]
    broken = Sweep(sweep.rates, [*sweep.losses[:50], math.nan, *sweep.losses[51:]], None, 0, 100)
    assert trimmed(broken)[0] == sweep.rates[10:50]


# Ours.


@pytest.mark.parametrize("at", [1e-4, 1e-2, 1.0])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_the_edge_is_found_within_three_points_wherever_it_lies(at, noise):
    found = [edge(textbook(at, noise, seed)) for seed in range(5)]
    assert max(abs(math.log10(one.rate / at)) for one in found) < 3.5 * 8 / 99
    assert all(one.best < one.rate for one in found)


def test_the_edge_is_the_first_median_of_seven_above_half_of_the_fall():
    values = rates(1e-3, 1.0, 80)
    losses = [2.0] * 20 + [1.0] * 20 + [1.49] * 20 + [1.51] * 10 + [3.0] * 10
    found = edge(Sweep(values, losses))
    assert (found.first, found.lowest, found.rate) == (2.0, 1.0, values[60])


def test_a_single_spike_is_no_edge():
    sweep = textbook()
    spiked = Sweep(sweep.rates, [loss + 50 * (i in (80, 81, 84)) for i, loss in enumerate(sweep.losses)], None, 0, 100)
    assert abs(math.log10(edge(spiked).rate / edge(sweep).rate)) < 1.5 * 8 / 99


def test_points_that_are_not_finite_are_dropped():
    sweep = textbook(noise=0.05)
    holed = Sweep(sweep.rates, [math.nan if i % 9 == 4 else loss for i, loss in enumerate(sweep.losses)], None, 0, 100)
    assert abs(math.log10(edge(holed).rate / edge(sweep).rate)) < 0.2


def test_where_it_breaks_off_without_coming_back_the_edge_is_there():
    sweep = textbook()
    cut = next(i for i, rate in enumerate(sweep.rates) if rate > 0.2)
    broken = Sweep(sweep.rates[:cut], sweep.losses[:cut], sweep.rates[cut], 0, 100)
    assert edge(broken).rate == sweep.rates[cut]


@pytest.mark.parametrize(
    ("losses", "told"),
    [
        ([2.3] * 100, "the curve is flat"),
        ([2.3 + random.Random(i).gauss(0, 0.3) for i in range(100)], "the curve is flat"),
        ([2.3 - 0.02 * i for i in range(100)], "raise --end"),
        ([2.3 + 0.0001 * i**2 for i in range(100)], "its minimum is at the start. Lower --start"),
        ([math.nan] * 100, "only 0 of its losses are finite"),
        ([2.3, *[math.inf] * 99], "only 1 of its losses are finite"),
    ],
)
def test_a_curve_that_says_nothing_is_refused_with_its_reason(losses, told):
    sweep = Sweep(rates(1e-7, 10.0, 100), losses, None, 0, 100)
    with pytest.raises(ConfigError) as refused:
        edge(sweep)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)
    made = suggestions([sweep, sweep])
    assert all(one.value is None and told in one.refused for one in made.values())


def test_the_suggestion_lies_between_three_quarters_of_the_fall_and_its_end():
    values = rates(1e-3, 1.0, 80)
    losses = [2.0] * 20 + [1.26] * 20 + [1.24] * 10 + [1.0] * 10 + [3.0] * 20
    found = fall(Sweep(values, losses))
    assert (found.first, found.lowest, found.noise) == (2.0, 1.0, 0.0)
    assert (found.rate, found.best) == (values[40], values[50])
    made = suggestions([Sweep(values, losses)])[OURS]
    assert made.value == pytest.approx(values[40] ** 0.75 * values[50] ** 0.25)
    assert made.interval == pytest.approx((values[40] / 10**0.75, values[50] * 10**0.75))


@pytest.mark.parametrize("at", [1e-4, 1e-2, 1.0])
def test_the_suggestion_moves_with_the_curve(at):
    found = [fall(textbook(at, 0.05, seed)).suggested for seed in range(5)]
    assert max(abs(math.log10(one / at) + 0.75) for one in found) < 0.15


def test_seeds_are_read_together_by_their_median_up_to_where_the_first_one_breaks():
    values = rates(1e-3, 1.0, 30)
    sweeps = [Sweep(values, [float(s + i) for i in range(30)], None, s, 30) for s in (5, 0, 1)]
    short = Sweep(values[:25], [2.0] * 25, values[24], 7, 30)
    assert pooled(sweeps).losses == [1.0 + i for i in range(30)]
    assert (pooled([*sweeps, short]).rates, pooled([*sweeps, short]).broke) == (values[:25], values[24])
    noisy = [textbook(1e-2, 0.6, seed) for seed in range(9)]
    alone = [abs(math.log10(one.suggested / 1e-2) + 0.75) for one in map(fall_or_none, noisy) if one]
    assert abs(math.log10(fall(pooled(noisy)).suggested / 1e-2) + 0.75) < max(alone)


def fall_or_none(sweep):
    try:
        return fall(sweep)
    except ConfigError:
        return None


def test_suggestions_come_ours_first_with_the_bracket_and_the_seeds():
    sweeps = [textbook(at, 0.05, seed) for seed, at in enumerate((0.5, 1.0, 2.0))]
    made = suggestions(sweeps)
    assert list(made) == [OURS, *PUBLISHED]
    found = fall(pooled(sweeps))
    assert made[OURS].value == found.suggested
    assert made[OURS].interval == pytest.approx((found.rate / 10**0.75, found.best * 10**0.75))
    low, high = made["minimum/10"].interval
    assert low <= made["minimum/10"].value <= high
    assert all(one.source and one.checked for one in made.values())


def test_seeds_that_alone_would_lie_outside_widen_the_bracket_with_caution():
    assert suggestions([textbook(noise=0.05)])[OURS].caution is None
    sweeps = [textbook(at, 0.02, seed) for seed, at in enumerate((0.03, 1.0, 1.0))]
    made, alone = suggestions(sweeps)[OURS], [fall(sweep).suggested for sweep in sweeps]
    found = fall(pooled(sweeps))
    assert made.interval == (alone[0], found.best * 10**0.75)
    assert alone[0] < found.rate / 10**0.75
    assert "the bracket is wider" in made.caution


def test_one_flat_seed_does_not_silence_the_others():
    flat = Sweep(rates(1e-7, 10.0, 100), [2.3] * 100, None, 7, 100)
    assert suggestions([textbook(), textbook(seed=1), flat])[OURS].value
    assert agreed_edge(*edges([textbook(), textbook(seed=1), flat]), 3) == edge(textbook()).rate
    with pytest.raises(ConfigError, match="seed 7: the curve is flat"):
        agreed_edge(*edges([textbook(), flat]), 2)


def test_pure_noise_is_called_flat_but_for_one_curve_in_twenty():
    draw, values, edges = random.Random(1), rates(1e-7, 10.0, 100), 0
    for _ in range(300):
        try:
            edge(Sweep(values, [2.3 + draw.gauss(0, 0.3) for _ in values]))
            edges += 1
        except ConfigError:
            pass
    assert edges <= 0.07 * 300


def test_seeds_that_break_decades_apart_have_no_bound():
    sweeps = [textbook(at, 0.02, seed) for seed, at in enumerate((1e-4, 1e-2, 1.0))]
    with pytest.raises(ConfigError, match="the seeds disagree on where training breaks, from "):
        agreed_edge(*edges(sweeps), 3)


def test_the_middle_of_rates_is_that_of_their_logarithms():
    assert middle_rate([1e-3, 1e-1, 10.0]) == pytest.approx(1e-1)
    assert middle_rate([1e-3, 1e-1]) == pytest.approx(1e-2)


# The quadratic, where theory says at which rate it breaks.


@pytest.mark.parametrize("curvature", [0.5, 3.0, 40.0])
def test_gradient_descent_turns_at_two_over_the_curvature_to_within_a_step(curvature):
    """Below 2/λ the loss shrinks at each update and above it grows: the lowest is at the limit, the edge just above."""
    limit = 2.0 / curvature
    values = rates(0.75 * limit, 1.5 * limit, 301, "linear")
    found = edge(quadratic([curvature], 0.0, values))
    assert found.best == pytest.approx(limit, abs=2 * (values[1] - values[0]))
    assert limit < found.rate < 1.35 * limit


@pytest.mark.parametrize("momentum", [0.5, 0.9])
def test_the_heavy_ball_turns_at_two_times_one_plus_m_over_the_curvature(momentum):
    limit = 2.0 * (1.0 + momentum) / 3.0
    values = rates(0.6 * limit, 1.6 * limit, 401, "linear")
    found = edge(quadratic([3.0], momentum, values))
    assert found.best == pytest.approx(limit, rel=0.02)
    assert limit < found.rate < 1.5 * limit


def test_with_many_curvatures_a_default_sweep_of_the_heavy_ball_finds_the_limit_of_the_largest_within_two_steps():
    curvatures = [10.0 * k / 20 for k in range(1, 21)]
    found = [edge(quadratic(curvatures, 0.9, rates(1e-7, 10.0, 100), seed, 0.1)).rate for seed in range(5)]
    assert abs(math.log10(median(found) / (2 * 1.9 / 10))) < 2.5 * 8 / 99
