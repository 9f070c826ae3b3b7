"""Every way to start that breaks elsewhere (sweeps, several processes, other launchers) works here, or is refused.

Real processes of the real program on a few synthetic samples. Sweeps are run once, with a job for each way to fail.
"""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
TINY = (
    *("data=synthetic", "data.samples=32", "data.val_samples=8", "data.batch_size=4", "model.hidden=[4]"),
    *("trainer.duration=2", "trainer.validate=2", "warmup=none", "trainer.accelerator=cpu", "trainer.threads=1"),
    *("callbacks=none", "logger=none", "allow=[planted]"),
)
WATCHED = ("+callbacks.planted._target_=planted.Planted",)
"""Each rank notes what it trained with, and fails where it is told to."""

PLANTED = """
import atexit, json, os
from pathlib import Path
import pytorch_lightning as pl
import torch

class Planted(pl.Callback):
    def __init__(self, fail: str = "never") -> None:
        self.fail = fail

    def on_train_start(self, trainer, module):
        policy = module.spec.policy
        told = {"lr": policy.base_lr, "world": trainer.world_size, "local": os.environ.get("LOCAL_RANK")}
        folder = Path(trainer.default_root_dir)
        with (folder / f"rank-{trainer.global_rank}.json").open("x") as file:  # a second rank of that number fails
            json.dump(told, file)
        atexit.register(self.note_end, folder / f"group-{trainer.global_rank}")

    def note_end(self, path):
        path.write_text("open" if torch.distributed.is_initialized() else "ended")

    def on_train_batch_end(self, trainer, *_):
        if self.fail == "both" or (self.fail == "one" and trainer.global_rank == 1):
            raise RuntimeError(f"planted on rank {trainer.global_rank}")

    def teardown(self, trainer, module, stage):
        if self.fail == "after" and stage == "test" and trainer.global_rank == 1:
            raise RuntimeError("planted after the training")
"""
SWEEPER = '''
import random
from dataclasses import dataclass
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper

@dataclass
class DrawnConf:
    _target_: str = "hydra_plugins.drawn.Drawn"

ConfigStore.instance().store("drawn", DrawnConf, group="hydra/sweeper", provider="test")

class Drawn(Sweeper):
    """Draws a rate for each job without a seed, in two batches, as a search does."""

    def setup(self, *, hydra_context, task_function, config):
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments):
        number = 0
        for devices in ([1, 2], [1]):
            jobs = [[f"optimizer.lr={random.uniform(1e-3, 1e-2)!r}", f"trainer.devices={n}"] for n in devices]
            for job in self.launcher.launch([[*arguments, *job] for job in jobs], initial_job_idx=number):
                job.return_value
            number += len(jobs)
'''


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder on the path of the processes: the callback that fails, and a sweeper plugin that draws."""
    folder = tmp_path_factory.mktemp("planted")
    (folder / "planted.py").write_text(PLANTED)
    (folder / "hydra_plugins").mkdir()
    (folder / "hydra_plugins/drawn.py").write_text(SWEEPER)
    return folder


def start(
    where: Path, *words: str, path: Path | None = None, seconds: float = 540
) -> "subprocess.CompletedProcess[str]":
    """Run a command in its own session; one that hangs is ended with all its processes, and fails the test."""
    names = ("CADENCE_RUN_ID", "SLURM_", "HYDRA_", "RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_")
    env = {k: v for k, v in os.environ.items() if not k.startswith(names)}
    env |= {"OMP_NUM_THREADS": "1"} | ({"PYTHONPATH": f"{path}:{ROOT}"} if path else {})
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, *words], cwd=where, env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def train(where: Path, *words: str, path: Path | None = None) -> "subprocess.CompletedProcess[str]":
    return start(where, str(ROOT / "train.py"), *words, path=path)


def result(folder: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return told


def ranks(folder: Path) -> list[dict[str, Any]]:
    """What each rank of a run noted, in the order of the ranks."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("rank-*.json"))]


def jobs(root: Path) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = json.loads((root / "sweep.json").read_text())["jobs"]
    return told


@pytest.mark.slow
def test_row_single_run_with_ddp_has_one_folder(planted: Path, tmp_path: Path) -> None:
    done = train(tmp_path, "trainer=ddp", *TINY, *WATCHED, path=planted)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "outputs").iterdir()
    assert result(folder)["status"] == "completed"
    assert [rank["world"] for rank in ranks(folder)] == [2, 2]
    assert [(folder / f"group-{rank}").read_text() for rank in (0, 1)] == ["ended", "ended"]
    assert not list(folder.glob("*.log"))


