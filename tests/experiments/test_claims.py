"""The claims of the experiments: frozen thresholds, expressions, and verdicts that follow the numbers."""

import math
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from experiments import run
from experiments.claims import WORDS, evaluated, flat, judged, judged_all, with_values
from experiments.record import NotReproduced, check
from experiments.results import Results, Trial, trial_of
from trainer.cli.hydra_internals import VERSION_BASE
from trainer.cli.run_id import register_run_id
from trainer.config.settings import settings_of
from trainer.lr import ConfigError
from trainer.tools.report.runs import Run

FROZEN = {
    "adam_sqrt": [*[("at_most", 0.6), ("at_most", 0.35), ("at_most", 0.35), ("at_most", 0.6), ("at_least", 0.05)] * 2],
    "adascale": [
        *[("at_most", 1.15), ("at_least", 1.15), ("at_least", 1.5), ("at_least", 1), ("at_most", 1), ("at_least", 1),
          ("at_most", 1), ("at_most", 0.35)] * 2,
        ("at_most", 1.15), ("at_most", 0.05), ("between", [3580, 3580]),
    ],
    "goyal": [
        *[("at_least", 1.1), ("at_least", 1.1), ("at_least", 1.2), ("at_least", 1.2)] * 2,
        ("at_least", 1.1), *[("at_least", 1.05), ("at_most", 1.1)] * 2,
    ],
    "increase_batch": [
        *[("at_most", 0.05), ("at_most", 1.0)] * 2, ("at_most", 0.55), ("at_most", 0.08), ("at_most", 0.08),
        ("at_most", 0.02),
    ],
    "large_batch": [
        ("at_least", 0.5), ("at_least", 0), ("at_most", 0.3), ("at_most", 1.0), ("at_most", 1.0), ("at_least", 0),
    ],
    "schedules": [
        ("at_least", 1.3), ("at_most", 1.15), ("at_most", 1.0), ("at_most", 1.15), ("at_most", 1.15), ("at_most", 0.55),
    ],
    "super_convergence": [("at_least", 0.5), ("at_most", 0.7), ("at_least", 0), ("at_most", 0.5)],
    "warmup": [*[("at_least", 2.0), ("at_least", 2.0), ("between", [0.7, 1.5]), ("at_least", 2.0)] * 2],
}  # fmt: skip
"""Relation and threshold of every claim, as they were fixed before the first full runs."""
KINDS = {
    "adam_sqrt": "1100n" * 2, "adascale": "1" * 16 + "011", "goyal": "1110" * 2 + "0" + "nnnn",
    "increase_batch": "1111100n", "large_batch": "11110n", "schedules": "11100n", "super_convergence": "1110",
    "warmup": "1110" * 2,
}  # fmt: skip
"""1 for a claim, 0 for a control, n for a note."""
ARMS = {
    "adam_sqrt": 19, "adascale": 20, "goyal": 12, "increase_batch": 5, "large_batch": 19, "schedules": 48,
    "super_convergence": 13, "warmup": 76,
}  # fmt: skip
"""How many runs each seed has."""


@pytest.mark.parametrize("name", run.names())
def test_every_threshold_is_the_one_that_was_frozen(name):
    claims = list(flat(run.read(name).claims))
    assert [(key, one[key]) for one in claims for key in ("at_most", "at_least", "between") if key in one] == FROZEN[
        name
    ]
    marks = {"claim": "1", "control": "0", "note": "n"}
    assert "".join(marks[one.get("kind", "claim")] for one in claims) == KINDS[name]


