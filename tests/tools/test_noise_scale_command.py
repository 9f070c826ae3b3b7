"""The noise scale as a person measures it: the table, the files, a run left as it was, and one line for a mistake."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import torch

from trainer.lr import ConfigError
from trainer.measure.noise_interval import estimate
from trainer.run import fit
from trainer.tools.noise_scale import command as noise_scale
from trainer.tools.noise_scale import output
from trainer.tools.noise_scale.output import draw
from trainer.tools.noise_scale.probe import Point, Probe, Sampling

SCRIPT = Path(__file__).parents[2] / "scripts" / "noise_scale.py"
PNG = b"\x89PNG"
CPU = ("trainer.accelerator=cpu", "trainer.threads=1")
NET = ("groups=all", "model.hidden=[32]", "task.loss.label_smoothing=0.0")
SMALL = (*CPU, *NET, "optimizer=sgd", "optimizer.weight_decay=0", "schedule=linear")


@pytest.fixture
def measured(tmp_path, monkeypatch, capsys):
    """What the command prints, run in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        noise_scale.main(list(words))
        return capsys.readouterr().out

    return run


def point(update, square, trace, spread, names=("all parameters", "all")):
    covariance = [[(spread * square) ** 2, 0.0], [0.0, (0.01 * trace) ** 2]]
    return Point(update, 0.1, dict.fromkeys(names, estimate(square, trace, covariance, 2.0, 50.0)))


def test_help_shows_examples_to_copy(python):
    told = subprocess.run([python, SCRIPT, "--help"], capture_output=True, text=True)
    assert told.returncode == 0
    assert told.stdout.count("\n    cadence noise-scale ") >= 3


def test_on_digits_it_starts_at_tens_of_samples_grows_as_the_loss_falls_and_leaves_its_files(measured):
    text = measured(*SMALL, "trainer.duration=600", "--at", "0,540", "--updates", "40", "--out", "found/noise")
    numbers = json.loads(Path("found/noise.json").read_text())
    begin, late = (one["estimates"]["all parameters"] for one in numbers["points"])
    assert 15 <= begin["noise"] <= 130
    assert begin["low"] <= begin["noise"] <= begin["high"] <= 1.6 * begin["low"]
    assert late["noise"] > 1.5 * begin["noise"]
    assert Path("found/noise.png").read_bytes().startswith(PNG)
    assert [one["update"] for one in numbers["points"]] == [0, 540]
    assert re.search(r"^0 +0\.1 +all parameters +[\d.]+ +[\d.]+ … [\d.]+ ", text, re.MULTILINE)
    assert numbers["advice"]["noise"] == pytest.approx((begin["noise"] + late["noise"]) / 2)
    assert sorted(path.name for path in Path().rglob("*.*")) == ["noise.json", "noise.png"]


def test_it_agrees_with_the_gradient_of_every_sample(measured, assembled):
    measured(*SMALL, "trainer.duration=20", "--at", "0", "--updates", "60", "--micro", "8", "--out", "noise")
    found = json.loads(Path("noise.json").read_text())["points"][0]["estimates"]["all parameters"]
    assembly = assembled(*SMALL, "trainer.duration=20")
    net, source = assembly.module.net, assembly.data.splits.train
    parameters = list(net.parameters())
    sums, squared = [torch.zeros_like(parameter, dtype=torch.float64) for parameter in parameters], 0.0
    for i in range(len(source)):
        loss = assembly.module.step.loss(net(source.inputs[i : i + 1]), source.targets[i : i + 1])
        for total, part in zip(sums, torch.autograd.grad(loss, parameters)):
            total += part
            squared += part.double().square().sum().item()
    square = sum((total / len(source)).square().sum().item() for total in sums)
    trace = squared / len(source) - square
    assert found["noise"] == pytest.approx(trace / square, rel=0.2)
    assert found["square"] == pytest.approx(square, rel=0.2)
    assert found["trace"] == pytest.approx(trace, rel=0.05)


