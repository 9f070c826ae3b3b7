"""The tune as a person runs it: real trainings, files, what is reused, what fails, and one line for a mistake."""

import json
import math
import os
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from trainer.cli.compose import compose_config
from trainer.config.settings import settings_of
from trainer.config.variants import for_tuning
from trainer.distributed.launch.folder_lock import FolderLock
from trainer.lr import ConfigError
from trainer.run import fit
from trainer.tools.report import command as report
from trainer.tools.tune import command as tune
from trainer.tools.tune import members, steps
from trainer.tools.tune.axes import axes_of
from trainer.tools.tune.members import Member, Members
from trainer.tools.tune.start import Start

CPU = ("trainer.accelerator=cpu", "trainer.threads=1")
SMALL = (*CPU, "model.hidden=[16]", "trainer.duration=200", "trainer.validate=200", "logger=none")
TEXT = Path(os.environ.get("CADENCE_DATA", "")) / "tinyshakespeare" / "input.txt"


def losses(numbers):
    """The losses of all trainings, by length, values and seed."""
    return {
        (stage["updates"], *one["values"], one["seed"]): one["cost"]
        for stage in numbers["stages"]
        for one in stage["trainings"]
    }


def test_the_rate_of_digits(tuned):
    out, numbers = tuned(*SMALL, "optimizer=adamw", "--budget", "20%")
    low, high = numbers["intervals"][0]
    rate = numbers["values"][0]
    assert 0.003 < rate < 0.3
    assert low is None or low < rate
    assert high is None or high > rate
    assert numbers["override"] == [f"optimizer.lr={rate:.3g}"]
    assert f"paste: optimizer.lr={rate:.3g}" in out
    assert [stage["updates"] for stage in numbers["stages"]] == [40, 126, 200]
    made = sum(stage["updates"] * len(stage["trainings"]) for stage in numbers["stages"])
    assert made <= numbers["updates"] <= made + 100
    assert all(word in out for word in ("length:", "batch:", "arXiv:2205.10287", "width:", "neighbour"))
    assert Path("tuned", tune.PICTURE).read_bytes()[:4] == b"\x89PNG"


def test_a_training_is_the_run_of_its_overrides(tuned, assembled):
    _, numbers = tuned(*SMALL, "optimizer=momentum", "--budget", "20%")
    folder = next(Path("tuned").glob("lr=*seed=1,updates=40"))
    overrides = OmegaConf.to_container(OmegaConf.load(folder / "overrides.yaml"))
    parts = assembled(*overrides)
    fit(parts)
    result = json.loads((folder / "result.json").read_text())
    assert math.isclose(parts.trainer.callback_metrics["val/loss"].item(), result["metrics"]["val/loss"], abs_tol=1e-5)
    assert not (folder / "checkpoints").exists()
    assert not result["test"]
    assert (40, result["metrics"]["val/loss"]) in {(key[0], cost) for key, cost in losses(numbers).items()}


