"""A module that optimizes by hand: each optimizer has its clock and gets its rates from the policy."""

import importlib.util

import pytest
import torch

from tests.distributed import worlds
from tests.engine import equality
from tests.engine.test_lightning import MODULES, TASK, same, stock
from trainer.checkpoint.io import checkpoint_path, read
from trainer.engine.manual_update import Turn
from trainer.lr import ConfigError
from trainer.run import fit
from trainer.tools.range_test.sweep import sweep

NAMED = "+task.step.optimizers={generator: {every: %s}, critic: {}}"
GAN = (
    *(*TASK, "optimizer=module", "data.batch_size=32", "trainer.duration=2ep", "logger=none", "trainer.keep=0"),
    *("task.monitor=val_distance", "task.mode=min", f"{MODULES}Adversarial"),
)
PATIENT = (*GAN, f"{MODULES}Patient", NAMED % 3)
NAMED_ONE = (*GAN, NAMED % 1)


def stepped(run):
    """The rates of each step of each optimizer, by its name, with the batch in which it was made."""
    found, configure = {}, run.module.configure_optimizers

    def note(optimizer, *_):
        (group,) = optimizer.param_groups
        found[group["name"]].append((run.module.clock.t, group["lr"]))

    def watched():
        optimizer = configure()
        for part in optimizer.parts:
            found[part.param_groups[0]["name"]] = []
            part.register_step_post_hook(note)
        return optimizer

    run.module.configure_optimizers = watched
    return found


@pytest.mark.sample(2)
@pytest.mark.parametrize("package", ["pytorch_lightning", "lightning.pytorch"])
@pytest.mark.parametrize("kind", ["Adversarial", "Patient"])
def test_weights_are_those_of_lightnings_own_trainer(assembled, kind, package):
    if not importlib.util.find_spec(package.split(".")[0]):
        pytest.skip(f"{package} is not installed")
    home = "foreign_modules" if package.startswith("lightning") else "lightning_modules"
    words = (*(PATIENT if kind == "Patient" else GAN), f"model._target_=tests.engine.{home}.{kind}")
    net, trainer = stock(assembled(*words, "trainer.validate=1000", folder="stock"), None, package)
    run = assembled(*words)
    fit(run)
    assert same(run.module.net, net)
    ours = run.module.net.trainer.callback_metrics["val_distance"].item()
    assert ours == pytest.approx(trainer.callback_metrics["val_distance"].item(), rel=1e-5)


def test_schedulers_that_are_left_out_may_be_stepped_one_by_one(assembled):
    plain, annealed = (
        assembled(*GAN, f"{MODULES}{kind}", "trainer.duration=12", *more, folder=kind)
        for kind, more in (("Adversarial", ()), ("Annealed", ("task.step.ignore=[lr_scheduler]",)))
    )
    fit(plain)
    fit(annealed)
    assert same(annealed.module.net, plain.module.net)


def test_each_step_has_the_rate_of_its_own_clock(assembled):
    schedules = ("schedule=cosine", "warmup=linear", "warmup.duration=6", "+group_schedule.critic=linear")
    run = assembled(*PATIENT, *schedules, "trainer.duration=50")
    steps = stepped(run)
    fit(run)
    curves = run.resolved.plan.curves
    due = [t for t in range(50) if t % 39 % 3 == 0]
    assert [t for t, _ in steps["generator"]] == due
    assert [rate for _, rate in steps["generator"]] == [curves["generator"][3 * step] for step in range(len(due))]
    assert steps["critic"] == list(enumerate(curves["critic"]))
    assert run.module.hooks.clocks == {"generator": 17, "critic": 50}
    assert max(curves["generator"]) == 2e-3
    assert max(curves["critic"]) == 1e-3


def test_losses_rates_and_logs_of_each_batch_are_in_the_buffer(assembled):
    run = assembled(*PATIENT, "schedule=cosine", "trainer.log_every=78")
    columns, made = [], run.module.metric_buffer.columns
    run.module.metric_buffer.columns = lambda *given: (columns.append(made(*given)), columns[-1])[1]
    fit(run)
    rates = [value for part in columns for value in part["lr/generator"]]
    curve = run.resolved.plan.curves["generator"]
    assert rates == [curve[t - t % 3] for t in range(78)]
    first = columns[0]
    factors = first["x_lr_factors/generator/schedule"]
    assert [2e-3 * factor for factor in factors] == pytest.approx(first["lr/generator"], rel=1e-12)
    assert "x_lr_factors/generator/warmup" not in first
    assert first["train/fooled"][0] is not None
    assert first["train/fooled"][1] is None
    both = [a + (b or 0) for a, b in zip(first["train/critic"], first["train/fooled"])]
    assert first["train/loss"] == pytest.approx(both, rel=1e-6)
    assert all(norm > 0 for norm in first["train/grad_norm"])