@pytest.fixture(scope="module")
def failing(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> "tuple[Path, subprocess.CompletedProcess[str]]":
    """A sweep of jobs of two ranks each: one is well, one fails on both ranks, one on rank 1, one on it at the end."""
    where = tmp_path_factory.mktemp("failing")
    fails = "+callbacks.planted.fail=never,both,one,after"
    done = train(where, "-m", "name=s", "trainer=ddp", fails, *TINY, *WATCHED, "hydra.launcher.jobs=2", path=planted)
    return where / "outputs/s", done


@pytest.mark.slow
def test_row_sweep_with_ddp_gives_each_job_one_folder_and_two_ranks(failing: Any) -> None:
    root, _ = failing
    assert {path.name for path in root.parent.iterdir()} == {"s"}
    assert {path.name for path in root.iterdir()} == {"0", "1", "2", "3", "multirun.yaml", "sweep.json"}
    assert [rank["world"] for rank in ranks(root / "0")] == [2, 2]
    assert jobs(root)[0]["status"] == "completed"


@pytest.mark.slow
def test_row_sweep_with_a_job_that_fails_on_both_ranks_exits_1_and_says_why(failing: Any) -> None:
    root, done = failing
    assert done.returncode == 1
    assert jobs(root)[1]["status"] == "failed"
    assert "planted on rank" in jobs(root)[1]["error"]


@pytest.mark.slow
def test_row_sweep_with_a_job_that_fails_on_rank_1_only_exits_1_and_says_why(failing: Any) -> None:
    root, done = failing
    assert jobs(root)[2]["status"] == "failed"
    assert "planted on rank 1" in (root / "2/error.log").read_text()
    assert re.search(r"^job 2 failed: \+callbacks.planted.fail=one: ", done.stderr, flags=re.MULTILINE)


@pytest.mark.slow
def test_row_sweep_with_a_job_that_fails_on_rank_1_after_the_training_exits_1_and_says_why(failing: Any) -> None:
    root, done = failing
    assert jobs(root)[3]["status"] == "failed"
    assert "planted after the training" in (root / "3/error.log").read_text()
    assert re.search(r"^job 3 failed: \+callbacks.planted.fail=after: ", done.stderr, flags=re.MULTILINE)
    assert not (root / "3/result.json").exists() or result(root / "3")["status"] == "failed"
    assert "3 of 4 jobs failed: job 1 " in done.stderr.splitlines()[-1]


@pytest.fixture(scope="module")
def drawn(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep by a search that draws without a seed: jobs of one, two and one process."""
    where = tmp_path_factory.mktemp("drawn")
    two = ("hydra.launcher.jobs=2", "hydra.launcher.fork=true")
    done = train(where, "-m", "name=s", "hydra/sweeper=drawn", *two, *TINY, *WATCHED, path=planted)
    assert done.returncode == 0, done.stderr
    return where / "outputs/s"


@pytest.mark.sample(0)
@pytest.mark.slow
def test_row_sweep_over_devices_1_2_and_2_1_gives_each_job_its_own_world(drawn: Path) -> None:
    assert [[rank["world"] for rank in ranks(drawn / str(number))] for number in range(3)] == [[1], [2, 2], [1]]
    assert [job["status"] for job in jobs(drawn)] == ["completed"] * 3


@pytest.mark.slow
def test_row_a_search_that_draws_without_a_seed_gives_all_ranks_of_a_job_the_same_numbers(drawn: Path) -> None:
    rates = [{rank["lr"] for rank in ranks(drawn / str(number))} for number in range(3)]
    assert [len(rate) for rate in rates] == [1, 1, 1]
    assert len(set.union(*rates)) == 3
    given = [
        float(word.partition("=")[2]) for job in jobs(drawn) for word in job["overrides"] if "optimizer.lr" in word
    ]
    assert [rate.pop() for rate in rates] == given


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("hydra/launcher=joblib", "hydra.launcher.n_jobs=1"), id="joblib_1"),
        pytest.param(("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"), id="joblib_2"),
        pytest.param(("hydra/launcher=submitit_local",), id="submitit_local"),
        pytest.param(("hydra/launcher=submitit_local", "hydra.launcher.tasks_per_node=2"), id="submitit_local_tasks"),
        pytest.param(("hydra/launcher=basic",), id="basic"),
    ],
)
def test_row_a_launcher_whose_jobs_cannot_be_distributed_is_refused(words: tuple[str, ...], tmp_path: Path) -> None:
    done = train(tmp_path, "-m", "seed=0,1", "trainer=ddp", *words, *TINY)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "take hydra/launcher=process" in done.stderr
    assert not list(tmp_path.rglob("result.json"))


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(ROOT / "train.py"))


@pytest.mark.slow
def test_row_torchrun_of_a_single_run_has_one_folder(planted: Path, tmp_path: Path) -> None:
    done = start(tmp_path, *TORCHRUN, "trainer=ddp", *TINY, *WATCHED, path=planted)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "outputs").iterdir()
    assert result(folder)["status"] == "completed"
    assert [rank["world"] for rank in ranks(folder)] == [2, 2]


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("search", [("seed=0,1",), ("hydra/sweeper=drawn",)], ids=["grid", "search"])
def test_row_torchrun_of_a_sweep_is_refused(planted: Path, tmp_path: Path, search: tuple[str, ...]) -> None:
    done = start(tmp_path, *TORCHRUN, "-m", *search, "trainer=ddp", *TINY, path=planted)
    assert done.returncode != 0
    told = [line for line in done.stderr.splitlines() if "this is one of 2 ranks" in line]
    assert len(told) == 1
    assert "start it with plain python and let each job be distributed, as in cadence train -m" in told[0]
    assert re.search(r"exitcode\s*: 2 ", done.stderr)
    assert not (tmp_path / "outputs").exists()
