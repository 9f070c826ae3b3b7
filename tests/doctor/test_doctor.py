"""The doctor: runs that were made bad on purpose show it, healthy ones do not, and nothing is changed by looking."""

import json
import math
import random
from contextlib import suppress

import pytest
import torch

from experiments import doctor as judge
from experiments import healthy
from tests.engine.test_manual_update import GAN
from trainer.doctor import NAMES, SIGNS, Log, Series, examine, read_log
from trainer.doctor.callback import Doctor
from trainer.doctor.log import read_scalars
from trainer.doctor.signs import not_finite
from trainer.doctor.statistics import noise, trend
from trainer.engine.update import Diverged
from trainer.lr import ConfigError
from trainer.run import fit
from trainer.tools import doctor

SMALL = ("data.batch_size=64", "model.hidden=[64]", "trainer.validate=1ep", "trainer.duration=15ep")


@pytest.fixture
def signs(assembled, capsys):
    """The signs that a run shows to the callback, by the lines that it prints."""

    def make(*overrides):
        run = assembled(*SMALL, *overrides, "callbacks=default", folder="run")
        assert any(isinstance(callback, Doctor) for callback in run.trainer.callbacks)
        with suppress(Diverged):
            fit(run)
        lines = capsys.readouterr().err.splitlines()
        return [line.split(": ")[1] for line in lines if line.startswith("doctor: ")]

    return make


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    ("overrides", "sign"),
    [
        ("optimizer=adamw optimizer.lr=3.0", "lr-too-high"),
        ("optimizer=momentum optimizer.lr=2.0", "lr-too-high"),
        ("optimizer=sgd optimizer.lr=3 trainer.clip=1", "lr-too-high"),
        ("optimizer=sgd optimizer.lr=30 data=synthetic_regression task=regression", "not-finite"),
        ("optimizer=adamw optimizer.lr=2e-5", "lr-too-low"),
        ("optimizer=adamw optimizer.lr=1e-8", "lr-too-low"),
        ("optimizer=sgd optimizer.lr=0.002", "lr-too-low"),
        ("optimizer=adamw schedule=step schedule.every=10%", "floor-too-early"),
        ("optimizer=adamw data=synthetic data.samples=200 trainer.duration=100ep trainer.validate=5ep "
         "data.batch_size=32 task.loss.label_smoothing=0", "over-fitting (a note)"),
    ],
)  # fmt: skip
def test_a_run_that_was_made_bad_shows_it(signs, overrides, sign):
    found = signs(*overrides.split())
    assert sign in found
    assert not ({"lr-too-high", "lr-too-low"} <= set(found))


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    "overrides",
    [
        "optimizer=adamw",
        "optimizer=momentum schedule=step",
        "optimizer=muon measure=norms",
        "optimizer=adamw schedule=restarts",
        "optimizer=prodigy schedule=constant",
        "optimizer=schedule_free_adamw",
        "optimizer=lars schedule=linear",
    ],
)
def test_a_healthy_run_shows_nothing(signs, overrides):
    assert signs(*overrides.split()) == []


def curve(of, updates=400):
    return Series(range(updates), [of(t) for t in range(updates)])


def falling(t):
    return 0.5 + 1.5 * math.exp(-t / 40)


def log(loss, rate=lambda t: 0.1, updates=400, **more):
    series = {"train/loss": curve(loss, updates), "lr/all": curve(rate, updates)}
    valid = more.pop("valid", loss)
    if valid is not None:
        series["val/loss"] = Series(range(19, updates, 20), [valid(t) for t in range(19, updates, 20)])
    series |= more.pop("series", {})
    return Log(series, updates, lr=0.1, **more)


def of(log):
    return [one.sign for one in examine(log)]


def test_a_hump_at_the_start_is_a_short_warmup():
    humped = log(lambda t: falling(t) + (25.0 if 4 < t < 20 else 0.0), lambda t: 0.1 * (1 - t / 400))
    (found,) = examine(humped)
    assert (found.sign, found.override) == ("warmup-too-short", "warmup=linear warmup.duration=40")
    assert found.note  # the loss ends at a quarter of its start
    wild = log(lambda t: falling(t) + (4000.0 if 4 < t < 20 else 0.0), lambda t: 0.1 * (1 - t / 400))
    assert [(one.sign, one.note) for one in examine(wild)] == [("warmup-too-short", False)]
    shallow = log(lambda t: 1.0 + falling(t) + (30.0 if 4 < t < 20 else 0.0), lambda t: 0.1 * (1 - t / 400))
    assert [(one.sign, one.note) for one in examine(shallow)] == [("warmup-too-short", False)]


