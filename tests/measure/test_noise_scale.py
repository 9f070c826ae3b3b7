"""The gradient noise scale: unbiased, its intervals hold, refused where there is nothing to see; and its gains."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from trainer.lr import ConfigError
from trainer.lr.scaling_noise import critical_scaling
from trainer.measure.noise_interval import student
from trainer.measure.noise_scale import NoiseScale, adascale_gain, optimal_lr_ratio, squares

EXACT = 1e-12
SMALL, BIG = 4, 32
MEAN = torch.linspace(-0.3, 0.4, 24, dtype=torch.float64)
DEVIATIONS = torch.linspace(0.2, 2.0, 24, dtype=torch.float64)
SQUARE, TRACE = MEAN.square().sum().item(), DEVIATIONS.square().sum().item()


def synthetic(experiments, updates, mean=MEAN, **settings):
    """Many experiments at once, each a column: Gaussian gradients of mean G and diagonal covariance Σ."""
    torch.manual_seed(0)
    scale = NoiseScale(settings.pop("small", SMALL), settings.pop("big", BIG), **settings)
    for _ in range(updates):
        noise = torch.randn(experiments, BIG // SMALL, len(mean), dtype=torch.float64)
        gradients = mean + noise * DEVIATIONS / math.sqrt(SMALL)
        scale.add(gradients.square().sum(-1).mean(-1), gradients.mean(1).square().sum(-1))
    return scale


def test_both_numbers_are_unbiased_and_their_intervals_and_that_of_the_ratio_hold_as_often_as_they_say():
    found = synthetic(2000, 30).estimates()
    for name, truth in (("square", SQUARE), ("trace", TRACE)):
        values = torch.tensor([getattr(one, name) for one in found])
        assert abs(values.mean() - truth) < 4 * values.std() / math.sqrt(len(values))
        held = [getattr(one, f"{name}_low") <= truth <= getattr(one, f"{name}_high") for one in found]
        assert 0.93 <= sum(held) / len(held) <= 0.97
    assert all(one.resolved for one in found)
    held = sum(one.low <= TRACE / SQUARE <= one.high for one in found) / len(found)
    assert 0.93 <= held <= 0.97


def test_intervals_of_another_confidence_hold_as_often_as_they_say():
    held = [one.low <= TRACE / SQUARE <= one.high for one in synthetic(2000, 30, confidence=0.7).estimates()]
    assert 0.66 <= sum(held) / len(held) <= 0.74


def test_exponential_means_have_intervals_that_hold_too():
    found = synthetic(1000, 200, decay=0.95).estimates()
    assert found[0].count == pytest.approx(1.95 / 0.05, rel=1e-3)
    held = [one.low <= TRACE / SQUARE <= one.high for one in found]
    assert 0.92 <= sum(held) / len(held) <= 0.98


def test_a_gradient_that_is_lost_in_noise_is_refused():
    found = synthetic(1000, 30, mean=MEAN * 0).estimates()
    assert sum(one.resolved for one in found) / len(found) < 0.05
    lost = next(one for one in found if not one.resolved)
    assert lost.noise is lost.high is None
    with pytest.raises(ConfigError, match="not resolved: .G.² = .* measure larger batches"):
        lost.noise_scale()


def test_what_is_not_resolved_is_bounded_from_below_and_says_how_many_updates_would_do():
    found = [one for one in synthetic(1000, 5, mean=MEAN * 0.3).estimates() if not one.resolved]
    truth = TRACE / (0.09 * SQUARE)
    bounds = [one.low for one in found if one.low is not None]
    assert len(bounds) > 100
    assert sum(low <= truth for low in bounds) / len(bounds) > 0.95
    assert all((one.needed() is None) == (one.square <= 0) for one in found)
    assert all(one.needed() > 5 * 9 for one in found if one.square > 0)


def test_a_mis_stated_batch_is_wrong_by_exactly_its_factor():
    right, wrong = synthetic(1, 30).estimates()[0], synthetic(1, 30, small=8 * SMALL, big=8 * BIG).estimates()[0]
    assert wrong.noise == pytest.approx(8 * right.noise, rel=EXACT)
    assert not wrong.low <= TRACE / SQUARE <= wrong.high


def test_the_ratio_is_of_debiased_exponential_means_and_not_a_mean_of_ratios():
    rows, decay = [(5.0, 3.5), (4.5, 3.2), (6.0, 3.4), (5.5, 3.9)], 0.8
    scale = NoiseScale(2, 8, decay=decay)
    square = trace = 0.0
    for small, big in rows:
        scale.add(torch.tensor([small]), torch.tensor([big]))
        square = decay * square + (1 - decay) * (8 * big - 2 * small) / 6
        trace = decay * trace + (1 - decay) * (small - big) / (1 / 2 - 1 / 8)
    (found,), debias = scale.estimates(), 1 - decay ** len(rows)
    assert found.square == pytest.approx(square / debias, rel=1e-6)
    assert found.trace == pytest.approx(trace / debias, rel=1e-6)
    assert found.noise == pytest.approx(trace / square, rel=1e-6)


def test_the_ends_of_the_interval_are_where_numerator_and_scaled_denominator_just_agree():
    """Fieller: at an end R of the interval, tr(Σ) - R |G|² is t standard errors from 0."""
    torch.manual_seed(1)
    small, big = 5 + torch.rand(12).double(), 1 + torch.rand(12).double()
    scale = NoiseScale(2, 16)
    for pair in zip(small, big):
        scale.add(pair[0][None], pair[1][None])
    (found,) = scale.estimates()
    square, trace = (16 * big - 2 * small) / 14, (small - big) / (1 / 2 - 1 / 16)
    for end in (found.low, found.high):
        apart = trace - end * square
        errors = apart.mean() / (apart.std() / math.sqrt(12))
        assert abs(errors.item()) == pytest.approx(student(0.95, 11), rel=1e-9)
    assert found.low < found.noise < found.high


@pytest.mark.parametrize(("freedom", "tabled"), [(5, 2.5706), (10, 2.2281), (30, 2.0423), (100, 1.9840), (1e9, 1.9600)])
def test_students_half_width_is_that_of_the_tables(freedom, tabled):
    assert student(0.95, freedom) == pytest.approx(tabled, rel=0.01 if freedom < 10 else 5e-4)


def test_squares_are_those_of_all_parameters_and_of_each_group_and_gradients_are_left_alone():
    gradients = [[torch.tensor([3.0, 4.0]).double(), torch.tensor([1.0]).double(), None],
                 [torch.tensor([-3.0, 0.0]).double(), torch.tensor([3.0]).double(), None]]  # fmt: skip
    small, big = squares(iter(gradients), owners=[0, 1, 1])
    assert small.tolist() == [(26 + 18) / 2, (25 + 9) / 2, (1 + 9) / 2]
    assert big.tolist() == [4 + 4, 4, 4]
    assert gradients[0][0].tolist() == [3.0, 4.0]


def test_it_agrees_with_exact_gradients_of_every_sample():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    inputs, targets = torch.randn(60, 6).double(), torch.randint(3, (60,))
    parameters, owners = list(net.parameters()), [0, 0, 1, 1]

    def gradient(chosen):
        return torch.autograd.grad(nn.functional.cross_entropy(net(inputs[chosen]), targets[chosen]), parameters)

    each = [torch.stack(parts) for parts in zip(*(gradient([i]) for i in range(60)))]
    square = [part.mean(0).square().sum().item() for part in each]
    trace = [(part - part.mean(0)).square().sum().item() / 60 for part in each]
    scale = NoiseScale(2, 64, confidence=0.999)
    for _ in range(100):
        scale.add(*squares((gradient(torch.randint(60, (2,))) for _ in range(32)), owners))
    for found, parts in zip(scale.estimates(), ((0, 1, 2, 3), (0, 1), (2, 3))):
        exact_square, exact_trace = sum(square[i] for i in parts), sum(trace[i] for i in parts)
        assert found.square_low <= exact_square <= found.square_high
        assert found.trace_low <= exact_trace <= found.trace_high
        assert found.low <= exact_trace / exact_square <= found.high
        assert found.high / found.low < 2


positives = st.floats(1e-3, 1e6)


@given(square=positives, trace=positives, batch=st.integers(1, 10**5), multiple=st.integers(1, 10**4))
def test_adascales_gain_is_the_ratio_of_the_optimal_rates(square, trace, batch, multiple):
    gain = adascale_gain(square, trace, batch, multiple)
    noise = trace / square
    assert gain == pytest.approx((1 + noise / batch) / (1 + noise / (multiple * batch)), rel=EXACT)
    assert gain == pytest.approx(optimal_lr_ratio(noise, multiple * batch, batch), rel=EXACT)
    assert gain == pytest.approx(critical_scaling(multiple * batch, batch, noise_batch=noise), rel=EXACT)
    assert 1 - EXACT <= gain <= multiple * (1 + EXACT)


def test_the_gain_is_1_at_the_same_batch_and_without_noise_and_s_in_pure_noise():
    assert adascale_gain(0.3, 7.0, 8, 1) == pytest.approx(1.0, rel=EXACT)
    assert adascale_gain(0.0, 7.0, 8, 16) == pytest.approx(16.0, rel=EXACT)
    assert adascale_gain(0.3, 0.0, 8, 16) == 1.0


@pytest.mark.parametrize("multiple", [2, 3])
def test_on_a_quadratic_the_gain_is_the_ratio_of_the_best_steps(multiple):
    """Loss |x - ξ|²/2 over five samples ξ, the expectation over all batches of 1 and of S, drawn with replacement."""
    torch.manual_seed(3)
    samples, x = torch.randn(5, 3).double(), torch.tensor([1.0, -0.5, 2.0]).double()

    def loss(step, size):
        batches = itertools.product(range(5), repeat=size)
        ends = torch.stack([x - step * (x - samples[list(batch)].mean(0)) for batch in batches])
        return 0.5 * (ends[:, None] - samples).square().sum(-1).mean().item()

    def best(size):  # the loss is a parabola in the step: three points give its lowest
        left, middle, right = (loss(step, size) for step in (0.0, 0.5, 1.0))
        return 0.5 + 0.25 * (left - right) / (left - 2 * middle + right)

    gradients = x - samples
    square = gradients.mean(0).square().sum().item()
    trace = (gradients - gradients.mean(0)).square().sum(-1).mean().item()
    assert best(multiple) / best(1) == pytest.approx(adascale_gain(square, trace, 1, multiple), rel=EXACT)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda: NoiseScale(0, 8), "small=0"),
        (lambda: NoiseScale(8, 8), "big=8"),
        (lambda: NoiseScale(8, 12.5), "big=12.5"),
        (lambda: NoiseScale(1, 8, decay=1.0), "decay=1"),
        (lambda: NoiseScale(1, 8, decay=math.nan), "decay=nan"),
        (lambda: NoiseScale(1, 8, confidence=95), "confidence=95"),
        (lambda: NoiseScale(1, 8).estimates(), "after 0 updates"),
        (lambda: synthetic(1, 1).estimates(), "after 1 updates"),
        (lambda: squares([[torch.ones(2)]], [0]), "two micro-batches or more, not 1"),
        (lambda: adascale_gain(-1.0, 1.0, 8, 2), "not negative"),
        (lambda: adascale_gain(1.0, -1.0, 8, 2), "not negative"),
        (lambda: adascale_gain(0.0, 0.0, 8, 2), "the gain is not defined"),
        (lambda: adascale_gain(1.0, 1.0, 0, 2), "batch=0"),
        (lambda: adascale_gain(1.0, 1.0, 8, 0.5), "multiple=0.5"),
        (lambda: optimal_lr_ratio(-1.0, 8, 2), "noise=-1"),
        (lambda: optimal_lr_ratio(math.nan, 8, 2), "noise=nan"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(wrong, told):
    with pytest.raises(ConfigError, match=told.replace(".", r"\.")) as refused:
        wrong()
    assert "\n" not in str(refused.value)