def test_an_interrupted_tune_reuses_what_is_done(tuned, monkeypatch):
    words = (*SMALL, "optimizer=adamw", "--budget", "20%")
    monkeypatch.setattr(Members, "together", False)
    made, real = [], Members._trained

    def interrupted(self, settings, member, folder):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(member)
        return real(self, settings, member, folder)

    with monkeypatch.context() as patch:
        patch.setattr(Members, "_trained", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tuned(*words)
    times = {path: path.stat().st_mtime_ns for path in Path("tuned").glob("*/result.json")}
    out, numbers = tuned(*words)
    assert len(times) == 3
    assert out.count("(made before)") == 3
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    again, numbers_again = tuned(*words)
    assert losses(numbers_again) == losses(numbers)
    assert again.count("(made before)") == len(losses(numbers)) == again.count("seed=")


@pytest.mark.sample(0)
def test_a_failed_training_harms_no_other(tuned, monkeypatch):
    monkeypatch.setattr(Members, "together", False)
    words = (*SMALL, "optimizer=adamw", "--budget", "20%")
    _, alone = tuned(*words)
    victim = max(losses(alone))

    def fit_or_fail(parts):
        settings = parts.resolved.settings
        if (parts.module.horizon.total, settings.record["optimizer"]["lr"], settings.seed) == victim:
            raise MemoryError("no room")
        fit(parts)

    shutil.rmtree("tuned")
    monkeypatch.setattr(members, "fit", fit_or_fail)
    out, numbers = tuned(*words)
    assert "no room" in out
    assert losses(numbers)[victim] is None
    both = losses(numbers).keys() & losses(alone).keys() - {victim}
    assert len(both) > 5
    assert all(losses(numbers)[key] == losses(alone)[key] for key in both)


def test_a_tune_that_ends_before_its_first_training_does_not_say_that_it_keeps_one(tuned, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tune, "_tune", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tuned(*SMALL)
    assert "keeps" not in capsys.readouterr().err
    assert not Path("tuned").exists()


def test_a_full_disk_ends_a_tune_and_is_no_score_of_a_rate(tuned, monkeypatch, capsys):
    monkeypatch.setattr(Members, "together", False)
    begun = []

    def fit_or_fail(parts):
        begun.append(parts.folder)
        if len(begun) == 3:
            raise OSError(28, "No space left on device")
        fit(parts)

    words = (*SMALL, "optimizer=adamw", "--budget", "10%", "--seeds", "1")
    monkeypatch.setattr(members, "fit", fit_or_fail)
    with pytest.raises(OSError, match="No space left"):
        tuned(*words)
    assert "tuned keeps what was trained: the same command goes on" in capsys.readouterr().err
    assert [(folder / "result.json").exists() for folder in begun] == [True, True, False]
    _, numbers = tuned(*words)
    assert None not in losses(numbers).values()
    assert begun[2] in begun[3:]


@pytest.mark.sample(0)
def test_where_the_range_test_finds_nothing_the_walk_starts_at_the_config(tuned):
    out, numbers = tuned(*SMALL, "optimizer=prodigy", "--budget", "10%")
    assert "no edge" in out or "range test" in out
    assert numbers["values"][0] > 0


@pytest.mark.sample(0)
def test_where_every_training_breaks_clipping_is_tried_and_belongs_to_the_answer(tuned, monkeypatch):
    monkeypatch.setattr(Members, "together", False)
    real = Members._trained

    def breaking(self, settings, member, folder):
        made = real(self, settings, member, folder)
        return made if any(word.startswith("trainer.clip=") for word in member.words) else _broken(made)

    monkeypatch.setattr(Members, "_trained", breaking)
    out, numbers = tuned(*SMALL, "optimizer=adamw", "trainer.duration=40", "trainer.validate=40", "--seeds", "1")
    assert numbers["override"][1:] == ["trainer.clip=1.0"]
    assert "every training broke" in out


def _broken(outcome):
    return replace(outcome, cost=math.inf, error="Diverged: planted")


@pytest.mark.sample(0)
def test_another_knob_and_two_at_once(tuned):
    short = ("trainer.duration=60", "trainer.validate=60", "--budget", "50%", "--seeds", "1")
    _, numbers = tuned(*SMALL, "optimizer=momentum", "optimizer.lr=0.05", *short, "--of", "lr,momentum")
    assert numbers["of"] == ["optimizer.lr", "optimizer.momentum"]
    assert len(numbers["values"]) == 2
    assert len({tuple(one["values"]) for one in numbers["stages"][0]["trainings"]}) >= 9


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("optimizer=adamw", "--of", "weight_decay"), "optimizer.weight_decay"),
        (("optimizer=adamw", "--of", "momentum"), "optimizer.betas"),
        (("optimizer=momentum", "schedule=cosine_warmup", "--of", "warmup"), "warmup.duration"),
    ],
)
def test_other_knobs(tuned, words, key):
    short = ("trainer.duration=60", "trainer.validate=60", "--budget", "50%", "--seeds", "1")
    _, numbers = tuned(*SMALL, *short, *words)
    assert numbers["override"][0].startswith(f"{key}=")


def test_a_warm_up_in_updates_is_shortened_with_the_training(tuned):
    tuned(*SMALL, "optimizer=adamw", "schedule=cosine_warmup", "warmup.duration=50", "--budget", "20%", "--seeds", "1")
    plans = [json.loads(path.read_text()) for path in Path("tuned").glob("*updates=40/plan.json")]
    assert {plan["warmup_updates"] for plan in plans} == {10}


def test_where_short_trainings_are_refused_whole_runs_are_trained(tuned):
    step = ("schedule=multi_step", "schedule.milestones=[20,30]", "optimizer=momentum", "warmup=none")
    out, numbers = tuned(*CPU, "model.hidden=[16]", "logger=none", "trainer.duration=40", *step, "--seeds", "1")
    assert {stage["updates"] for stage in numbers["stages"]} == {40}
    assert "are refused" in out


def test_trainings_are_stacked_and_equal_their_lone_runs(tuned, monkeypatch):
    words = (*SMALL, "optimizer=adamw", "--budget", "20%", "--seeds", "1")
    made, real = [], Members._train_stacked
    monkeypatch.setattr(Members, "_train_stacked", lambda self, given: (made.append(given), real(self, given)))
    _, stacked = tuned(*words)
    assert made
    assert len(made[0]) == 3
    shutil.rmtree("tuned")
    monkeypatch.setattr(Members, "together", False)
    _, alone = tuned(*words)
    assert losses(stacked).keys() == losses(alone).keys()
    assert all(math.isclose(cost, losses(alone)[key], abs_tol=1e-5) for key, cost in losses(stacked).items())


