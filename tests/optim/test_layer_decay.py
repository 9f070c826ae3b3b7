"""Multipliers and schedules of groups act: what stood in the optimizer at each update is what the plan says."""

import pytest
import torch

from trainer.lr import ConfigError
from trainer.run import fit

SMALL = (
    *("model.hidden=[8,8]", "data=synthetic", "data.samples=256", "data.batch_size=8", "data.val_samples=16"),
    *("logger=none", "trainer.duration=20", "trainer.validate=10", "trainer.steps_per_execution=4"),
    *("lint.ignore=[unreached]", "optimizer.weight_decay=0.1"),
)
SCHEDULES = ("cosine_warmup", "linear_warmup", "constant", "step", "multi_step", "one_cycle", "wsd", "inverse_sqrt")


def trained(assembly):
    """Fit, and return by update the rate of each group by name, and the weights after it."""
    rates, weights, configure = [], [], assembly.module.configure_optimizers

    def watched():
        optimizer = configure()

        def note(*_):
            rates.append({group["name"]: group["lr"] for group in optimizer.param_groups})
            weights.append({name: p.detach().clone() for name, p in assembly.module.net.named_parameters()})

        weights.append({name: p.detach().clone() for name, p in assembly.module.net.named_parameters()})
        optimizer.register_step_post_hook(note)
        return optimizer

    assembly.module.configure_optimizers = watched
    fit(assembly)
    return rates, weights


def as_planned(assembly, rates):
    policy, plan = assembly.module.spec.policy, assembly.resolved.plan.curves
    names = [group.name for group in assembly.module.spec.groups]
    assert list(policy.groups) == list(plan) == names
    assert rates == [dict(zip(names, policy.lrs(t))) for t in range(20)]


def moved(weights, name):
    """The updates that changed a parameter."""
    return [t for t in range(20) if not torch.equal(weights[t][name], weights[t + 1][name])]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_layer_decay_acts_under_every_schedule(assembled, schedule):
    assembly = assembled(*SMALL, "groups=layer_decay", "groups.decay=0.5", f"schedule={schedule}")
    rates, weights = trained(assembly)
    as_planned(assembly, rates)
    assert list(rates[0]) == [f"layer_0{i}{end}" for i in range(3) for end in ("", "_no_decay")]
    for seen in rates:
        head = seen["layer_02"]
        assert head > 0
        assert list(seen.values()) == [head / 4, head / 4, head / 2, head / 2, head, head]
    assert moved(weights, "layers.1.weight") == list(range(20))


