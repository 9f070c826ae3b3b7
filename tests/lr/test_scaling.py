"""What each batch-size rule makes of the tuned numbers: by hand, by its laws, and what it refuses."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.lr import ConfigError
from trainer.lr.scaling import (
    Scaled,
    auto_scaling,
    legew_scaling,
    linear_scaling,
    no_scaling,
    power_scaling,
    sqrt_scaling,
)
from trainer.lr.scaling_adam import adam_sde_scaling, half_life_scaling, rmsprop_sde_scaling
from trainer.lr.scaling_noise import critical_scaling, surge_scaling

ADAM = {"lr": 3e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01}
RMSPROP = {"lr": 1e-3, "alpha": 0.99, "eps": 1e-8, "momentum": 0.0, "weight_decay": 0.0}
NOISE = {"noise_batch": 4096}
RULES = {
    "none": no_scaling,
    "linear": linear_scaling,
    "sqrt": sqrt_scaling,
    "power": power_scaling,
    "auto": lambda *batches: auto_scaling(*batches, adaptive=True),
    "legew": legew_scaling,
    "adam_sde": lambda *batches: adam_sde_scaling(*batches, tuned=ADAM),
    "rmsprop_sde": lambda *batches: rmsprop_sde_scaling(*batches, tuned=RMSPROP),
    "half_life": lambda *batches: half_life_scaling(*batches, tuned=ADAM),
    "critical": lambda *batches: critical_scaling(*batches, **NOISE),
    "surge": lambda *batches: surge_scaling(*batches, **NOISE),
}
TUNED = {"rmsprop_sde": RMSPROP}
LINKABLE = [
    linear_scaling,
    sqrt_scaling,
    power_scaling,
    legew_scaling,
    adam_sde_scaling,
    half_life_scaling,
    lambda *batches, **more: critical_scaling(*batches, **NOISE, **more),
    lambda *batches, **more: surge_scaling(*batches, **NOISE, **more),
]


def of(outcome):
    """Every outcome as a `Scaled`."""
    return outcome if isinstance(outcome, Scaled) else Scaled(outcome)


@pytest.mark.parametrize(
    ("rule", "quarter", "eightfold"),
    [
        (no_scaling, 1.0, 1.0),
        (linear_scaling, 0.25, 8.0),
        (sqrt_scaling, 0.5, 2.8284271247461903),
        (lambda *b: power_scaling(*b, exponent=2 / 3), 0.3968502629920499, 4.0),
        (lambda *b: power_scaling(*b, exponent=0), 1.0, 1.0),
        (lambda *b: auto_scaling(*b, adaptive=False), 0.25, 8.0),
        (lambda *b: auto_scaling(*b, adaptive=True), 0.5, 2.8284271247461903),
        (legew_scaling, 0.5, 2.8284271247461903),
        (lambda *b: half_life_scaling(*b, tuned=ADAM), 0.5, 2.8284271247461903),
        (lambda *b: half_life_scaling(*b, lr="keep", tuned=ADAM), 1.0, 1.0),
        # N = 4096 at 64, 256, 2048: (1 + 16) / (1 + 64), 17 / 3
        (lambda *b: critical_scaling(*b, noise_batch=4096), 17 / 65, 17 / 3),
        (lambda *b: critical_scaling(*b, noise_batch=4096, exponent=0.5), math.sqrt(17 / 65), math.sqrt(17 / 3)),
        # √(N / B) + √(B / N) is 8.125, 4.25 and √2 + 1/√2
        (lambda *b: surge_scaling(*b, noise_batch=4096), 4.25 / 8.125, 4.25 / (math.sqrt(2) + math.sqrt(0.5))),
    ],
)
def test_the_learning_rate_is_multiplied_by_the_number_worked_out_by_hand(rule, quarter, eightfold):
    assert of(rule(64, 256)).lr == pytest.approx(quarter, rel=1e-12)
    assert of(rule(256, 256)).lr == 1.0
    assert of(rule(2048, 256)).lr == pytest.approx(eightfold, rel=1e-12)


@pytest.mark.parametrize(
    ("batch", "lr", "beta1", "beta2", "eps"),
    [(64, 0.5, 0.975, 0.99975, 2e-8), (256, 1.0, 0.9, 0.999, 1e-8), (2048, math.sqrt(8), 0.2, 0.992, 1e-8 / 8**0.5)],
)
def test_adam_sde_scales_rate_betas_and_eps(batch, lr, beta1, beta2, eps):
    made = adam_sde_scaling(batch, 256, tuned=ADAM)
    assert made.lr == pytest.approx(lr, rel=1e-12)
    assert made.settings == pytest.approx({"beta1": beta1, "beta2": beta2, "eps": eps}, rel=1e-12)


def test_adam_sde_leaves_a_beta1_of_none():
    assert adam_sde_scaling(2048, 256, tuned={**ADAM, "beta1": 0.0}).settings["beta1"] == 0.0


@pytest.mark.parametrize(("batch", "alpha", "eps"), [(64, 0.9975, 2e-8), (256, 0.99, 1e-8), (1024, 0.96, 5e-9)])
def test_rmsprop_sde_scales_alpha_and_eps(batch, alpha, eps):
    made = rmsprop_sde_scaling(batch, 256, tuned=RMSPROP)
    assert made.settings == pytest.approx({"alpha": alpha, "eps": eps}, rel=1e-12)
    assert made.lr == pytest.approx(math.sqrt(batch / 256), rel=1e-12)


def test_half_life_keeps_the_samples_after_which_a_second_moment_is_half_forgotten():
    for tuned, name in ((ADAM, "beta2"), (RMSPROP, "alpha")):
        for batch in (64, 256, 2048):
            ((changed, decay),) = half_life_scaling(batch, 256, tuned=tuned).settings.items()
            assert changed == name
            assert batch / math.log(decay) == pytest.approx(256 / math.log(tuned[name]), rel=1e-9)
    # Marek et al.: 0.95 at 512 is 0.9999 at 1
    assert half_life_scaling(1, 512, tuned={**ADAM, "beta2": 0.95}).settings["beta2"] == pytest.approx(0.9999, abs=1e-6)


def test_legew_warms_up_for_as_many_times_the_epochs():
    assert [legew_scaling(batch, 256).warmup for batch in (64, 256, 2048)] == [0.25, 1.0, 8.0]


def test_surge_rises_to_the_noise_scale_and_falls_as_it_rose():
    rates = [surge_scaling(batch, 256, **NOISE) for batch in (256, 1024, 4096, 16384, 65536)]
    assert rates == pytest.approx([1.0, 1.7, 2.125, 1.7, 1.0], rel=1e-12)
    finely = [surge_scaling(batch, 256, **NOISE) for batch in range(64, 20000, 64)]
    peak = finely.index(max(finely))
    assert 64 * (peak + 1) == 4096
    assert finely[: peak + 1] == sorted(finely[: peak + 1])
    assert finely[peak:] == sorted(finely[peak:], reverse=True)


def test_critical_is_linear_far_below_the_noise_scale_and_ends_at_its_limit():
    assert critical_scaling(16, 4, noise_batch=1e9) == pytest.approx(4.0, rel=1e-7)
    assert critical_scaling(10**12, 256, **NOISE) == pytest.approx(17.0, rel=1e-7)
    assert surge_scaling(16, 4, noise_batch=1e12) == pytest.approx(2.0, rel=1e-7)


@pytest.mark.parametrize("name", RULES)
@given(batch=st.integers(1, 10**6))
def test_at_the_batch_of_the_tuning_nothing_changes(name, batch):
    made = of(RULES[name](batch, batch))
    tuned = TUNED.get(name, ADAM)
    assert (made.lr, made.warmup) == (1.0, 1.0)
    assert all(tuned[key] == value for key, value in made.settings.items())


@pytest.mark.parametrize("name", ["none", "linear", "sqrt", "power", "auto", "legew", "half_life", "critical", "surge"])
@given(base=st.integers(1, 4096), middle=st.integers(1, 4096), batch=st.integers(1, 4096))
def test_scaling_twice_is_scaling_once(name, base, middle, batch):
    first, second, both = (of(RULES[name](*pair)) for pair in ((middle, base), (batch, middle), (batch, base)))
    assert first.lr * second.lr == pytest.approx(both.lr, rel=1e-9)
    assert first.warmup * second.warmup == pytest.approx(both.warmup, rel=1e-9)


@given(base=st.integers(64, 512), first=st.integers(1, 512), second=st.integers(1, 512))
def test_adam_sde_twice_is_adam_sde_once(base, first, second):
    start = {**ADAM, "beta1": 0.99, "eps": 1e-6}
    halfway = {**start, **adam_sde_scaling(first, base, tuned=start).settings}
    twice = adam_sde_scaling(second, first, tuned=halfway).settings
    assert twice == pytest.approx(adam_sde_scaling(second, base, tuned=start).settings, rel=1e-6)


@pytest.mark.parametrize("name", [name for name in RULES if name not in ("surge", "none")])
@given(base=st.integers(64, 512), batch=st.integers(1, 511))
def test_a_larger_batch_has_a_larger_rate(name, base, batch):
    assert of(RULES[name](batch + 1, base)).lr > of(RULES[name](batch, base)).lr


@pytest.mark.parametrize("rule", LINKABLE)
def test_weight_decay_follows_its_own_switch(rule):
    def decay(link):
        made = of(rule(1024, 256, weight_decay=link, tuned=ADAM))
        return made.settings.get("weight_decay"), made.lr

    assert decay("keep")[0] is None
    assert decay("sqrt")[0] == pytest.approx(0.02, rel=1e-12)
    assert decay("linear")[0] == pytest.approx(0.04, rel=1e-12)
    value, lr = decay("timescale")
    assert lr * value / 1024 == pytest.approx(1.0 * 0.01 / 256, rel=1e-12)  # B / (lr λ D) is what it was


def test_adam_sde_names_the_largest_batch_that_its_betas_allow():
    with pytest.raises(ConfigError, match=r"beta1=0\.9.*at 640: κ\(1 - beta1\) = 1 .*at most 639") as error:
        adam_sde_scaling(640, 64, tuned=ADAM)
    assert "\n" not in str(error.value)
    assert adam_sde_scaling(639, 64, tuned=ADAM).settings["beta1"] == pytest.approx(1 / 640, rel=1e-12)
    with pytest.raises(ConfigError, match="beta2=0.95.*at most 1279"):
        adam_sde_scaling(1280, 64, tuned={**ADAM, "beta1": 0.99, "beta2": 0.95})
    with pytest.raises(ConfigError, match="alpha=0.99.*at most 6399"):
        rmsprop_sde_scaling(6400, 64, tuned=RMSPROP)


@pytest.mark.parametrize(
    ("rule", "tuned", "says"),
    [
        (adam_sde_scaling, None, "no beta1, beta2, eps"),
        (adam_sde_scaling, {"momentum": 0.9}, "adam_sde is for Adam.*no beta1, beta2, eps"),
        (adam_sde_scaling, {"beta1": 0.9, "beta2": 0.99}, "no eps"),
        (adam_sde_scaling, {**ADAM, "beta2": 1.5}, "beta2=1.5"),
        (adam_sde_scaling, {**ADAM, "beta2": math.nan}, "beta2=nan"),
        (adam_sde_scaling, {**ADAM, "eps": -1e-8}, "eps=-1e-08"),
        (rmsprop_sde_scaling, ADAM, "no alpha"),
        (rmsprop_sde_scaling, {**RMSPROP, "momentum": 0.9}, "momentum=0.9"),
        (rmsprop_sde_scaling, {**RMSPROP, "beta1": 0.9}, "betas"),
        (half_life_scaling, {"momentum": 0.9}, "no beta2, eps"),
        (half_life_scaling, {"beta1": 0.9, "beta2": 0.99}, "no eps"),
        (half_life_scaling, {**RMSPROP, "alpha": 5.0}, "alpha=5.0"),
    ],
)
def test_a_rule_refuses_an_optimizer_that_it_is_not_for(rule, tuned, says):
    with pytest.raises(ConfigError, match=says):
        rule(128, 64, tuned=tuned)


@pytest.mark.parametrize("value", [None, 0, -1.0, math.nan, math.inf, "64", True])
@pytest.mark.parametrize("rule", [critical_scaling, surge_scaling])
def test_a_noise_scale_that_is_none_is_refused(rule, value):
    with pytest.raises(ConfigError, match=r"scaling\.noise_batch"):
        rule(128, 64, noise_batch=value)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, "1", None, True])
def test_an_exponent_outside_none_to_linear_is_refused(value):
    for call in (
        lambda: power_scaling(128, 64, exponent=value),
        lambda: critical_scaling(128, 64, noise_batch=64, exponent=value),
    ):
        with pytest.raises(ConfigError, match=r"scaling\.exponent"):
            call()


def test_a_word_that_is_not_known_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="sqrt, keep"):
        half_life_scaling(128, 64, lr="linear", tuned=ADAM)
    with pytest.raises(ConfigError, match="true for Adam's kind"):
        auto_scaling(128, 64)
    for rule in LINKABLE:
        with pytest.raises(ConfigError, match="keep, sqrt, linear, timescale"):
            rule(128, 64, weight_decay="cube", tuned=ADAM)
        with pytest.raises(ConfigError, match="sets no weight_decay"):
            rule(128, 64, weight_decay="sqrt", tuned={k: v for k, v in ADAM.items() if k != "weight_decay"})


@pytest.mark.parametrize("name", [name for name in RULES if name != "none"])
@pytest.mark.parametrize("base", [None, 0, -64, 6.5, "64", True, math.nan])
def test_a_base_batch_that_is_none_is_refused(name, base):
    with pytest.raises(ConfigError, match=r"scaling\.base_batch_size"):
        RULES[name](256, base)
