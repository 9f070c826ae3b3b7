"""AdaScale: the gain is the papers', the curve is read at ⌊τ⌋, τ ends the run, and a resume keeps the bits."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.distributed import worlds
from tests.measure.adascale_ranks import as_rank, train
from tests.resume.test_resume import end_of, same
from trainer.checkpoint.io import checkpoints_in
from trainer.config.run_summary import format_run, summary_of_run, write_result
from trainer.config.settings import settings_of
from trainer.engine.clock import Clock
from trainer.engine.gradient_treatment import GradientTreatment
from trainer.lr import ConfigError
from trainer.lr.scaling_adascale import adascale_scaling, gain_smoothing
from trainer.lr.scaling_noise import critical_scaling
from trainer.measure.adascale import AdaScale, AdaScaleObserver
from trainer.run import evaluate, fit
from trainer.tools.plan import tables
from trainer.tools.plan.command import planned

SMALL = (
    *("data=digits", "data.batch_size=8", "trainer.accumulate=8", "model.hidden=[16]", "model.dropout=0.2"),
    *("optimizer=momentum", "schedule=cosine", "warmup=none", "trainer.duration=120", "trainer.validate=10"),
    *("trainer.steps_per_execution=7", "scaling=adascale", "scaling.base_batch_size=16"),
)
"""S = 4 base batches in 8 micro-batches."""
positives = st.floats(1e-3, 1e6)


@given(square=positives, trace=positives, base=st.integers(1, 1000), batch=st.integers(1, 10**6))
def test_the_gain_is_the_ratio_of_the_optimal_rates_for_any_rational_multiple(square, trace, base, batch):
    batch = max(base, batch)
    trace = max(trace, 1e-6 * base)
    gain = AdaScale(batch / base, base, 0.0).gain(square, trace)
    assert gain == pytest.approx(critical_scaling(batch, base, noise_batch=trace / square), rel=1e-12)


@given(square=st.floats(-1e9, 1e9), trace=st.floats(-1e9, 1e9), multiple=st.floats(1, 1e4), base=st.integers(1, 10**4))
def test_the_gain_lies_between_1_and_s_whatever_was_measured(square, trace, multiple, base):
    gain = AdaScale(multiple, base, 0.0).gain(square, trace)
    assert 1.0 <= gain <= multiple
    assert multiple > 1 or gain == 1.0


def fed(chosen, sizes, rows):
    """The gains that a pace gives over updates with these norms, and its clock."""
    control, clock = SimpleNamespace(gain=1.0), Clock()
    pace = AdaScaleObserver(chosen, sizes, clock, control)
    pace.micro_gradients, gains = SimpleNamespace(), [control.gain]
    for t, row in enumerate(rows):
        pace.micro_gradients.squares = torch.tensor(row, dtype=torch.float64)[:, None]
        pace.after(t)
        gains.append(control.gain)
    return gains, clock


ROWS = [(5.0, 1.4), (4.5, 2.2), (6.0, 0.4), (5.5, 1.9), (3.0, 2.9)]


def test_the_gain_is_that_of_the_paper_where_each_micro_batch_is_a_base_batch():
    """Johnson et al.: sigma² and mu² from S gradients, with means of weight theta, debiased; r of the first is 1."""
    s, theta, sigma, mu, weight, expected = 4, 0.7, 0.0, 0.0, 0.0, [1.0]
    for small, big in ROWS:
        variance = s / (s - 1) * (small - big)
        sigma, mu = theta * sigma + variance, theta * mu + big - variance / s
        weight = theta * weight + 1
        var, square = max(sigma / weight, 1e-6), max(mu / weight, 0.0)
        expected.append((var + square) / (var / s + square))
    gains, clock = fed(AdaScale(4.0, 10, 0.7), (10, 40), ROWS)
    assert gains == pytest.approx(expected, rel=1e-12)
    assert clock.tau == pytest.approx(sum(gains[:-1]), rel=1e-12)


@pytest.mark.parametrize(("multiple", "count"), [(2.5, 5), (3.0, 2), (1.5, 12)])
def test_the_gain_is_right_where_the_micro_batches_are_no_base_batches(multiple, count):
    """The general form: count micro-batches of B/count samples stand for S base batches."""
    for small, big in ROWS:
        variance = (multiple / count) * count / (count - 1) * (small - big)  # of a base batch
        square = big - variance / multiple
        var, square = max(variance, 1e-6), max(square, 0.0)
        expected = (var + square) / (var / multiple + square)
        gains, _ = fed(AdaScale(multiple, 120, 0.0), (int(120 * multiple / count), int(120 * multiple)), [(small, big)])
        assert gains[1] == pytest.approx(expected, rel=1e-12)


def test_theta_is_that_of_the_paper_unless_it_is_given():
    assert [gain_smoothing(s) for s in (1, 8, 1000, 5000)] == [0.999, 0.992, 0.0, 0.0]
    assert gain_smoothing(8, 0.5) == 0.5


def scalars(assembly):
    for logger in assembly.trainer.loggers:
        logger.save()
    events = EventAccumulator(str(assembly.folder), size_guidance={"scalars": 0}).Reload()
    return {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.fixture(scope="module")
def module_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("adascale")


def watched(assembly):
    """A fit; for each update (⌊τ⌋, gain, plateau, rates that the optimizer used, norms of micro-batches)."""
    seen, module = [], assembly.module
    configure = module.configure_optimizers

    def read(optimizer, *_):
        rates = [group["lr"] for group in optimizer.param_groups]
        recorder = module.updater.micro_gradients
        seen.append((math.floor(module.clock.tau), module.control.gain, module.control.plateau, rates,
                     recorder and recorder.squares[:, 0].tolist(), module.clock.tau))  # fmt: skip

    def make():
        optimizer = configure()
        optimizer.register_step_post_hook(read)
        return optimizer

    module.configure_optimizers = make
    fit(assembly)
    return seen


def test_each_update_uses_the_curve_at_floor_tau_times_the_gain_of_the_updates_before_it(assembled):
    assembly = assembled(
        *SMALL, "plateau=count", "plateau.patience=1", "plateau.threshold=0.5", "warmup=linear", "warmup.duration=1ep"
    )
    seen, policy = watched(assembly), assembly.module.spec.policy
    assert policy.warmup.updates == 1257 // 16
    assert len({plateau for _, _, plateau, *_ in seen}) > 1
    for at, gain, plateau, rates, *_ in seen:
        assert rates == policy.lrs(at, plateau, gain)
        assert rates == [math.prod(policy.explain(at, name, plateau, gain).values()) for name in policy.groups]
        assert policy.explain(at, None, plateau, gain)["scale"] == gain
    gains, clock = fed(AdaScale(4.0, 16, 0.996), (8, 64), [squares for *_, squares, _ in seen])
    assert gains[:-1] == [gain for _, gain, *_ in seen]
    assert clock.tau == assembly.module.clock.tau
    assert len(set(gains)) > 20
    assert all(1 <= gain <= 4 for gain in gains)


def test_tau_ends_the_run_inside_a_block_after_a_validation_and_all_of_it_is_logged(assembled):
    assembly = assembled(*SMALL)
    seen, clock = watched(assembly), assembly.module.clock
    assert 120 / 4 <= clock.t < 120
    assert len(seen) == clock.t
    assert seen[-1][5] < 120 <= clock.tau
    assert all(clock.t % length for length in (7, 10)), "the end is neither of a block nor of a leg"
    log = scalars(assembly)
    steps = list(range(clock.t))
    gains, places = ([value for _, value in log[f"adascale/{name}"]] for name in ("gain", "tau"))
    assert [step for step, _ in log["adascale/gain"]] == steps
    assert gains == pytest.approx([gain for _, gain, *_ in seen], rel=1e-6)
    assert places == pytest.approx([tau for *_, tau in seen], rel=1e-6)
    assert [value for _, value in log["x_lr_factors/decay/scale"]] == gains
    assert [value for _, value in log["lr/decay"]] == pytest.approx([row[3][0] for row in seen], rel=1e-6)
    assert [step for step, _ in log["val/loss"]] == [*range(9, clock.t, 10), clock.t - 1]
    assert assembly.checkpointing.best["update"] is not None
    assert checkpoints_in(assembly.checkpointing.folder)[-1].name == f"update-{clock.t:08d}.ckpt"


def test_the_same_batch_has_a_gain_of_1_and_the_bits_of_no_scaling(assembled):
    one = assembled(*SMALL, "scaling.base_batch_size=64", folder="one")
    none = assembled(*SMALL, "scaling=none", "scaling.base_batch_size=64", folder="none")
    seen = watched(one)
    fit(none)
    assert {gain for _, gain, *_ in seen} == {1.0}
    assert one.module.updater.micro_gradients is None
    assert one.module.clock.t == none.module.clock.t == 120
    assert same(end_of(one), end_of(none))


def test_without_adascale_and_the_noise_scale_nothing_is_measured(assembled):
    assembly = assembled(*SMALL, "scaling=none", "trainer.duration=3", "trainer.validate=3")
    fit(assembly)
    assert (
        assembly.module.updater.micro_gradients is assembly.module.updater.observer is assembly.module.clock.tau is None
    )


def test_a_run_resumed_at_any_update_ends_with_the_same_bits_and_logs_the_same(assembled):
    more = ("measure=noise", "measure.noise=0.9", "average=ema", "average.scaled=true", "plateau=count")
    whole = assembled(*SMALL, *more, "trainer.checkpoint=1", "trainer.keep=0", folder="whole")
    fit(whole)
    points, expected, log = checkpoints_in(whole.checkpointing.folder), end_of(whole), scalars(whole)
    assert len(points) == whole.module.clock.t
    noise = [tag for tag in log if tag.startswith("noise_scale/")]
    assert len(noise) == 9
    for point in (points[0], points[9], points[16], points[-2]):
        resumed = assembled(*SMALL, *more, folder=point.stem, resumed=point)
        fit(resumed)
        start = int(point.stem[-8:])
        assert same(end_of(resumed), expected), point.stem
        assert (resumed.module.clock.t, resumed.module.clock.tau) == (whole.module.clock.t, whole.module.clock.tau)
        again = scalars(resumed)
        for tag in ("adascale/gain", "adascale/tau", "lr/decay", *noise):
            assert again.get(tag, []) == [row for row in log[tag] if row[0] >= start], f"{tag} from {start}"


def test_a_run_that_only_lacks_its_test_is_tested_and_one_that_is_done_is_refused(assembled):
    first = assembled(*SMALL)
    fit(first)
    expected, last = evaluate(first), checkpoints_in(first.checkpointing.folder)[-1]
    again = assembled(*SMALL, folder="again", resumed=last)
    fit(again)
    assert len(again.trainer.optimizers) == 0
    assert again.module.clock == first.module.clock
    assert evaluate(again) == expected
    (again.folder / "result.json").write_text(json.dumps({"status": "completed"}))
    with pytest.raises(ConfigError, match=f"has all {first.module.clock.t} updates"):
        assembled(*SMALL, folder="again", resumed=last)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["optimizer.lr=0.01"], "optimizer.lr 0.05 → 0.01"),
        (["trainer.duration=240"], "updates 120 → 240"),
        (["scaling.smoothing=0.5"], "scaling.smoothing"),
        (["scaling.base_batch_size=32"], "global batch 16 → 32"),
        (["trainer.accumulate=4"], "gains of batches of 64 samples, not of 32"),
        (["optimizer.lr=0.01", "resume.policy=override"], "optimizer.lr 0.05 → 0.01"),
        (["resume.policy=rewarm"], "resume.policy=rewarm"),
        (["scaling=linear", "scaling.base_batch_size=16"], "scaling=adascale a run keeps its curve"),
    ],
)
def test_a_resume_that_changes_the_curve_is_refused_in_one_line(assembled, module_folder, compose, overrides, says):
    from trainer.run import assemble

    if not checkpoints_in(module_folder / "checkpoints"):
        fit(assemble(compose(*SMALL, "trainer.checkpoint=10", "trainer.keep=0"), module_folder))
    with pytest.raises(ConfigError, match=says) as refusal:
        assembled(*SMALL, *overrides, folder="other", resumed=checkpoints_in(module_folder / "checkpoints")[0])
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["scaling.base_batch_size=65"], "global batch of 64 is below scaling.base_batch_size=65"),
        (["scaling.base_batch_size=null"], "base_batch_size is not set"),
        (["scaling.base_batch_size=0"], "base_batch_size"),
        (["scaling.base_batch_size=nan"], "base_batch_size"),
        (["scaling.base_batch_size=2.5"], "base_batch_size"),
        (["scaling.smoothing=1.0"], "scaling.smoothing=1.0"),
        (["scaling.smoothing=-0.1"], "scaling.smoothing=-0.1"),
        (["trainer.accumulate=1", "data.batch_size=64"], "set trainer.accumulate=2"),
        (["trainer.sam=0.05"], "trainer.sam"),
        (["data.samples=1257", "data.batch_size=200"], "larger than the 1257 training samples"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(assembled, overrides, says):
    with pytest.raises(ConfigError, match=says) as refusal:
        assembled(*SMALL, *overrides)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("what", ["scaling=adascale", "measure=noise"])
def test_scaled_gradients_and_sharded_ones_cannot_be_measured(what):
    from trainer.config.adascale_config import check_measurable

    fine = {"world": 1, "accumulate": 2, "gradients": GradientTreatment(), "precision": "bf16-mixed", "strategy": "ddp"}
    check_measurable(what, SimpleNamespace(**fine))
    for wrong in (
        {"precision": "16-mixed"},
        {"strategy": "fsdp"},
        {"accumulate": 1},
        {"gradients": GradientTreatment(sam=0.1)},
    ):
        with pytest.raises(ConfigError, match=what):
            check_measurable(what, SimpleNamespace(**{**fine, **wrong}))


def test_plan_and_table_count_scale_invariant_iterations_and_the_result_counts_updates(assembled, compose):
    plan = planned(settings_of(compose(*SMALL, "trainer.duration=2ep")))
    assert plan.horizon.total == 2 * (1257 // 16) == len(plan.curve)
    head = tables.format_head(plan)
    assert "T = 156 scale-invariant iterations of 16 samples, 78 an epoch, in 39 to 156 updates" in head
    assembly = assembled(*SMALL, "trainer.duration=2ep")
    told = dict(format_run(summary_of_run(assembly.resolved)))
    assert told["global batch"].startswith("64 = 8 per device")
    assert told["scaling"] == "adascale, κ = 4, S = 4, a gain from 1 to S at each update"
    assert told["updates"].startswith("between 39 and 156, until T = 156 scale-invariant iterations of 16 samples")
    assert assembly.warnings == []
    assert list(assembly.module.spec.policy.lrs(5)) == [curve[5] for curve in plan.curves.values()]
    fit(assembly)
    write_result(assembly, {"status": "completed", "test": {}}, 1.0)
    result = json.loads((assembly.folder / "result.json").read_text())
    assert result["updates"] == assembly.module.clock.t < 156 <= result["scale_invariant_iterations"]


@pytest.mark.parametrize(
    ("words", "whose"),
    [
        *[((f"optimizer={name}",), "optimizer") for name in ("adamw", "rmsprop", "adagrad", "lion", "ranger")],
        (("optimizer=muon", "model.hidden=[8,8]"), "groups.optimizer"),
        *[((f"optimizer={name}",), None) for name in ("sgd", "momentum", "nesterov")],
        (("optimizer=adamw", "scaling.base_batch_size=64"), None),
        (("optimizer=adamw", "scaling=sqrt"), None),
    ],
)
def test_the_plan_warns_of_a_gain_for_an_optimizer_that_divides_by_second_moments(compose, words, whose):
    """AdaScale is derived for SGD: for Adam's kind the gain is too much, and nothing else would say so."""
    given = {word.partition("=")[0]: word for word in (*SMALL, "data.samples=1257", *words)}
    plan = planned(settings_of(compose(*given.values())))
    told = [line for line in tables.format_findings(plan, []) if "adap" in line]
    assert len(told) == (whose is not None)
    if whose:
        assert f"warning  adaptive-gain: scaling=adascale multiplies the rate of {whose}, which divides" in told[0]


def test_percent_epochs_and_milestones_count_updates_of_the_base_batch(compose):
    step = ("schedule=multi_step", "schedule.milestones=[1ep,'1600 samples',75%]")
    plan = planned(settings_of(compose(*SMALL, *step, "trainer.duration=2ep")))
    assert [t for t, _ in plan.milestones()] == [78, 100, 117]


@pytest.mark.slow
def test_on_two_processes_a_resumed_run_ends_with_the_same_bits_and_as_on_one(tmp_path):
    alone = train(tmp_path / "alone", "data.batch_size=16", "trainer.accumulate=4")
    assert worlds.run(2, as_rank, tmp_path) == [0, 0]
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first[1] == first[0]
    assert 60 / 4 <= first[0]["updates"] < 60 <= first[0]["tau"]
    assert first[0]["updates"] == alone["updates"]
    assert first[0]["tau"] == pytest.approx(alone["tau"], rel=1e-3)
    assert first[0]["noise"] == pytest.approx(alone["noise"], rel=0.02)


def test_a_rule_called_from_python_gives_the_first_gain():
    assert adascale_scaling(256, base_batch_size=100) == 1.0
