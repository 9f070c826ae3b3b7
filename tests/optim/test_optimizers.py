"""Every optimizer by name: it composes, learns, resumes with the same bits, and refuses what it does not know."""

import math
from pathlib import Path

import pytest
import torch

from trainer.checkpoint.io import checkpoint_path
from trainer.config.model_data import build_model
from trainer.config.settings import settings_of
from trainer.lr import ConfigError
from trainer.run import fit

CONF = Path(__file__).parent.parent.parent / "conf" / "optimizer"
NAMES = sorted(file.stem for file in CONF.glob("*.yaml") if file.stem not in ("own", "module"))
NAMED = {
    *("gd", "sgd", "momentum", "nesterov", "sgd_noise", "adagrad", "adadelta", "rmsprop", "rmsprop_tf", "adam"),
    *("adamw", "nadam", "radam", "adamax", "adabound", "ranger", "lars", "lamb", "adafactor", "lion", "muon", "soap"),
    *("adopt", "ademamix", "stable_adamw", "cautious_adamw", "corrected_adamw", "schedule_free_sgd"),
    *("schedule_free_adamw", "schedule_free_radam", "prodigy", "dadapt_adam", "dadapt_sgd", "dog", "dowg"),
}
SMALL = ("model.hidden=[32]", "data.batch_size=64", "logger=none", "trainer.steps_per_execution=5")
NEEDS = {
    "gd": ["trainer.accumulate=all", "data.batch_size=419"],
    "sgd_noise": ["trainer.gradient_noise=0.01", "hyper_schedule=gradient_noise_annealed"],
}
"""What an optimizer needs beside its name."""
RATES = {
    **{"adabound": 1e-2, "adam": 1e-2, "adamw": 1e-2, "corrected_adamw": 1e-2, "adamax": 1e-2, "ademamix": 1e-2},
    **{"nadam": 1e-2, "radam": 3e-2, "ranger": 3e-2, "adopt": 1e-2, "adafactor": 5e-2, "adagrad": 5e-2, "lamb": 2e-2},
    **{"lars": 3.0, "lion": 2e-3, "soap": 1e-2, "stable_adamw": 1e-2, "schedule_free_radam": 2e-2},
    **{"sgd": 0.5, "sgd_noise": 0.5, "lookahead": 2e-2},
}
"""What a run of few updates needs to get anywhere."""
QUICK = {
    "dog": ["optimizer.first=1e-3"],
    "dowg": ["optimizer.first=1e-2"],
    "ranger": ["schedule=constant"],
    "dadapt_adam": ["optimizer.d0=1e-4"],
    "dadapt_sgd": ["optimizer.d0=1e-3"],
}
GUESS = math.log(10)
"""The loss of giving each of ten classes the same chance."""


def test_every_optimizer_of_the_field_has_a_name():
    assert set(NAMES) >= NAMED


