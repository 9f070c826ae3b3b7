"""A command that the report prints, pasted, trains: also in a project whose options only its own flags find."""

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.distributed import worlds
from tests.tools.runs_on_disk import all_findings, data_of, page_of, write_run
from trainer.tools.report.build import build_report
from trainer.tools.report.command import format_summary
from trainer.tools.report.runs import find_runs
from trainer.tools.report.study import Study

ROOT = Path(__file__).parents[2]
HALF = "_target_: trainer.lr.linear\n_partial_: true\nfloor: 0.5\n"
GRID = (
    "optimizer.lr=0.00001,0.00003,0.0001",
    "schedule=half",
    "trainer=debug",
    "trainer.accelerator=cpu",
    "callbacks=none",
)


@pytest.fixture
def type_in(python: str, tmp_path: Path):
    """Run a command as a person types it, in the folder of a project with a schedule of its own."""
    (tmp_path / "conf/schedule").mkdir(parents=True)
    (tmp_path / "conf/schedule/half.yaml").write_text(HALF)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CADENCE_RUN_ID": ""}

    def run(program: str, script: str, *words: str) -> None:
        if program == "python":
            process: Any = worlds.Script(Path(script), words, tmp_path, environment)
        else:
            command = [python, "-m", "cadence", script, *words]
            process = subprocess.Popen(
                command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, f"{out[-2000:]}\n{err[-3000:]}"

    return run


def lines(folder: Path) -> list[str]:
    """What `cadence report` prints, without the spaces before each line."""
    return [line.strip() for line in format_summary(build_report(Study(find_runs(folder)), folder, 0.05))]


def newest(outputs: Path) -> Path:
    return max(outputs.iterdir(), key=lambda folder: folder.stat().st_mtime)


@pytest.mark.sample(0)
@pytest.mark.slow
def test_the_commands_of_a_sweep_with_configs_of_its_own_train(type_in, tmp_path: Path) -> None:
    type_in("cadence", "train", "-m", "--config-dir", "conf", *GRID, "name=grid", "hydra.launcher.fork=true")
    best, more = (line for line in lines(tmp_path / "outputs/grid") if line.startswith("cadence train"))
    words = " ".join(GRID[1:])
    assert best == f"cadence train --config-dir conf optimizer.lr=0.0001 {words}"
    assert more == f"cadence train --config-dir conf -m optimizer.lr=0.0003,0.001 {words}"
    assert best in {run["command"] for run in data_of(page_of(tmp_path / "outputs/grid"))["runs"]}
    type_in(*shlex.split(more))
    results = list(newest(tmp_path / "outputs").rglob("result.json"))
    assert [json.loads(path.read_text())["status"] for path in results] == ["completed"] * 2


@pytest.mark.slow
def test_the_command_of_a_script_with_a_search_path_trains(type_in, tmp_path: Path) -> None:
    words = ("python", str(ROOT / "train.py"), "hydra.searchpath=[conf]", "schedule=half", "trainer=debug")
    type_in(*words, "name=one")
    (again,) = (line for line in lines(tmp_path / "outputs/one") if line.startswith("python"))
    assert again == shlex.join(words)
    type_in(*shlex.split(again))
    assert json.loads((newest(tmp_path / "outputs") / "result.json").read_text())["status"] == "completed"


def recorded(folder: Path, lr: str, program: object) -> None:
    write_run(folder, [f"optimizer.lr={lr}"], {"val/loss": 1 - float(lr)}, events=False)
    plan = json.loads((folder / "plan.json").read_text())
    (folder / "plan.json").write_text(json.dumps({**plan, "program": program}))


def test_a_run_that_failed_before_its_plan_has_the_program_of_the_others(tmp_path: Path) -> None:
    for lr in ("0.01", "0.03", "0.1"):
        recorded(tmp_path / lr, lr, ["cadence", "train", "--config-dir", "my conf"])
    write_run(tmp_path / "failed", ["optimizer.lr=nan"], status="failed", events=False)
    (tmp_path / "failed" / "plan.json").unlink()
    runs = data_of(page_of(tmp_path))["runs"]
    assert {run["command"].partition(" optimizer")[0] for run in runs} == {"cadence train --config-dir 'my conf'"}
    (edge,) = (one for one in all_findings(tmp_path) if one.command)
    assert edge.command.startswith("cadence train --config-dir 'my conf' -m optimizer.lr=0.3,")


@pytest.mark.parametrize("program", [None, [], "rubbish", {}])
def test_a_run_without_a_program_has_that_of_the_command(tmp_path: Path, program: object) -> None:
    recorded(tmp_path / "0", "0.1", program)
    assert find_runs(tmp_path)[0].program == ("cadence", "train")
