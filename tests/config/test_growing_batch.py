"""A run whose batch grows trains as planned, on the samples of the run without, and resumes to the bit."""

import itertools
import json
from dataclasses import replace

import pytest
import torch

from trainer.checkpoint.io import checkpoint_path, checkpoints_in, read
from trainer.cli.hydra_internals import VERSION_BASE
from trainer.config.batch_schedule import with_growing_batch
from trainer.config.resolve import horizon_of, plan_of
from trainer.config.run_summary import summary_of_run
from trainer.config.settings import settings_of
from trainer.engine.averaging import recent
from trainer.lr import ConfigError
from trainer.run import evaluate, fit

SMALL = (
    *("data=synthetic", "data.samples=200", "data.batch_size=4", "data.val_samples=20", "model.hidden=[8]"),
    *("model.dropout=0.2", "optimizer=momentum", "optimizer.lr=0.02", "schedule=multi_step", "schedule.gamma=0.3"),
    *("trainer.accumulate=2", "trainer.duration=4ep", "trainer.validate=1ep", "trainer.steps_per_execution=4"),
    *("trainer.keep=0", "logger=none"),
)
GROW = ("batch_schedule=grow", "batch_schedule.max_batch_size=64")


def end_of(assembly):
    (optimizer,) = assembly.trainer.optimizers
    state = {f"{i}.{key}": value for i, part in optimizer.state_dict()["state"].items() for key, value in part.items()}
    return {**assembly.module.state_dict(), **state}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def watched(assembly):
    """What each update trains with: its rates, its micro-batches, the clock at each validation."""
    rates, batches, scored = [], [], []
    configure, step, publish = (
        assembly.module.configure_optimizers,
        assembly.module.training_step,
        assembly.module.on_validation_end,
    )

    def optimizer():
        made = configure()
        made.register_step_post_hook(lambda opt, *_: rates.append([group["lr"] for group in opt.param_groups]))
        return made

    def training_step(block, batch_idx):
        batches.extend(block)
        step(block, batch_idx)

    def on_validation_end():
        scored.append(assembly.module.clock.t)
        publish()

    assembly.module.configure_optimizers = optimizer
    assembly.module.training_step = training_step
    assembly.module.on_validation_end = on_validation_end
    return rates, batches, scored


def test_every_update_has_the_planned_rate_and_batch_and_the_samples_are_those_of_the_run_without(assembled):
    """100 updates of 8: 50, then ⌈25 / 3⌉ = 9 of 24, which end at 77, then ⌈23 / 8⌉ = 3 of 64 at 0.09 · 8."""
    grown, plain = assembled(*SMALL, *GROW, folder="grown"), assembled(*SMALL, folder="plain")
    rates, batches, scored = watched(grown)
    _, reference, whole = watched(plain)
    fit(grown)
    fit(plain)
    horizon, policy = grown.module.horizon, grown.module.spec.policy
    assert horizon.total == grown.module.clock.t == 62
    assert rates == [policy.lrs(t) for t in range(62)]
    assert rates[0][0] == 0.02
    assert rates[58][0] == pytest.approx(0.02 * 0.9, rel=1e-12)
    assert rates[61][0] == pytest.approx(0.02 * 0.72, rel=1e-12)
    assert [4 * len(update) for update in batches] == [8] * 50 + [24] * 9 + [64] * 3
    assert [4 * len(update) for update in batches] == [policy.values(t)["batch_size"][0] for t in range(62)]
    flat = [micro for update in batches for micro in update]
    for ours, theirs in zip(flat, itertools.chain.from_iterable(reference)):
        assert ours.seed == theirs.seed
        assert torch.equal(ours.batch[0], theirs.batch[0])
    assert len(flat) == 2 * 101 == 2 * len(reference) + 2
    assert (scored, whole) == ([25, 50, 59, 62], [25, 50, 75, 100])
    assert set(evaluate(grown)) == set(evaluate(plain))


@pytest.mark.sample(1)
@pytest.mark.parametrize("average", [(), ("average=ema", "average.decay=0.9")])
def test_a_run_resumed_at_any_update_ends_with_the_same_bits(assembled, average):
    words = (*SMALL, *GROW, "trainer.checkpoint=1", *average)
    whole = assembled(*words, folder="whole")
    fit(whole)
    points = checkpoints_in(whole.folder / "checkpoints")
    assert [int(point.stem.rpartition("-")[2]) for point in points] == list(range(1, 63))
    for point in [points[t - 1] for t in ((50, 54, 58, 60) if average else (30, 49, 51, 56, 59, 61))]:
        resumed = assembled(*words, folder=f"from-{point.stem}", resumed=point)
        fit(resumed)
        assert same(end_of(resumed), end_of(whole)), point.stem
        assert resumed.module.clock.t == 62
        assert resumed.checkpointing.best == whole.checkpointing.best
        assert all(
            torch.equal(value, whole.module.averaging.mean[k]) for k, value in resumed.module.averaging.mean.items()
        )