def test_the_highest_loss_is_told_with_its_own_update():
    thrown = log(lambda t: 2.3 if t == 0 else 300.0 + t if t < 5 else 2.4, cosine)
    (found,) = examine(thrown)
    assert (found.sign, found.seen) == ("lr-too-high", "the loss, 2.3 at the start, is 303 at update 3 and ends at 2.4")


def test_noise_at_a_constant_rate_is_a_plateau_and_a_decay_is_not():
    draws = random.Random(0)
    noise = [draws.gauss(0.0, 0.1) for _ in range(2000)]

    def noisy(t):
        return falling(t / 5) + noise[t]

    long = {"updates": 2000, "valid": lambda t: falling(t / 5)}
    assert of(log(noisy, **long)) == ["plateau-ignored"]
    assert of(log(noisy, lambda t: 0.1 * (1 - t / 2000), **long)) == []
    assert of(log(noisy, updates=2000, valid=lambda t: 2 - t / 1500)) == []
    assert of(log(noisy, updates=2000, valid=lambda t: 1 + t / 1500)) == ["over-fitting"]


def test_a_batch_beyond_the_noise_scale_is_named():
    seen = {"noise_scale/all/high": curve(lambda t: 100.0)}
    linear = {"rate": lambda t: 0.1 * (1 - t / 400), "series": seen}
    assert of(log(falling, batch_size=1000, **linear)) == ["batch-above-critical"]
    assert of(log(falling, batch_size=150, **linear)) == []


def test_a_group_whose_updates_are_a_tenth_of_its_weights_is_named():
    seen = {"measure/head/update_ratio": curve(lambda t: 0.3), "measure/body/update_ratio": curve(lambda t: 0.001)}
    (found,) = examine(log(falling, lambda t: 0.1 * (1 - t / 400), series=seen))
    assert found.sign == "lr-too-high"
    assert "group head by 30.0%" in found.seen


def test_the_group_and_the_update_of_a_number_that_is_not_finite_are_named():
    seen = {"measure/head/grad_norm": curve(lambda t: math.nan if t >= 7 else 1.0)}
    found = examine(log(falling, lambda t: 0.1 * (1 - t / 400), series=seen))[0]
    assert (found.sign, found.measure, found.threshold) == ("not-finite", 393, 0)
    assert found.seen == "the gradient of group head is nan at update 7"


def test_samples_that_are_not_finite_are_told_in_place_of_a_lower_rate():
    told = (
        "Diverged: update 5 has gradient norm nan: it stops. Its data is not finite, slice 0: sample 5. Correct them."
    )
    (found,) = not_finite(log(lambda t: 1.0, updates=5, error=told))
    assert found.seen == "update 5 has gradient norm nan, and so is its data, slice 0: sample 5"
    assert found.override.startswith("correcting these samples")


def test_of_a_few_updates_only_what_is_not_finite_is_told():
    assert of(log(lambda t: 5.0 + t, updates=30)) == []
    assert of(log(lambda t: math.inf if t == 20 else 1.0, updates=30)) == ["not-finite"]


def test_a_loss_that_starts_at_or_below_zero_has_no_multiples_and_nothing_is_told_of_it():
    for start in (0.0, -2.0):
        losses = [start - t / 400 + (5.0 if t % 50 == 7 else 0.0) for t in range(400)]
        assert of(log(losses.__getitem__, valid=lambda t: t / 400 - 1)) == []
    turning = log(lambda t: 1.0 - t / 200, lambda t: 0.1 * (1 - t / 400), valid=lambda t: abs(t / 200 - 0.5) - 1.0)
    assert of(turning) == []


