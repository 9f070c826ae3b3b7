"""Experiments from end to end: real sweeps of train.py, whose arms are paired, and claims that decide the exit code."""

import json
import math
import subprocess
from dataclasses import replace

import pytest
import torch
import yaml

from data.digits import Digits
from experiments import record, run
from experiments.results import trials_in
from models.mlp import MLP
from trainer.cli.run_cli import run_cli
from trainer.log.scalars import scalars
from trainer.lr import ConfigError
from trainer.tools.report.runs import find_runs


def swept(name, folder, *jobs, curve=None):
    """The sweeps of an experiment with these jobs, one seed each: their folders."""
    experiment = run.read(name) if curve is None else replace(run.read(name), curve=curve)
    places = [folder / str(i) for i in range(len(jobs))]
    for place, words in zip(places, jobs):
        run.train(run.command(name, experiment, words, place, seeds=1, jobs=1), place)
    return places


def weights(place, job=0):
    """What the newest checkpoint of a job holds of the net."""
    path = max((place / str(job) / "checkpoints").glob("update-*.ckpt"))
    state = torch.load(path, weights_only=True)["state_dict"]
    return {name.removeprefix("net."): value for name, value in state.items() if name.startswith("net.")}


TINY = {
    "title": "A trial", "about": "What.", "setting": "How.", "source": "Nobody", "seeds": 2, "tuned": "optimizer.lr",
    "sweeps": [
        {"arm": "{schedule}", "jobs": "schedule=linear optimizer.lr=0.05,0.5 trainer.duration=40"},
        {"arm": "lost", "jobs": "optimizer.lr=1e6 trainer.duration=40"},
        {"arm": "more", "jobs": "optimizer.lr={best linear} trainer.duration=80"},
    ],
    "claims": [
        {"says": "the best rate is the larger", "value": "best('linear')", "at_least": 0.5},
        {"says": "a control", "value": "train_loss('lost') / train_loss('linear')", "at_most": 1, "kind": "control"},
        {"says": "more is better", "value": "train_loss('more') / train_loss('linear')", "at_most": 1.0},
    ],
    "notes": ["It is {train_loss('linear'):.3f}."],
    "plots": [{"name": "rates", "title": "Rates", "x": "optimizer.lr", "y": "test/train_loss", "lines": "schedule"}],
}  # fmt: skip


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """An experiment of six short runs, written where experiments lie; it changes what is claimed."""

    def write(**changes):
        (tmp_path / "schedules.yaml").write_text(yaml.safe_dump({**TINY, **changes}, allow_unicode=True))

    monkeypatch.setattr(run, "HERE", tmp_path)
    write()
    return write


@pytest.mark.sample(0)
def test_an_experiment_runs_from_end_to_end_and_goes_on_where_it_was(tiny, tmp_path, monkeypatch, capfd):
    words = ["schedules", "--seeds", "1", "--jobs", "1", "--out", str(tmp_path / "out"), "--docs"]
    monkeypatch.setattr(record, "DOCS", tmp_path / "docs" / "experiments")
    (tmp_path / "docs" / "experiments").mkdir(parents=True)
    assert run_cli(lambda: run.main(words)) == 0
    folder = tmp_path / "out" / "schedules"
    found = record.read_claims(folder)
    assert [one.outcome for one in found.claims] == ["pass", "fails, as it must", "pass"]
    assert found.claims[0].measured == 0.5
    assert found.claims[1].measured == "inf"
    assert found.more["cost"]["runs"] == 4
    [table] = found.more["tables"]
    assert [row[0] for row in table["rows"]] == ["linear", "lost", "more"]
    assert (folder / "report" / "rates.png").read_bytes().startswith(b"\x89PNG")
    assert "a control" in (folder / "report" / "report.html").read_text()
    assert (tmp_path / "docs" / "experiments" / "schedules" / "rates.png").exists()
    assert "## A trial" in (tmp_path / "docs" / "experiments.md").read_text()
    assert "| a control " in capfd.readouterr().out
    tiny(claims=[*TINY["claims"], {"says": "too much", "value": "updates('more')", "at_most": 79}])
    assert run_cli(lambda: run.main(words)) == 1
    shown = capfd.readouterr()
    assert "schedules: 1 of 4 not as claimed: too much" in shown.err
    assert shown.out.count("was completed before") == 3  # the run that diverged is tried again


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
        run.main(["goyal", *words])
    with pytest.raises(ConfigError, match="nothing is not an experiment: choose from adam_sqrt"):
        run.main(["nothing"])