@pytest.mark.sample(6)
@pytest.mark.parametrize("name", NAMES)
def test_an_optimizer_learns_what_a_constant_guess_cannot(assembled, name):
    rate = [f"optimizer.lr={RATES[name]}"] if name in RATES else []
    assembly = assembled(
        *SMALL,
        f"optimizer={name}",
        *NEEDS.get(name, []),
        *rate,
        *QUICK.get(name, []),
        *("trainer.duration=100", "trainer.validate=100"),
    )
    fit(assembly)
    assert assembly.checkpointing.best["scores"]["val/loss"] < 0.8 * GUESS


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_optimizer_ends_with_the_same_bits(assembled, name):
    chosen = (*SMALL, f"optimizer={name}", *NEEDS.get(name, []), "trainer.duration=20", "trainer.validate=7")
    whole = assembled(*chosen, "trainer.checkpoint=10", "trainer.keep=0", folder="whole")
    fit(whole)
    resumed = assembled(*chosen, folder="resumed", resumed=checkpoint_path(whole.folder / "checkpoints", 10))
    fit(resumed)
    weights = [dict(one.module.net.state_dict()) for one in (whole, resumed)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    states = [one.trainer.optimizers[0].state_dict() for one in (whole, resumed)]
    assert differing(*states) == []
    assert whole.checkpointing.best == resumed.checkpointing.best


def differing(one, other, path="state"):
    """Where two states differ."""
    if isinstance(one, dict):
        if not isinstance(other, dict) or one.keys() != other.keys():
            return [path]
        return [found for key in one for found in differing(one[key], other[key], f"{path}.{key}")]
    if isinstance(one, list | tuple):
        if not isinstance(other, list | tuple) or len(one) != len(other):
            return [path]
        return [found for i, pair in enumerate(zip(one, other)) for found in differing(*pair, f"{path}.{i}")]
    if isinstance(one, torch.Tensor):
        same = isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
        return [] if same else [path]
    return [] if one == other or one != one else [path]


def test_a_state_that_differs_is_found():
    one = {"a": [torch.ones(2), 1], "b": {"c": 2.0}}
    assert differing(one, {"a": [torch.ones(2), 1], "b": {"c": 2.0}}) == []
    assert differing(one, {"a": [torch.zeros(2), 1], "b": {"c": 3.0}}) == ["state.a.0", "state.b.c"]


@pytest.mark.parametrize("name", NAMES)
def test_a_setting_that_an_optimizer_does_not_know_is_refused(compose, name):
    whole_set = ["data.batch_size=419"] if name == "gd" else []
    curve = settings_of(compose(f"optimizer={name}", "+optimizer.foo=1", *whole_set)).curve
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 2))
    with pytest.raises(ConfigError, match=r"optimizer\.foo is not known to"):
        build_model(curve, net, full_batch=True)


@pytest.mark.parametrize("name", NAMES)
def test_an_optimizer_says_its_source_and_its_usual_rate(name):
    header = "".join(line for line in (CONF / f"{name}.yaml").read_text().splitlines(True) if line.startswith("# "))
    assert "Usual lr: " in header
    assert any(str(year) in header for year in (1847, 1951, 1964, *range(2009, 2030)))


@pytest.mark.parametrize(
    ("overrides", "schedule", "warmup"),
    [
        (["optimizer=schedule_free_adamw"], "constant", "linear_warmup"),
        (["optimizer=schedule_free_sgd", "warmup=none"], "constant", "no_warmup"),
        (["optimizer=schedule_free_radam"], "constant", "no_warmup"),
        (["optimizer=prodigy"], "cosine", "no_warmup"),
        (["optimizer=dog"], "constant", "no_warmup"),
        (["optimizer=dog", "schedule=wsd", "warmup=linear"], "wsd", "linear_warmup"),
        (["schedule=cosine", "optimizer=dowg"], "cosine", "no_warmup"),
    ],
)
def test_an_optimizer_brings_its_schedule_which_the_user_overrides(compose, overrides, schedule, warmup):
    cfg = compose(*overrides)
    assert (cfg.schedule._target_, cfg.warmup._target_) == (f"trainer.lr.{schedule}", f"trainer.lr.{warmup}")


def test_muon_brings_its_groups_and_corrected_adamw_its_decay(compose):
    assert compose("optimizer=muon").groups._target_ == "trainer.optim.matrices.matrix_groups"
    assert compose("optimizer=muon", "groups=default").groups._target_ == "trainer.optim.groups.decay_groups"
    assert compose("optimizer=corrected_adamw").hyper_schedule.weight_decay._target_ == "trainer.lr.tied"
    assert not compose("optimizer=corrected_adamw", "hyper_schedule=none").hyper_schedule


def test_corrected_decay_falls_with_the_square_of_the_rate(assembled):
    chosen = ("optimizer=corrected_adamw", "trainer.duration=20", "trainer.validate=20", "optimizer.weight_decay=0.5")
    assembly = assembled(*SMALL, *chosen)
    policy = assembly.module.spec.policy
    peak = max(policy.lrs(t)[0] for t in range(20))
    for t in (0, 7, 19):
        lr, decay = policy.lrs(t)[0], policy.values(t)["weight_decay"][0]
        assert lr * decay == pytest.approx(0.5 * lr**2 / peak, rel=1e-12)
