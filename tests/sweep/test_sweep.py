"""A sweep must survive the death of any of its jobs and never call a job done that is not; this plants the deaths."""

import itertools
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from trainer.distributed.launch.folder_lock import FolderLock

ROOT = Path(__file__).parents[2]

PROGRAM = """
import json, os, signal, subprocess, sys, time
from pathlib import Path
import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from trainer.cli.hydra_internals import VERSION_BASE
from trainer.cli.run_cli import run_cli
from trainer.cli.run_id import register_run_id
from trainer.lr import ConfigError

register_run_id()

def act(cfg, folder):
    if cfg.act == "refuse":
        raise ConfigError(f"x={cfg.x} is refused")
    if cfg.act == "raise":
        raise RuntimeError("planted\\nfailure")
    if cfg.act == "warn": print("warning: planted", file=sys.stderr)
    if cfg.act == "vanish": os._exit(0)
    if cfg.act == "leave":
        sys.exit()
    if cfg.act == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if cfg.act == "once" and not Path(folder, "seen").exists():
        Path(folder, "seen").touch()
        cfg.act = "hang"
    if cfg.act in ("hang", "abandon"):
        rank = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print("hanging", os.getpid(), rank.pid, flush=True)
        if cfg.act == "abandon":
            os._exit(3)
        time.sleep(600)

@hydra.main(config_path="conf", config_name="train", **VERSION_BASE)
def main(cfg):
    begun = time.time()
    folder = Path(HydraConfig.get().runtime.output_dir)
    print("job says", cfg.x)
    act(cfg, folder)
    time.sleep(cfg.sleep)
    result = OmegaConf.to_container(cfg) | {"name": cfg.name, "pid": os.getpid(), "argv": sys.argv,
        "full_error": os.environ.get("HYDRA_FULL_ERROR"), "devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "threads": os.environ.get("OMP_NUM_THREADS"), "begun": begun, "ended": time.time(),
        "status": "completed", "metrics": {"val/loss": cfg.x / 4}}
    (folder / "result.json").write_text(json.dumps(result))

if __name__ == "__main__":
    sys.exit(run_cli(main))
"""

CONFIG = """
defaults:
  - _self_
  - override hydra/launcher: process
name: ${run_id:}
x: 0
sleep: 0
act: complete
trainer: {devices: 1, accelerator: auto}
resume: {path: null}
text: ''
items: []
hydra:
  run: {dir: 'outputs/${name}'}
  sweep: {dir: 'outputs/${name}', subdir: '${hydra.job.num}'}
  output_subdir: null
  job_logging: {root: {handlers: [console]}}
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A toy program in a folder whose name holds a space."""
    folder = tmp_path / "toy app"
    (folder / "conf").mkdir(parents=True)
    (folder / "train.py").write_text(PROGRAM)
    (folder / "conf" / "train.yaml").write_text(CONFIG)
    return folder