def test_a_rate_that_falls_in_steps_is_not_too_low_for_what_little_of_it_is_left_late():
    def loss(t):
        return 2.3 - 0.6 * (1 - math.exp(-t / 40)) - 0.15 * (t >= 133) - 0.1 * t / 400

    steps = log(loss, lambda t: 0.1 if t < 133 else 0.01 if t < 267 else 0.001)
    assert of(steps) == []
    assert of(log(lambda t: 2.3 - 0.2 * t / 400)) == ["lr-too-low"]


def noisy(of, sigma, updates=400, seed=0):
    """A loss with the noise of its batches."""
    draws = random.Random(seed)
    noise = [draws.gauss(0.0, sigma) for _ in range(updates)]
    return lambda t: of(t) + noise[t]


def cosine(t):
    return 0.05 * (1 + math.cos(math.pi * t / 400))


def test_one_noisy_batch_at_the_start_is_neither_a_fall_nor_a_rise():
    for first in (0.5, 3.0):
        still = noisy(lambda t, first=first: first if t == 0 else 1.0, 0.25)
        assert of(log(still, cosine)) == ["not-learning"]


def test_a_trend_that_goes_on_is_a_low_rate_and_one_that_has_ended_is_not():
    spent = [sum(cosine(i) for i in range(t)) for t in range(401)]
    assert of(log(noisy(lambda t: 2.3 - 0.1 * spent[t] / spent[-1], 0.02), cosine, valid=None)) == ["lr-too-low"]
    assert of(log(noisy(lambda t: 2.2 + 0.1 * math.exp(-t / 10), 0.02), cosine, valid=None)) == ["not-learning"]
    for fall, found in ((0.5, ["lr-too-low"]), (1.2, [])):
        steady = noisy(lambda t, fall=fall: 2.3 - fall * (spent[t] / spent[-1]) ** 1.2, 0.02)
        assert of(log(steady, cosine, valid=None)) == found


def test_a_validation_loss_that_falls_all_the_time_shows_a_low_rate_through_the_noise_of_batches():
    spent = [sum(cosine(i) for i in range(t)) for t in range(401)]

    def creeping(t, by=0.3, ends=1.0):
        return 2.3 - by * min(spent[t] / spent[-1], ends)

    still = noisy(creeping, 0.5)
    (found,) = examine(log(still, cosine, valid=creeping))
    assert (found.sign, "falls all the time" in found.seen) == ("lr-too-low", True)
    assert "has fallen" not in found.seen  # the noisy loss may end above its start
    for valid in (lambda t: creeping(t, ends=0.5), lambda t: 2.3 + 0.1 * math.sin(t), lambda t: 2.0 + t / 4000):
        assert "lr-too-low" not in of(log(still, cosine, valid=valid))
    soon = noisy(lambda t: creeping(t, 0.1) - (0.5 if t > 9 else 0.05 * t), 0.02)
    assert of(log(soon, cosine, valid=lambda t: creeping(t, 0.1) - 0.5)) == []
    assert of(log(noisy(lambda t: creeping(t, 1.5), 0.5), cosine, valid=lambda t: creeping(t, 1.5))) == []


def test_a_loss_that_is_thrown_up_and_then_falls_far_has_no_rate_that_is_too_high():
    thrown = noisy(lambda t: 1 + math.sin(math.pi * t / 240) if t < 240 else math.exp(-(t - 240) / 40), 0.05)
    assert of(log(thrown, cosine)) == []


def test_a_fall_that_is_undone_is_a_high_rate_or_weight_decay_where_that_is_large():
    undone = noisy(lambda t: falling(t) + 1.2 * (t > 200) * (1 - math.exp(-(t - 200) / 60)), 0.05)
    assert of(log(undone)) == ["lr-too-high"]
    assert of(log(undone, weight_decay=0.5)) == ["weight-decay-too-high"]
    assert of(log(noisy(falling, 0.05), cosine, weight_decay=0.1)) == []


def test_a_loss_that_stays_while_the_gradient_vanishes_is_a_collapsed_net():
    still = noisy(lambda t: 2.3, 0.02)
    norms = {"train/grad_norm": curve(lambda t: 1.0 if t < 20 else 0.1)}
    assert of(log(still, cosine, series=norms)) == ["lr-too-high"]
    assert of(log(still, cosine, series={"train/grad_norm": curve(lambda t: 1.0)})) == ["not-learning"]
    (found,) = examine(log(still, cosine, series={"train/grad_norm": curve(lambda t: 0.0)}))
    assert (found.sign, found.measure) == ("zero-gradients", 1.0)
    solved = curve(lambda t: 1.0 if t < 100 else 0.0)
    assert of(log(lambda t: math.exp(-t / 10), cosine, series={"train/grad_norm": solved})) == []


