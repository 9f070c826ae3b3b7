"""Averaged weights are scored, tested and kept as the best; training goes on from its own, to the bit."""

import copy
import shutil

import pytest
import torch
from torch import nn

from trainer.checkpoint.io import BEST, checkpoint_path, checkpoints_in, read
from trainer.engine.averaging import Averaging, ema, recalibrate, recent, swa
from trainer.lr import ConfigError, Horizon
from trainer.run import evaluate, fit

SMALL = (
    *("data.batch_size=32", "model.hidden=[16]", "model.dropout=0.3", "trainer.accumulate=2", "logger=none"),
    *("trainer.duration=20", "trainer.validate=6", "trainer.steps_per_execution=4", "trainer.keep=0"),
)
EMA = ("average=ema", "average.decay=0.8")
SWA = ("average=swa", "average.start=4", "average.every=3")
KINDS = {
    "schedule_free_adamw": ("optimizer=schedule_free_adamw",),
    "schedule_free_sgd": ("optimizer=schedule_free_sgd",),
    "schedule_free_radam": ("optimizer=schedule_free_radam",),
    "ema": EMA,
    "swa": SWA,
}


def small(kind, net="mlp"):
    """A run of 20 updates with an average, of a net without BatchNorm or with it."""
    if net == "mlp":
        return (*SMALL, *KINDS[kind])
    return (*[word for word in SMALL if not word.startswith("model")], "model=resnet9", "model.width=2", *KINDS[kind])


def trained(assembled, *overrides, folder="run", point=None):
    assembly = assembled(*overrides, folder=folder, resumed=point)
    fit(assembly)
    return assembly


def flat(tree, prefix=""):
    if isinstance(tree, dict):
        return {k: v for key, sub in tree.items() for k, v in flat(sub, f"{prefix}{key}/").items()}
    if isinstance(tree, list | tuple):
        return flat(dict(enumerate(tree)), prefix)
    return {prefix: tree}


STATE = ("state_dict", "optimizer_states", "averaging")


def same(first, second):
    """Whether the states in two checkpoints are the same to the bit."""
    one, other = (flat({part: read(path)[part] for part in STATE}) for path in (first, second))
    return one.keys() == other.keys() and all(
        torch.equal(a, other[k]) if isinstance(a, torch.Tensor) else a == other[k] for k, a in one.items()
    )


