"""A resumed run with an edited config: each of 51 edits does what its policy says, or is refused; none is silent."""

import itertools
import math
from dataclasses import replace

import pytest

from trainer.checkpoint.io import checkpoints_in, read
from trainer.cli.hydra_internals import VERSION_BASE
from trainer.config.resolve import horizon_of, plan_of, policy_of_longer
from trainer.config.run_summary import summary_of_run
from trainer.config.settings import settings_of
from trainer.lr import ConfigError
from trainer.resume.curve_history import curve_history, first_segment
from trainer.run import assemble, fit

SMALL = (
    *("data=synthetic", "data.samples=64", "data.batch_size=4", "data.val_samples=8", "model.hidden=[4]"),
    *("logger=none", "trainer.checkpoint=10", "trainer.validate=40", "trainer.keep=0", "trainer.steps_per_execution=5"),
    *("schedule=linear", "warmup=linear", "warmup.duration=8", "optimizer.lr=0.1", "lint.ignore=[last-lr]"),
)
AT, TOTAL = 20, 40


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run of 40 updates with a checkpoint at each tenth."""
    folder = tmp_path_factory.mktemp("first")
    assembly = assemble(config(), folder)
    fit(assembly)
    return folder, assembly.module.spec.policy


def config(*overrides):
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from tests.conftest import QUIET, ROOT
    from trainer.cli.run_id import register_run_id

    register_run_id()
    GlobalHydra.instance().clear()
    given = {override.partition("=")[0]: override for override in (*QUIET, *SMALL, "trainer.duration=40", *overrides)}
    with initialize_config_dir(str(ROOT / "conf"), **VERSION_BASE):
        return compose("train", list(given.values()))


def resumed(first, folder, *overrides, at=AT):
    """The policy of a run that goes on from update `at`, with what it applied."""
    path = next(path for path in checkpoints_in(first[0] / "checkpoints") if path.stem.endswith(f"{at:08d}"))
    assembly = assemble(config(f"resume.path={path}", *overrides), folder, path)
    seen = []
    configure = assembly.module.configure_optimizers

    def watched():
        optimizer = configure()
        optimizer.register_step_post_hook(lambda opt, *_: seen.append([group["lr"] for group in opt.param_groups]))
        return optimizer

    assembly.module.configure_optimizers = watched
    fit(assembly)
    return assembly, seen


def ramp(t, width):
    return min((t + 1) / width, 1.0)


def line(t, left, width=8):
    return ramp(t, width) * (1 - max(t - width, 0) / (left - width))


def half_cosine(t, left):
    return ramp(t, 8) * (1 + math.cos(math.pi * max(t - 8, 0) / (left - 8))) / 2


def cooled(t, left):
    begin = left - left // 5
    return line(t, left) if t <= begin else line(begin, left) * (left - t) / (left - begin)


# What is edited; whether the curve itself is kept; and by hand the new curve over a run of `left` updates.
EDITS = [
    (["trainer.duration=80"], True, lambda t, left: 0.1 * line(t, left)),
    (["trainer.duration=30"], True, lambda t, left: 0.1 * line(t, left)),
    (["optimizer.lr=0.05"], False, lambda t, left: 0.05 * line(t, left)),
    (["schedule=cosine"], False, lambda t, left: 0.1 * half_cosine(t, left)),
    (["warmup.duration=4"], False, lambda t, left: 0.1 * line(t, left, 4)),
    (["trainer.duration=80", "optimizer.lr=0.05"], False, lambda t, left: 0.05 * line(t, left)),
    (["cooldown=linear"], False, lambda t, left: 0.1 * cooled(t, left)),
    (["warmup_mode=overlay"], False, lambda t, left: 0.1 * ramp(t, 8) * (1 - t / left)),
]
POLICIES = (None, "continue", "stretch", "rewarm", "branch_cooldown", "override")
KEEP = ("continue", "stretch", "branch_cooldown")
CASES = list(itertools.product(EDITS, POLICIES))


@pytest.mark.sample(16)
@pytest.mark.parametrize(("edit", "policy"), CASES, ids=[f"{' '.join(edit[0])} {policy}" for edit, policy in CASES])
def test_an_edited_config_does_what_its_policy_says_or_is_refused(first, tmp_path, edit, policy):
    overrides, kept, curve = edit
    chosen = [*overrides, *([f"resume.policy={policy}"] if policy else [])]
    if policy is None or (policy in KEEP and not kept):
        with pytest.raises(ConfigError) as refusal:
            resumed(first, tmp_path, *chosen)
        assert "→" in str(refusal.value)
        assert "\n" not in str(refusal.value)
        return
    assembly, seen = resumed(first, tmp_path, *chosen)
    total, plan = assembly.module.horizon.total, assembly.module.spec.policy
    assert seen == [plan.lrs(t) for t in range(AT, total)]
    expected = [by_definition(policy, first[1].lr, curve, t, total) for t in range(AT, total)]
    assert [lrs[0] for lrs in seen] == pytest.approx(expected, rel=1e-12, abs=1e-15)


def by_definition(policy, old, curve, t, total):
    """The rate of update `t` from the definition of each policy alone; `old` is the curve of the first run."""
    if policy == "continue":
        return old(t)
    if policy == "stretch":  # as `old`, every duration in it as many times as long
        return 0.1 * line(t, total, 8 * total // TOTAL)
    if policy == "branch_cooldown":
        return old(AT) * (1 - math.sqrt((t - AT) / (total - AT)))
    return curve(t, total) if policy == "override" else curve(t - AT, total - AT)


BATCH = ["data.batch_size=8", "trainer.duration=20"]


def test_another_batch_without_a_policy_is_refused(first, tmp_path):
    with pytest.raises(ConfigError, match=r"global batch 4 → 8"):
        resumed(first, tmp_path, *BATCH)


def test_with_another_batch_the_curve_goes_on_at_each_sample(first, tmp_path):
    assembly, seen = resumed(first, tmp_path, *BATCH, "resume.policy=continue")
    assert assembly.module.horizon.total == 20
    assert [lrs[0] for lrs in seen] == [first[1].lr(2 * t) for t in range(10, 20)]


def test_another_batch_may_override_the_curve(first, tmp_path):
    _, seen = resumed(first, tmp_path, *BATCH, "resume.policy=override")
    assert [lrs[0] for lrs in seen] == pytest.approx([0.1 * line(t, 20) for t in range(10, 20)], rel=1e-12)


def test_there_are_fifty_one_edits():
    assert len(CASES) + 3 == 51


def test_a_checkpoint_between_two_updates_of_the_new_batch_is_refused(first, tmp_path):
    with pytest.raises(ConfigError, match="not whole updates of 12"):
        resumed(first, tmp_path, "data.batch_size=12", "trainer.duration=20", "resume.policy=override", at=10)


def test_a_run_resumed_again_goes_on_with_the_curve_that_its_first_resume_made(first, tmp_path):
    words = ("trainer.duration=80", "optimizer.lr=0.05", "resume.policy=rewarm")
    once, seen = resumed(first, tmp_path, *words)
    path = next(path for path in checkpoints_in(tmp_path / "checkpoints") if path.stem.endswith("50"))
    for again in (words, words[:2]):
        second = assemble(config("resume.path=x", *again), tmp_path / "again", path).module.spec
        assert [second.policy.lrs(t) for t in range(80)] == [once.module.spec.policy.lrs(t) for t in range(80)]
        assert len(second.origin["curve_history"]) == 2
    assert seen[30:] == [second.policy.lrs(t) for t in range(50, 80)]


def test_a_cooldown_branches_off_any_checkpoint_of_a_first_run(first, tmp_path):
    for at in (10, 20, 30):
        _, seen = resumed(
            first, tmp_path / f"{at}", f"trainer.duration={at + 10}", "resume.policy=branch_cooldown", at=at
        )
        high = first[1].lr(at)
        assert [lrs[0] for lrs in seen] == pytest.approx([high * (1 - math.sqrt(k / 10)) for k in range(10)], rel=1e-12)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["resume.policy=forget"], "resume.policy=forget is not known"),
        (["resume.policy=branch_cooldown", "trainer.duration=20"], "has no update left"),
        (["resume.policy=rewarm", "trainer.duration=10"], "has no update left"),
        (["resume.policy=branch_cooldown", "resume.floor=0.9"], "floor=0.9 lies above"),
        (["resume.policy=branch_cooldown", "resume.shape=steep"], "shape='steep'"),
        (["resume.policy=override", "trainer.duration=15", "lint.ignore=[unreached]"], "has all 20 updates"),
        (["resume.policy=stretch", *BATCH], "take continue or override"),
    ],
)
def test_a_policy_that_cannot_be_followed_is_refused(first, tmp_path, overrides, says):
    with pytest.raises(ConfigError, match=says):
        resumed(first, tmp_path, *overrides)


def test_a_policy_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="has nothing to resume"):
        assemble(config("resume.policy=rewarm"), tmp_path)


def test_an_edit_that_leaves_the_curve_alone_is_told_and_kept_in_the_next_checkpoint(first, tmp_path, capsys):
    assembly, _ = resumed(first, tmp_path, "trainer.clip=0.5", "optimizer.betas=[0.8,0.99]")
    told = capsys.readouterr().err
    assert "from there on trainer.clip: None → 0.5" in told
    saved = read(checkpoints_in(tmp_path / "checkpoints")[-1])["cadence"]
    assert (saved["config"]["trainer"]["clip"], len(saved["curve_history"])) == (0.5, 1)
    assert assembly.module.updater.treatment.clip == 0.5
    again = ("trainer.clip=0.5", "optimizer.betas=[0.8,0.99]", "trainer.keep=3")
    later, _ = resumed((tmp_path,), tmp_path / "later", *again, "trainer.duration=50", "resume.policy=stretch", at=40)
    edits = [{"update": AT, "changed": {"optimizer.betas": [[0.9, 0.999], [0.8, 0.99]], "trainer.clip": [None, 0.5]}}]
    assert saved["edits"] == later.resolved.edits == edits
    assert summary_of_run(later.resolved)["edits"] == edits


def test_a_scheduled_setting_starts_from_the_present_number(first, tmp_path):
    tied = ("hyper_schedule=weight_decay_tied", "resume.policy=override")
    first, _ = resumed(first, tmp_path / "first", *tied, "optimizer.weight_decay=0.1")
    path = checkpoints_in(tmp_path / "first" / "checkpoints")[0]
    again = assemble(config("resume.path=x", *tied, "optimizer.weight_decay=0.3"), tmp_path / "again", path)
    policies = (first.module.spec.policy, again.module.spec.policy)
    before, now = (policy.values(30)["weight_decay"][0] for policy in policies)
    assert now == pytest.approx(3 * before, rel=1e-12)


@pytest.fixture(scope="module")
def stable(tmp_path_factory):
    """A warm-up, stable, decay run of 40 updates whose decay begins at 32."""
    folder = tmp_path_factory.mktemp("stable")
    assembly = assemble(config("schedule=wsd", "warmup.duration=16"), folder)
    fit(assembly)
    return folder, assembly.module.spec.policy


def test_a_cooldown_branches_off_a_stable_first_run_to_an_end_before_its_own_decay(stable, tmp_path):
    words = ("schedule=wsd", "warmup.duration=16", "resume.policy=branch_cooldown", "trainer.duration=28")
    _, seen = resumed(stable, tmp_path, *words)
    assert [lrs[0] for lrs in seen] == pytest.approx([0.1 * (1 - math.sqrt(k / 8)) for k in range(8)], rel=1e-12)


def test_a_cooldown_that_branches_off_within_the_warmup_never_rises(stable, tmp_path):
    words = ("schedule=wsd", "warmup.duration=16", "resume.policy=branch_cooldown", "trainer.duration=30")
    _, seen = resumed(stable, tmp_path, *words, at=10)
    rates = [lrs[0] for lrs in seen]
    assert rates[0] == pytest.approx(0.1 * 11 / 16, rel=1e-12)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates))


def test_a_table_that_was_edited_is_another_curve(tmp_path):
    table = tmp_path / "curve.csv"
    table.write_text("t,value\n0,1.0\n10,0.5\n")
    words = ("schedule=table", f"schedule.path={table}")
    fit(assemble(config(*words), tmp_path / "run"))
    path = checkpoints_in(tmp_path / "run" / "checkpoints")[1]
    assemble(config("resume.path=x", *words), tmp_path / "same", path)
    table.write_text("t,value\n0,1.0\n10,0.05\n")
    with pytest.raises(ConfigError, match=r"schedule.content .* → "):
        assemble(config("resume.path=x", *words), tmp_path / "other", path)


def test_a_larger_batch_needs_a_folder_of_its_own(first):
    path = checkpoints_in(first[0] / "checkpoints")[-1]
    words = ("resume.path=x", "data.batch_size=8", "trainer.duration=40", "resume.policy=continue")
    with pytest.raises(ConfigError, match="give the run another name"):
        assemble(config(*words), first[0], path)


def test_a_curve_that_counts_single_updates_cannot_be_stretched(tmp_path):
    words = ("schedule=exponential", "schedule.gamma=0.9")
    fit(assemble(config(*words), tmp_path / "run"))
    path = checkpoints_in(tmp_path / "run" / "checkpoints")[1]
    longer = ("resume.path=x", *words, "trainer.duration=80", "resume.policy=stretch")
    with pytest.raises(ConfigError, match="counts in updates"):
        assemble(config(*longer), tmp_path / "longer", path)


@pytest.mark.parametrize(
    ("words", "policy"),
    [
        ((), "stretch"),
        (("schedule=exponential", "schedule.gamma=0.9"), "rewarm"),
        (
            (
                "schedule=step",
                "schedule.every=16",
                "schedule.gamma=0.5",
                "warmup=hold",
                "batch_schedule=grow",
                "batch_schedule.max_batch_size=16",
            ),
            None,
        ),
        (("scaling=adascale", "scaling.base_batch_size=4", "trainer.accumulate=2"), None),
    ],
)
def test_the_policy_for_a_longer_run_is_one_that_its_resume_takes(tmp_path, words, policy):
    assert policy_of_longer(assemble(config(*words), tmp_path).resolved) == policy


def test_a_run_that_was_resumed_with_another_curve_is_not_said_to_stretch(first, tmp_path):
    assembly, _ = resumed(first, tmp_path, "optimizer.lr=0.05", "resume.policy=override")
    assert policy_of_longer(assembly.resolved) == "rewarm"
    path = checkpoints_in(tmp_path / "checkpoints")[-1]
    longer = ("resume.path=x", "optimizer.lr=0.05", "trainer.duration=80", "resume.policy=rewarm")
    assemble(config(*longer), tmp_path / "longer", path)


def test_a_stretched_curve_is_stretched_again():
    totals, ats = (TOTAL, 2 * TOTAL, 3 * TOTAL), (0, AT, 4 * AT)
    settings = [settings_of(config(f"trainer.duration={total}")) for total in totals]
    segments = [first_segment(one.record, horizon_of(one)) for one in settings]
    for segment, at in zip(segments, ats):
        segment |= {"samples": at * settings[0].global_batch, "rule": "stretch" if at else None}
    once, twice = (plan_of(settings[i], history=segments[: i + 1]).curve for i in (1, 2))
    assert list(twice[: ats[2]]) == list(once[: ats[2]])
    by_hand = [0.1 * line(t, 3 * TOTAL, 8 * 3) for t in range(ats[2], 3 * TOTAL)]
    assert list(twice[ats[2] :]) == pytest.approx(by_hand, rel=1e-12, abs=1e-15)
    saved = {"curve_history": segments[:2], "updates": ats[2], "batch_size": settings[0].global_batch}
    record, resume = settings[2].record, replace(settings[2].resume, path="x", policy="stretch")
    assert [one["rule"] for one in curve_history(record, resume, horizon_of(settings[2]), saved)][1:] == ["stretch"] * 2
    segments[1]["rule"] = "override"
    with pytest.raises(ConfigError, match="no resume has changed but by stretch"):
        curve_history(record, resume, horizon_of(settings[2]), saved)


def planned(rule, before, now, at=AT):
    """The plan of a run that goes on by a rule from update `at` of another, of which nothing is trained."""
    first, second = (settings_of(config(*overrides)) for overrides in (before, now))
    segments = [first_segment(one.record, horizon_of(one)) for one in (first, second)]
    return plan_of(second, history=[segments[0], {**segments[1], "rule": rule, "samples": at * first.global_batch}])


def test_with_another_batch_a_curve_that_continues_has_the_peak_that_the_rule_gives_it():
    rule = ["scaling=linear", "scaling.base_batch_size=4", "schedule=constant"]
    rates = planned("continue", rule, [*rule, "data.batch_size=8", "trainer.duration=20"]).curve
    assert list(rates) == pytest.approx([0.1 * ramp(2 * t, 8) for t in range(AT // 2)] + [0.2] * (20 - AT // 2))


def test_a_branch_is_refused_where_another_scheduled_setting_differs_before_it():
    decay = ["hyper_schedule=weight_decay_cosine"]
    assert planned("branch", decay, [*decay, "trainer.validate=20"])
    with pytest.raises(ConfigError, match="resume.policy=branch: the curves differ at update"):
        planned("branch", decay, [*decay, "hyper_schedule.weight_decay.of=linear"])


def test_a_cooldown_that_branches_off_cools_groups_with_a_schedule_of_their_own():
    own = ["+group_schedule.no_decay=constant"]
    rates = planned("branch_cooldown", own, own).curves
    assert {name: values[-1] < 0.05 * values[AT] for name, values in rates.items()} == {"decay": True, "no_decay": True}
    assert all(a >= b for values in rates.values() for a, b in itertools.pairwise(values[AT:]))