def test_targets_of_another_scale_are_named():
    assert of(log(noisy(lambda t: 5e5 - 100 * t, 1e3), cosine)) == ["target-scale"]


def test_slope_and_noise_are_those_of_the_line_and_the_draws():
    rates = [0.1] * 1000
    line = noisy(lambda t: 3 - 2 * 0.1 * (t + 1), 0.5, 1000)
    losses = [line(t) for t in range(1000)]
    found = trend(losses, rates)
    spread = math.sqrt(sum((0.1 * (t + 1) - 0.1 * 500.5) ** 2 for t in range(1000)))
    assert found.slope == pytest.approx(-2, abs=4 * 0.5 / spread)
    assert noise([line(t) + 0.2 * t for t in range(1000)]) == pytest.approx(0.5, rel=0.15)
    assert found.score == pytest.approx(found.slope * spread / noise(losses))
    assert trend(losses, [0.0] * 1000).slope == 0


@pytest.mark.sample(0)
def test_the_doctor_is_right_of_the_runs_of_a_family(capsys):
    judge.main(["used", "--only", "perceptron"])
    told = capsys.readouterr().out.splitlines()[-1]
    counts = {name: int(count) for name, count in (one.split(": ") for one in told.split(", "))}
    assert counts["bad right"] >= 0.8 * sum(count for name, count in counts.items() if name.startswith("bad"))
    assert not {"bad opposite", "healthy false"} & counts.keys()


def test_what_is_not_finite_in_the_middle_hides_nothing_else():
    broken = log(lambda t: math.nan if 200 <= t < 204 else 5.0 + t / 100, valid=lambda t: math.nan)
    assert of(broken) == ["not-finite", "lr-too-high"]
    assert (examine(broken)[0].measure, examine(broken)[0].seen) == (4, "the loss is nan at update 200")


def test_every_sign_is_in_the_table():
    from trainer.doctor import signs

    assert len({*NAMES}) == len(NAMES) > len(SIGNS)
    for sign in NAMES:
        assert f"| {sign} |" in signs.__doc__


def test_looking_changes_no_bit_of_the_run(assembled):
    runs = [assembled(*SMALL, f"callbacks={name}", folder=name) for name in ("none", "default")]
    for run in runs:
        fit(run)
    states = [run.module.net.state_dict() for run in runs]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_the_command_tells_the_same_from_the_folder_and_writes_it(assembled, tmp_path, capsys):
    from trainer.config.run_summary import announce, write_result

    run = assembled(*SMALL, "optimizer.lr=3.0", folder="bad")
    announce(run, [])
    fit(run)
    write_result(run, {"status": "completed", "test": {}}, 1.0)
    doctor.main([str(run.folder), "--json", str(tmp_path / "found.json")])
    told = json.loads((tmp_path / "found.json").read_text())[str(run.folder)]
    assert [one["sign"] for one in told] == [one.sign for one in examine(read_log(run.folder))] == ["lr-too-high"]
    assert "try        optimizer.lr=0." in capsys.readouterr().out


def test_what_is_no_run_and_a_run_without_a_log_are_refused(tmp_path, assembled):
    with pytest.raises(ConfigError, match=r"has no plan\.json"):
        doctor.main([str(tmp_path)])
    (tmp_path / "plan.json").write_text('{"total_updates": 1}')
    with pytest.raises(ConfigError, match="lacks warmup_updates, global_batch, base_lr"):
        doctor.main([str(tmp_path)])
    damaged = {"total_updates": "many", "warmup_updates": 0, "global_batch": 1, "base_lr": None}
    (tmp_path / "plan.json").write_text(json.dumps(damaged))
    with pytest.raises(ConfigError, match="lacks total_updates, base_lr, or has no number there"):
        doctor.main([str(tmp_path)])