def test_a_key_that_is_not_known_is_refused(tiny):
    tiny(seed=3)
    with pytest.raises(ConfigError, match=r"schedules\.yaml\.seed is not known to Experiment: did you mean seeds"):
        run.read("schedules")


def test_every_program_tells_how_to_run_it(python):
    told = subprocess.run([python, run.__file__, "--help"], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert "\n    python experiments/run.py warmup --" in told.stdout
    for name in ("critical_batch", "range_rates", "tune_regret", "healthy"):
        assert f"\n    python experiments/{name}.py " in (run.HERE / f"{name}.py").read_text()


def test_the_page_is_made_of_the_records_that_are_there(tmp_path):
    assert (record.DOCS.parent / "experiments.md").read_text() == record.page(record.records_in(record.DOCS))
    with pytest.raises(ConfigError, match="holds no record"):
        record.records_in(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "claims.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        record.records_in(tmp_path)


def test_the_records_of_before_have_the_claims_of_the_files():
    for name in sorted({*run.names()} & {path.name for path in record.DOCS.iterdir()}):
        kept, asked = record.read_claims(record.DOCS / name).claims, list(run.flat(run.read(name).claims))
        assert [one.text for one in kept] == [one["says"] for one in asked]
        assert [one.kind for one in kept] == [one.get("kind", "claim") for one in asked]


@pytest.mark.sample(0)
def test_arms_of_a_seed_share_their_first_weights_and_the_order_of_the_data(tmp_path):
    still = (
        "scaling=none ~scaling.base_batch_size optimizer.lr=1e-30 'trainer.duration=64 samples' data.batch_size=8,32"
    )
    [place] = swept("adam_sqrt", tmp_path, still, curve="")
    first, other = weights(place), weights(place, 1)  # those of the start, but for 1e-30 where they were 0
    assert first.keys() == other.keys()
    assert all(torch.allclose(first[name], other[name], rtol=0, atol=1e-20) for name in first)
    small, large = ([loss for _, loss in scalars(place / str(job), ("train/loss",))["train/loss"]] for job in range(2))
    assert [sum(small[4 * i : 4 * i + 4]) / 4 for i in range(2)] == pytest.approx(large, rel=1e-6)


@pytest.mark.sample(0)
def test_the_loss_is_that_of_the_whole_training_set_and_measuring_it_changes_no_bit(tmp_path):
    words = (
        "scaling=none ~scaling.base_batch_size 'trainer.duration=256 samples'"  # BatchNorm has statistics to disturb
    )
    [plain] = swept("goyal", tmp_path / "plain", words, curve="")
    [watched] = swept("goyal", tmp_path / "watched", words, curve="16 samples")
    one, two = weights(plain), weights(watched)
    assert all(torch.equal(one[name], two[name]) for name in one)
    [quiet], [trial] = (trials_in(place, "a", "") for place in (plain, watched))
    assert quiet.values["train_loss"] == trial.values["train_loss"] == trial.curve[-1][1]
    assert [seen for seen, _ in trial.curve] == [16 * (i + 1) for i in range(16)]
    assert quiet.curve == ()
    net = MLP(64, 10, [32], norm="batch").eval()
    net.load_state_dict(one)
    data = Digits(split=[1437, 0, 360], split_seed=1234, standardize=True, label_noise=0.1, batch_size=16)
    data.setup()
    train = data.splits.train
    with torch.no_grad():
        outputs = torch.stack([net(train.inputs[i : i + 1])[0] for i in range(len(train))])
    loss = torch.nn.functional.cross_entropy(outputs, train.targets).item()
    assert trial.values["train_loss"] == pytest.approx(loss, rel=1e-5)


def test_a_run_that_fails_for_another_reason_than_that_it_diverged_is_an_error(tmp_path):
    folder = tmp_path / "0"
    folder.mkdir()
    (folder / "config.yaml").write_text("seed: 0\n")
    (folder / "overrides.yaml").write_text("- seed=0\n")
    for error in ("Diverged: update 3: the loss is nan", "KeyError: 'x'"):
        result = {"status": "failed", "error": error, "updates": 3, "seconds": 1.0, "metrics": {}}
        (folder / "result.json").write_text(json.dumps(result))
        if error.startswith("Diverged"):
            [trial] = trials_in(tmp_path, "a", "")
            assert (trial.values["train_loss"], trial.values["test_error"]) == (math.inf, 1.0)
        else:
            with pytest.raises(RuntimeError, match="failed: KeyError"):
                trials_in(tmp_path, "a", "")


@pytest.mark.sample(0)
def test_adascale_keeps_its_gains_and_one_held_at_s_is_the_linear_rule(tmp_path):
    held = "+callbacks.held._target_=experiments.callbacks.HeldGain +callbacks.held.gain"
    four, many = "data.batch_size=8 trainer.accumulate=4", "data.batch_size=32 trainer.accumulate=16"
    places = swept(
        "adascale", tmp_path,
        f"trainer.duration=64 {four}", f"trainer.duration=64 {four} {held}=1", f"trainer.duration=64 {many} {held}=64",
        "trainer.duration=1 scaling=linear trainer.accumulate=1 data.batch_size=512",
    )  # fmt: skip
    paced, slow, all_at_once, linear = (trials_in(place, "{kappa}", "")[0] for place in places)
    gains = [gain for _, gain in scalars(places[0] / "0", ("adascale/gain",))["adascale/gain"]]
    assert len(gains) == paced.values["updates"]
    assert gains[0] == 1.0
    assert sum(gains[:-1]) < 64 <= sum(gains)
    assert (paced.values["gain_least"], paced.values["gain_most"]) == (min(gains), max(gains))
    assert paced.values["updates_share_s"] == pytest.approx(len(gains) * 4 / 64)
    assert (slow.arm, slow.values["updates"], slow.values["gain_most"], slow.values["gain_least"]) == ("4", 64, 1, 1)
    assert (all_at_once.arm, all_at_once.values["updates"], all_at_once.values["gain_first"]) == ("64", 1, 64)
    assert (linear.arm, linear.values["updates"]) == ("64", 1)
    assert all_at_once.values["train_loss"] == pytest.approx(linear.values["train_loss"], rel=1e-4)


@pytest.fixture(scope="module")
def growing(tmp_path_factory):
    """The arms of increase_batch over 4 epochs: for each its folder and its trial."""
    arms = {sweep.arm: sweep.jobs for sweep in run.read("increase_batch").sweeps}
    short = {arm: f"{jobs} trainer.duration=4ep" for arm, jobs in arms.items()}
    jobs = [
        words if arm == "constant" else f"{words} 'schedule.milestones=[1ep,2ep,3ep]'" for arm, words in short.items()
    ]
    places = swept("increase_batch", tmp_path_factory.mktemp("growing"), *jobs)
    return {arm: (place, trials_in(place, arm, "")[0]) for arm, place in zip(arms, places)}


@pytest.mark.sample(0)
def test_where_the_batch_grows_the_rate_stays_and_their_ratio_is_that_of_the_decay(growing):
    rates, batches = {}, {}
    for arm, (place, _) in growing.items():
        found = scalars(place / "0", ("lr/",))
        rates[arm] = list(dict.fromkeys(rate for _, rate in found[min(found)]))
        [one] = find_runs(place)
        batches[arm] = [stage["batch"] for stage in one.plan["batches"]]
    assert rates["decay"] == pytest.approx([0.02 / 4**k for k in range(4)])
    assert rates["batch"] == rates["constant"] == pytest.approx([0.02])
    assert rates["hybrid"] == pytest.approx([0.02, 0.02 / 4, 0.02 / 16])
    assert batches["batch"] == [8, 32, 128, 512]
    assert batches["hybrid"] == [8, 32]
    assert batches["square root"] == [8, 128, 512]
    assert batches["decay"] == batches["constant"] == []


@pytest.mark.sample(0)
def test_before_the_batch_grows_the_arms_are_the_same_to_the_bit_and_each_sees_every_epoch(growing):
    trials = {arm: trial for arm, (_, trial) in growing.items()}
    assert len({trial.curve[0] for trial in trials.values()}) == 1
    assert {len(trial.curve) for trial in trials.values()} == {4}
    updates = {arm: trial.values["updates"] for arm, trial in trials.items()}
    assert updates["decay"] == 4 * 179
    assert updates["batch"] < updates["hybrid"] < updates["decay"]
