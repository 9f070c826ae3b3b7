"""Two runs must never share a folder and the ranks of one run always must; the run id alone decides both."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from trainer.cli import run_id
from trainer.distributed.launch.launcher import PARENT
from trainer.lr import ConfigError

ROOT = Path(__file__).parents[2]
CLOCK = r"\d{8}-\d{6}-[0-9a-f]{6}"
ASK = "from trainer.cli.run_id import run_id; print(run_id())"


@pytest.fixture(autouse=True)
def undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    """No rank, no scheduler, nothing decided; what the run id exports is undone."""
    for name in list(os.environ):
        if name.startswith(("CADENCE_RUN_ID", "SLURM_", "TORCHELASTIC")) or name in ("RANK", "LOCAL_RANK", PARENT):
            monkeypatch.delenv(name)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv(run_id.OF_RANK_ZERO, "an earlier run")
    monkeypatch.setattr(run_id, "_decided", [])


def test_one_process_has_one_stamp_in_every_config() -> None:
    run_id.register_run_id()
    configs = [OmegaConf.create({"name": "${run_id:}", "again": "${run_id:}"}) for _ in range(2)]
    names = {str(name) for config in configs for name in (config.name, config.again)}
    assert len(names) == 1
    assert re.fullmatch(CLOCK, names.pop())


def test_runs_started_at_the_same_time_have_different_stamps() -> None:
    runs = [
        subprocess.Popen([sys.executable, "-c", ASK], cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    names = [run.communicate(timeout=30)[0].strip() for run in runs]
    assert len(set(names)) == 4
    assert all(re.fullmatch(CLOCK, name) for name in names)


def test_the_environment_decides_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CADENCE_RUN_ID", "mine")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert run_id.run_id() == "mine"


@pytest.mark.parametrize("given", ["a/b", "..", " "])
def test_a_stamp_that_is_no_folder_name_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("CADENCE_RUN_ID", given)
    with pytest.raises(ConfigError, match="cannot name the run folder"):
        run_id.run_id()


def test_a_rank_that_lightning_started_takes_the_stamp_of_rank_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    first = run_id.run_id()
    monkeypatch.setattr(run_id, "_decided", [])
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert run_id.run_id() != first  # a variable that nobody has set for this process
    monkeypatch.setattr(run_id, "_decided", [])
    monkeypatch.setenv(run_id.OF_RANK_ZERO, first)
    monkeypatch.setenv(PARENT, f"{os.getppid()} 0")
    assert run_id.run_id() == first


def test_a_new_run_started_from_a_run_does_not_take_its_id() -> None:
    first = run_id.run_id()
    second = subprocess.run([sys.executable, "-c", ASK], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.fullmatch(CLOCK, second.stdout.strip())
    assert second.stdout.strip() != first


@pytest.mark.parametrize(
    ("variables", "start"),
    [
        ({"SLURM_JOB_ID": "12"}, "slurm-12-"),
        ({"SLURM_JOB_ID": "12", "SLURM_STEP_ID": "0"}, "slurm-12.0-"),
        ({"SLURM_JOB_ID": "14", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}, "slurm-12_3-"),
    ],
)
def test_a_requeued_slurm_job_meets_its_stamp_and_another_command_does_not(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], start: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    def of(*argv: str) -> str:
        monkeypatch.setattr(run_id, "_decided", [])
        monkeypatch.setattr(sys, "argv", ["train.py", *argv])
        return run_id.run_id()

    assert of("lr=1").startswith(start)
    assert of("lr=1") == of("lr=1") != of("lr=2")


def test_ranks_that_cannot_agree_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": 1, "LOCAL_RANK": 1, "WORLD_SIZE": 2, "MASTER_ADDR": "h", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(ConfigError, match="rank 1 cannot know the run folder of the others: set CADENCE_RUN_ID"):
        run_id.run_id()


@pytest.mark.sample(0)
@pytest.mark.slow
def test_ranks_and_restarts_under_torchrun_agree(tmp_path: Path) -> None:
    program = tmp_path / "ranks.py"
    program.write_text(
        "import os, sys, time\nfrom pathlib import Path\nfrom trainer.cli.run_id import run_id\n"
        "rank, again = os.environ['RANK'], os.environ['TORCHELASTIC_RESTART_COUNT']\n"
        "time.sleep(1.1 * int(rank))\n"
        "Path(sys.argv[1], f'{rank}.{again}').write_text(run_id())\n"
        "while len(list(Path(sys.argv[1]).glob(f'*.{again}'))) < 2:\n    time.sleep(0.1)\n"
        "sys.exit(again == '0')\n"
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    (tmp_path / "told").mkdir()
    ran = subprocess.run(
        [*torchrun, "--max-restarts", "1", str(program), str(tmp_path / "told")],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    told = {path.name: path.read_text() for path in (tmp_path / "told").iterdir()}
    assert ran.returncode == 0, ran.stderr
    assert sorted(told) == ["0.0", "0.1", "1.0", "1.1"]
    assert len(set(told.values())) == 1