def environment(**more: str) -> dict[str, str]:
    """This environment with the project importable and without what could name a run or a rank."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("CADENCE_RUN_ID", "SLURM_", "HYDRA_"))}
    ours = {k: v for k, v in ours.items() if k not in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")}
    return ours | {"PYTHONPATH": str(ROOT)} | more


def hear_ctrl_c() -> None:
    """A shell starts what it puts in the background deaf to SIGINT, and these tests with it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(app: Path, *words: str, **env: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "train.py", *words],
        cwd=app,
        preexec_fn=hear_ctrl_c,
        env=environment(**env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def sweep(app: Path, *words: str, **env: str) -> tuple[int, str, str]:
    process = start(app, "-m", "name=s", *words, **env)
    out, err = process.communicate(timeout=180)
    return process.returncode, out, err


def results(app: Path, name: str = "s") -> dict[int, Any]:
    folders = (app / "outputs" / name).glob("*/result.json")
    return {int(path.parent.name): json.loads(path.read_text()) for path in folders}


def summary(app: Path) -> list[dict[str, Any]]:
    jobs: list[dict[str, Any]] = json.loads((app / "outputs/s/sweep.json").read_text())["jobs"]
    return jobs


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


DEATHS = "act=raise,vanish,leave,die,hang,abandon,complete"


def check_deaths(app: Path, timeout: int) -> None:
    """Each job of `DEATHS` has died alone, with its own reason, and left nothing behind; the last one completed."""
    assert [job["status"] for job in summary(app)] == ["failed"] * 6 + ["completed"]
    reasons = [job["error"] for job in summary(app)]
    assert reasons[0].startswith("exit code 1: RuntimeError: planted failure (traceback in ")
    assert reasons[1] == "exit code 0: no result.json"
    assert reasons[2].startswith("exit code 1: the run left before its end through sys.exit(None)")
    assert reasons[3].startswith("killed by SIGKILL")
    assert reasons[4] == f"took longer than {timeout} s"
    assert reasons[5].startswith("exit code 3: hanging ")
    assert not any(alive(pid) for job in (4, 5) for pid in hanging(app, job))


def test_every_job_of_a_grid_is_a_process_with_its_own_folder_and_stamp(app: Path) -> None:
    process = start(app, "-m", "x=1,2", "text=a,b")
    out, err = process.communicate(timeout=180)
    assert (process.returncode, err) == (0, "")
    (folder,) = (app / "outputs").iterdir()
    done = results(app, folder.name)
    assert [(done[i]["x"], done[i]["text"]) for i in range(4)] == [(1, "a"), (1, "b"), (2, "a"), (2, "b")]
    assert len({job["pid"] for job in done.values()} | {process.pid}) == 5
    assert [done[i]["name"] for i in range(4)] == [f"{folder.name}-{i}" for i in range(4)]
    assert {job["full_error"] for job in done.values()} == {None}
    assert "job says" not in out
    assert "job says 2" in (folder / "3" / "job.log").read_text()
    assert re.search(r"x=2 text=b +│ completed +│ 0\.5 ", out)
    jobs = json.loads((folder / "sweep.json").read_text())["jobs"]
    assert [job["metrics"] for job in jobs] == [{"val/loss": v} for v in (0.25, 0.25, 0.5, 0.5)]
    assert {job["status"] for job in jobs} == {"completed"}


def test_a_job_that_raises_vanishes_leaves_or_is_killed_has_failed_and_touches_no_other(app: Path) -> None:
    code, out, err = sweep(app, "act=raise,vanish,leave,die,complete", "hydra.launcher.jobs=2")
    assert code == 1
    assert list(results(app)) == [4]
    assert [job["status"] for job in summary(app)] == ["failed"] * 4 + ["completed"]
    reasons = [job["error"] for job in summary(app)]
    assert re.fullmatch(r"exit code 1: RuntimeError: planted failure \(traceback in .*0/error.log\)", reasons[0])
    assert reasons[1] == "exit code 0: no result.json"
    assert reasons[2].startswith("exit code 1: the run left before its end through sys.exit(None)")
    assert reasons[3].startswith("killed by SIGKILL")
    told = err.splitlines()
    assert sorted(line[:12] for line in told[:-1]) == [f"job {i} failed" for i in range(4)]
    assert told[-1].startswith("4 of 5 jobs failed: job 0 act=raise, job 1 act=vanish, job 2 act=leave, ")
    assert "job says" not in out


def test_no_process_of_a_job_outlives_it_whether_it_takes_too_long_or_leaves_one_behind(app: Path) -> None:
    code, _, err = sweep(app, "act=hang,abandon,complete", "hydra.launcher.timeout=4")
    assert code == 1
    assert [job["status"] for job in summary(app)] == ["failed", "failed", "completed"]
    assert "job 0 failed: act=hang: took longer than 4 s" in err
    assert "job 1 failed: act=abandon: exit code 3: hanging " in err
    assert not any(alive(pid) for pid in (*hanging(app, 0), *hanging(app, 1)))


def hanging(app: Path, job: int = 0) -> list[int]:
    """The ids of its two processes that a job printed when it began to hang."""
    log = app / f"outputs/s/{job}/job.log"
    found = re.search(r"hanging (\d+) (\d+)\n", log.read_text()) if log.exists() else None
    return [int(pid) for pid in found.groups()] if found else []


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_sweep_ends_its_jobs_and_leaves_no_orphan(app: Path, signum: signal.Signals) -> None:
    driver = start(app, "-m", "name=s", "act=hang", "x=1,2,3")
    until = time.monotonic() + 60
    while len(pids := hanging(app)) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    assert len(pids) == 2
    assert all(alive(pid) for pid in pids)
    driver.send_signal(signum)
    _, err = driver.communicate(timeout=90)
    assert driver.returncode == 128 + signum
    assert not any(alive(pid) for pid in pids)
    assert [job["status"] for job in summary(app)] == ["interrupted", "waiting", "waiting"]
    assert f"\n{signum.name} interrupted the sweep: 0 of 3 completed, 1 interrupted, 2 waiting; go on with" in err


def test_two_jobs_at_once_really_overlap(app: Path) -> None:
    assert sweep(app, "x=1,2", "sleep=2", "hydra.launcher.jobs=2")[0] == 0
    one, two = results(app).values()
    assert max(one["begun"], two["begun"]) < min(one["ended"], two["ended"])


def test_overrides_arrive_exactly_as_they_were_given(app: Path) -> None:
    texts = ["it's", 'say "hi", b = c', "$HOME * back\\slash 100 %"]
    quoted = ",".join("'" + text.replace("'", "\\'") + "'" for text in texts)
    code, _, err = sweep(app, f"text={quoted}", "items=[1, 'b c', {k: v}]", "+new='x y'", "hydra.launcher.jobs=2")
    assert (code, err) == (0, "")
    done = results(app)
    assert [done[i]["text"] for i in range(len(texts))] == texts
    assert {json.dumps([job["items"], job["new"]]) for job in done.values()} == {'[[1, "b c", {"k": "v"}], "x y"]'}


def test_the_job_reads_the_config_that_the_sweep_was_given(app: Path) -> None:
    (app / "conf").rename(app / "other conf")
    (app / "other conf/train.yaml").rename(app / "other conf/main.yaml")
    code, _, err = sweep(app, "x=1", "--config-path", "other conf", "--config-name", "main")
    assert (code, err, results(app)[0]["x"]) == (0, "", 1)


def test_a_folder_with_an_earlier_result_is_refused_before_anything_starts(app: Path) -> None:
    (app / "outputs/s/1").mkdir(parents=True)
    (app / "outputs/s/1/result.json").write_text("{}")
    code, _, err = sweep(app, "x=1,2")
    assert (code, len(err.splitlines())) == (2, 1)
    assert f"{app}/outputs/s/1 holds the result.json of an earlier job" in err
    assert not (app / "outputs/s/0").exists()


@pytest.mark.parametrize(
    ("words", "env", "told"),
    [
        (["x=1,2"], {"WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "one of 2 ranks"),
        (["x=1,2", "hydra.launcher.jobs=0"], {}, "hydra.launcher.jobs=0 must be at least 1"),
        (["x=1,2", "hydra.sweep.subdir=same"], {}, "jobs 0 and 1 share the folder"),
        (["x=1,2"], {"OMPI_COMM_WORLD_SIZE": "2"}, "one of 2 ranks"),
        (["x=1,2", "hydra/launcher=basic"], {}, "BasicLauncher runs jobs inside processes of its own"),
        (["x=1,2", "hydra.launcher.timeout=nan"], {}, "hydra.launcher.timeout=nan must be above zero"),
        (["x=1,2", "hydra.launcher.devices=2"], {}, "hydra.launcher.devices=2 is not a list: give auto, or a list"),
        (["x=1,2", "hydra.launcher.devices=[0,0]"], {}, "holds 0 twice: two jobs would share it"),
        (["x=1,2", "hydra.launcher.devices=[0,-1]"], {}, "-1 is not a device"),
        (
            ["trainer.devices=1,3", "hydra.launcher.devices=[0,1]"],
            {},
            "job 1 takes 3 GPUs and the sweep has only 2 (0, 1): lower trainer.devices",
        ),
        (
            ["trainer.devices=1,3"],
            {"CUDA_VISIBLE_DEVICES": "4,5"},
            "job 1 takes 3 GPUs and the sweep has only 2 (4, 5)",
        ),
        (
            ["x=1,2", "trainer.accelerator=gpu", "hydra.launcher.devices=[]"],
            {},
            "job 0 takes 1 GPUs and the sweep has no GPU: take trainer.accelerator=cpu",
        ),
    ],
)
def test_a_sweep_that_cannot_be_right_is_refused(app: Path, words: list[str], env: dict[str, str], told: str) -> None:
    code, _, err = sweep(app, *words, **env)
    assert (code, len(err.splitlines())) == (2, 1)
    assert told in err
    assert not list(app.glob("outputs/s/*/"))


def test_jobs_that_run_at_once_never_share_a_device_and_each_sees_its_own(app: Path) -> None:
    words = ["trainer.devices=2,1,1,3", "sleep=0.5", "hydra.launcher.jobs=3", "hydra.launcher.devices=[0,1,GPU-3]"]
    code, out, err = sweep(app, *words)
    assert (code, err) == (0, "")
    jobs = results(app)
    given = {number: job["devices"].split(",") for number, job in jobs.items()}
    assert given == {0: ["0", "1"], 1: ["GPU-3"], 2: ["0"], 3: ["0", "1", "GPU-3"]} or given[2] in (["1"], ["GPU-3"])
    assert [len(given[number]) for number in range(4)] == [2, 1, 1, 3]
    for one, other in itertools.combinations(jobs, 2):
        together = max(jobs[one]["begun"], jobs[other]["begun"]) < min(jobs[one]["ended"], jobs[other]["ended"])
        assert not (together and set(given[one]) & set(given[other]))
    assert [job["devices"] for job in summary(app)] == [given[number] for number in range(4)]
    assert "job 0: trainer.devices=2 -> " in out
    assert " on 0, 1\n" in out


def test_jobs_on_the_cpu_share_its_cores_and_see_no_device(app: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    words = ["trainer.accelerator=cpu", "trainer.devices=1,2", "hydra.launcher.jobs=2", "hydra.launcher.devices=[7]"]
    assert sweep(app, *words)[0] == 0
    done = results(app)
    assert [(done[i]["devices"], done[i]["threads"]) for i in range(2)] == [
        ("", str(max(1, cores // 2))),
        ("", str(max(1, cores // 4))),
    ]


def test_fail_fast_ends_the_sweep_at_the_first_failure(app: Path) -> None:
    code, _, err = sweep(app, "act=hang,raise,complete", "hydra.launcher.jobs=2", "hydra.launcher.fail_fast=true")
    assert code == 1
    assert [job["status"] for job in summary(app)] == ["interrupted", "failed", "waiting"]
    assert "job 0 interrupted: act=hang: interrupted by the failure of job 1" in err
    last = err.splitlines()[-1]
    assert last.startswith("1 of 3 jobs failed: job 1 act=raise, 2 more did not run to their end; see ")
    assert not any(alive(pid) for pid in hanging(app, 0))


def wait_until_free(folder: Path) -> None:
    """Until the watchdog of the sweep in a folder has gone, which is at once when the last job has."""
    lock, until = FolderLock(folder), time.monotonic() + 10
    while not lock.acquired() and time.monotonic() < until:
        time.sleep(0.05)
    lock.release()
    assert time.monotonic() < until


def test_a_killed_driver_leaves_no_orphan_and_its_sweep_goes_on_with_what_is_not_completed(app: Path) -> None:
    driver = start(app, "-m", "name=s", "act=complete,once,raise")
    until = time.monotonic() + 60
    while not (pids := hanging(app, 1)) and time.monotonic() < until:
        time.sleep(0.05)
    same = ("act=complete,once,raise", "resume.path=auto")
    code, _, err = sweep(app, *same)
    assert (code, len(err.splitlines())) == (2, 1)
    assert f"{app}/outputs/s belongs to a sweep that still runs" in err
    driver.kill()
    driver.communicate(timeout=60)
    while any(alive(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids)
    wait_until_free(app / "outputs/s")
    assert [job["status"] for job in summary(app)] == ["completed", "running", "waiting"]
    refused = {
        ("act=complete,once,raise",): "holds a sweep already: give another name, or go on with it by resume=auto",
        ("act=complete,vanish,raise", "resume.path=auto"): "sweep.json was act=once and is now act=vanish: give the",
        (
            "act=complete,once",
            "resume.path=auto",
        ): "sweep.json, name=s act=raise, is not among the 2 jobs of this command",
    }
    for words, told in refused.items():
        code, _, err = sweep(app, *words)
        assert (code, len(err.splitlines())) == (2, 1)
        assert told in err
    before = results(app)
    code, out, err = sweep(app, *same)
    after = results(app)
    assert (code, sorted(before), sorted(after)) == (1, [0], [0, 1])
    assert before[0] == after[0]
    assert "job 0 was completed before\n" in out
    assert [job["status"] for job in summary(app)] == ["completed", "completed", "failed"]
    assert "hanging" in (app / "outputs/s/1/job.log").read_text()


def test_a_terminal_shows_the_jobs_that_run_and_the_lines_of_the_sweep_above(app: Path) -> None:
    screen, end = pty.openpty()
    words = [sys.executable, "train.py", "-m", "name=s", "x=1,2,3", "sleep=1", "hydra.launcher.jobs=2"]
    env = environment(TERM="xterm", COLUMNS="160", LINES="40")
    driver = subprocess.Popen(words, cwd=app, env=env, stdout=end, stderr=subprocess.PIPE)
    os.close(end)
    shown = b""
    with suppress(OSError):  # EIO: the last process with this terminal is gone
        while fresh := os.read(screen, 65536):
            shown += fresh
    os.close(screen)
    _, err = driver.communicate(timeout=60)
    assert (driver.returncode, err) == (0, b"")
    text = shown.decode()
    for part in ("0 of 3 completed, 2 running, 1 waiting", "running", "overrides", "job 0 completed in", "x=2"):
        assert part in text, part
