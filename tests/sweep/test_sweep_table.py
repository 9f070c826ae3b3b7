"""The table at the end of a sweep: a line for each job, the best first."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from trainer.sweep.job import Job
from trainer.sweep.resolvers import logspace
from trainer.sweep.summary import print_table, set_labels


def job(number: int, loss: float | None, metric: str = "val/loss", mode: str = "min") -> Job:
    """A job that is completed, with a label too long for a column and more scores than fit; failed without a loss."""
    names = ("val/accuracy", "test/loss", "test/accuracy", *(f"val/score_{i}" for i in range(9)))
    result: dict[str, Any] = {}
    if loss is not None:
        best = {"metric": metric, "mode": mode, "value": loss, "update": 3}
        result = {"best": best, "metrics": {**dict.fromkeys(names, 0.5), metric: loss}}
    made = Job(number, [], Path("there"), [], label=f"lr={number} " + "long " * 20, result=result)
    made.status = "failed" if loss is None else "completed"
    return made


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Callable[[Sequence[Job]], list[list[str]]]:
    """The rows of the table, its head first."""

    def rows(jobs: Sequence[Job]) -> list[list[str]]:
        print_table(jobs, Path("sweep"))
        lines = [line.replace("┃", "│") for line in capsys.readouterr().out.splitlines()]
        return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if "│" in line]

    return rows


def test_each_job_is_one_line_and_the_best_comes_first(printed: Callable[..., list[list[str]]]) -> None:
    head, *rows = printed([job(0, 0.3), job(1, None), job(2, 0.1), job(3, 0.2)])
    assert head[:5] == ["job", "overrides", "status", "val/loss", "test/loss"]
    assert [row[0] for row in rows] == ["2", "3", "0", "1"]
    assert [row[2] for row in rows] == ["completed, best", "completed", "completed", "failed"]
    assert [row[3] for row in rows] == ["0.1", "0.2", "0.3", ""]
    assert len(head) < 15, "what does not fit is in sweep.json"


def test_the_score_that_decides_is_there_on_a_narrow_terminal(
    printed: Callable[..., list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    assert printed([job(0, 0.3), job(2, 0.1)])[0] == ["job", "overrides", "status", "val/loss"]


def test_the_best_is_the_highest_where_higher_is_better(printed: Callable[..., list[list[str]]]) -> None:
    scored = [job(number, value, "val/accuracy", "max") for number, value in enumerate((0.3, 0.9, 0.8))]
    assert [row[0] for row in printed(scored)[1:]] == ["1", "2", "0"]


def test_jobs_that_another_score_decides_are_not_compared(printed: Callable[..., list[list[str]]]) -> None:
    rows = printed([job(0, 0.3), job(1, 0.9, "val/accuracy", "max"), job(2, 0.1)])[1:]
    assert [row[0] for row in rows] == ["0", "1", "2"]
    assert not any("best" in row[2] for row in rows)


def test_the_label_of_a_job_has_six_digits_of_a_number_and_the_job_has_all() -> None:
    jobs = [Job(i, [f"optimizer.lr={lr}", "seed=1"], Path("there"), []) for i, lr in enumerate(logspace(1e-3, 1e-2, 3))]
    set_labels(jobs)
    assert [job.label for job in jobs] == ["optimizer.lr=0.001", "optimizer.lr=0.00316228", "optimizer.lr=0.01"]
    assert jobs[1].overrides[0] == "optimizer.lr=0.0031622776601683794"