def test_the_split_into_micro_batches_changes_no_more_than_rounding(assembled):
    """Two of 4, four of 2 and one of 8 are the same batches; without dropout, whose seeds are those of the slices."""
    ends = []
    for size, accumulate in ((4, 2), (2, 4), (8, 1)):
        given = {word.partition("=")[0]: word for word in (*SMALL, *GROW, "model.dropout=0.0")}
        given |= {
            "data.batch_size": f"data.batch_size={size}",
            "trainer.accumulate": f"trainer.accumulate={accumulate}",
        }
        assembly = assembled(*given.values(), folder=f"{size}")
        assembly.module.double()
        for source in assembly.data.splits[:2]:
            source.stored = (source.inputs.double(), source.targets)
        fit(assembly)
        ends.append(assembly.module.net.state_dict())
    for other in ends[1:]:
        assert all(torch.allclose(other[name], value, rtol=0, atol=1e-12) for name, value in ends[0].items())


def test_checkpoints_and_averages_fall_where_they_would_by_samples(assembled):
    """Every 16 samples times ten: at reference updates 20, 40, 60 and 80, which updates 20, 40, 54 and 60 reach."""
    words = ("trainer.checkpoint=160 samples", "average=swa", "average.start=50%", "average.every=10%")
    assembly = assembled(*SMALL, *GROW, *words, "trainer.validate=100%")
    fit(assembly)
    steps = [int(path.stem.rpartition("-")[2]) for path in checkpoints_in(assembly.folder / "checkpoints")]
    assert steps == [20, 40, 54, 60, 62]
    assert assembly.module.averaging.count == 6, "at 50, 60, … 100 % of the samples"


def test_an_average_weighs_the_samples_alike(assembled):
    """SWA at every reference update: weights after a batch of r starting batches count r times."""
    assembly = assembled(*SMALL, *GROW, "average=swa", "average.start=0%", "average.every=1", "average.recalibrate=0")
    module, seen = assembly.module, []
    take = module.averaging.take

    key = next(name for name in module.net.state_dict() if name.endswith("weight"))
    module.averaging.take = lambda updates: (
        seen.append((module.horizon.growth.ratio(updates - 1), module.net.state_dict()[key].double().clone())),
        take(updates),
    )
    fit(assembly)
    assert module.averaging.count == sum(ratio for ratio, _ in seen) == 101
    expected = sum(ratio * weight for ratio, weight in seen) / 101
    assert torch.allclose(module.averaging.mean[key].double(), expected, atol=1e-6)


def test_the_recent_batches_are_those_just_before_also_where_they_are_large(assembled):
    assembly = assembled(*SMALL, *GROW)
    micro_batches, clock = assembly.module.spec.micro_batches, assembly.module.clock
    order = assembly.data.train_dataloader().order
    for now, count, first in ((62, 10, 61), (60, 20, 58), (51, 7, 49), (3, 100, 0)):
        clock.t = now
        batches = list(recent(assembly.data.train_dataloader(), clock, count, micro_batches))
        picks = list(order.picks(first, now))[:count]
        assert clock.t == now
        assert len(batches) == len(picks)
        train = assembly.data.splits.train.inputs
        assert all(torch.equal(ours[0], train[pick.indices]) for ours, pick in zip(batches, picks))


def test_throughput_and_time_left_count_the_samples(assembled, monkeypatch):
    from trainer.log.progress import Stage

    assembly = assembled(*SMALL, *GROW)
    spec = assembly.module.spec
    assert spec.mean_batch([48, 49, 50, 51]) == 16.0
    assert spec.mean_batch([60, 61]) == 64.0
    monkeypatch.setattr("trainer.log.progress.monotonic", lambda: 50.0)
    stage = Stage("train", 62, 0.0, 0, 50, worth=assembly.module.horizon.growth.at)
    assert (stage.count, stage.percentage, stage.remaining) == ("50/62", " (50 %)", 51.0)


def test_blocks_of_large_batches_have_fewer_updates(assembled):
    assembly = assembled(*SMALL, *GROW)
    _, batches, _ = watched(assembly)
    sizes = []
    step = assembly.module.training_step

    def training_step(block, batch_idx):
        sizes.append(sum(map(len, block)))
        step(block, batch_idx)

    assembly.module.training_step = training_step
    fit(assembly)
    assert len(batches) == 62
    assert max(sizes) == 2 * 8, "an update of eight starting batches has more than four updates of one"
    assert set(sizes[-3:]) == {16}


def test_data_that_gives_another_batch_than_planned_stops_the_run(assembled):
    assembly = assembled(*SMALL, *GROW)
    assembly.data._loop = replace(assembly.data._loop, stages=[(0, 1), (50, 2)])
    with pytest.raises(RuntimeError, match="update 50 has 4 micro-batches where 6 are planned"):
        fit(assembly)


