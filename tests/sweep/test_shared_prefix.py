"""A sweep over lengths that share a prefix: which job starts from where, and what a kill, a failure or an error does.

The driver is real, with the real config; the jobs are stand-ins that only count updates. One sweep at the end trains.
"""

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.stand_in import DRIVER
from tests.sweep.test_sweep import start, summary, sweep, wait_until_free
from tests.test_every_launch import ROOT, train
from trainer.checkpoint.io import checkpoints_in, read
from trainer.config.settings import settings_of
from trainer.lr import ConfigError
from trainer.sweep.job import Job
from trainer.sweep.shared_prefix import share

PROGRAM = """
import json, os, re, sys, time
from pathlib import Path

def job(words):
    given = dict(word.lstrip("+").split("=", 1) for word in words if "=" in word)
    folder, total = Path(given["hydra.run.dir"].strip("'")), int(given["trainer.duration"])
    own, snapshot = folder / "checkpoints", given.get("resume.snapshot", "").strip("'")
    own.mkdir(parents=True, exist_ok=True)
    there = sorted(own.glob("update-*.ckpt")) or ([snapshot] if snapshot else [])
    begin = int(re.findall(r"update-0*(\\d+)", str(there[-1]))[0]) if there else 0
    assert not there or Path(there[-1]).exists()
    snapshots = json.loads(given.get("trainer.snapshots", "[]"))
    with (folder / "starts").open("a") as file:
        file.write(json.dumps({"begin": begin, "pid": os.getpid(), "time": time.time()}) + "\\n")
    changes = [{"policy": "branch", "update": begin, "of": snapshot}] if snapshot and begin else []
    (folder / "plan.json").write_text(json.dumps({"total_updates": total, "changes": changes}))
    for t in range(begin + 1, total + 1):
        time.sleep(0.02)
        if t in snapshots:
            kept = own / f"at-{t:08d}"
            kept.mkdir(exist_ok=True)
            (kept / f"update-{t:08d}.ckpt").touch()
        if t % 10 == 0:
            (own / f"update-{t:08d}.ckpt").touch()
        act = os.environ.get(f"PLANT_{total}_{t}")
        if act == "raise":
            raise RuntimeError("planted")
        if act == "hang":
            (folder / "hangs").touch()
            time.sleep(600)
    (folder / "result.json").write_text(json.dumps({"status": "completed", "metrics": {}, "ended": time.time()}))
"""
WORDS = (
    *("data=synthetic", "data.samples=32", "data.batch_size=4", "schedule=wsd", "warmup=linear", "warmup.duration=4"),
    *("trainer.validate=5", "hydra.launcher.shared_prefix=true", "trainer.accelerator=cpu"),
)
LENGTHS = "trainer.duration=20,40,80"
PARTS = {20: 17, 40: 33}
"""How many updates each length shares with 80: up to the second update of its last fifth, whose rate is lower."""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A stand-in for the program, with the project's own config."""
    folder = tmp_path / "the app"
    folder.mkdir()
    (folder / "train.py").write_text(PROGRAM + DRIVER)
    (folder / "conf").symlink_to(ROOT / "conf")
    return folder


def starts(app: Path, job: int) -> list[dict[str, Any]]:
    path = app / f"outputs/s/{job}/starts"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def begins(app: Path, jobs: int) -> list[list[int]]:
    """From which update each job was trained, at each of its starts."""
    return [[one["begin"] for one in starts(app, job)] for job in range(jobs)]


def ended(app: Path, job: int) -> float:
    return float(json.loads((app / f"outputs/s/{job}/result.json").read_text())["ended"])


def test_each_rate_has_one_source_and_its_shorter_jobs_start_from_it_while_it_still_runs(app: Path) -> None:
    code, out, err = sweep(app, *WORDS, LENGTHS, "optimizer.lr=0.1,0.2", "hydra.launcher.jobs=3")
    assert (code, err) == (0, "")
    assert begins(app, 6) == [[17], [17], [33], [33], [0], [0]]
    for source, shorter in ((4, 0), (5, 1)):
        assert starts(app, shorter)[0]["time"] < ended(app, source)
    assert starts(app, 4)[0]["time"] < starts(app, 0)[0]["time"]
    assert "job 0 starts from job 4 after update 17\n" in out
    assert "job 3 starts from job 5 after update 33\n" in out
    assert out.splitlines()[-1] == "shared prefix: 280 updates asked, 180 trained"
    assert [job["overrides"][-2:] for job in summary(app)][0] == ["trainer.duration=20", "optimizer.lr=0.1"]
    assert [job["status"] for job in summary(app)] == ["completed"] * 6
    assert [job.get("shared_prefix") for job in summary(app)][1:5:3] == [{"job": 5, "updates": 17}, None]


