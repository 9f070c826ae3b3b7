"""Reproduced experiments: arms are paired and deterministic, verdicts decide the exit code, every script runs."""

import dataclasses
import json
import math
import subprocess

import pytest
import torch
from experiments.arms import Arm

from experiments import adam_sqrt, arms, command, goyal, page, schedules, training, verdict, warmup
from trainer.cli.run_cli import run_cli
from trainer.lr import ConfigError

SHORT = ("experiment=adam_sqrt", "trainer.duration=256 samples", "data.batch_size=32")


def weights(assembly):
    return {"weights": torch.cat([parameter.detach().flatten() for parameter in assembly.module.net.parameters()])}


def first_samples(assembly):
    """The first 32 training samples of the run, whatever its batch."""
    stream = iter(assembly.data.train_dataloader().order.picks(0, 4))
    return {"order": torch.cat([pick.indices for pick in stream])[:32]}


def keep_first_weights(assembly):
    assembly.module.first = weights(assembly)["weights"].clone()


def first_weights(assembly):
    return {"weights": assembly.module.first}


def test_a_trial_is_a_function_of_arm_and_seed():
    arm = Arm("one", SHORT, every=2, look=weights)
    one, again, other = (training.train(arm, seed) for seed in (3, 3, 4))
    assert torch.equal(one.seen["weights"], again.seen["weights"])
    assert (one.train_loss, one.test_error, one.curve) == (again.train_loss, again.test_error, again.curve)
    assert not torch.equal(one.seen["weights"], other.seen["weights"])


def test_arms_of_a_seed_share_their_first_weights_and_the_order_of_the_data():
    short = ("experiment=adam_sqrt", "trainer.duration=256 samples")
    batches = {8: "none", 16: "sqrt", 32: "linear"}
    found = {}
    for batch, rule in batches.items():
        scaling = ["scaling=none", "~scaling.base_batch_size"] if rule == "none" else [f"scaling={rule}"]
        chosen = (*short, f"data.batch_size={batch}", *scaling)
        start = training.train(Arm("a", chosen, prepare=keep_first_weights, look=first_weights), 5)
        order = training.train(Arm("b", chosen, look=first_samples), 5)
        found[batch] = start.seen["weights"], order.seen["order"]
    for start, order in found.values():
        assert torch.equal(start, found[8][0])
        assert torch.equal(order, found[8][1])


def test_measuring_the_curve_changes_no_bit_of_the_run():
    chosen = ("experiment=goyal", "trainer.duration=256 samples")  # BatchNorm has running statistics to disturb
    plain, watched = (training.train(Arm("a", chosen, every=every, look=weights), 0) for every in (None, 1))
    assert torch.equal(plain.seen["weights"], watched.seen["weights"])
    assert plain.train_loss == watched.train_loss == watched.curve[-1][1]
    assert [seen for seen, _ in watched.curve] == [16 * (i + 1) for i in range(16)]


def test_the_loss_is_the_mean_over_the_whole_training_set_without_training_behaviour():
    seen = {}

    def look(assembly):
        net, source = assembly.module.net.eval(), assembly.data.splits.train
        with torch.no_grad():
            outputs = torch.stack([net(source.inputs[i : i + 1])[0] for i in range(len(source))])
        seen["loss"] = torch.nn.functional.cross_entropy(outputs, source.targets).item()
        return {}

    trial = training.train(Arm("a", ("experiment=goyal", "trainer.duration=5"), look=look), 0)
    assert trial.train_loss == pytest.approx(seen["loss"], rel=1e-5)


def test_a_run_ends_at_its_target_and_one_that_diverges_has_no_loss():
    whole = training.train(Arm("a", SHORT, every=1), 0)
    target = whole.curve[4][1]
    early = training.train(Arm("a", SHORT, every=1, target=math.nextafter(target, math.inf)), 0)
    assert early.curve == whole.curve[: early.updates]
    assert early.train_loss == early.curve[-1][1] <= target
    assert early.updates <= 5 < whole.updates == 8
    lost = training.train(Arm("a", ("experiment=schedules", "trainer.duration=40", "optimizer.lr=1e6")), 0)
    assert (lost.train_loss, lost.test_error) == (math.inf, 1.0)
    assert lost.updates < 40


@pytest.mark.slow
def test_processes_give_what_one_process_gives():
    chosen = [Arm("a", SHORT), Arm("b", (*SHORT, "optimizer.lr=0.01"))]
    here, there = arms.trained(chosen, [0, 1]), arms.trained(chosen, [0, 1], processes=2)
    assert [list(map(bare, own)) for own in here.values()] == [list(map(bare, own)) for own in there.values()]
    assert list(here) == ["a", "b"]
    assert [trial.seed for trial in here["a"]] == [0, 1]
    with pytest.raises(ValueError, match="two arms have the same name"):
        arms.trained([Arm("a", SHORT), Arm("a", ())], [0])


def bare(trial):
    return dataclasses.replace(trial, seconds=0.0)


