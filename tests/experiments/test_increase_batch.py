"""Growing batches in place of a falling rate: the arms see the same samples, and the experiment runs to its end."""

import dataclasses
import json

import pytest

from experiments import increase_batch, training
from trainer.cli.run_cli import run_cli

SHORT = ("trainer.duration=4ep", "schedule.milestones=[1ep,2ep,3ep]")


def shortened():
    """The arms over 4 epochs."""
    return [
        dataclasses.replace(arm, overrides=(*arm.overrides, *(SHORT[:1] if arm.name == "constant" else SHORT)))
        for arm in increase_batch.arms()
    ]


@pytest.fixture(scope="module")
def trials():
    return {arm.name: training.train(arm, 0) for arm in shortened()}


def test_where_the_batch_grows_the_rate_stays_and_their_ratio_is_that_of_the_decay(trials):
    seen = {name: [(batch, rate) for *_, batch, rate in trial.seen["epochs"]] for name, trial in trials.items()}
    assert seen["decay"] == [(8, 0.02 / 4**k) for k in range(4)]
    assert [batch for batch, _ in seen["batch"]] == [8, 32, 128, 512]
    assert {rate for _, rate in seen["batch"]} == {0.02}
    assert [batch for batch, _ in seen["hybrid"]] == [8, 32, 32, 32]
    for batch, rate in (*seen["batch"], *seen["hybrid"]):
        assert any(rate / batch == pytest.approx(slow / 8) for _, slow in seen["decay"])
    assert [batch for batch, _ in seen["square root"]] == [8, 128, 512, 512]
    assert set(seen["constant"]) == {(8, 0.02)}


def test_before_the_batch_grows_the_arms_are_the_same_to_the_bit_and_each_sees_every_epoch(trials):
    first = {trial.seen["epochs"][0] for trial in trials.values()}
    assert len(first) == 1
    for trial in trials.values():
        assert [samples // increase_batch.EPOCH for samples, *_ in trial.seen["epochs"]] == [1, 2, 3, 4]
    assert trials["decay"].updates == 4 * 179
    assert trials["batch"].updates < trials["hybrid"].updates < trials["decay"].updates


def test_it_runs_from_end_to_end(tmp_path, monkeypatch, trials):
    monkeypatch.setattr(increase_batch, "trained", lambda arms, seeds, processes: {k: [v] for k, v in trials.items()})
    monkeypatch.setattr(increase_batch, "PLACES", (1, 2, 3, 4))
    code = run_cli(lambda: increase_batch.main(["--seeds", "1", "--out", str(tmp_path)]))
    report = json.loads((tmp_path / "increase_batch.json").read_text())
    assert code == (0 if report["pass"] else 1)
    assert (tmp_path / "increase_batch.png").read_bytes().startswith(b"\x89PNG")
    assert {row["role"] for row in report["verdicts"]} == {"claim", "control", "note"}
    assert "\n    python experiments/increase_batch.py --" in increase_batch.__doc__