def test_what_shares_nothing_runs_alone_beside_what_does(app: Path) -> None:
    words = [word for word in WORDS if not word.startswith(("schedule", "warmup"))]
    code, out, err = sweep(
        app, *words, "schedule=cosine,wsd", "warmup=none", "trainer.duration=20,40", "hydra.launcher.jobs=3"
    )
    assert (code, err) == (0, "")
    assert begins(app, 4) == [[0], [0], [17], [0]]
    assert (
        "jobs 0 and 1 share nothing, their curves differ from update 1 on: take one whose start does not depend" in out
    )


def test_a_killed_driver_goes_on_with_the_source_and_the_shorter_jobs_where_each_of_them_was(app: Path) -> None:
    hang = {"PLANT_80_60": "hang", "PLANT_40_37": "hang"}
    driver = start(app, "-m", "name=s", *WORDS, LENGTHS, "hydra.launcher.jobs=3", **hang)
    until = time.monotonic() + 90
    while not all((app / f"outputs/s/{job}/hangs").exists() for job in (1, 2)) and time.monotonic() < until:
        time.sleep(0.05)
    while summary(app)[0]["status"] != "completed" and time.monotonic() < until:
        time.sleep(0.05)
    driver.kill()
    driver.communicate(timeout=60)
    wait_until_free(app / "outputs/s")
    assert [job["status"] for job in summary(app)] == ["completed", "running", "running"]
    code, out, err = sweep(app, *WORDS, LENGTHS, "hydra.launcher.jobs=3", "resume=auto")
    assert (code, err) == (0, "")
    assert begins(app, 3) == [[17], [33, 33], [0, 60]]
    assert "job 0 was completed before\n" in out
    assert out.splitlines()[-1] == "shared prefix: 140 updates asked, 90 trained"


def test_jobs_whose_source_fails_before_their_snapshot_are_not_run_and_a_later_start_runs_them(app: Path) -> None:
    code, _, err = sweep(app, *WORDS, LENGTHS, "hydra.launcher.jobs=2", PLANT_80_25="raise")
    assert code == 1
    assert [job["status"] for job in summary(app)] == ["completed", "interrupted", "failed"]
    assert summary(app)[1]["error"] == "not run: job 2, which it starts from, failed before update 33"
    assert (
        "job 1 interrupted: trainer.duration=40: not run: job 2, which it starts from, failed before update 33" in err
    )
    assert err.splitlines()[-1].startswith("1 of 3 jobs failed: job 2 trainer.duration=80, 1 more did not run to their")
    assert begins(app, 3) == [[17], [], [0]]
    code, _, err = sweep(app, *WORDS, LENGTHS, "resume=auto", "hydra.launcher.fail_fast=true")
    assert (code, err) == (0, "")
    assert begins(app, 3) == [[17], [33], [0, 20]]


def test_a_first_failure_ends_the_jobs_that_wait_for_a_snapshot_too(app: Path) -> None:
    words = (*WORDS, LENGTHS, "hydra.launcher.jobs=2", "hydra.launcher.fail_fast=true")
    code, _, err = sweep(app, *words, PLANT_80_10="raise")
    assert code == 1
    assert [job["status"] for job in summary(app)] == ["waiting", "waiting", "failed"]
    assert "2 more did not run to their end" in err