@pytest.mark.parametrize(
    ("one", "passed", "word"),
    [
        (verdict.at_most("x", 1.0, 1.0, "s"), True, "pass"),
        (verdict.at_most("x", 1.1, 1.0, "s"), False, "FAIL"),
        (verdict.at_most("x", math.nan, 1.0, "s"), False, "FAIL"),
        (verdict.at_least("x", math.inf, 1.0, "s"), True, "pass"),
        (verdict.at_least("x", 0.9, 1.0, "s", "control"), True, "fails, as it must"),
        (verdict.at_least("x", 1.0, 1.0, "s", "control"), False, "HOLDS, BUT MUST NOT"),
        (verdict.at_least("x", math.nan, 1.0, "s", "control"), False, "HOLDS, BUT MUST NOT"),
        (verdict.between("x", 2.0, (0.7, 1.5), "s"), False, "FAIL"),
        (verdict.between("x", 0.7, (0.7, 1.5), "s"), True, "pass"),
        (verdict.at_least("x", 0.0, 1.0, "s", "note"), True, "not reproduced"),
        (verdict.at_least("x", 1.0, 1.0, "s", "note"), True, "seen"),
    ],
)
def test_a_verdict_passes_where_a_claim_holds_and_where_a_control_fails(one, passed, word):
    assert (one.passed, one.word) == (passed, word)
    json.dumps(one.row(), allow_nan=False)


def experiment(*verdicts):
    def run(seeds, processes):
        table = command.Table("numbers", ["name", "value"], [["one", "1.0"]])
        return command.Result(verdicts, [table], lambda figure: figure.subplots(), ["a note"], 3)

    return command.Experiment("trial", "A trial", "what", "how", 2, run)


GOOD, BAD = verdict.at_most("good", 0.0, 1.0, "s"), verdict.at_most("bad", 2.0, 1.0, "s")
HELD = verdict.at_most("held", 0.0, 1.0, "s", "control")


@pytest.mark.parametrize(("verdicts", "code"), [((GOOD,), 0), ((GOOD, BAD), 1), ((GOOD, HELD), 1)])
def test_a_claim_that_fails_or_a_control_that_holds_makes_the_exit_code_1(tmp_path, capsys, verdicts, code):
    words = ["--out", str(tmp_path / "deep"), "--seeds", "2"]
    assert run_cli(lambda: command.command(experiment(*verdicts), "x", words)) == code
    report = json.loads((tmp_path / "deep" / "trial.json").read_text())
    assert report["pass"] is (code == 0)
    assert {"claim", "source", "measured", "threshold", "pass"} <= set(report["verdicts"][0])
    assert [row["pass"] for row in report["verdicts"]] == [True, False][: len(verdicts)]
    assert (tmp_path / "deep" / "trial.png").stat().st_size > 1000
    shown = capsys.readouterr()
    assert "| good  |" in shown.out
    assert ("not as claimed" in shown.err) is (code == 1)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--seeds", "0"], "--seeds=0"),
        (["--jobs", "-1"], "--jobs=-1"),
        (["--out", "/proc/nowhere"], "cannot be written"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_trained(words, says):
    with pytest.raises(ConfigError, match=says):
        command.command(experiment(GOOD), "x", words)


def test_every_script_tells_how_to_run_it(python):
    for module in (adam_sqrt, page):
        told = subprocess.run([python, module.__file__, "--help"], capture_output=True, text=True)
        assert told.returncode == 0
        assert "\n    python experiments/" in told.stdout
    for module in (goyal, schedules, warmup):
        assert f"\n    python experiments/{module.EXPERIMENT.name}.py --seeds 2" in module.__doc__


def shortened(module, monkeypatch, *overrides):
    """The arms of an experiment, each for a few updates."""
    made = module.arms
    monkeypatch.setattr(
        module, "arms", lambda: [dataclasses.replace(arm, overrides=(*arm.overrides, *overrides)) for arm in made()]
    )


SMALL = {
    adam_sqrt: ({"SMALL": (4,), "LARGE": (16,), "EVERY": 512}, ("trainer.duration=1024 samples",)),
    goyal: ({"BATCHES": (32,)}, ("trainer.duration=1024 samples",)),
    warmup: ({"GRIDS": {key: range(-9, -8) for key in warmup.GRIDS}}, ("trainer.duration=70",)),
    schedules: ({"GRIDS": {name: range(-3, -2) for name in schedules.SCHEDULES}}, ("trainer.duration=30",)),
}


@pytest.mark.parametrize("module", SMALL, ids=lambda module: module.EXPERIMENT.name)
def test_an_experiment_runs_from_end_to_end(tmp_path, monkeypatch, capsys, module):
    settings, overrides = SMALL[module]
    for name, value in settings.items():
        monkeypatch.setattr(module, name, value)
    shortened(module, monkeypatch, *overrides)
    code = run_cli(lambda: module.main(["--seeds", "1", "--jobs", "1", "--out", str(tmp_path)]))
    assert code in (0, 1)  # so short a run need not show anything
    report = json.loads((tmp_path / f"{module.EXPERIMENT.name}.json").read_text())
    assert report["pass"] is (code == 0)
    assert {row["role"] for row in report["verdicts"]} >= {"claim", "control"}
    assert report["cost"]["runs"] == len(module.arms())
    page.main(["--reports", str(tmp_path), "--out", str(tmp_path / "page.md")])
    text = (tmp_path / "page.md").read_text()
    assert f"## {report['title']}" in text
    assert all(row["claim"] in text for row in report["verdicts"])


def test_the_page_is_made_of_the_reports_that_are_there(tmp_path):
    assert (command.DOCS.parent / "experiments.md").read_text() == page.page(page.reports_in(command.DOCS))
    with pytest.raises(ConfigError, match="holds no report"):
        page.main(["--reports", str(tmp_path)])
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        page.main(["--reports", str(tmp_path)])