def test_a_resumed_run_has_the_same_bits_at_any_batch(assembled):
    words = (*PATIENT, "schedule=cosine", "trainer.checkpoint=10", "average=ema", "trainer.clip=0.5")
    whole = assembled(*words)
    fit(whole)
    for t in (10, 39, 50, 70):
        path = checkpoint_path(whole.checkpointing.folder, t)
        clocks = read(path)["hooks"]["clocks"]
        assert clocks == {"generator": sum(t % 39 % 3 == 0 for t in range(t)), "critic": t}
        resumed = assembled(*words, folder=f"from{t}", resumed=path)
        fit(resumed)
        assert same(whole.module, resumed.module), t


def test_a_range_test_sweeps_both_rates_and_starts_the_clocks_anew(assembled):
    run = assembled(*NAMED_ONE)
    before = {name: value.clone() for name, value in run.module.net.state_dict().items()}
    assert len(sweep(run, "lr", [1e-4, 1e-3, 1e-2]).losses) == 3
    assert all(torch.equal(value, before[name]) for name, value in run.module.net.state_dict().items())
    with pytest.raises(ConfigError, match="optimizes by hand, and has no loss outside its updates"):
        sweep(run, "lr", [1e-4, 1e-3], "val")
    fit(run)
    assert run.module.hooks.clocks == {"generator": 78, "critic": 78}


def test_rates_may_be_set_by_name_or_together(assembled):
    run = assembled(*GAN, "+task.step.optimizers={generator: {}, critic: {lr: 4e-3}}", "optimizer.lr=0.001")
    assert run.resolved.plan.policy.lrs(0) == [0.001, 0.002]
    default = assembled(*GAN, folder="default")
    assert list(default.resolved.plan.curves) == ["optimizer_0", "optimizer_1"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((NAMED % 3,), "generator makes step 27, and every=3 plans 26 in 78 batches: set task.step.optimizers.gen"),
        (("+task.step.optimizers={generator: {}}",), "task.step.optimizers names generator, and .* gives 2"),
        (("+task.step.optimizers={a: {evry: 1}, b: {}}",), "give every, lr, or both"),
        ((NAMED % 0,), "every=0 is not a number of batches"),
        (("trainer.accumulate=2",), r"optimizes by hand and sees each batch .*: take trainer.accumulate=1"),
        (("optimizer=adamw",), "optimizes by hand and has its own optimizers: take optimizer=module"),
        (("measure=norms",), "optimizes by hand .*: take measure=none"),
        (("trainer.sam=0.05",), "take trainer.sam=null"),
        ((f"{MODULES}TwoRates", NAMED % 1), "task.step.optimizers is for modules that optimize by hand"),
        ((f"{MODULES}Careless",), "gives 2 optimizers, which only a module that optimizes by hand can step"),
    ],
)
def test_what_cannot_hold_is_refused(assembled, words, message):
    with pytest.raises(ConfigError, match=message):
        fit(assembled(*GAN, *words))


def test_a_turn_may_be_several_steps_in_a_batch():
    turn = Turn.of("critic", {"every": "1/5"})
    assert [turn.at(step) for step in (0, 4, 5, 9, 10)] == [0, 0, 1, 1, 2]
    assert turn.steps(10) == 50


CUT = (*TASK, "optimizer=module", "task.monitor=val_distance", "task.mode=min", "warmup=linear", NAMED % 1)


def train_two(rank, world, folder):
    words = (*CUT, f"{MODULES}Adversarial", "+model.toggled=false")
    torch.save(equality.train(folder / "two", world, 1, *words, plant=without_dropout), folder / f"{rank}.pt")


def without_dropout(run):
    run.module.net.generator[2].p = 0.0


@pytest.mark.slow
def test_two_processes_train_the_weights_of_one_with_both_batches(tmp_path):
    assert worlds.run(2, train_two, 2, tmp_path) == [0, 0]
    words = (*CUT, f"{MODULES}Adversarial")
    whole = equality.train(tmp_path / "whole", 1, 1, *words, plant=without_dropout)
    for rank in (0, 1):
        other = torch.load(tmp_path / f"{rank}.pt")
        assert (other["weights"] - whole["weights"]).abs().max() <= 1e-12
