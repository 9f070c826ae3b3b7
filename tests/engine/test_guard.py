"""The divergence guard leaves out or takes back what diverges, exactly, and changes no bit of a clean run."""

import json
import math
import random
import statistics
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.amp import GradScaler

from data.order import Layout, Order
from tests.engine.divergence import NEAR, Plant, problems, run
from tests.engine.test_update import batches, net, updater
from trainer.checkpoint.io import checkpoint_path, checkpoints_in, read
from trainer.engine.clock import Clock
from trainer.engine.guard import Diverged, Guard
from trainer.lr import ConfigError
from trainer.lr.backoff import Backoff, after_rollback, backoff
from trainer.lr.guard import Rollback, Skip, Stop, Window
from trainer.run import fit

TINY = (
    *("data=synthetic", "data.samples=256", "data.val_samples=64", "data.test_samples=0", "data.batch_size=8"),
    *("model.hidden=[8]", "optimizer=nesterov", "optimizer.lr=0.1", "schedule=cosine_warmup", "average=ema"),
    *("trainer.duration=40", "trainer.validate=15", "trainer.checkpoint=6", "trainer.steps_per_execution=10"),
    *("trainer.keep=0", "logger=none"),
)
BAD = 22
ADASCALE = ("scaling=adascale", "scaling.base_batch_size=4", "trainer.accumulate=2")


def planted(parts, *positions, factor=math.nan):
    """The run, with inputs that are `factor` times too large at these positions of the data."""
    order = Order(256, 0, Layout(8))
    seeds = {order.micro_seed(position, 0) for position in positions}
    parts.data.augment = lambda inputs, seed: inputs * factor if seed in seeds else inputs
    return parts