@pytest.mark.sample(3)
@pytest.mark.parametrize("net", ["mlp", "resnet9"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_resumed_from_any_checkpoint_even_a_best_one_keeps_the_same_bits(assembled, tmp_path, kind, net):
    overrides = (*small(kind, net), "trainer.checkpoint=5")
    whole = assembled(*overrides, folder="whole")
    save = whole.trainer.save_checkpoint

    def copying(path, *rest):
        save(path, *rest)
        shutil.copy(path, tmp_path / f"{whole.module.clock.t}-{path.name}")

    whole.trainer.save_checkpoint = copying
    fit(whole)
    for point in ("5-update-00000005.ckpt", "12-update-00000012.ckpt", "12-best.ckpt"):
        resumed = trained(assembled, *overrides, folder=f"from-{point}", point=tmp_path / point)
        assert len(checkpoints_in(resumed.checkpointing.folder)) >= 3
        for path in checkpoints_in(resumed.checkpointing.folder):
            assert same(whole.checkpointing.folder / path.name, path), f"{path.name} of a run resumed from {point}"
        assert same(whole.checkpointing.folder / BEST, resumed.checkpointing.folder / BEST)
        assert resumed.checkpointing.best == whole.checkpointing.best


@pytest.mark.sample(2)
@pytest.mark.parametrize("kind", KINDS)
def test_scoring_changes_no_bit_of_training(assembled, kind):
    ends = [
        trained(assembled, *small(kind, "resnet9"), f"trainer.validate={often}", folder=str(often)).checkpointing.folder
        for often in (20, 3)
    ]
    assert same(*(checkpoint_path(folder, 20) for folder in ends))


@pytest.mark.parametrize("kind", KINDS)
def test_validation_the_best_checkpoint_and_the_test_have_the_averaged_weights(assembled, kind):
    assembly = trained(assembled, *small(kind), "trainer.validate=20")
    folder, module = assembly.checkpointing.folder, assembly.module
    best, last = read(folder / BEST), read(checkpoint_path(folder, 20))
    raw = {name[4:]: value for name, value in last["state_dict"].items()}
    if kind in ("ema", "swa"):
        expected = last["averaging"]["mean"]
    else:
        beta = 0.9
        z = [part["z"] for part in last["optimizer_states"][0]["state"].values()]
        expected = {name: y + (1 - 1 / beta) * (end - y) for (name, y), end in zip(raw.items(), z)}
    for name, value in expected.items():
        assert torch.allclose(best["state_dict"][f"net.{name}"], value, rtol=1e-4, atol=1e-6)
        assert not torch.allclose(raw[name], value, rtol=1e-3, atol=1e-5)
    module.load_state_dict(best["state_dict"])
    module.net.eval()
    inputs, targets = assembly.data.splits.val.inputs, assembly.data.splits.val.targets
    loss = module.step.loss(module.net(inputs), targets).item()
    assert assembly.checkpointing.best["value"] == pytest.approx(loss, rel=1e-5)
    module.net.train()
    scores = evaluate(assembly)
    module.net.eval()
    source = assembly.data.splits.test
    loss = module.step.loss(module.net(source.inputs), source.targets).item()
    assert scores["loss"] == pytest.approx(loss, rel=1e-5)
    assert all(torch.equal(a, best["state_dict"][name]) for name, a in module.state_dict().items())


def seen_weights(assembled, *overrides):
    """A run, and its weights after each update."""
    assembly = assembled(*overrides)
    seen, take = [], assembly.module.averaging.take

    def watched(updates):
        seen.append([weight.detach().double() for weight in assembly.module.net.parameters()])
        assert len(seen) == updates
        take(updates)

    assembly.module.averaging.take = watched
    fit(assembly)
    return seen, read(checkpoint_path(assembly.checkpointing.folder, 20))["averaging"]


def test_ema_is_the_recursion_worked_out_by_hand(assembled):
    seen, state = seen_weights(assembled, *SMALL, *EMA, "average.start=25%", "average.every=2")
    mean, count = None, 0
    for n in range(5, 21, 2):
        d = min(0.8, (1 + count) / (10 + count))
        mean = seen[n - 1] if mean is None else [d * a + (1 - d) * w for a, w in zip(mean, seen[n - 1])]
        count += 1
    assert state["count"] == count == 8
    for ours, expected in zip(state["mean"].values(), mean):
        assert torch.allclose(ours.double(), expected, rtol=1e-5, atol=1e-7)


def test_without_its_ramp_ema_keeps_the_decay_from_the_start(assembled):
    seen, state = seen_weights(assembled, *SMALL, *EMA, "average.warmup=false")
    mean = seen[0]
    for weights in seen[1:]:
        mean = [0.8 * a + 0.2 * w for a, w in zip(mean, weights)]
    for ours, expected in zip(state["mean"].values(), mean):
        assert torch.allclose(ours.double(), expected, rtol=1e-5, atol=1e-7)


def test_swa_is_the_plain_mean_of_the_weights_at_its_updates(assembled):
    seen, state = seen_weights(assembled, *SMALL, *SWA)
    chosen = [seen[n - 1] for n in (4, 7, 10, 13, 16, 19)]
    assert state["count"] == 6
    for ours, *weights in zip(state["mean"].values(), *chosen):
        assert torch.allclose(ours.double(), torch.stack(weights).mean(0), rtol=1e-5, atol=1e-7)


def test_before_its_start_the_trained_weights_are_scored(assembled):
    late = trained(assembled, *SMALL, "average=ema", "average.start=13", folder="late")
    plain = trained(assembled, *SMALL, folder="plain")
    for t, equal in ((6, True), (12, True), (18, False)):
        scores = [
            read(checkpoint_path(run.checkpointing.folder, t))["callbacks"][run.checkpointing.state_key]["value"]
            for run in (late, plain)
        ]
        assert (scores[0] == scores[1]) == equal


def test_an_average_of_half_precision_weights_is_kept_in_single():
    net = nn.Linear(4, 4, bias=False).bfloat16()
    averaging = Averaging(net, ema(Horizon(1000, 1), decay=0.999, warmup=False))
    nn.init.ones_(net.weight)
    averaging.begin(torch.optim.SGD(net.parameters()))
    averaging.take(1)
    with torch.no_grad():
        net.weight.mul_(2)
    for t in range(2, 1001):
        averaging.take(t)
    assert averaging.mean["weight"].dtype == torch.float32
    assert averaging.mean["weight"][0, 0].item() == pytest.approx(2 - 0.999**999, rel=1e-4)


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(3), nn.Dropout(0.5)

    def forward(self, inputs):
        return self.norm(self.drop(inputs))


def test_recalibrated_statistics_are_the_means_over_the_batches_and_draw_nothing():
    net = Normed().train()
    batches = [3 * torch.randn(16, 3) + i for i in range(4)]
    state = torch.get_rng_state()
    recalibrate(net, batches, net)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.allclose(net.norm.running_mean, torch.stack([b.mean(0) for b in batches]).mean(0), atol=1e-6)
    assert torch.allclose(net.norm.running_var, torch.stack([b.var(0) for b in batches]).mean(0), atol=1e-5)
    assert net.norm.momentum == 0.1
    assert net.training
    assert net.norm.training
    assert net.drop.training


def test_scores_at_averaged_weights_use_statistics_of_recent_training_batches(assembled):
    overrides = small("ema", "resnet9")
    assembly = trained(assembled, *overrides, "average.recalibrate=5")
    best = read(assembly.checkpointing.folder / BEST)
    t = best["cadence"]["updates"]
    last = read(checkpoint_path(assembly.checkpointing.folder, t))
    net = copy.deepcopy(assembly.module.net)
    net.load_state_dict({name[4:]: value for name, value in best["state_dict"].items()})
    expected = {name: value.clone() for name, value in net.named_buffers()}
    assembly.module.clock.t = t
    batches = list(recent(assembly.data.train_dataloader(), assembly.module.clock, 5, lambda t: 2))
    assert len(batches) == 5
    assert assembly.module.clock.t == t
    recalibrate(net, batches, lambda batch: net(batch[0]))
    for name, value in net.named_buffers():
        assert torch.equal(value, expected[name])
        assert torch.equal(best["averaging"]["held"][name], last["state_dict"][f"net.{name}"])
    changed = [not torch.equal(value, last["state_dict"][f"net.{name}"]) for name, value in net.named_buffers()]
    assert all(changed[0::3])
    assert all(changed[1::3])


def test_the_recent_batches_are_the_last_updates_of_the_run_across_its_legs(assembled):
    assembly = assembled(*SMALL)
    updates, clock = [], assembly.module.clock
    while clock.t < 20:
        for block in assembly.data.train_dataloader():
            for one in block:
                updates.append([micro.batch[0] for micro in one])
                clock.t += 1
    clock.t = 19
    for count, expected in ((4, updates[17:19]), (14, updates[12:19]), (100, updates[:19])):
        seen = list(recent(assembly.data.train_dataloader(), clock, count, lambda t: 2))
        assert all(torch.equal(a[0], b) for a, b in zip(seen, sum(expected, []), strict=True))
        assert clock.t == 19


def test_with_no_validation_the_run_is_tested_with_its_averaged_weights(assembled):
    def run(folder, point=None):
        assembly = assembled(*small("ema", "resnet9"), folder=folder, resumed=point)
        assembly.data.val_dataloader = lambda: []
        fit(assembly)
        return assembly

    whole = run("whole")
    assert whole.checkpointing.best["update"] is None
    last = checkpoint_path(whole.checkpointing.folder, 20)
    for name, value in read(last)["averaging"]["mean"].items():
        assert torch.equal(dict(whole.module.net.named_parameters())[name], value)
    scores = evaluate(whole)
    assert evaluate(run("again", last)) == scores


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["optimizer=schedule_free_adamw", "schedule=cosine"], "in place of a schedule, .*take schedule=constant"),
        (["optimizer=schedule_free_sgd", "cooldown=linear"], "in place of a schedule"),
        (["optimizer=schedule_free_sgd", "plateau=count"], "plateau lowers the rate"),
        (["optimizer=schedule_free_sgd", "average=ema"], "averages its weights itself: take average=none"),
        (["average=ema", "average.decay=1.0"], "average.decay=1.0"),
        (["average=ema", "average.recalibrate=-1"], "average.recalibrate=-1"),
        (["average=swa", "average.start=20"], "average the weights after 1 of"),
        (["average=swa", "average.every=0"], "average.every=0"),
    ],
)
def test_what_does_not_go_with_an_average_is_refused_in_one_line(assembled, overrides, says):
    with pytest.raises(ConfigError, match=says) as refusal:
        assembled(*SMALL, *overrides)
    assert "\n" not in str(refusal.value)


def test_a_warm_up_and_groups_with_rates_of_their_own_go_with_a_schedule_free_optimizer(assembled):
    assembled(
        *SMALL, "optimizer=schedule_free_adamw", "warmup=linear", "warmup.duration=10", "optimizer.weight_decay=0.1"
    )


def test_a_swa_average_is_not_taken_for_an_ema(assembled):
    first = trained(assembled, *small("swa"), "trainer.checkpoint=5", folder="first")
    second = trained(assembled, *small("ema"), folder="second", point=checkpoint_path(first.checkpointing.folder, 10))
    assert read(checkpoint_path(second.checkpointing.folder, 20))["averaging"]["count"] == 10


def test_swa_takes_in_the_weights_it_starts_from():
    average = swa(Horizon(100, 1, 10), start="50%", every="1ep")
    assert (average.start, average.every) == (50, 10)
    assert [average.keep(k) for k in (1, 2, 3)] == [1 / 2, 2 / 3, 3 / 4]
