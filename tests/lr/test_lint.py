"""Every rule fires on a curve made for it and is silent on healthy ones; what may be ignored is named."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from trainer.config.resolve import plan_of
from trainer.config.settings import settings_of
from trainer.lr import (
    ConfigError,
    Convention,
    Horizon,
    HyperSchedule,
    LRPolicy,
    Plan,
    Warmup,
    compose,
    constant,
    constant_warmup,
    cosine,
    grow,
    grown,
    hard_restarts,
    linear,
    linear_warmup,
    lint,
    mirrored,
    multi_step,
    no_warmup,
    one_cycle,
    radam_warmup,
    restarts,
    step,
    tied,
    wsd,
)
from trainer.lr.schedule import annotate

OPTIONS = sorted(
    path.stem for path in (Path(__file__).parents[2] / "conf" / "schedule").glob("*.yaml") if path.stem != "function"
)
TOLD = {  # all that lint says of the options as they are, and it is right each time:
    "exponential": {"last-lr"},  # its rate per update does little to a run as short as this
    "natural_exponential": {"last-lr"},
    "inverse_sqrt": {"last-lr"},  # a curve for runs without an end: a cooldown is missing
    "noam": {"last-lr"},
    "noam_hold": {"last-lr"},
    "power_law": {"last-lr"},
}


def plan(schedule=cosine, warmup=no_warmup, total=200, warmup_mode="prefix", convention=None, **more):
    run = Horizon(total, 1)
    read = replace(run, convention=convention) if convention else run
    made = LRPolicy(more.pop("lr", 0.1), more.pop("scale", 1.0), *compose(read, warmup, schedule, warmup_mode), **more)
    return Plan(made, run)


def growing(most, epoch, **more):
    """A plan of stairs whose batch grows from 1 to `most` samples."""
    run = Horizon(300, 1, epoch and 10 * epoch)
    before = LRPolicy(0.1, 1.0, *compose(run, no_warmup, step))
    growth = grow(run, before.schedule, max_batch_size=most, **more)
    return Plan(grown(before, growth, 1), run.grown(growth))


def raw(factor, **more):
    """A plan of a plain function of t."""
    return plan(lambda h: factor, **more)


def ramp(duration, start=0.0):
    return lambda h: linear_warmup(h, duration=duration, start=start)


def found(made, **known):
    return [finding.rule for finding in lint.lint(made, **known)]


FIRES = [
    ("zero-lr", lambda: raw(lambda t: 0.0 if t == 5 else 1.0)),
    ("zero-lr", lambda: plan(warmup=ramp("10%"), convention=Convention(ramp="t/W"))),
    ("zero-lr", lambda: plan(groups={"all": 1.0, "head": 1.0}, own={"head": lambda t: float(t > 0)})),
    ("last-lr", lambda: plan(lambda h: linear(h, floor=0.25))),
    ("last-lr", lambda: plan(lambda h: step(h, every="60%", gamma=0.5))),
    ("last-lr", lambda: raw(lambda t: 0.3 + 0.001 * (t - 100) ** 2 / 100)),  # down and up again to its peak
    ("rises-after-end", lambda: raw(lambda t: 1.0 - t / 200 if t < 200 else 0.1)),
    ("rises-after-end", lambda: raw(lambda t: 0.05 if 150 < t < 1990 else 1.0)),
    ("rises-after-end", lambda: raw(lambda t: 0.1 * (1.0 if t < 200 else 1.0 + 1e-6))),  # however little
    ("unreached", lambda: plan(lambda h: multi_step(h, milestones=[100, 200]))),
    ("unreached", lambda: plan(lambda h: multi_step(h, milestones=[30, 60, 90]), total=50)),
    ("unreached", lambda: raw(annotate(lambda t: 1.0, knots=[200]))),
    ("long-warmup", lambda: plan(warmup=ramp("31%"))),
    ("long-warmup", lambda: plan(warmup=lambda h: radam_warmup(h, beta2=0.999))),
    ("floor-above-group", lambda: raw(lambda t: 1.0 + t / 200)),
    ("floor-above-group", lambda: plan(groups={"all": 1.0, "head": 0.1}, own={"head": lambda t: 3.0 if t else 1.0})),
    ("jump", lambda: raw(lambda t: 1.0 if t < 100 else 0.2)),
    ("jump", lambda: raw(lambda t: 0.2 if t % 40 < 20 else 1.0)),
    ("jump", lambda: raw(lambda t: 1.0 if t % 2 else 0.1)),
    ("jump", lambda: raw(lambda t: 1.0 if t < 199 else 0.0)),
    ("betas-overwritten", lambda: plan(hyper_schedules={"momentum": HyperSchedule(mirrored(Horizon(200, 1)), [0.9])})),
    (
        "betas-overwritten",
        lambda: plan(hyper_schedules={"beta2": HyperSchedule(lambda t, base, share: base - 0.01 * share, [0.999])}),
    ),
    ("huge-lr", lambda: plan(lr=1001.0)),
    ("huge-lr", lambda: plan(lr=1.0, scale=100.0, groups={"all": 1.0, "head": 11.0})),
    ("short-cycle", lambda: plan(lambda h: restarts(h, first=60, length_mult=2.0))),
    ("short-cycle", lambda: raw(annotate(lambda t: 1.0, ends=[70, 140]))),
    ("large-batch", lambda: growing(100, epoch=99)),
    ("large-batch", lambda: growing(100, epoch=None, noise_batch=99)),
    ("adaptive-gain", lambda: plan(most_gain=8.0, adaptive=("optimizer",))),
]


@pytest.mark.parametrize(("rule", "make"), FIRES)
def test_a_rule_fires_on_a_curve_made_for_it_and_says_so_in_one_line_with_numbers(rule, make):
    findings = [finding for finding in lint.lint(make()) if finding.rule == rule]
    assert len(findings) == 1
    message = findings[0].message
    assert any(character.isdigit() for character in message)
    assert "\n" not in message
    assert ": " in message
    assert message.endswith(".")


@pytest.mark.parametrize(
    "make",
    [
        lambda: plan(constant),
        lambda: plan(warmup=ramp("10%")),
        lambda: plan(warmup=ramp("30%")),
        lambda: plan(warmup=ramp(1)),
        lambda: plan(warmup=ramp(1), convention=Convention(ramp="(t+1)/(W+1)")),
        lambda: plan(linear, ramp("5%", start=0.1), warmup_mode="overlay"),
        lambda: plan(lambda h: linear(h, floor=0.19)),
        lambda: plan(lambda h: step(h, every="30%"), warmup=ramp("10%")),
        lambda: plan(lambda h: hard_restarts(h, cycles=4, floor=0.01), convention=Convention(early=1)),
        lambda: plan(wsd, lambda h: constant_warmup(h, duration="5%")),
        lambda: plan(one_cycle),
        lambda: plan(groups={"all": 1.0, "frozen": 0.0}),
        lambda: plan(hard_restarts, total=20),  # steep, but no jump
        lambda: raw(lambda t: max(0.05, 1.0 - t / 105) if t < 150 else 0.001),  # a factor of 50, of next to nothing
        lambda: plan(lr=1000.0),
        lambda: plan(hyper_schedules={"weight_decay": HyperSchedule(tied(Horizon(200, 1)), [0.1])}),
        lambda: plan(hyper_schedules={"momentum": HyperSchedule(lambda t, base, share: base, [0.9])}),
        lambda: raw(annotate(lambda t: 1.0 if t < 100 else 0.1, jumps=[100])),
        lambda: plan(most_gain=8.0),
        lambda: plan(most_gain=1.0, adaptive=("optimizer",)),
    ],
)
def test_nothing_is_found_on_a_healthy_curve(make):
    assert found(make()) == []


@pytest.fixture
def composed(request):
    return request.getfixturevalue("compose")


@pytest.mark.parametrize("name", OPTIONS)
def test_every_schedule_as_it_is_has_no_error_and_only_the_warnings_that_it_deserves(composed, tmp_path, name):
    file = tmp_path / "table.json"
    file.write_text(json.dumps([[0, 1.0], [100, 0.1]]))
    more = [f"schedule.path={file}"] if name == "table" else []
    cfg = composed(f"schedule={name}", "warmup=linear", *more)
    for total in (200, 10007):
        cfg.trainer.duration = total
        assert set(found(plan_of(settings_of(cfg)))) == TOLD.get(name, set())


def test_one_finding_is_made_for_each_schedule_and_names_its_group_where_there_are_several():
    same = plan(lambda h: linear(h, floor=0.5), groups={"all": 1.0, "head": 0.1})
    assert [finding.message.partition(",")[0] for finding in lint.lint(same)] == ["the last learning rate"]
    own = {"head": lambda t: 1.0 - t / 400}
    apart = plan(groups={"all": 1.0, "head": 0.1}, own=own)
    assert [finding.message.partition(",")[0] for finding in lint.lint(apart)] == [
        "the last learning rate of group head"
    ]


def test_a_frozen_group_is_not_looked_at():
    own = {"frozen": lambda t: 9.0 * (t + 1)}
    assert found(plan(groups={"all": 1.0, "frozen": 0.0}, own=own)) == []


@pytest.mark.parametrize("groups", ["gradual_unfreezing", "backbone_head"])
def test_a_group_that_is_frozen_for_a_while_may_be_at_0_until_then_and_not_after_it(composed, groups):
    frozen = ["groups.freeze=2ep"] if groups == "backbone_head" else []
    cfg = composed(f"groups={groups}", *frozen, "warmup=linear", "schedule=cosine", "trainer.duration=10ep")
    assert found(plan_of(settings_of(cfg))) == []
    cfg = composed(f"groups={groups}", *frozen, "schedule=triangular", "schedule.floor=0", "trainer.duration=10ep")
    assert "zero-lr" in found(plan_of(settings_of(cfg)))


@pytest.mark.parametrize(
    ("monitor", "logged", "fires"),
    [
        (None, ["val/loss"], False),
        ("val/loss", None, False),
        ("val/loss", ["val/loss"], False),
        ("val/los", ["val/loss", "val/accuracy"], True),
        ("val/loss", [], True),
    ],
)
def test_a_metric_that_shall_lower_the_rate_must_be_logged(monitor, logged, fires):
    findings = lint.lint(plan(), monitor=monitor, logged=logged)
    assert [(finding.rule, finding.level) for finding in findings] == [("monitor", "error")] * fires
    if fires:
        assert ("choose one of val/loss, val/accuracy" if logged else "never validates") in findings[0].message


def test_check_refuses_the_first_error_and_says_how_to_train_anyway():
    wrong = plan(lambda h: multi_step(h, milestones=[100, 300]))
    with pytest.raises(
        ConfigError, match=r"^lint unreached: .* 300 .* 199.*\(lint\.ignore=\[unreached\] trains anyway\)$"
    ):
        lint.check(wrong, [])
    assert lint.check(wrong, ["unreached"]) == []
    with pytest.raises(ConfigError, match="lint monitor: "):
        lint.check(plan(), [], monitor="val/loss", logged=[])


def test_check_returns_the_warnings_that_are_not_ignored():
    made = plan(lambda h: restarts(h, first=60))
    assert [line.partition(":")[0] for line in lint.check(made, [])] == ["last-lr", "short-cycle"]
    assert [line.partition(":")[0] for line in lint.check(made, ["last-lr"])] == ["short-cycle"]


@pytest.mark.parametrize(
    ("ignore", "said"),
    [(["last_lr"], "did you mean last-lr?"), (["x"], "choose from zero-lr, "), ("jump", r"write lint.ignore=\[jump\]")],
)
def test_a_rule_to_ignore_that_there_is_not_is_refused(ignore, said):
    with pytest.raises(ConfigError, match=said):
        lint.check(plan(), ignore)


def test_errors_come_first():
    levels = [finding.level for finding in lint.lint(plan(lambda h: restarts(h, first=60), lr=2000.0))]
    assert levels == sorted(levels) == ["error", "warning", "warning"]


def test_the_table_of_the_rules_is_complete():
    rows = [line.split(" | ") for line in lint.__doc__.splitlines() if line.startswith("| ") and "---" not in line][1:]
    assert {row[0].removeprefix("| ") for row in rows} == set(lint.RULES) == {rule for rule, _ in FIRES} | {"monitor"}
    levels = {row[0].removeprefix("| "): row[1] for row in rows}
    for rule, make in FIRES:
        assert {finding.level for finding in lint.lint(make()) if finding.rule == rule} == {levels[rule]}


def test_a_warmup_that_never_ends_is_told_with_how_far_it_comes():
    slow = Plan(LRPolicy(0.1, 1.0, Warmup(0, lambda t: (t + 1) / 1000), lambda t: 1.0), Horizon(100, 1))
    told = {finding.rule: finding.message for finding in lint.lint(slow)}
    assert "0.03 after 30% of the run, at update 30" in told["long-warmup"]