def weights(parts):
    return {name: value.clone() for name, value in parts.module.net.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_score_counts_robust_deviations_of_the_newest_values():
    draw = random.Random(1)
    values = [draw.lognormvariate(0, 1) for _ in range(50)]
    window = Window(16)
    for at, value in enumerate(values):
        newest = values[max(0, at - 16) : at]
        if len(newest) >= 8:
            middle = statistics.median(newest)
            deviation = statistics.median(abs(one - middle) for one in newest)
            assert window.score(value) == pytest.approx(max(0.0, (value - middle) / (1.4826 * deviation)), rel=1e-12)
        else:
            assert window.score(value) == 0.0
        window.extend([value])


def test_backoff_returns_to_1_and_repeated_rollbacks_multiply():
    first = after_rollback(100, 0.5, 50, [])
    again = after_rollback(100, 0.5, 50, [first])
    later = after_rollback(125, 0.5, 0, [first, again])
    assert (first, again, later) == (Backoff(100, 0.5, 50), Backoff(100, 0.25, 50), Backoff(125, 0.3125, 0))
    assert [backoff(t, [first, again, later]) for t in (99, 100, 124, 125, 9999)] == [1.0, 0.25, 0.61, 0.3125, 0.3125]


@pytest.mark.parametrize("stages", [((0, 1),), ((0, 1), (3, 2), (6, 4))])
def test_positions_that_are_left_out_are_taken_by_no_update_and_the_others_in_their_order(stages):
    whole, holed = Order(64, 5, Layout(4)), Order(64, 5, Layout(4), stages=stages)
    holed.left_out = [0, 5, 6, 17]
    taken = [position for t in range(12) for position in holed.positions(t)]
    kept = [position for position in range(taken[-1] + 1) if position not in holed.left_out]
    assert taken == kept
    picks = [pick for t in range(12) for pick in holed.picks(t, t + 1)]
    seeds = [holed.micro_seed(t, micro) for t in range(12) for micro in range(holed.micro_batches(t))]
    assert all(torch.equal(pick.indices, whole.pick(at, 0).indices) for pick, at in zip(picks, kept, strict=True))
    assert seeds == [whole.micro_seed(at, 0) for at in kept]


def test_a_clean_run_is_untouched_to_the_bit(assembled):
    stop, skip, rollback = (assembled(*TINY, f"guard={name}", folder=name) for name in ("stop", "skip", "rollback"))
    for parts in (stop, skip, rollback):
        fit(parts)
    assert same(weights(stop), weights(skip))
    assert same(weights(stop), weights(rollback))


def test_a_batch_that_is_skipped_leaves_no_trace_and_the_next_one_takes_its_place(assembled, capsys):
    skipped = planted(assembled(*TINY, "guard=skip"), BAD, BAD + 1)
    fit(skipped)
    without = assembled(*TINY, "guard=stop", folder="without")
    without.module.clock.left_out[:] = [BAD, BAD + 1]
    fit(without)
    assert same(weights(skipped), weights(without))
    assert (skipped.module.clock.t, skipped.module.clock.left_out) == (40, [BAD, BAD + 1])
    found = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert ["slice 0: samples " in line for line in found] == [True, True]
    names = [[path.name for path in checkpoints_in(parts.folder / "checkpoints")] for parts in (skipped, without)]
    assert names[0] == names[1]
    resumed = checkpoint_path(skipped.folder / "checkpoints", 30)
    again = assembled(*TINY, "guard=skip", folder="again", resumed=resumed)
    fit(again)
    assert same(weights(skipped), weights(again))


def test_a_rollback_returns_leaves_the_batch_out_lowers_the_rate_and_resumes_to_the_bit(assembled, capsys):
    words = (*TINY, "guard=rollback", "guard.rewarm=10")
    rolled = planted(assembled(*words), BAD)
    rates = {}
    begin = rolled.module.on_fit_start

    def on_fit_start():
        begin()
        control, clock = rolled.module.control, rolled.module.clock
        hook = lambda optimizer, *_: rates.update({clock.t: (optimizer.param_groups[0]["lr"], control.backoff)})  # noqa: E731
        rolled.trainer.optimizers[0].register_step_post_hook(hook)

    rolled.module.on_fit_start = on_fit_start
    fit(rolled)
    policy = rolled.resolved.plan.policy
    for t, (rate, factor) in rates.items():
        assert factor == (backoff(t, [Backoff(18, 0.5, 10)]))
        assert rate == policy.lr(t, backoff=factor)
    assert rolled.module.clock.left_out == [BAD]
    assert "update 22 has loss nan and gradient norm nan: rolled back to update 18, 1 of 5; rate × 0.5" in (
        capsys.readouterr().err
    )
    saved = read(checkpoint_path(rolled.folder / "checkpoints", 18))["cadence"]
    assert saved["left_out"] == [BAD]
    assert [(one["rule"], one.get("failed")) for one in saved["curve_history"]] == [(None, None), ("rollback", BAD)]
    again = assembled(*words, folder="again", resumed=checkpoint_path(rolled.folder / "checkpoints", 24))
    fit(again)
    assert same(weights(rolled), weights(again))


def test_a_rollback_that_does_not_help_goes_further_back_and_then_stops_with_a_finite_checkpoint(assembled):
    parts = planted(assembled(*TINY, "guard=rollback", "guard.limit=2", "guard.leave_out=false"), BAD)
    with pytest.raises(Diverged, match=r"update 22 .* Its data is not finite.* rolled back guard.limit=2 times"):
        fit(parts)
    found = [segment["samples"] // 8 for segment in parts.resolved.history[1:]]
    assert found == [18, 15]
    assert checkpoints_in(parts.folder / "checkpoints")[-1].name == "update-00000018.ckpt"


def test_a_skip_stops_at_its_limit(assembled):
    parts = planted(assembled(*TINY, "guard=skip", "guard.limit=2"), BAD, BAD + 1, BAD + 2)
    with pytest.raises(Diverged, match="update 22 has loss nan.*guard.limit=2 updates have been left out"):
        fit(parts)
    assert parts.module.clock.t == BAD


def skipping_updater(model, **more):
    clock = Clock()
    update = updater(model, **more)
    update.clock, update.guard = clock, Guard(Skip(), clock)
    update.guard.begin(model)
    return update


def test_a_skip_restores_buffers_and_the_loss_scale():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)).double()
    scaler = GradScaler("cpu", init_scale=8.0)
    update = skipping_updater(model, scaler=scaler)
    good, bad, worse = batches(3)
    bad.batch[0][0, 0] = math.inf
    worse.batch[1][0, 0] = 1e300
    assert update([good])
    before, scale = {name: value.clone() for name, value in model.state_dict().items()}, scaler.state_dict()
    for one in (bad, worse):
        assert not update([one])
        assert same(before, model.state_dict())
        assert scaler.state_dict() == scale
    assert update.clock.t == 1
    assert update([good])
    assert update.clock.t == 2


