"""Every other hyper-parameter is written, proved and logged as the learning rate is."""

import math

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer.engine import gradients
from trainer.lr import ConfigError
from trainer.run import fit

SMALL = (
    *("data=synthetic", "data.samples=80", "data.batch_size=4", "data.val_samples=8", "model.hidden=[8]"),
    *("trainer.duration=20", "trainer.validate=10", "trainer.steps_per_execution=5", "warmup.duration=5"),
)


def watched(assembly, read):
    """What `read` finds at each optimizer step of a fit."""
    seen, configure = [], assembly.module.configure_optimizers

    def make():
        optimizer = configure()
        optimizer.register_step_post_hook(lambda opt, *_: seen.append(read(opt)))
        return optimizer

    assembly.module.configure_optimizers = make
    fit(assembly)
    return seen


@pytest.mark.parametrize(
    ("optimizer", "read"),
    [("nesterov", lambda group: group["momentum"]), ("adamw", lambda group: group["betas"][0])],
)
def test_momentum_or_beta1_swings_around_the_users_own_number(assembled, optimizer, read):
    chosen = (f"optimizer={optimizer}", "hyper_schedule=momentum_mirrored", "lint.ignore=[betas-overwritten]")
    assembly = assembled(*SMALL, *chosen)
    seen = watched(assembly, lambda opt: [read(group) for group in opt.param_groups])
    policy = assembly.module.spec.policy
    assert seen == [policy.values(t)["momentum"] for t in range(20)]
    share = [policy.lr(t) / policy.peak_lr for t in range(20)]
    assert [values[0] for values in seen] == pytest.approx([0.9 + 0.05 * (1 - 2 * s) for s in share], rel=1e-12)


def test_beta2_and_the_epsilon_can_be_scheduled_and_the_other_beta_is_left(assembled):
    of = "{_target_: trainer.lr.scheduled, _partial_: true, of: {schedule: linear, floor: 0.5}}"
    assembly = assembled(
        *SMALL, f"+hyper_schedule.beta2={of}", f"+hyper_schedule.eps={of}", "lint.ignore=[betas-overwritten]"
    )
    seen = watched(assembly, lambda opt: (*opt.param_groups[0]["betas"], opt.param_groups[0]["eps"]))
    factors = [1 - 0.5 * t / 20 for t in range(20)]
    assert [row[0] for row in seen] == [0.9] * 20
    assert [row[1] for row in seen] == pytest.approx([0.999 * factor for factor in factors], rel=1e-12)
    assert [row[2] for row in seen] == pytest.approx([1e-8 * factor for factor in factors], rel=1e-12)


def test_weight_decay_follows_the_rate_in_the_groups_that_have_it_and_is_logged(assembled):
    assembly = assembled(*SMALL, "hyper_schedule=weight_decay_tied", "optimizer.weight_decay=0.2")
    seen = watched(assembly, lambda opt: [group["weight_decay"] for group in opt.param_groups])
    policy = assembly.module.spec.policy
    shares = [policy.warmup.factor(t) * policy.schedule(t) for t in range(20)]
    assert seen == [[0.2 * share, 0.0] for share in shares]
    for logger in assembly.trainer.loggers:
        logger.close()
    events = EventAccumulator(str(assembly.folder), size_guidance={"scalars": 0}).Reload()
    logged = [point.value for point in events.Scalars("hyper_schedule/decay/weight_decay")]
    assert logged == pytest.approx([0.2 * share for share in shares], rel=1e-6)


def test_a_value_that_something_else_writes_stops_the_run_and_names_the_group(assembled):
    assembly = assembled(*SMALL, "hyper_schedule=weight_decay_tied")
    write = assembly.module.control.write

    def sabotaged(optimizer, t):
        write(optimizer, t)
        if t == 7:
            optimizer.param_groups[0]["weight_decay"] = 0.5

    assembly.module.control.write = sabotaged
    with pytest.raises(RuntimeError, match="group decay has weight_decay=0.5"):
        fit(assembly)
    assert assembly.module.clock.t == 7


def test_dropout_falls_with_the_update_in_every_layer_that_has_it(assembled):
    assembly = assembled(*SMALL, "hyper_schedule=dropout_linear", "model.dropout=0.4")
    layers = [module for module in assembly.module.net.modules() if isinstance(module, torch.nn.Dropout)]
    seen = watched(assembly, lambda opt: [layer.p for layer in layers])
    assert [row[0] for row in seen] == pytest.approx([0.4 * (1 - t / 20) for t in range(20)], rel=1e-12)
    assert all(len(set(row)) == 1 for row in seen)