def test_the_report_takes_its_folder(tuned, capsys):
    _, numbers = tuned(*SMALL, "optimizer=adamw", "--budget", "20%", "--seeds", "1")
    report.main(["tuned"])
    out = capsys.readouterr().out
    command, answer = (line for line in out.splitlines() if line.strip().startswith("cadence train tr"))
    assert command.count("trainer.duration=") == 1
    (override,) = numbers["override"]
    assert f"tune  cadence tune ends with {override}." in out
    assert answer.strip() == shlex.join(["cadence", "train", *SMALL, "optimizer=adamw", override])
    assert (
        f"cadence tune ends with {override}." in Path("tuned", "report", "report.html").read_text().split("<script")[0]
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--of", "dropout"), "cannot be tuned: give one or two of lr"),
        (("--of", "lr,lr"), "names 2 numbers"),
        (("--seeds", "0"), "--seeds=0"),
        (("--whole", "-1"), "--whole=-1"),
        (("--whole", "1"), "one run decides nothing"),
        (("--jobs", "0"), "--jobs=0"),
        (("--budget", "soon"), "--budget=.soon. is not a duration"),
        (("--budget", "300"), "--budget=300 is 300 updates, and the run has 200: give 100% at most"),
        (("optimizer=adagrad", "--of", "momentum"), "has no optimizer.momentum: choose an optimizer"),
        (("warmup=none", "--of", "warmup"), "has no warmup.duration: choose a warm-up that has it, as warmup=linear"),
    ],
)
def test_mistakes(tuned, words, says):
    with pytest.raises(ConfigError, match=says):
        tuned(*SMALL, *words)


def test_a_folder_belongs_to_one_command(tuned):
    tuned(*SMALL, "optimizer=adamw", "--budget", "10%", "--seeds", "1")
    with pytest.raises(ConfigError, match="holds a tune by another command"):
        tuned(*SMALL, "optimizer=momentum", "--budget", "10%", "--seeds", "1")


def test_a_folder_belongs_to_one_command_while_it_is_held(tuned):
    with FolderLock(Path("tuned"), "a tune") as lock:
        lock.acquire()
        with pytest.raises(ConfigError, match="tuned belongs to a tune that still runs"):
            tuned(*SMALL, "optimizer=adamw")
        assert not Path("tuned", tune.BY).exists()


def test_trainings_of_another_config_are_not_taken_up(tuned):
    own = Path("own", "experiment", "own.yaml")
    own.parent.mkdir(parents=True)
    own.write_text("# @package _global_\noptimizer:\n  weight_decay: 0.0\n")
    words = (*SMALL, "experiment=own", "--config-dir", "own", "--budget", "10%", "--seeds", "1")
    tuned(*words)
    own.write_text("# @package _global_\noptimizer:\n  weight_decay: 1.0\n")
    with pytest.raises(ConfigError, match="holds a tune by another command or config"):
        tuned(*words)


@pytest.mark.parametrize("words", [("optimizer.lr=-1",), ("--budget", "0%"), ("optimizer=adagrad", "--of", "momentum")])
def test_a_refused_tune_leaves_no_folder(tuned, words):
    with pytest.raises(ConfigError):
        tuned(*SMALL, *words)
    assert not Path("tuned").exists()


def test_no_file_of_a_tune_holds_what_the_environment_gave(tuned, monkeypatch):
    monkeypatch.setenv("PRECISION", "32-true")
    monkeypatch.setattr(steps, "start_of_rate", lambda *given: Start([(0,)], "32-true is refused", 0))
    tuned(*SMALL, "optimizer=adamw", "trainer.precision=${oc.env:PRECISION}", "--budget", "10%", "--seeds", "1")
    files = [path for path in Path("tuned").rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path for path in files if b"32-true" in path.read_bytes()]


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit):
        tune.main(["--help"])
    told = capsys.readouterr().out
    example = next(line for line in told.splitlines() if line.strip().startswith("cadence tune"))
    assert tune.parsed(shlex.split(example)[2:]).budget == "10%"


def test_several_processes_become_one_on_the_same_batches():
    cfg = for_tuning(compose_config(["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]))
    settings = settings_of(cfg)
    assert (settings.trainer.world, settings.trainer.accumulate, settings.global_batch) == (1, 2, 64)


def test_the_folder_of_a_member_has_no_slash():
    assert "/" not in Member(("optimizer.lr=0.1", "model.path=a/b"), 0, 10).folder
    assert [axis.key for axis in axes_of("lr, weight_decay")] == ["optimizer.lr", "optimizer.weight_decay"]


@pytest.mark.sample(0)
@pytest.mark.skipif(not TEXT.exists(), reason="CADENCE_DATA names no folder with tinyshakespeare")
def test_the_rate_of_a_small_gpt(tuned):
    small = ("model.layers=1", "model.heads=2", "model.width=32", "data.context=32", "trainer.duration=150")
    words = ("experiment=shakespeare_char", f"data.path={TEXT}", *small, "data.val_fraction=0.01", *CPU, "logger=none")
    _, numbers = tuned(*words, "--budget", "30%", "--seeds", "1")
    assert 1e-3 < numbers["values"][0] < 0.1