def test_a_spike_is_left_out_and_no_window_takes_it():
    update = skipping_updater(net())
    update.guard.rule = replace(Skip(), threshold=20.0, window=8)
    update.guard.load_state_dict({})
    (good,) = batches(1)
    for _ in range(8):
        assert update([good])
    huge = good._replace(batch=(good.batch[0] * 1e3, good.batch[1]))
    assert not update([huge])
    assert update.guard.reason.startswith("a spike: ")
    restored = Guard(update.guard.rule, Clock())
    restored.load_state_dict(json.loads(json.dumps(update.guard.state_dict())))
    assert restored.offends(8, 1e6, 1.0)
    assert restored.reason.startswith("a spike: loss 1e+06")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("guard=skip", "guard.threshold=0"), "guard.threshold=0 must be above zero"),
        (("guard=rollback", "guard.backoff=1.5"), "guard.backoff=1.5 would raise the learning rate"),
        (("guard=rollback", "guard.backoff=1", "guard.leave_out=false"), "would repeat the same updates"),
        (
            ("guard=rollback", "scaling=adascale", "scaling.base_batch_size=4", "trainer.accumulate=2"),
            "guard=rollback lowers the rate",
        ),
        (("guard=rollback", "trainer.strategy=fsdp", "optimizer=adamw"), "guard=rollback loads whole weights"),
    ],
)
def test_a_guard_that_cannot_work_is_refused_in_one_line(assembled, words, message):
    with pytest.raises(ConfigError, match=message):
        assembled(*TINY, "average=none", *words)


def test_left_out_batches_are_refused_with_another_global_batch(assembled):
    parts = planted(assembled(*TINY, "guard=skip"), 4)
    fit(parts)
    path = checkpoint_path(parts.folder / "checkpoints", 6)
    words = (*TINY, "data.batch_size=16", "resume.policy=override")
    with pytest.raises(ConfigError, match="has left out batches of 8 samples, and this run has batches of 16"):
        assembled(*words, folder="other", resumed=path)


def test_stop_does_not_look_for_spikes_unless_told():
    guard = Guard(Stop(), Clock())
    guard.check_spike(0, 1e30, 1e30)
    assert guard.state_dict() == {}


@pytest.mark.slow
def test_a_planted_cause_ends_as_expected_under_each_guard(tmp_path):
    clean = run(tmp_path / "clean", None, "stop").loss
    for cause, guard in (("inf target", "stop"), ("exploding norm", "skip"), ("nan weight", "rollback")):
        end = run(tmp_path / guard, cause, guard)
        assert problems(cause, guard, end) == []
        assert end.loss is None or end.loss <= (1 + NEAR) * clean


def test_every_cause_has_a_plant():
    assert Plant("bad batch").t > 0
    assert isinstance(Rollback(), Stop)


@pytest.mark.parametrize("cause", [math.inf, math.nan])
def test_a_loss_that_is_not_finite_stops_a_run_that_looks_when_it_logs(assembled, monkeypatch, cause):
    """As on a GPU, where no update waits for its loss; the gradient is finite."""
    module = (assembly := assembled(*TINY, "trainer.log_every=4", "callbacks=none")).module
    begin = module.on_train_start

    def unchecked():
        begin()
        module.updater.checks_each, forward = False, module.updater._forward

        def poisoned(batch):
            loss, *rest = forward(batch)
            return (loss + cause if module.clock.t == 5 else loss, *rest)

        monkeypatch.setattr(module.updater, "_forward", poisoned)

    monkeypatch.setattr(module, "on_train_start", unchecked)
    with pytest.raises(Diverged, match=rf"update 5 has loss {cause} and gradient norm \d"):
        fit(assembly)