def test_the_dropout_of_attention_falls_too(assembled, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("to be or not to be, that is the question. " * 200)
    words = ("data=text", f"data.path={path}", "model=gpt", "task=language_modelling", "model.width=16")
    small = ("data.context=8", "data.batch_size=4", "model.dropout=0.25", "model.layers=1", "model.heads=2")
    assembly = assembled(
        *words, *small, "trainer.duration=8", "trainer.validate=8", "hyper_schedule=dropout_linear", "warmup=none"
    )
    attention = assembly.module.net.blocks[0].attention
    assert watched(assembly, lambda opt: attention.dropout) == [0.25 * (1 - t / 8) for t in range(8)]


def test_label_smoothing_is_scheduled_in_training_and_the_users_own_in_validation(assembled):
    assembly = assembled(*SMALL, "hyper_schedule=label_smoothing_linear")
    scored, loss = [], assembly.module.step.loss
    update = assembly.module.scores["val"].update
    assembly.module.scores["val"].update = lambda *given: (scored.append(loss.label_smoothing), update(*given))
    seen = watched(assembly, lambda opt: loss.label_smoothing)
    assert seen == pytest.approx([0.1 * (1 - t / 20) for t in range(20)], rel=1e-12)
    assert set(scored) == {0.1}


def test_gradient_noise_has_its_variance_is_a_function_of_seed_and_update_and_is_normal():
    def noise(seed, t, sigma=0.5):
        parameter = torch.nn.Parameter(torch.zeros(200, 500))
        parameter.grad = torch.ones(200, 500)
        gradients.add_noise([parameter], sigma, seed, t)
        return parameter.grad - 1

    first = noise(3, 7)
    assert torch.equal(first, noise(3, 7))
    assert not torch.equal(first, noise(3, 8))
    assert not torch.equal(first, noise(4, 7))
    assert abs(first.mean().item()) < 4 * 0.5 / math.sqrt(100_000)
    assert first.var().item() == pytest.approx(0.25, rel=4 * math.sqrt(2 / 100_000))
    assert (first.abs() < 0.5).float().mean().item() == pytest.approx(0.6827, abs=0.006)
    assert torch.equal(noise(3, 7, sigma=0.0), torch.zeros(200, 500))


def test_gradient_noise_is_annealed_by_its_schedule(assembled, monkeypatch):
    assembly = assembled(*SMALL, "hyper_schedule=gradient_noise_annealed", "trainer.gradient_noise=0.3")
    seen, add = [], gradients.add_noise
    monkeypatch.setattr(gradients, "add_noise", lambda p, sigma, *more: (seen.append(sigma), add(p, sigma, *more)))
    fit(assembly)
    assert [sigma**2 for sigma in seen] == pytest.approx([0.09 / (1 + t) ** 0.55 for t in range(20)], rel=1e-12)


def test_gradient_noise_changes_the_weights_and_resumes_to_the_bit(assembled):
    from trainer.checkpoint.io import checkpoint_path

    noisy = (*SMALL, "trainer.gradient_noise=0.1", "trainer.keep=0")
    bare, whole = assembled(*SMALL, folder="bare"), assembled(*noisy, folder="whole")
    for assembly in (bare, whole):
        fit(assembly)
    middle = checkpoint_path(whole.checkpointing.folder, 10)
    again = assembled(*noisy, folder="again", resumed=middle)
    fit(again)
    for mine, theirs, plain in zip(
        again.module.net.parameters(), whole.module.net.parameters(), bare.module.net.parameters()
    ):
        assert torch.equal(mine, theirs)
        assert not torch.equal(mine, plain)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["hyper_schedule=dropout_linear"], "hyper_schedule.dropout would be 0 at every update, for model.dropout=0.0"),
        (["hyper_schedule=gradient_noise_annealed"], "trainer.gradient_noise=None"),
        (["hyper_schedule=weight_decay_tied", "optimizer.weight_decay=0"], "hyper_schedule.weight_decay would be 0"),
        (["+hyper_schedule.momentun={_target_: trainer.lr.tied, _partial_: true}"], "did you mean momentum"),
        (["hyper_schedule=momentum_mirrored", "hyper_schedule.momentum.swing=0.2"], "hyper_schedule.momentum is 1.0"),
        (["hyper_schedule=momentum_mirrored", "hyper_schedule.momentum.swing=0"], "swing=0"),
        (["hyper_schedule=momentum_coupled", "hyper_schedule.momentum.highest=1.5"], "highest=1.5"),
        (["hyper_schedule=label_smoothing_linear", "task=regression", "data=synthetic_regression"], "label_smoothing"),
        (["+hyper_schedule.eps={of: linear}"], "names no class"),
    ],
)
def test_what_cannot_be_scheduled_is_refused_in_one_line(assembled, overrides, says):
    with pytest.raises(ConfigError, match=says.replace("(", r"\(")) as refusal:
        assembled(*SMALL, *overrides)
    assert "\n" not in str(refusal.value)