def test_a_run_that_is_measured_trains_to_the_same_bits(assembled):
    """With dropout and BatchNorm, whose random state and running statistics a forward pass moves."""
    chosen = (
        "model=resnet9",
        "schedule=linear",
        "model.width=4",
        "trainer.duration=6",
        "logger=none",
        "data.batch_size=16",
    )
    plain, looked_at = assembled(*chosen), assembled(*chosen, folder="other")
    fit(plain)
    probe = Probe(looked_at, [1, 5], Sampling(updates=2, micro=8, batch=16, seed=1))
    looked_at.module.observers = looked_at.module.observers.with_probe(probe.attach)
    fit(looked_at)
    assert [one.update for one in probe.measured] == [1, 5]
    theirs = looked_at.module.net.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in plain.module.net.state_dict().items())


def test_the_same_seed_gives_the_same_numbers_and_another_gives_others(measured):
    words = (*SMALL, "model.dropout=0.3", "trainer.duration=20", "--at", "3", "--updates", "3", "--no-files")
    first, again, other = measured(*words), measured(*words), measured(*words, "--seed", "1")
    assert first == again != other
    assert not list(Path().iterdir())


def test_groups_are_told_where_there_are_several_and_batch_norm_is_remarked_upon(measured):
    text = measured(
        *(
            *CPU,
            "model=resnet9",
            "model.width=4",
            "optimizer=sgd",
            "schedule=linear",
            "trainer.duration=4",
            "--at",
            "2",
        ),
        *("--updates", "4", "--micro", "8", "--batch", "32", "--no-files"),
    )
    assert re.search(r"^ +decay ", text, re.MULTILINE)
    assert re.search(r"^ +no_decay ", text, re.MULTILINE)
    assert "note: BatchNorm (" in text
    assert "statistics over 8 samples" in text


def test_advice_has_twice_the_fewest_updates_and_twice_the_fewest_samples_at_b_simple():
    told = output.advise([point(0, 1.0, 100.0, 0.1), point(5, 1.0, 300.0, 0.1)], batch=50)
    assert told["noise"] == 200
    rows = {row["what"]: row for row in told["batches"]}
    assert (rows["B_simple"]["updates"], rows["B_simple"]["samples"], rows["B_simple"]["lr"]) == (2, 2, 2.5)
    assert (rows["a quarter of B_simple"]["updates"], rows["a quarter of B_simple"]["samples"]) == (5, 1.25)
    text = "\n".join(output.format_advice(told, 50))
    assert "A range to choose from: 50 to 800." in text
    assert "scaling.base_batch_size=50 scaling.noise_batch=200" in text
    assert "2505.23971" in text


def test_what_is_not_resolved_is_said_bounded_and_left_out_of_the_advice():
    lost, seen = point(9, 1.0, 100.0, 0.8), point(0, 1.0, 100.0, 0.1)
    text = "\n".join(output.format_points([seen, lost]))
    assert "not resolved  above 37.7" in text
    assert "update 9 is not resolved, the interval of |G|² includes 0: try --updates 1,153 or so" in text
    assert output.advise([seen, lost], 32)["resolved"] == 1
    assert "the mean of 1 of 2 points" in "\n".join(output.format_advice(output.advise([seen, lost], 32), 32))
    assert output.advise([lost], 32) is None
    assert output.format_advice(None, 32)[0].startswith("No advice")
    assert any(label.get_text().startswith("not resolved") for label in draw([seen, lost], 32, 10).axes[0].texts)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--micro", "32", "--batch", "100"), "--batch=100 is not made of two or more micro-batches of 32"),
        (("--micro", "32", "--batch", "32"), "as 64"),
        (("--micro", "0"), "--micro=0"),
        (("--updates", "1"), "--updates=1"),
        (("--at", "100%"), "--at=100% has update 780, but the last one is 779"),
        (("--at", "soon"), "--at='soon' is not a duration"),
        (("--at=-5",), "--at='-5' is not a duration"),
        (("trainer=ddp",), "2 processes"),
        (("resume.path=outputs/x",), "resume.path=outputs/x"),
        (("+schedule.flor=0",), "flor"),
        (("--out", "/dev/null/x"), "--out=/dev/null/x cannot be written"),
    ],
)
def test_a_mistake_is_refused_in_one_line(words, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as refused:
        noise_scale.main([*CPU, "schedule=linear", *words])
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_command_tells_a_mistake_in_one_line_and_has_its_code(tmp_path, python):
    words = ("--updates", "1")
    done = subprocess.run([python, SCRIPT, *words], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "--updates=1 is out of range: an interval needs at least 2; try 50.\n"
