"""Noise on a schedule: the same at every call, inside its limit, of the law it names, and none past the end."""

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.lr import ConfigError, Horizon, annotate, annotations, cosine
from trainer.lr.noise import noisy

T = 40_000
RUN = Horizon(T, batch_size=1)


def one(horizon):
    return lambda t: 1.0


def noise(**settings):
    curve = noisy(RUN, of=one, **settings)
    return [curve(t) - 1.0 for t in range(T)]


def correlation(first, second):
    return statistics.correlation(first, second)


def test_the_noise_of_an_update_is_the_same_in_whatever_order_it_is_asked_for():
    forward, backward = noisy(RUN, of=cosine, seed=3), noisy(RUN, of=cosine, seed=3)
    wanted = {t: forward(t) for t in range(500)}
    order = list(range(500))
    random.Random(0).shuffle(order)
    assert {t: backward(t) for t in order} == wanted


def test_the_bits_of_the_noise_stay_what_they_are():
    # SplitMix64 from its reference code: the first outputs for the state 1234567.
    word, outputs = 1234567, []
    for _ in range(2):
        word = (word + 0x9E3779B97F4A7C15) % 2**64
        z = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        outputs.append(z ^ (z >> 31))
    assert outputs == [6457827717110365317, 3203168211198807973]
    # So the first one, as a state, gives the noise of seed 1234567 from its update 1 on.
    curve = noisy(RUN, of=one, kind="uniform", limit=0.5, seed=1234567)
    word = outputs[0]
    for t in (1, 2, 3):
        word = (word + 0x9E3779B97F4A7C15) % 2**64
        z = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        z ^= z >> 31
        assert curve(t) == pytest.approx(1 + (z / 2**64 - 0.5), abs=1e-12)


@pytest.mark.parametrize(("std", "limit"), [(1.0, 0.67), (0.1, 0.67), (0.3, 0.3), (0.05, 0.9), (50.0, 0.5)])
def test_normal_noise_has_the_mean_and_the_deviation_of_a_normal_law_cut_off_at_its_limit(std, limit):
    values, bound = noise(std=std, limit=limit, seed=1), limit / std
    density = math.exp(-bound * bound / 2) / math.sqrt(2 * math.pi)
    inside = math.erf(bound / math.sqrt(2))
    deviation = std * math.sqrt(1 - 2 * bound * density / inside) if bound > 0.1 else limit / math.sqrt(3)
    assert max(map(abs, values)) < limit
    assert statistics.fmean(values) == pytest.approx(0, abs=4 * deviation / math.sqrt(T))
    assert statistics.pstdev(values) == pytest.approx(deviation, rel=0.02)
    quartile = std * statistics.NormalDist().inv_cdf(0.5 + inside / 4)
    assert sum(value < quartile for value in values) / T == pytest.approx(0.75, abs=0.01)


def test_uniform_noise_fills_its_limits_evenly():
    values = noise(kind="uniform", limit=0.4, seed=2)
    assert max(map(abs, values)) < 0.4
    counts = [sum(-0.4 + 0.08 * i <= value < -0.32 + 0.08 * i for value in values) for i in range(10)]
    assert counts == pytest.approx([T / 10] * 10, rel=0.06)


def test_the_noise_of_one_update_tells_nothing_of_the_next_nor_one_seed_of_another():
    values = noise(seed=0)
    for other in (values[1:] + values[:1], values[2:] + values[:2], noise(seed=1), noise(seed=2**63)):
        assert abs(correlation(values, other)) < 0.02


def test_the_noise_is_a_share_of_the_schedule_from_its_start_to_the_end_and_no_longer():
    run = Horizon(100, batch_size=1)
    curve, plain = noisy(run, of=lambda h: cosine(h, floor=0.2), start="25%", limit=0.3), cosine(run, floor=0.2)
    assert all(curve(t) == plain(t) for t in range(25))
    assert all(0 < abs(curve(t) / plain(t) - 1) < 0.3 for t in range(25, 100))
    assert [curve(t) for t in (100, 101, 10**12)] == [0.2] * 3


@given(limit=st.floats(1e-6, 0.999999), std=st.floats(1e-6, 100), seed=st.integers(0, 2**64 - 1), t=st.integers(0, T))
def test_the_rate_is_never_negative_whatever_the_noise(limit, std, seed, t):
    for kind in ("normal", "uniform"):
        value = noisy(RUN, of=one, kind=kind, std=std, limit=limit, seed=seed)(t)
        assert 0 < 1 - limit - 1e-12 <= value <= 1 + limit + 1e-12 or value == pytest.approx(1 - limit, abs=1e-12)


def test_what_is_noted_on_a_schedule_stays_noted_with_noise_on_it():
    curve = noisy(RUN, of=lambda horizon: annotate(lambda t: 1.0, jumps=[5], ends=[7]))
    assert annotations(curve) == {"jumps": (5,), "ends": (7,), "noise": (1,)}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"of": "cosine"}, "of='cosine'"),
        ({"kind": "pink"}, "kind='pink' is not known: choose one of normal, uniform"),
        ({"std": 0}, "std=0"),
        ({"std": 1e6}, "std=1000000.0"),
        ({"std": math.nan}, "std=nan"),
        ({"limit": 1}, "limit=1"),
        ({"limit": 0.0}, "limit=0.0"),
        ({"limit": -0.5}, "limit=-0.5"),
        ({"start": "later"}, "start='later'"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**64}, "seed="),
        ({"seed": 1.5}, "seed=1.5"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_in_one_line_that_names_it(settings, says):
    with pytest.raises(ConfigError) as error:
        noisy(RUN, **{"of": one, **settings})
    assert says in str(error.value)
    assert "\n" not in str(error.value)
