"""The range test as a person runs it: the run's own updates, left as it was, the files, and one line for a mistake."""

import json
import math
import random
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from models.mlp import MLP
from trainer.config.resolve import plan_of
from trainer.config.settings import settings_of
from trainer.lr import ConfigError
from trainer.lr.range_rules import OURS, Suggestion, suggestions
from trainer.lr.range_test import Sweep, edge, rates
from trainer.run import fit
from trainer.tools.range_test import command as range_test
from trainer.tools.range_test import steps
from trainer.tools.range_test.steps import RangeTest, finite
from trainer.tools.range_test.sweep import Tape, fingerprint, scored_by, sweep

SCRIPT = Path(__file__).parents[2] / "scripts" / "range_test.py"
PNG = b"\x89PNG"
CPU = ("trainer.accelerator=cpu", "trainer.threads=1")
SMALL = (*CPU, "optimizer=momentum", "schedule=linear", "model.hidden=[32]")
BATCH_NORM = ("model=resnet9", "model.width=4", "optimizer=momentum", "schedule=linear", "data.batch_size=16")


@pytest.fixture
def tested(tmp_path, monkeypatch, capsys):
    """What the command prints, run in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        range_test.main(list(words))
        return capsys.readouterr().out

    return run


@pytest.fixture
def ready(assembled):
    """A run assembled to be swept: without a log, without validation."""

    def make(*words, folder="run"):
        quiet = ("logger=none", "+trainer.lightning.limit_val_batches=0")
        assembly = assembled(*quiet, *words, folder=folder)
        assembly.trainer.callbacks.remove(assembly.checkpointing)
        return assembly

    return make


# The sweep trains the run itself.


@pytest.mark.parametrize(
    "words",
    [
        ("trainer.accumulate=2", "trainer.clip=0.1", "model.dropout=0.3", "optimizer=momentum"),
        ("groups=layer_decay", "optimizer=adamw", "trainer.gradient_noise=0.01", "trainer.sam=0.05"),
        ("groups=muon", "optimizer=muon", "trainer.precision=bf16-mixed"),
        BATCH_NORM,
    ],
)
def test_a_sweep_that_stands_still_is_the_run_to_the_bit(words, ready):
    chosen = (*words, "schedule=constant", "warmup=none", "trainer.duration=12")
    plain, other = ready(*chosen), ready(*chosen, folder="other")
    tape = Tape(plain.trainer, lambda loss: loss.item(), lambda loss: False)
    plain.module.metric_buffer = tape
    fit(plain)
    seen = sweep(other, "lr", [other.module.spec.policy.peak_lr] * 12)
    assert seen.losses == tape.losses
    assert len(set(seen.losses)) == 12


def test_groups_keep_their_ratios_and_settings_that_change_stand_at_the_peak(ready, monkeypatch):
    assembly = ready(
        "groups=backbone_head", "optimizer=momentum", "schedule=linear", "hyper_schedule=[momentum_mirrored]"
    )
    applied = []
    add = Tape.add

    def spied(self, t, loss, grad_norm, with_, *more):
        applied.append((with_.applied, with_.values["momentum"]))
        add(self, t, loss, grad_norm, with_, *more)

    monkeypatch.setattr(Tape, "add", spied)
    values = rates(1e-3, 1e-2, 20)
    sweep(assembly, "lr", values)
    mults = [group.lr_mult for group in assembly.module.spec.groups]
    assert len(set(mults)) > 1
    assert [row for row, _ in applied] == [[value * mult for mult in mults] for value in values]
    assert {round(momentum, 12) for _, row in applied for momentum in row} == {0.85}


@pytest.mark.parametrize(("of", "values"), [("weight_decay", [0.1, 0.2, 0.4]), ("momentum", [0.5, 0.7, 0.9])])
def test_weight_decay_and_momentum_rise_at_the_peak_rate(of, values, ready, monkeypatch):
    assembly = ready("optimizer=adamw", "schedule=linear")
    applied = []
    monkeypatch.setattr(Tape, "add", lambda self, t, *rest: applied.append((rest[2].applied, rest[2].values[of])))
    sweep(assembly, of, values)
    peak = assembly.module.spec.policy.peak_lr
    assert [row for row, _ in applied] == [[peak] * 2] * 3
    expected = [[value, 0.0] for value in values] if of == "weight_decay" else [[value] * 2 for value in values]
    assert [row for _, row in applied] == expected


# What it leaves.


@pytest.mark.parametrize("measured", ["train", "val", "score"])
def test_weights_batch_norm_generators_data_clock_and_files_are_as_before_to_the_bit(measured, ready):
    assembly = ready(*BATCH_NORM, "average=ema", "average.every=1", "average.start=1")
    assembly.folder.mkdir(exist_ok=True)
    (assembly.folder / "mine.txt").write_text("kept")
    before = fingerprint(assembly)
    random_state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    first = sweep(assembly, "lr", rates(1e-4, 1e3, 25), measured, 32)
    assert fingerprint(assembly) == before
    assert torch.equal(torch.get_rng_state(), random_state[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == random_state[1:]  # noqa: NPY002
    assert first == sweep(assembly, "lr", rates(1e-4, 1e3, 25), measured, 32)


GROWING = ("schedule=step", "schedule.every=3", "batch_schedule=grow", "batch_schedule.max_batch_size=64")


@pytest.mark.parametrize("more", [(), GROWING])
def test_a_run_trains_to_the_same_bits_after_it_was_swept(more, ready):
    words = (*BATCH_NORM, "trainer.duration=6", *more)
    plain, swept = ready(*words), ready(*words, folder="other")
    sweep(swept, "lr", rates(1e-4, 1e3, 25))
    fit(plain)
    fit(swept)
    assert bool(more) == (len(swept.module.horizon.growth.stages) > 1)
    assert swept.module.clock.t == swept.module.horizon.total == (4 if more else 6)
    theirs = swept.module.net.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in plain.module.net.state_dict().items())


TOUCHES = [
    lambda assembly: next(iter(assembly.module.net.buffers())).add_(1e-3),
    lambda assembly: next(iter(assembly.module.net.parameters())).data.add_(1e-3),
    lambda assembly: setattr(next(iter(assembly.module.net.parameters())), "grad", torch.ones(4, 1, 3, 3)),
    lambda assembly: torch.rand(1),
    lambda assembly: random.random(),
    lambda assembly: np.random.rand(),  # noqa: NPY002
    lambda assembly: assembly.data.splits.train.inputs.add_(1e-3),
    lambda assembly: setattr(assembly.module.clock, "t", 1),
    lambda assembly: assembly.module.net.eval(),
    lambda assembly: (assembly.folder / "new").write_text(""),
]


def test_the_fingerprint_sees_each_thing_that_a_sweep_could_change(ready):
    assembly = ready(*BATCH_NORM)
    assembly.folder.mkdir(exist_ok=True)
    seen = [fingerprint(assembly)]
    assert fingerprint(assembly) == seen[0]
    for touch in TOUCHES:
        touch(assembly)
        seen.append(fingerprint(assembly))
    assert len(set(seen)) == len(TOUCHES) + 1


def test_a_sweep_that_breaks_at_once_or_later_says_where(ready):
    assembly = ready(*SMALL)
    values = rates(1e-3, 1e30, 40)
    seen = sweep(assembly, "lr", values)
    assert len(seen.losses) < 40
    assert seen.broke in values[len(seen.losses) - 1 : len(seen.losses) + 1]
    tape = Tape(assembly.trainer, lambda loss: loss.item(), lambda loss: loss > 2)
    for loss in (1.0, 3.0):
        tape.add(0, torch.tensor(loss), torch.tensor(1.0), None)
    assert (tape.losses, tape.broke) == ([1.0, 3.0], 1)
    tape = Tape(assembly.trainer, lambda loss: loss.item(), lambda loss: loss > 2)
    for loss in (1.0, math.nan):
        tape.add(0, torch.tensor(loss), torch.tensor(1.0), None)
    assert (tape.losses, tape.broke) == ([1.0], 1)
    assert all(math.isfinite(loss) for loss in seen.losses)


# The oracle: least squares, whose Hessian is known.


def largest_curvature(assembly):
    """λ of the mean squared error over the training samples, for a linear net with a bias: 2 XᵀX / N."""
    inputs = assembly.data.splits.train.inputs.flatten(1).double()
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1, dtype=torch.float64)], dim=1)
    return torch.linalg.eigvalsh(2 * inputs.T @ inputs / len(inputs))[-1].item()


LINEAR = ("data=synthetic_regression", "task=regression", "model.hidden=[]", "schedule=constant", "groups=all")


def test_on_least_squares_gradient_descent_turns_at_two_over_the_largest_curvature(ready):
    assembly = ready(*LINEAR, "optimizer=gd", "data.samples=256", "data.batch_size=256")
    limit = 2.0 / largest_curvature(assembly)
    values = rates(0.9 * limit, 1.5 * limit, 301, "linear")
    seen = edge(sweep(assembly, "lr", values))
    assert limit < seen.rate < 1.35 * limit
    assert 0.95 * limit < seen.best < 1.15 * limit


def test_on_least_squares_a_default_sweep_of_the_heavy_ball_breaks_within_a_quarter_of_a_decade_of_the_limit(ready):
    words = (*LINEAR, "optimizer=momentum", "optimizer.weight_decay=0", "data.samples=256", "data.batch_size=256")
    found = []
    for seed in range(3):
        assembly = ready(*words, f"seed={seed}", folder=str(seed))
        found.append(edge(sweep(assembly, "lr", rates(1e-7, 10.0, 100))).rate)
    limit = 2.0 * 1.9 / largest_curvature(assembly)
    assert abs(math.log10(sorted(found)[1] / limit)) < 0.25


# The command.


def test_help_shows_examples_to_copy(python):
    told = subprocess.run([python, SCRIPT, "--help"], capture_output=True, text=True)
    assert told.returncode == 0
    assert told.stdout.count("\n    cadence range-test ") >= 3


def test_it_suggests_confirms_and_gives_cycles_and_what_to_paste_gives_that_peak(tested, compose):
    words = (*SMALL, "scaling=linear", "scaling.base_batch_size=8")
    text = tested(*words, "--confirm", "20", "--cyclic", "--cyclic-updates", "60", "--out", "found/range")
    numbers = json.loads(Path("found/range.json").read_text())
    ours = numbers["suggestions"][0]
    assert (ours["method"], numbers["scale"]) == ("fall", 4.0)
    cfg = compose(*words, *numbers["override"])
    assert plan_of(settings_of(cfg)).policy.peak_lr == pytest.approx(ours["value"], rel=1e-5)
    assert f"paste: {numbers['override'][0]}" in text
    assert ours["interval"][0] < ours["value"] / 10**0.75 < ours["value"] * 10**0.75 < ours["interval"][1]
    assert 0.005 < ours["value"] < 1.0
    assert Path("found/range.png").read_bytes().startswith(PNG)
    assert (len(numbers["located"]), len(numbers["sweeps"]), len(numbers["scores"])) == (1, 3, 3)
    assert len(numbers["state"]) == 7
    tried = numbers["confirmed"]
    assert [one["rate"] / ours["value"] for one in tried["trials"]] == pytest.approx([0.316, 1.0, 3.16])
    assert tried["winner"] in [one["rate"] for one in tried["trials"]]
    assert " wins by " in text
    assert numbers["cyclic"]["base"] < numbers["cyclic"]["highest"]
    assert "by accuracy: base " in text
    assert sorted(path.name for path in Path().rglob("*.*")) == ["range.json", "range.png"]


def test_the_same_seeds_give_the_same_numbers_and_others_give_others(tested):
    words = (*SMALL, "model.dropout=0.2", "--seeds", "1", "--updates", "60", "--no-files")
    first, again, other = tested(*words), tested(*words), tested(*words, "seed=5")
    assert first == again != other
    assert not list(Path().iterdir())


def test_a_flat_curve_is_refused_and_its_picture_is_there(tested, capsys):
    with pytest.raises(ConfigError) as refused:
        tested(*SMALL, "--end", "1e-5", "--seeds", "1", "--out", "range")
    assert "no suggestion: the curve is flat" in str(refused.value)
    assert "take cadence tune" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert Path("range.png").read_bytes().startswith(PNG)
    numbers = json.loads(Path("range.json").read_text())
    assert numbers["override"] is None
    assert all(one["value"] is None and one["refused"] for one in numbers["suggestions"])


def test_sweeps_without_one_finite_loss_are_refused_and_leave_a_picture(tested):
    with pytest.raises(ConfigError, match="only 0 of its losses are finite"):
        tested(*SMALL, "--start", "1e36", "--end", "1e38", "--loss", "val", "--seeds", "2", "--out", "range")
    assert Path("range.png").read_bytes().startswith(PNG)
    assert [one["losses"] for one in json.loads(Path("range.json").read_text())["sweeps"]] == [[], []]


def test_a_run_that_is_refused_leaves_no_file(tested):
    with pytest.raises(ConfigError):
        tested(*SMALL, "data.batch_size=0", "--out", "found/range")
    assert not Path("found").exists()


def test_numbers_that_json_cannot_hold_are_null():
    assert finite({"a": [math.inf, 1.0, (math.nan,)], 2: None}) == {"a": [None, 1.0, [None]], 2: None}


def test_the_rate_of_a_groups_own_optimizer_is_pasted_too(tested, compose):
    text = tested(*CPU, "optimizer=muon", "groups=muon", "--seeds", "1", "--no-files")
    lr, own = map(float, re.search(r"paste: optimizer.lr=(\S+) groups.optimizer.lr=(\S+)", text).groups())
    cfg = compose("optimizer=muon", "groups=muon")
    assert own / lr == pytest.approx(cfg.groups.optimizer.lr / cfg.optimizer.lr, rel=1e-4)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--start", "1", "--end", "0.1"), "--start=1 is not below --end=0.1"),
        (("--updates", "5"), "--updates=5"),
        (("--updates", "1000000000"), "--updates=1000000000 is out of range: a sweep has 20 to 100,000 updates"),
        (("--cyclic-updates", "1000000000"), "--cyclic-updates=1000000000"),
        (("seed=4294967295",), "give 0 to 4294966295"),
        (("--seeds", "0"), "--seeds=0"),
        (("--val-samples", "0"), "--val-samples=0"),
        (("--of", "momentum", "--end", "1"), "--end=1.0"),
        (("--of", "momentum", "optimizer=sgd"), "optimizer.momentum is not set above zero here"),
        (("--of", "weight_decay", "--confirm"), "has no --confirm"),
        (("--confirm", "much"), "--confirm='much' is not a duration"),
        (("trainer=ddp",), "trainer.accumulate=2, which trains on the same batches"),
        (("resume.path=outputs/x",), "resume.path=outputs/x"),
        (("+schedule.flor=0",), "flor"),
        (("--out", "/dev/null/x"), "--out=/dev/null/x cannot be written"),
    ],
)
def test_a_mistake_is_refused_in_one_line(words, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(RangeTest, "run_sweeps", lambda self: pytest.fail("it has begun to train"))
    if words[:2] == ("--of", "momentum") and "optimizer=sgd" in words:  # which only a sweep can tell
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as refused:
        range_test.main([*SMALL, *words])
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_command_tells_a_mistake_in_one_line_and_has_its_code(tmp_path, python):
    done = subprocess.run([python, SCRIPT, "--updates", "1"], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "--updates=1 is out of range: a sweep has 20 to 100,000 updates; try 100.\n"


# The parts.


def test_a_loss_that_still_falls_at_the_end_is_swept_further_by_itself(tested):
    out = tested(*CPU, "optimizer=sgd", "optimizer.lr=1", "trainer.clip=0.001", "--seeds", "1", "--out", "range")
    numbers = json.loads(Path("range.json").read_text())
    assert "Tried by itself: --end." in out
    assert numbers["sweeps"][0]["rates"][-1] > 10 or numbers["sweeps"][0]["broke"]
    assert numbers["suggestions"][0]["value"] > 1


def test_the_sweeps_go_around_what_the_first_one_finds_unless_their_ends_are_given(tested):
    out = tested(*SMALL, "--seeds", "1", "--out", "around")
    numbers = json.loads(Path("around.json").read_text())
    wide, around = numbers["located"][0], numbers["sweeps"][0]
    assert (wide["rates"][0], wide["planned"], around["planned"]) == (1e-7, 100, 100)
    found = suggestions([Sweep(**wide)])[OURS].value
    assert around["rates"][:2] == rates(found * 0.01, found * 30.0, 100)[:2]
    assert "to locate; then 1 sweep from 0.01 to 30 times what it finds" in out
    tested(*SMALL, "--seeds", "1", "--start", "0.001", "--end", "10", "--out", "given")
    numbers = json.loads(Path("given.json").read_text())
    assert (numbers["located"], numbers["sweeps"][0]["rates"][0]) == ([], 0.001)


def test_where_slower_sweeps_do_not_tell_the_first_one_counts(tested, monkeypatch):
    def read(sweeps):
        silent = Suggestion(OURS, "planted", refused="planted.")
        return suggestions(sweeps) if len(sweeps) == 1 else {OURS: silent}

    monkeypatch.setattr(steps, "suggestions", read)
    out = tested(*SMALL, "--seeds", "2", "--updates", "40", "--out", "range")
    numbers = json.loads(Path("range.json").read_text())
    assert numbers["sweeps"] == numbers["located"]
    assert f"Slower sweeps around {numbers['suggestions'][0]['value']:.3g} do not tell (planted.)" in out


def test_no_remedy_is_told_that_was_not_tried(tested, monkeypatch, capsys):
    silent = Suggestion(OURS, "planted", refused="the loss still falls.", remedy="end")
    monkeypatch.setattr(steps, "suggestions", lambda sweeps: {OURS: silent})
    with pytest.raises(ConfigError, match="no suggestion: the loss still falls"):
        tested(*SMALL, "--seeds", "1", "--updates", "20", "--out", "range")
    assert capsys.readouterr().out.count("Tried by itself: --end.") == 2
    numbers = json.loads(Path("range.json").read_text())
    assert len(numbers["state"]) == 3
    assert len(numbers["sweeps"]) == 1


def test_a_net_without_a_gradient_is_named(tested, monkeypatch):
    forward = MLP.forward
    monkeypatch.setattr(MLP, "forward", lambda self, inputs: 0 * forward(self, inputs))
    with pytest.raises(ConfigError, match=r"every gradient is exactly 0 in all \d+ updates"):
        tested(*SMALL, "--seeds", "1", "--no-files")


def test_weight_decay_gets_a_bound_and_nothing_to_paste(tested):
    words = ("optimizer=adamw", "optimizer.lr=0.01", "--of", "weight_decay", "--seeds", "1")
    text = tested(*SMALL[:2], "schedule=linear", *words, "--out", "range")
    numbers = json.loads(Path("range.json").read_text())
    assert 0.1 < numbers["bound"] < 100
    assert (numbers["override"], numbers["suggestions"]) == (None, [])
    assert "an upper bound" in text
    assert "paste" not in text


def test_a_score_is_the_accuracy_or_what_the_task_watches(ready):
    assert scored_by(ready(*SMALL)) == ("accuracy", 1.0)
    assert scored_by(ready("data=synthetic_regression", "task=regression", folder="other")) == ("loss", -1.0)
