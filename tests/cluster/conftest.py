"""Clusters on this machine, and what tests do on them. They use fixed ports: one process runs them all.

The folder that CADENCE_CLUSTER names has the scripts that start them; they need root, and packages of Debian.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from trainer.checkpoint.io import checkpoints_in, read

ROOT = Path(__file__).parents[2]
PACKAGES = {"slurmctld": "slurm-wlm", "munged": "munge", "ip": "iproute2"}
RUN = (
    *("data.batch_size=16", "model.hidden=[16]", "trainer.duration=120", "trainer.validate=40", "trainer.threads=1"),
    *("trainer.checkpoint=10", "trainer.keep=0", "trainer.steps_per_execution=5", "trainer.accelerator=cpu"),
    *("callbacks=none", "allow=[tests]", "name=run", "+callbacks.watched._target_=tests.cluster.watched.Watched"),
)


class Place:
    """A folder in which one run is trained, perhaps in several parts."""

    def __init__(self, path):
        self.path = path
        path.mkdir()

    @property
    def words(self):
        return [*RUN, f"+callbacks.watched.folder={self.path}", f"hydra.run.dir={self.path}/run"]

    def quick(self):
        """From now on the run does not dawdle."""
        (self.path / "quick").touch()
        return self

    def checkpoints(self):
        return checkpoints_in(self.path / "run/checkpoints")

    def result(self):
        return json.loads((self.path / "run/result.json").read_text())

    def ends_as(self, other):
        """Whether both runs made the same updates at the same rates, to the same bits on both ranks."""
        hashes = {(place.path / f"rank{rank}.sha").read_text() for place in (self, other) for rank in (0, 1)}
        ours, theirs = (read(place.checkpoints()[-1]) for place in (self, other))
        same = all(torch.equal(ours["state_dict"][name], theirs["state_dict"][name]) for name in theirs["state_dict"])
        return same and len(hashes) == 1 and self.log() == other.log() and self.result()["status"] == "completed"

    def log(self):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(self.path / "run"), size_guidance={"scalars": 0}).Reload()
        return {tag: [(p.step, p.value) for p in events.Scalars(tag)] for tag in ("lr/decay", "train/loss", "val/loss")}


def until(condition, seconds=180, tick=0.1):
    """Wait for what must come, and give it."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it never happened"
        time.sleep(tick)
    return found


@pytest.fixture(scope="session")
def scripts():
    """The folder with the scripts, on a machine where they work."""
    folder = os.environ.get("CADENCE_CLUSTER")
    if not folder:
        pytest.skip("CADENCE_CLUSTER names no folder with two_hosts.sh, slurm_loopback.sh and slurm_hosts.sh")
    if os.geteuid() != 0:
        pytest.skip("network namespaces and Slurm's daemons need root")
    lacking = [package for program, package in PACKAGES.items() if shutil.which(program) is None]
    if lacking:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        install = ["apt-get", "install", "-y", "--no-install-recommends", *lacking]
        tried = [["apt-get", "update", "-qq"], install]
        if shutil.which("apt-get") is None or any(
            subprocess.run(words, env=env, **quiet).returncode for words in tried
        ):
            pytest.skip(f"{', '.join(lacking)} cannot be installed here")
    return Path(folder)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path / "place")


@pytest.fixture(scope="session")
def whole(scripts, tmp_path_factory):
    """The run that nothing disturbs, on two processes of one host."""
    made = Place(tmp_path_factory.mktemp("whole") / "place").quick()
    words = [sys.executable, str(ROOT / "train.py"), *made.words, "trainer=ddp", "trainer.devices=2"]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return made


def steps(job):
    """What Slurm runs for a job on this machine, by the ids of its processes."""
    found = subprocess.run(["pgrep", "--full", rf"^slurmstepd: \[{job}\."], capture_output=True, text=True)
    return found.stdout.split()


def environment(**more):
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CADENCE_RUN_ID": ""} | more


class Slurm:
    """A Slurm that runs."""

    def __init__(self, folder):
        self.environment = environment(SLURM_CONF=str(folder / "slurm.conf"), PYTHON=sys.executable)

    def __call__(self, *words, check=True):
        done = subprocess.run(words, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 or not check, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def submit(self, place, *words):
        """Submit the project's batch script for a run of two nodes, one rank each, that has them to itself."""
        options = ["--parsable", "--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=2"]
        script = str(ROOT / "scripts/slurm/train.sbatch")
        return self("sbatch", *options, f"--output={place.path}/log", script, *place.words, *words)

    def facts(self, job):
        return dict(word.partition("=")[::2] for word in self("scontrol", "show", "job", "--oneliner", job).split())

    def again(self, job, place):
        """Wait until a job is requeued, start it without the delay, and wait for its end."""
        self.hurry(job, place)
        self.end(job, place)

    def hurry(self, job, place):
        """Wait until a job is requeued and start it without the delay.

        Slurm waits two minutes, so that nothing of the first start is left: what still reports its end would end the
        second one.
        """
        found = until(lambda: (now := self.facts(job))["Restarts"] == "1" and now["JobState"] == "PENDING" and now)
        until(lambda: not steps(found["JobId"]))
        time.sleep(3)  # for reports that are under way
        place.quick()
        self("scontrol", "update", f"JobId={job}", "StartTime=now")

    def end(self, job, place):
        ended = until(lambda: (found := self.facts(job))["JobState"] in ("COMPLETED", "FAILED", "CANCELLED") and found)
        log = (place.path / "log").read_text()
        assert (ended["JobState"], ended["ExitCode"]) == ("COMPLETED", "0:0"), log


@pytest.fixture(scope="module")
def slurm(request, scripts, tmp_path_factory):
    """Slurm as the module's SCRIPT starts it, on two nodes; stopped at the end."""
    folder = tmp_path_factory.mktemp("slurm")
    script, env = str(scripts / request.module.SCRIPT), environment(S=str(folder))
    started = subprocess.run(["bash", script, "start"], env=env, stdout=subprocess.DEVNULL, timeout=100)
    try:
        assert started.returncode == 0
        made = Slurm(folder)
        until(lambda: made("sinfo", "--noheader", "--partition=main", "--format=%D %t") == "2 idle")
        yield made
        made("scancel", "--user=root", check=False)
        until(lambda: not made("squeue", "--noheader"))
    finally:
        subprocess.run(["bash", script, "stop"], env=env, stdout=subprocess.DEVNULL, timeout=100)