def test_the_plan_of_a_run_says_where_the_batch_grows_and_every_update_logs_it(assembled):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = [word for word in SMALL if word != "logger=none"]
    assembly = assembled(*words, *GROW)
    summary = summary_of_run(assembly.resolved)
    assert summary["batches"][1:] == [
        {"update": 50, "samples": 400, "batch": 24, "schedule": pytest.approx(0.9)},
        {"update": 59, "samples": 616, "batch": 64, "schedule": pytest.approx(0.72)},
    ]
    assert (summary["total_updates"], summary["epochs"]) == (62, 4.0)
    json.dumps(summary)
    fit(assembly)
    assembly.trainer.logger.close()
    events = EventAccumulator(str(assembly.folder), size_guidance={"scalars": 0}).Reload()
    assert [point.value for point in events.Scalars("hyper_schedule/batch_size")] == [8.0] * 50 + [24.0] * 9 + [
        64.0
    ] * 3


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["batch_schedule.max_batch_size=32"], "batch_schedule.max_batch_size 64 → 32"),
        (["batch_schedule.max_batch_size=32", "resume.policy=override"], "keeps its curve, without a resume.policy"),
        (["trainer.duration=8ep", "resume.policy=stretch"], "updates 100 → 200"),
        (["optimizer.lr=0.1", "resume.policy=override"], "optimizer.lr 0.02 → 0.1"),
        (["resume.policy=rewarm"], "leave out resume.policy=rewarm"),
        (["resume.policy=branch_cooldown"], "leave out resume.policy=branch_cooldown"),
        (["batch_schedule=none"], "batch_schedule.max_batch_size 64 → None"),
        (["trainer.accumulate=1", "resume.policy=continue"], "global batch 8 → 4"),
    ],
)
def test_a_resume_with_another_growth_is_refused_in_one_line(assembled, first, words, says):
    given = {word.partition("=")[0]: word for word in (*SMALL, *GROW, *words)}
    if "batch_schedule=none" in words:
        del given["batch_schedule.max_batch_size"]
    with pytest.raises(ConfigError) as refusal:
        assembled(*given.values(), folder="other", resumed=first)
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A checkpoint of a run whose batch has grown."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from tests.conftest import QUIET, ROOT
    from trainer.cli.run_id import register_run_id
    from trainer.run import assemble

    register_run_id()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), **VERSION_BASE):
        cfg = compose("train", [*QUIET, *SMALL, *GROW, "trainer.checkpoint=55%"])
    assembly = assemble(cfg, tmp_path_factory.mktemp("first"))
    fit(assembly)
    path = checkpoint_path(assembly.checkpointing.folder, 52)
    assert read(path)["cadence"]["updates"] == 52
    return path


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["+group_schedule.no_decay={schedule: constant}"], "group no_decay has its own schedule"),
        (["schedule=cosine"], "batch_schedule: the schedule is not made of stairs"),
        (["cooldown=linear"], "cooldown=none"),
        (["batch_schedule.max_batch_size=60"], "batch_schedule: max_batch_size=60 is not a multiple of 8"),
        (["batch_schedule.max_batch_size=4"], "lies below the starting batch of 8"),
        (["batch_schedule.max_batch_size=8"], "max_batch_size=8 is the starting batch, so it never grows"),
        (["schedule.gamma=0.9"], "falls to 0.81 of its first stair"),
        (["warmup=linear", "warmup.duration=60%"], "first falls at update 110, and the last update is 99"),
        (["batch_schedule.max_batch_size=208"], "more than the 200 samples of an epoch"),
        (["batch_schedule.exponent=2"], "exponent=2"),
    ],
)
def test_what_cannot_grow_is_refused_before_anything_is_trained(assembled, words, says):
    given = {word.partition("=")[0]: word for word in (*SMALL, *GROW, *words)}
    given = {key: word for key, word in given.items() if "cosine" not in str(words) or key != "schedule.gamma"}
    with pytest.raises(ConfigError) as refusal:
        assembled(*given.values())
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_plateau_lowers_the_rate_and_not_the_batch(assembled):
    words = ("plateau=count", "plateau.patience=0", "plateau.threshold=10.0", "plateau.threshold_mode=abs")
    assembly = assembled(*SMALL, *GROW, *words, "plateau.factor=0.5")
    rates, batches, scored = watched(assembly)
    fit(assembly)
    policy = assembly.module.spec.policy
    assert [len(update) // 2 for update in batches] == [1] * 50 + [3] * 9 + [8] * 3
    assert scored == [25, 50, 59, 62]
    assert rates[61][0] == pytest.approx(0.25 * policy.lr(61), rel=1e-12)


def test_adascale_is_refused_for_it_changes_the_clock_too(compose):
    length = horizon_of(settings_of(compose(*SMALL, *GROW)))
    cfg = compose(*SMALL, *GROW, "scaling=adascale", f"scaling.base_batch_size={length.batch_size}")
    with pytest.raises(ConfigError, match="batch_schedule and scaling=adascale both"):
        with_growing_batch(settings_of(cfg).curve, plan_of(settings_of(compose(*SMALL))).policy, length)
