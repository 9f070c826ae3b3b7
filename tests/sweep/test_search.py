"""Sweeps and searches as they are started: killed again and again, resumed to the end, and refused in one line."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from benchmarks.stand_in import driver, toy
from benchmarks.sweep_endurance import GRID, SEARCH, endure

pytest.importorskip("optuna", reason="the extra `search` is not installed")


@pytest.fixture
def app(tmp_path: Path) -> Path:
    return toy(tmp_path / "app")


def search(app: Path, *words: str) -> tuple[int, str]:
    """Run a search to its end; what it has told since the last."""
    log = app / "driver.log"
    before = log.stat().st_size if log.exists() else 0
    code = driver(app, "hydra/sweeper=search", *words).wait(180)
    return code, log.read_bytes()[before:].decode()


def told(app: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((app / "outputs/s/sweep.json").read_text())
    return result


@pytest.mark.slow
def test_a_sweep_whose_jobs_die_in_six_ways_and_whose_driver_is_killed_loses_and_doubles_nothing(app: Path) -> None:
    figures = endure(app, GRID, kills=3, seed=1, longest=3.0)
    assert (figures.jobs, figures.completed, figures.lost, figures.doubled) == (24, 24, 0, 0), figures
    assert figures.kills >= 1


@pytest.mark.slow
def test_a_search_whose_driver_is_killed_tries_each_of_its_trials_once(app: Path) -> None:
    figures = endure(app, (*SEARCH, "hydra.sweeper.trials=12"), kills=3, seed=2, longest=5.0)
    assert (figures.jobs, figures.completed, figures.lost, figures.doubled) == (12, 12, 0, 0), figures
    assert told(app)["search"]["trials"] == {"complete": 12}
    assert len({job["parameters"]["x"] for job in told(app)["jobs"]}) == 12


@pytest.mark.slow
def test_a_search_prunes_by_what_its_jobs_say_while_they_run_and_tells_the_best_as_a_command(app: Path) -> None:
    words = ("+validations=8", "hydra.sweeper.pruner=median", "hydra.sweeper.startup=1", "hydra.launcher.jobs=1")
    code, text = search(app, "x=1,2,3", "hydra.sweeper.sampler=grid", *words)
    assert code == 0, text
    jobs = told(app)["jobs"]
    assert [job["status"] for job in jobs] == ["completed", "pruned", "pruned"]
    assert all("pruned by median after" in job["error"] for job in jobs[1:])
    lines = [len((app / f"outputs/s/{n}/validations.jsonl").read_text().splitlines()) for n in range(3)]
    assert lines[0] == 8
    assert max(lines[1:]) < 8
    best = told(app)["search"]["best"][0]
    assert (best["number"], best["values"]) == (0, {"val/loss": 1.0})
    assert shlex.split(best["command"]) == ["python", "train.py", "+validations=8", "x=1"]
    assert f"best: trial 0, val/loss 1: {best['command']}" in text
    assert told(app)["search"]["trials"] == {"complete": 1, "pruned": 2}


@pytest.mark.slow
def test_with_fail_fast_a_search_ends_at_its_first_failure(app: Path) -> None:
    words = ("act=raise,complete", "hydra.sweeper.sampler=grid", "hydra.launcher.fail_fast=true")
    code, text = search(app, *words, "hydra.launcher.jobs=1")
    assert code == 1, text
    assert [job["status"] for job in told(app)["jobs"]] == ["failed"]


@pytest.mark.slow
def test_a_failed_trial_is_told_and_a_search_for_something_else_does_not_go_on_in_its_folder(app: Path) -> None:
    words = ("act=complete,raise", "hydra.sweeper.sampler=grid")
    code, text = search(app, *words)
    assert code == 1
    assert "1 of 2 trials failed: trial 1; see" in text
    assert [job["status"] for job in told(app)["jobs"]] == ["completed", "failed"]
    before = (app / "outputs/s/study.journal").read_bytes()
    for other, line in (
        (
            ("act=complete,raise,code", "hydra.sweeper.sampler=grid"),
            "the study s was a search with space act: complete",
        ),
        ((*words, "resume.path=null"), "holds a search already: give another name, or go on with it by resume=auto"),
    ):
        code, text = search(app, *other)
        assert code == 2
        assert line in text.splitlines()[-1]
    assert (app / "outputs/s/study.journal").read_bytes() == before