def test_a_signal_ends_the_sweep_while_jobs_wait_for_a_snapshot(app: Path) -> None:
    driver = start(app, "-m", "name=s", *WORDS, LENGTHS, PLANT_80_5="hang")
    until = time.monotonic() + 60
    while not (app / "outputs/s/2/hangs").exists() and time.monotonic() < until:
        time.sleep(0.05)
    driver.send_signal(signal.SIGTERM)
    _, err = driver.communicate(timeout=60)
    assert driver.returncode == 128 + signal.SIGTERM
    assert err.splitlines()[-1].startswith("SIGTERM interrupted the sweep: 0 of 3 completed, 1 interrupted, 2 waiting")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ("trainer.duration=20,40", "warmup.duration=10%"),
            "prefix=true: jobs 0 and 1 share nothing, warmup.duration=10%",
        ),
        (("trainer.duration=20,40", "hydra.sweeper.max_batch_size=1"), "prefix=true takes all jobs of a grid at once"),
        (
            ("trainer.duration=20", "optimizer.lr=interval(0.1,0.2)", "hydra/sweeper=search"),
            "prefix=true is for the jobs of a grid",
        ),
    ],
)
def test_a_prefix_that_nothing_can_share_is_refused_before_anything_starts(
    app: Path, words: tuple[str, ...], told: str
) -> None:
    given = {word.partition("=")[0]: word for word in (*WORDS, *words)}
    code, _, err = sweep(app, *given.values())
    assert (code, len(err.splitlines())) == (2, 1)
    assert told in err
    assert not list(app.glob("outputs/s/*/"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["resume.path=somewhere"], "leave out resume.path"),
        (["resume.snapshot=somewhere"], "leave out resume.path, resume.snapshot"),
        (["resume=auto", "resume.policy=stretch"], "leave out resume.path, resume.snapshot, resume.policy"),
        (["trainer.snapshots=[3]"], r"leave out trainer.snapshots=\[3\]"),
        (["optimizer.lr=-1"], "optimizer.lr=-1"),
        (["trainer.duration=3ep", "data.samples=null"], "data.samples is not known"),
    ],
)
def test_what_the_launcher_decides_and_what_cannot_be_planned_is_refused(
    compose: Any, words: list[str], told: str
) -> None:
    plain = [word for word in WORDS if not word.startswith("hydra")]
    lengths = ("trainer.duration=20", "trainer.duration=40")
    jobs = [Job(i, [], Path("nowhere"), []) for i in range(2)]
    with pytest.raises(ConfigError, match=told):
        share(jobs, [settings_of(compose(*plain, length, *words)) for length in lengths])


def test_jobs_that_differ_in_more_than_their_length_share_no_prefix(compose: Any) -> None:
    plain = [word for word in WORDS if not word.startswith("hydra")]
    jobs = [Job(i, [], Path("nowhere"), []) for i in range(2)]
    with pytest.raises(ConfigError, match=r"no two jobs differ in trainer\.duration only"):
        share(jobs, [settings_of(compose(*plain, f"trainer.duration={20 * i}", f"seed={i}")) for i in (1, 2)])


@pytest.mark.slow
def test_a_sweep_that_shares_a_prefix_trains_to_the_bits_of_lone_runs(tmp_path: Path) -> None:
    words = (
        *("model.hidden=[8]", "model.dropout=0.2", "data.batch_size=64", "schedule=wsd", "warmup=linear"),
        *("warmup.duration=4", "average=ema", "average.decay=0.9", "trainer.validate=7", "trainer.threads=1"),
        *("trainer.accelerator=cpu", "callbacks=none"),
    )
    own = ("hydra.launcher.shared_prefix=true", "hydra.launcher.fork=true", "hydra.launcher.jobs=2")
    done = train(tmp_path, "-m", "name=s", "trainer.duration=30,60", *own, *words)
    assert done.returncode == 0, done.stderr
    assert "job 0 starts from job 1 after update 25\n" in done.stdout
    assert done.stdout.splitlines()[-1] == "shared prefix: 90 updates asked, 65 trained"
    done = train(tmp_path, "name=lone", "trainer.duration=30", *words)
    assert done.returncode == 0, done.stderr
    shorter, lone = tmp_path / "outputs/s/0", tmp_path / "outputs/lone"
    one, two = (read(checkpoints_in(folder / "checkpoints")[-1]) for folder in (shorter, lone))
    assert one["state_dict"].keys() == two["state_dict"].keys()
    assert all(torch.equal(one["state_dict"][key], two["state_dict"][key]) for key in one["state_dict"])
    results = [json.loads((folder / "result.json").read_text()) for folder in (shorter, lone)]
    for key in ("metrics", "best", "test", "updates", "total_updates"):
        assert results[0][key] == results[1][key], key
    plan = json.loads((shorter / "plan.json").read_text())
    kept = tmp_path / "outputs/s/1/checkpoints/at-00000025/update-00000025.ckpt"
    assert plan["changes"] == [{"policy": "branch", "update": 25, "of": str(kept)}]
