"""The driver's side of a worker: what happens to its jobs where it dies, with a stand-in that trains nothing."""

import os
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from trainer.sweep import worker
from trainer.sweep.worker import Worker

ACTIONS = "CADENCE_STAND_IN"


def stand_in() -> None:
    """Ends jobs with code 0; dies as its environment says: `stack`, with jobs that train as one, or at job `N`."""
    pipe, action = Connection(int(sys.argv[1])), os.environ.get(ACTIONS, "")
    try:
        while True:
            _, *given = pipe.recv()
            orders = [one for one in given[0] if not one.alone]
            groups = [orders] if orders else []
            for group in [*groups, *([one] for one in given[0] if one.alone)]:
                pipe.send(("begun", [one.number for one in group]))
                if (len(group) > 1 and action == "stack") or any(action == str(one.number) for one in group):
                    time.sleep(0.2)
                    os._exit(7)
                for one in group:
                    pipe.send(("ended", one.number, 0, 0.5))
    except EOFError:
        pass


@pytest.fixture
def codes(monkeypatch, tmp_path):
    """The exit codes of four jobs under an action of the stand-in."""

    def run(action: str, stack: bool) -> list[int]:
        monkeypatch.setattr(worker, "PROGRAM", "tests.sweep.test_worker")
        monkeypatch.setenv(ACTIONS, action)
        made = Worker(list, stack)
        tasks = [made([sys.executable, "train.py"], {}, tmp_path / "job.log") for _ in range(4)]
        until = time.monotonic() + 60
        while any(one.poll() is None for one in tasks) and time.monotonic() < until:
            time.sleep(0.02)
        made.close()
        return [one.code for one in tasks]

    return run


def test_of_jobs_one_by_one_only_the_one_that_ran_is_lost_with_the_process(codes) -> None:
    assert codes("2", stack=False) == [0, 7, 0, 0]


def test_jobs_that_trained_as_one_when_the_process_died_train_alone(codes, capfd) -> None:
    assert codes("stack", stack=True) == [0, 0, 0, 0]
    assert "the process died with the 4 jobs that it trained as one: each trains alone now" in capfd.readouterr().out


def test_a_job_that_has_not_begun_is_taken_back(tmp_path: Path) -> None:
    made = Worker(list, stack=True)
    task = made([sys.executable, "train.py"], {}, tmp_path / "job.log")
    task.send(signal.SIGTERM)
    assert task.poll() == 128 + signal.SIGTERM
    assert task.waited == pytest.approx(time.monotonic() - task.asked, abs=1)
    made.close()


if __name__ == "__main__":
    stand_in()