def test_of_nets_that_play_against_each_other_no_common_loss_is_judged(assembled, capsys):
    long = ("trainer.duration=60", "trainer.validate=60", "callbacks=default")
    words = [word for word in GAN if not word.startswith(("trainer.", "logger="))]
    run = assembled(*words, *long)
    fit(run)
    assert len(read_scalars(run.folder)["train/loss"]) == 60
    assert "doctor:" not in capsys.readouterr().err


def test_without_a_log_the_callback_says_nothing(assembled, capsys):
    fit(assembled(*SMALL, "trainer.duration=5ep", "logger=none", "optimizer.lr=1.0", "callbacks=default"))
    assert "doctor" not in capsys.readouterr().err


def test_of_a_sweep_every_run_is_examined_and_one_without_a_log_is_told(assembled, tmp_path, capsys):
    from trainer.config.run_summary import announce

    for name, more in (("10", ["optimizer.lr=1.0"]), ("9", [])):
        run = assembled(*SMALL, "trainer.duration=5ep", *more, folder=f"sweep/{name}")
        announce(run, [])
        fit(run)
        run.trainer.logger.close()
    (tmp_path / "sweep" / "2").mkdir()
    (tmp_path / "sweep" / "2" / "plan.json").write_bytes((tmp_path / "sweep" / "9" / "plan.json").read_bytes())
    (tmp_path / "sweep" / "sweep.json").write_text("{}")
    (tmp_path / "sweep" / "plan.json").write_text("{}")  # as cadence plan leaves one beside runs
    (events,) = (tmp_path / "sweep" / "9").glob("events.*")
    with events.open("r+b") as file:
        file.truncate(events.stat().st_size - 7)
    capsys.readouterr()
    doctor.main([str(tmp_path / "sweep"), "--json", str(tmp_path / "found.json")])
    text = capsys.readouterr().out
    told = json.loads((tmp_path / "found.json").read_text())
    assert [path.rpartition("/")[2] for path in told] == ["2", "9", "10"]
    assert told[str(tmp_path / "sweep" / "2")] is None
    assert f"{tmp_path / 'sweep' / '2'}: nothing to examine: " in text
    assert [one["sign"] for one in told[str(tmp_path / "sweep" / "10")]] == ["lr-too-high"]
    with pytest.raises(ConfigError, match="holds no log of a training loss"):
        doctor.main([str(tmp_path / "sweep" / "2")])


def test_every_experiment_is_tried():
    known = {path.stem for path in (healthy.ROOT / "conf" / "experiment").glob("*.yaml")}
    assert known == {*healthy.DIGITS, *healthy.LARGER}


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("name", healthy.DIGITS)
def test_no_experiment_on_digits_raises_an_alarm(name, tmp_path):
    healthy.train([f"experiment={name}", "trainer.threads=1"], 1, tmp_path)
    assert examine(read_log(tmp_path / "0")) == []


def test_the_findings_replace_a_file_at_once_and_a_device_is_written_to(tmp_path, assembled, capfd):
    from trainer.config.run_summary import announce

    run = assembled(*SMALL)
    announce(run, [])
    fit(run)
    (tmp_path / "found.json").write_text("before")
    (tmp_path / "kept.json").hardlink_to(tmp_path / "found.json")
    doctor.main([str(run.folder), "--json", str(tmp_path / "found.json")])
    assert (tmp_path / "kept.json").read_text() == "before"
    assert list(json.loads((tmp_path / "found.json").read_text())) == [str(run.folder)]
    with pytest.raises(ConfigError, match=r"^\S+ cannot be written \(Is a directory\): choose another file"):
        doctor.main([str(run.folder), "--json", str(tmp_path)])
    capfd.readouterr()
    doctor.main([str(run.folder), "--json", "/dev/stderr"])
    assert json.loads(capfd.readouterr().err)


def test_a_loss_that_is_missing_makes_no_other_sum_of_the_rates():
    few = {t: 2 - t / 4000 for t in range(400) if t != 200}
    loss = Series(list(few), list(few.values()))
    whole = log(lambda t: 2 - t / 4000, rate=lambda t: 1e-3, weight_decay=0.1)
    gap = log(lambda t: 2 - t / 4000, rate=lambda t: 1e-3, weight_decay=0.1, series={"train/loss": loss})
    assert [one.sign for one in examine(gap)] == [one.sign for one in examine(whole)] == ["lr-too-low"]