@pytest.mark.parametrize("schedule", ["cosine_warmup", "step", "one_cycle"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_backbone_keeps_its_bits_until_it_is_unfrozen_and_then_follows_the_schedule(assembled, optimizer, schedule):
    assembly = assembled(
        *SMALL, f"optimizer={optimizer}", "groups=backbone_head", "groups.freeze=40%", f"schedule={schedule}"
    )
    rates, weights = trained(assembly)
    as_planned(assembly, rates)
    first = assembly.module.spec.policy.warmup.updates + 8
    for name in ("layers.1.weight", "layers.1.bias", "layers.4.weight", "layers.4.bias"):
        assert moved(weights, name) == list(range(first, 20))
    assert moved(weights, "layers.7.weight") == list(range(20))
    for t, seen in enumerate(rates):
        assert seen["backbone"] == (0.0 if t < first else pytest.approx(0.1 * seen["head"], rel=1e-12))


@pytest.mark.parametrize("optimizer", ["nesterov", "adam", "rmsprop", "lion", "lamb"])
def test_a_rate_of_zero_keeps_every_bit_under_momentum_and_weight_decay(assembled, optimizer):
    assembly = assembled(
        *SMALL[:-1],
        f"optimizer={optimizer}",
        "++optimizer.weight_decay=0.1",
        "groups=backbone_head",
        "groups.freeze=40%",
        "schedule=constant",
    )
    _, weights = trained(assembly)
    first = assembly.module.spec.policy.warmup.updates + 8
    assert moved(weights, "layers.1.weight") == list(range(first, 20))
    assert moved(weights, "layers.7.weight") == list(range(20))


def test_one_more_stage_learns_after_each_step_of_gradual_unfreezing(assembled):
    assembly = assembled(
        *SMALL, "groups=gradual_unfreezing", "groups.every=25%", "groups.decay=0.5", "schedule=cosine", "warmup=none"
    )
    rates, weights = trained(assembly)
    as_planned(assembly, rates)
    for name, first, mult in (("layers.1.weight", 10, 0.25), ("layers.4.weight", 5, 0.5), ("layers.7.weight", 0, 1.0)):
        assert moved(weights, name) == list(range(first, 20))
        group = {"layers.1.weight": "layer_00", "layers.4.weight": "layer_01", "layers.7.weight": "layer_02"}[name]
        for t, seen in enumerate(rates):
            assert seen[group] == (0.0 if t < first else pytest.approx(mult * seen["layer_02"], rel=1e-12))


def test_a_pattern_is_frozen_by_a_multiplier_and_unfrozen_by_a_schedule(assembled):
    assembly = assembled(
        *SMALL,
        *("schedule=cosine", "groups=patterns"),
        "groups.patterns=[{name: stem, match: layers.1.*, lr_mult: 0.0},"
        " {name: late, match: layers.4.*, lr_mult: 2.0,"
        " schedule: {schedule: piecewise_constant, points: [[0, 0.0], [30%, 1.0], [60%, 0.5]]}}]",
    )
    rates, weights = trained(assembly)
    as_planned(assembly, rates)
    peak = assembly.module.spec.policy.peak_lr
    assert [seen["late"] / peak for seen in rates] == pytest.approx([0.0] * 6 + [2.0] * 6 + [1.0] * 8, rel=1e-12)
    assert moved(weights, "layers.1.weight") == []
    assert moved(weights, "layers.4.weight") == list(range(6, 20))
    assert moved(weights, "layers.7.weight") == list(range(20))


def test_the_rest_beside_hidden_matrices_has_an_optimizer_and_a_peak_of_its_own(assembled):
    assembly = assembled(
        *SMALL, "optimizer=sgd", "optimizer.lr=0.02", "groups=muon", "groups.optimizer.lr=0.003", "schedule=cosine"
    )
    rates, _ = trained(assembly)
    as_planned(assembly, rates)
    assert list(rates[0]) == ["hidden", "rest", "rest_no_decay"]
    assert list(rates[0].values()) == pytest.approx([0.02, 0.003, 0.003], rel=1e-12)
    parts = assembly.module.spec.optimizer().parts
    assert [type(part) for part in parts] == [torch.optim.SGD, torch.optim.AdamW]
    assert [group["weight_decay"] for group in parts[1].param_groups] == [0.01, 0.0]


def test_an_optimizer_of_a_pattern_is_built_from_the_config(assembled):
    assembly = assembled(
        *SMALL,
        *("optimizer=sgd", "optimizer.lr=0.1", "groups=patterns"),
        "groups.patterns=[{name: head, match: layers.7.*,"
        " optimizer: {_target_: torch.optim.AdamW, _partial_: true, lr: 0.01}}]",
    )
    rates, _ = trained(assembly)
    as_planned(assembly, rates)
    assert rates[-1]["head"] == pytest.approx(0.1 * rates[-1]["decay"], rel=1e-12)


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        ("groups.patterns=[{name: head, match: haed.*}]", "matches no trainable parameter"),
        ("groups.patterns=[{name: a, match: '*', schedule: cosin}]", "there is no schedule cosin"),
        ("groups.patterns=[{name: a, match: '*', schedule: {schedule: cosine, flor: 1}}]", "flor"),
        ("groups.patterns=[{name: a, match: '*', optimizer: {_target_: os.system}}]", "allowed package"),
    ],
)
def test_a_wrong_pattern_of_a_config_is_refused_in_one_line(assembled, chosen, told):
    with pytest.raises(ConfigError, match=told) as refused:
        assembled(*SMALL, "groups=patterns", chosen)
    assert "\n" not in str(refused.value)
