"""What a batch-size rule makes of the tuned numbers reaches the optimizer, the schedules, the plan and the report."""

import pytest
import torch

from trainer.checkpoint.io import checkpoint_path
from trainer.config.batch_scaling import format_scaling, scaled_numbers, summary_of_scaling
from trainer.config.resolve import horizon_of, plan_of
from trainer.config.run_summary import format_run, summary_of_run
from trainer.config.settings import settings_of
from trainer.lr import ConfigError
from trainer.lr.scaling import Scaled
from trainer.run import fit

SMALL = (
    *("data=synthetic", "data.samples=80", "data.batch_size=4", "data.val_samples=8", "model.hidden=[8]"),
    *("trainer.duration=10", "trainer.validate=5", "trainer.steps_per_execution=5", "warmup=none", "schedule=constant"),
)
"""A global batch of 4."""


def watched(assembly):
    """The numbers of all groups at each optimizer step of a fit."""
    seen, configure = [], assembly.module.configure_optimizers

    def read(optimizer, *_):
        seen.append([{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups])

    def make():
        optimizer = configure()
        optimizer.register_step_post_hook(read)
        return optimizer

    assembly.module.configure_optimizers = make
    fit(assembly)
    return seen


def own_rate(batch_size: int, base_batch_size: int | None = None) -> float:
    """A user's rule that changes the learning rate only."""
    return batch_size / 8


def own_rule(batch_size: int, base_batch_size: int | None = None, *, tuned: dict | None = None) -> Scaled:
    """A user's rule that changes a setting, too."""
    return Scaled(2.0, {"momentum": tuned["momentum"] / 2})


def own_fault(batch_size: int, base_batch_size: int | None = None) -> Scaled:
    """A user's rule that sets what the optimizer does not have."""
    return Scaled(1.0, {"momentum": 0.5})


def own_word(batch_size: int, base_batch_size: int | None = None) -> str:
    """A user's rule that gives no number."""
    return "twice"


def test_adam_steps_with_the_scaled_numbers_in_every_group(assembled):
    chosen = ("scaling=adam_sde", "scaling.base_batch_size=1", "scaling.weight_decay=sqrt", "optimizer.lr=0.001")
    seen = watched(assembled(*SMALL, *chosen))
    assert len(seen) == 10
    for decay, bare in seen:
        assert (decay["name"], bare["name"]) == ("decay", "no_decay")
        for group in (decay, bare):
            assert group["betas"] == pytest.approx((0.6, 0.996), rel=1e-12)
            assert group["eps"] == pytest.approx(5e-9, rel=1e-12)
            assert group["lr"] == pytest.approx(0.002, rel=1e-12)
        assert (decay["weight_decay"], bare["weight_decay"]) == (0.02, 0.0)


def test_the_global_batch_counts_accumulation(assembled):
    small = ("scaling=adam_sde", "scaling.base_batch_size=2", "trainer.accumulate=2")
    (group, *_), *_ = watched(assembled(*SMALL, *small))
    assert group["betas"] == pytest.approx((0.6, 0.996), rel=1e-12)


def test_rmsprop_steps_with_the_scaled_alpha_and_eps(assembled):
    chosen = ("optimizer=rmsprop", "scaling=rmsprop_sde", "scaling.base_batch_size=1")
    (group, *_), *_ = watched(assembled(*SMALL, *chosen))
    assert (group["alpha"], group["eps"], group["lr"]) == pytest.approx((0.96, 5e-9, 2e-3), rel=1e-12)


def test_the_half_life_changes_beta2_alone(assembled):
    chosen = ("scaling=half_life", "scaling.base_batch_size=2", "scaling.lr=keep", "optimizer.betas=[0.8,0.9]")
    (group, *_), *_ = watched(assembled(*SMALL, *chosen))
    assert group["betas"] == pytest.approx((0.8, 0.81), rel=1e-12)
    assert (group["lr"], group["eps"], group["weight_decay"]) == (3e-3, 1e-8, 0.01)


def test_none_changes_nothing(assembled):
    seen = watched(assembled(*SMALL, "scaling.base_batch_size=1"))
    assert {(group["lr"], group["betas"], group["eps"]) for row in seen for group in row} == {
        (3e-3, (0.9, 0.999), 1e-8)
    }


@pytest.mark.parametrize(
    ("optimizer", "scale"),
    [
        *[(name, 4.0) for name in ("sgd", "momentum", "nesterov", "lars", "muon", "schedule_free_sgd")],
        *[(name, 2.0) for name in ("adam", "adamw", "adamax", "nadam", "radam", "lamb", "lion", "soap", "ranger")],
        *[(name, 2.0) for name in ("rmsprop", "rmsprop_tf", "adagrad", "adadelta", "adafactor", "adabound", "adopt")],
    ],
)
def test_auto_is_linear_or_sqrt_by_the_optimizers_own_numbers(compose, optimizer, scale):
    more = ["groups=default"] if optimizer == "muon" else []
    cfg = compose(*SMALL, f"optimizer={optimizer}", "scaling=auto", "scaling.base_batch_size=1", *more)
    assert plan_of(settings_of(cfg)).policy.scale == scale


def test_auto_looks_at_the_class_where_no_number_tells_and_the_user_has_the_last_word(compose):
    for more, scale in (([], 2.0), (["scaling.adaptive=false"], 4.0)):
        cfg = compose(*SMALL, "scaling=auto", "scaling.base_batch_size=1", *more)
        cfg.optimizer = {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 0.001}
        assert plan_of(settings_of(cfg)).policy.scale == scale


def test_the_optimizer_of_a_group_is_scaled_too_and_one_factor_must_fit_all(assembled):
    muon = ("optimizer=muon", "model.hidden=[8,8]", "scaling.base_batch_size=1")
    assembly = assembled(*SMALL, *muon, "scaling=sqrt", "scaling.weight_decay=sqrt")
    seen = watched(assembly)
    assert {group["weight_decay"] for group in seen[0]} == {0.02, 0.0}
    assert set(summary_of_run(assembly.resolved)["scaled"]["changed"]) == {
        "optimizer.lr",
        "optimizer.weight_decay",
        "groups.optimizer.weight_decay",
    }
    with pytest.raises(ConfigError, match=r"of optimizer by 4 and of groups\.optimizer by 2"):
        assembled(*SMALL, *muon, "scaling=auto")


def test_the_weight_decay_and_the_optimizer_of_a_pattern_are_scaled(assembled):
    patterns = (
        "groups.patterns=[{name: head, match: '*4.weight', weight_decay: 0.3}, {name: vectors, match: '*.bias', "
        "optimizer: {_target_: torch.optim.AdamW, _partial_: true, lr: 0.003, betas: [0.8, 0.99], eps: 1e-6}}]"
    )
    chosen = ("groups=patterns", patterns, "scaling=adam_sde", "scaling.base_batch_size=1", "scaling.weight_decay=keep")
    assembly = assembled(*SMALL, *chosen)
    seen = {group["name"]: group for group in watched(assembly)[0]}
    assert seen["vectors"]["betas"] == pytest.approx((0.2, 0.96), rel=1e-12)
    assert seen["vectors"]["eps"] == pytest.approx(5e-7, rel=1e-12)
    assert summary_of_run(assembly.resolved)["scaled"]["kept"]["groups.patterns.0.weight_decay"] == 0.3


def test_a_group_with_a_weight_decay_of_its_own_follows_the_switch(assembled):
    patterns = "groups.patterns=[{name: head, match: '*4.weight', weight_decay: 0.3}]"
    chosen = ("groups=patterns", patterns, "scaling=sqrt", "scaling.base_batch_size=1", "scaling.weight_decay=linear")
    seen = {group["name"]: group["weight_decay"] for group in watched(assembled(*SMALL, *chosen))[0]}
    assert seen["head"] == pytest.approx(1.2, rel=1e-12)
    assert 0.04 in seen.values()


def test_a_scheduled_number_starts_from_the_scaled_one(assembled):
    chosen = (
        "scaling=adam_sde",
        "scaling.base_batch_size=1",
        "scaling.weight_decay=sqrt",
        "hyper_schedule=weight_decay_tied",
    )
    linear = ("schedule=linear", "lint.ignore=[betas-overwritten]")
    half = "+hyper_schedule.beta2={_target_: trainer.lr.scheduled, _partial_: true, of: {schedule: constant}}"
    seen = watched(assembled(*SMALL, *chosen, *linear, half))
    assert [row[0]["weight_decay"] for row in seen] == pytest.approx([0.02 * (1 - t / 10) for t in range(10)])
    assert [row[0]["betas"] for row in seen] == [pytest.approx((0.6, 0.996), rel=1e-12)] * 10


def test_a_warmup_of_auto_length_follows_the_scaled_beta2(compose):
    cfg = compose(*SMALL, "warmup=auto", "scaling=adam_sde", "scaling.base_batch_size=1", "optimizer.betas=[0.9,0.99]")
    cfg.trainer.duration = 1000
    assert plan_of(settings_of(cfg)).policy.warmup.updates == 50  # 2 / (1 - 0.96), not 2 / (1 - 0.99)


@pytest.mark.parametrize(
    ("duration", "warmup", "updates"),
    [
        *[("20ep", "1ep", 80), ("20ep", "160 samples", 160), ("20ep", "5%", 80), ("400", "2ep", 160)],
        *[("400", "5%", 20), ("20ep", "7", 7), ("20ep", "auto", 20), ("20ep", "480 tokens", 160)],
    ],
)
def test_legew_warms_up_for_kappa_times_the_epochs_and_as_many_updates(compose, duration, warmup, updates):
    cfg = compose(*SMALL, "optimizer=sgd", "warmup=linear", "scaling=legew", "scaling.base_batch_size=1")
    cfg.trainer.duration, cfg.warmup.duration, cfg.data.tokens_per_sample = duration, warmup, 3
    made = plan_of(settings_of(cfg)).policy
    assert (made.scale, made.warmup.updates) == (2.0, updates)


def test_a_rule_of_the_users_own_gives_a_number_or_a_scaled(assembled):
    target = "scaling._target_=tests.config.test_scaling_applied"
    assert assembled(*SMALL, f"{target}.own_rate", "allow=[tests]").resolved.plan.policy.scale == 0.5
    ours = (f"{target}.own_rule", "allow=[tests]", "optimizer=momentum")
    (group, *_), *_ = watched(assembled(*SMALL, *ours, folder="rule"))
    assert (group["momentum"], group["lr"]) == (0.45, 0.1)
    for fault, says in (("own_fault", "sets momentum, which optimizer does not have"), ("own_word", "finite number")):
        with pytest.raises(ConfigError, match=says):
            assembled(*SMALL, f"{target}.{fault}", "allow=[tests]")


def test_the_table_shows_every_number_before_and_after_and_what_is_kept(assembled):
    run = assembled(*SMALL, "scaling=adam_sde", "scaling.base_batch_size=1", "warmup=linear")
    summary = summary_of_run(run.resolved)
    told = "\n".join(text for _, text in format_run(summary))
    for line in (
        "adam_sde, κ = 4, scale 2",
        "optimizer.lr 0.003 → 0.006",
        "optimizer.beta1 0.9 → 0.6",
        "optimizer.beta2 0.999 → 0.996",
        "optimizer.eps 1e-08 → 5e-09",
        "kept: optimizer.weight_decay 0.01, warmup.duration 5%, trainer.duration 10 (updates)",
    ):
        assert line in told.splitlines()
    assert summary["scaled"]["changed"]["optimizer.beta1"] == [0.9, 0.6]
    same = assembled(*SMALL, "scaling=adam_sde", "scaling.base_batch_size=4")
    assert not any("kept" in text or "→" in text for _, text in format_run(summary_of_run(same.resolved)))


@pytest.mark.parametrize(
    ("duration", "said"),
    [("2ep", "2ep (epochs)"), ("40", "40 (updates)"), ("160 samples", "160 samples (samples)")],
)
def test_the_table_says_what_is_kept_of_the_length(compose, duration, said):
    cfg = compose(
        *SMALL, "optimizer=sgd", "scaling=linear", "scaling.base_batch_size=2", f"trainer.duration={duration}"
    )
    settings = settings_of(cfg)
    numbers = scaled_numbers(settings.curve, horizon_of(settings))
    (told,) = [line for line in format_scaling(summary_of_scaling(numbers, settings), 2.0) if "kept" in line]
    assert told.endswith(f"trainer.duration {said}")


def test_the_table_says_what_is_done_to_the_gradients_where_anything_is(assembled):
    words = ("trainer.sam=0.05", "trainer.agc=0.01", "trainer.clip=1.5", "trainer.gradient_noise=0.001")
    rows = dict(format_run(summary_of_run(assembled(*SMALL, *words).resolved)))
    assert rows["gradients"] == (
        "taken after an ascent of radius 0.05 (trainer.sam), two passes each, each unit's at most 0.01 of its "
        "weights (trainer.agc), clipped to a norm of 1.5 (trainer.clip), "
        "with noise of σ = 0.001 (trainer.gradient_noise)"
    )
    assert "gradients" not in dict(format_run(summary_of_run(assembled(*SMALL, folder="plain").resolved)))


def test_the_config_that_is_kept_is_the_users_own(assembled):
    assembly = assembled(*SMALL, "scaling=adam_sde", "scaling.base_batch_size=1", "scaling.weight_decay=sqrt")
    optimizer = assembly.resolved.settings.curve.optimizer
    assert (optimizer["eps"], optimizer["weight_decay"]) == (1e-8, 0.01)
    assert assembly.module.spec.origin["config"]["optimizer"]["betas"] == [0.9, 0.999]


def test_a_resumed_run_steps_with_the_same_numbers_to_the_bit(assembled):
    chosen = (*SMALL, "scaling=adam_sde", "scaling.base_batch_size=1", "scaling.weight_decay=sqrt", "trainer.keep=0")
    whole = assembled(*chosen, folder="whole")
    seen = watched(whole)
    middle = checkpoint_path(whole.checkpointing.folder, 5)
    again = assembled(*chosen, folder="again", resumed=middle)
    assert watched(again) == seen[5:]
    for mine, theirs in zip(again.module.net.parameters(), whole.module.net.parameters()):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["scaling=adam_sde"], "scaling.base_batch_size is not set"),
        (["scaling=adam_sde", "scaling.base_batch_size=4", "data.batch_size=40"], "at most 39"),
        (["scaling=adam_sde", "scaling.base_batch_size=4", "optimizer=sgd"], "adam_sde is for Adam"),
        (["scaling=adam_sde", "scaling.base_batch_size=4", "optimizer=lion"], "no eps"),
        (["scaling=adam_sde", "scaling.base_batch_size=4", "optimizer=ademamix"], "no beta1, beta2"),
        (["scaling=half_life", "scaling.base_batch_size=4", "optimizer=ademamix"], "no beta2"),
        (["scaling=rmsprop_sde", "scaling.base_batch_size=4", "optimizer=rmsprop_tf"], "without momentum"),
        (["scaling=critical", "scaling.base_batch_size=4"], "scaling.noise_batch is not set"),
        (["scaling=surge", "scaling.base_batch_size=4", "scaling.noise_batch=0"], "scaling.noise_batch=0"),
        (["scaling=power", "scaling.base_batch_size=4", "scaling.exponent=2"], "scaling.exponent=2"),
        (["scaling=sqrt", "scaling.base_batch_size=4", "scaling.weight_decay=log"], "scaling.weight_decay='log'"),
        (["scaling=half_life", "scaling.base_batch_size=4", "scaling.lr=cube"], "scaling.lr='cube'"),
        (["scaling=auto", "scaling.base_batch_size=4", "scaling.adaptive=maybe"], "scaling.adaptive='maybe'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(assembled, overrides, says):
    with pytest.raises(ConfigError, match=says.replace(".", r"\.")) as refusal:
        assembled(*SMALL, *overrides)
    assert "\n" not in str(refusal.value)