def jobs_of(words):
    """The overrides of each job of a sweep, as the product's own sweeper makes them."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from hydra_plugins.grid_sweeper import GridSweeper

    zipped = [word.partition("=")[2].strip("[]").split(",") for word in words if word.startswith("hydra.sweeper.zip")]
    plain = [word for word in words if not word.startswith("hydra.")]
    parsed = OverridesParser.create().parse_overrides(plain)
    return GridSweeper(zipped, None, None).split_arguments(parsed, None)[0]


def sweeps_of(name, experiment, folder):
    """Each sweep with the overrides of its jobs, where the best rates of earlier sweeps are given."""
    for sweep in experiment.sweeps:
        jobs = sweep.jobs.replace("{best one cycle}", "0.8").replace("{best steps}", "0.2")
        words = run.command(name, experiment, jobs, folder, seeds=1, jobs=1)[3:]
        assert shlex.split(shlex.join(words)) == words
        yield sweep, jobs_of(words)


@pytest.fixture
def composed():
    """The config of a job."""
    register_run_id()
    with initialize_config_dir(str(run.ROOT / "conf"), **VERSION_BASE):
        yield lambda words: compose("train", words)


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", run.names())
def test_every_arm_composes(name, tmp_path, composed):
    experiment, count = run.read(name), 0
    for _, made in sweeps_of(name, experiment, tmp_path):
        count += len(made)
        cfg = composed(made[-1])
        assert cfg.callbacks.training_set._target_ == "experiments.callbacks.TrainingSet"
        assert str(cfg.trainer.validate) == (experiment.curve or str(cfg.trainer.duration))
    assert count == ARMS[name]


VALUES = {
    "test_error": 0.1, "val_error": 0.1, "updates": 10.0, "seconds": 1.0, "gain_least": 1.0, "gain_most": 3.0,
    "gain_first": 1.5, "gain_last": 2.5, "share_most": 0.9, "share_first": 0.3, "updates_share": 0.5,
    "updates_share_s": 2.0,
}  # fmt: skip
CURVE = tuple((1024 * i, 1 / i) for i in range(1, 31))


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", run.names())
def test_every_claim_note_and_column_has_a_value_where_all_arms_have_run(name, tmp_path, composed):
    experiment, trials = run.read(name), []
    for sweep, jobs in sweeps_of(name, experiment, tmp_path):
        for words in jobs:
            plan = {}
            if {"kappa", "global_batch"} & set(re.findall(r"\w+", sweep.arm)):
                settings = settings_of(composed(words))
                base = settings.curve.scaling.get("base_batch_size")
                plan = {"global_batch": settings.global_batch, "kappa": settings.global_batch / base if base else None}
            job = Run(
                0, name, tmp_path, "completed", "", (*words, "seed=0"), {}, {}, {"updates": 1, "seconds": 1}, plan
            )
            loss = 0.02 + 0.001 * len(trials)
            made = replace(trial_of(job, sweep.arm, experiment.tuned), curve=tuple((x, y + loss) for x, y in CURVE))
            trials.append(replace(made, values={**VALUES, "train_loss": loss}))
    found = run.judged_claims(experiment, run.results(experiment, trials), {})
    assert all(math.isfinite(one.measured) for one in found.claims)
    [table] = found.more["tables"]
    assert all(cell for row in table["rows"] for cell in row)
    assert "{" not in "".join(found.more["notes"])


@pytest.mark.parametrize(
    ("one", "passed", "word"),
    [
        (judged("x", 1.0, "at_most", 1.0), True, "pass"),
        (judged("x", 1.1, "at_most", 1.0), False, "FAIL"),
        (judged("x", math.nan, "at_most", 1.0), False, "FAIL"),
        (judged("x", math.inf, "at_least", 1.0), True, "pass"),
        (judged("x", 0.9, "at_least", 1.0, kind="control"), True, "fails, as it must"),
        (judged("x", 1.0, "at_least", 1.0, kind="control"), False, "HOLDS, BUT MUST NOT"),
        (judged("x", math.nan, "at_least", 1.0, kind="control"), False, "HOLDS, BUT MUST NOT"),
        (judged("x", 2.0, "between", (0.7, 1.5)), False, "FAIL"),
        (judged("x", 0.7, "between", (0.7, 1.5)), True, "pass"),
        (judged("x", 0.0, "at_least", 1.0, kind="note"), True, "not reproduced"),
        (judged("x", 1.0, "at_least", 1.0, kind="note"), True, "seen"),
    ],
)
def test_a_verdict_passes_where_a_claim_holds_and_where_a_control_fails(one, passed, word):
    assert (one.is_as_it_must, one.outcome) == (passed, word)


def test_a_claim_that_fails_or_a_control_that_holds_is_an_error():
    good, bad = judged("good", 0.0, "at_most", 1.0), judged("bad", 2.0, "at_most", 1.0)
    held = judged("held", 0.0, "at_most", 1.0, kind="control")
    check("trial", [good])
    for wrong in (bad, held):
        with pytest.raises(NotReproduced, match=f"trial: 1 of 2 not as claimed: {wrong.text}"):
            check("trial", [good, wrong])


def trials(losses, x=None):
    """Trials of an arm for each seed, by arm."""
    return [
        Trial(arm, seed, x, {"train_loss": loss, "test_error": 0.1, "updates": 10.0})
        for arm, own in losses.items()
        for seed, loss in enumerate(own)
    ]


GOYAL = {
    "none 16": 0.37, "linear 16": 0.37, "none 256": 0.66, "sqrt 256": 0.555, "linear 256": 0.466, "gradual 256": 0.497,
    "constant 256": 0.582, "none 512": 0.774, "sqrt 512": 0.616, "linear 512": 0.542, "gradual 512": 0.561,
    "constant 512": 0.732,
}  # fmt: skip


@pytest.mark.parametrize(
    ("planted", "wrong"),
    [
        ({}, []),
        ({"linear 256": 0.53}, ["batch 256: square root / linear", "batch 256: constant warm-up / no warm-up"]),
        ({"gradual 512": 0.7}, ["batch 512: gradual warm-up / no warm-up"]),
        ({"none 16": 0.5}, ["batch 16: none / linear"]),
        ({"sqrt 512": math.inf}, ["batch 512: none / square root"]),
        ({"none 256": math.inf, "sqrt 256": math.inf}, ["batch 256: none / square root"]),
    ],
)
def test_a_planted_number_fails_just_the_claims_that_it_belies(planted, wrong):
    found = Results(trials({arm: [loss, loss] for arm, loss in {**GOYAL, **planted}.items()}))
    experiment = run.read("goyal")
    claims = judged_all(experiment.claims, experiment.source, found.functions)
    assert [one.text for one in claims if not one.is_as_it_must] == wrong


def test_a_tuned_arm_stands_for_its_best_and_a_rate_trains_below_a_loss():
    grid = {0.1: 0.3, 0.2: 0.05, 0.4: 0.08, 0.8: math.inf}
    made = [one for x, loss in grid.items() for one in trials({"a": [loss, loss, 9.0]}, x)]
    found = Results(made, summary="median")
    assert (found.best("a"), found.value("train_loss", "a"), found.largest("a", below=0.1)) == (0.2, 0.05, 0.4)
    assert found.value("train_loss", "a", at=0.4) == 0.08
    assert math.isnan(found.value("train_loss", "a", at=0.3))
    assert found.largest("a", below=0.01) == 0
    assert math.isnan(evaluated("1 / largest('a', below=0.01)", found.functions))


def test_runs_that_an_arm_does_not_tell_apart_are_refused():
    done = {"updates": 1, "seconds": 1.0}
    job = Run(0, "0", Path("0"), "completed", overrides=("scaling=sqrt", "seed=0"), result=done, plan={"kappa": 2.0})
    assert trial_of(job, "{scaling} {kappa}", "").arm == "sqrt 2"
    with pytest.raises(ConfigError, match="arm '{scalin}': scalin is no override of 0 and not in its plan.json"):
        trial_of(job, "{scalin}", "")
    with pytest.raises(ConfigError, match="arm 'a' has seed 0 twice at 0.5"):
        Results(trials({"a": [1.0, 2.0]}, 0.5) + trials({"a": [3.0]}, 0.5))


def test_a_distance_is_the_mean_of_logarithms_at_the_same_samples():
    curves = {
        "base": ((8, 1.0), (16, 0.5)),
        "near": ((8, 2.0), (16, 0.25)),
        "cut": ((8, 1.0),),
        "off": ((8, 1.0), (9, 1)),
    }
    found = Results([Trial(arm, 0, None, {}, curve) for arm, curve in curves.items()])
    assert found.distance("near", "base") == pytest.approx(math.log(2))
    assert found.distance("cut", "base") == found.distance("off", "base") == math.inf
    assert found.curves_apart("near", "base", 1, 2) == 1.0
    assert found.curves_apart("cut", "base", 1, 2) == math.inf


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("__import__('os').getcwd()", "is not known in an expression"),
        ("open('x')", "is not known in an expression"),
        ("train_loss.real", "is not known in an expression"),
        ("2 ** 3", "is not known in an expression"),
        ("train_loss('a'", "has no value"),
        ("train_loss()", "has no value"),
        ("train_loss('b')", "'b' is not an arm: the arms are a"),
        ("least('train_loss', 'b*')", "no arm fits 'b"),
    ],
)
def test_an_expression_that_is_none_is_refused(text, says):
    with pytest.raises(ConfigError, match=says):
        evaluated(text, Results(trials({"a": [1.0]})).functions)


def test_notes_hold_values():
    assert (
        with_values("it is {train_loss('a') * 2:.1f}, {kept}", Results(trials({"a": [1.0]})).functions)
        == "it is 2.0, {kept}"
    )


@pytest.mark.parametrize(
    ("claim", "says"),
    [
        ({"says": "x", "value": "1"}, "one of at_most, at_least, between"),
        ({"says": "x", "value": "1", "at_most": 1, "at_least": 2}, "one of at_most, at_least, between"),
        ({"says": "x", "at_most": 1}, "give says, value"),
        ({"says": "x", "value": "1", "atmost": 1}, "atmost is not known"),
        ({"says": "x", "value": "1", "at_most": 1, "kind": "hope"}, f"choose from {', '.join(WORDS)}"),
    ],
)
def test_a_claim_with_a_mistake_is_refused(claim, says):
    with pytest.raises(ConfigError, match=says):
        list(flat([claim]))
