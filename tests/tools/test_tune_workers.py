"""A tune with several processes: the same trainings, a process that dies, a mistake, and no process that is left."""

import math

import pytest

from tests.tools.test_tune_command import SMALL, losses
from trainer.cli.compose import compose_config
from trainer.config.variants import for_tuning
from trainer.lr import ConfigError
from trainer.tools.tune.members import Member, Members
from trainer.tools.tune.workers import Workers

LION = (*SMALL, "optimizer=lion")


@pytest.fixture
def members(tmp_path):
    return Members(for_tuning(compose_config(list(LION))), LION, tmp_path, ["cadence", "train"])


def one(rate, updates=20):
    return Member((f"optimizer.lr={rate}",), 0, updates)


@pytest.mark.sample(0)
def test_several_processes_make_the_same_trainings(tuned):  # noqa: F811
    _, alone = tuned(*LION, "--budget", "20%", "--out", "alone")
    _, together = tuned(*LION, "--budget", "20%", "--jobs", "2", "--out", "together")
    assert losses(together) == losses(alone)
    assert together["values"] == alone["values"]


def test_a_process_that_dies_fails_one_training_and_a_mistake_ends_the_tune(members):
    with Workers(members, 2) as workers:
        outcomes = workers.train([one(0.001), one(0.002, 5000), one(0.003), one(0.004)])
        next(outcomes)
        busy = workers.workers[1].process
        busy.kill()
        costs = [(outcome.cost, outcome.error) for outcome in outcomes]
        assert costs[0] == (math.inf, "its process ended with exit code -9")
        assert all(math.isfinite(cost) for cost, _ in costs[1:])
        with pytest.raises(ConfigError, match=r"optimizer\.lr=-1"):
            list(workers.train([one(-1)]))
        processes = [worker.process for worker in workers.workers]
    assert not any(process.is_alive() for process in [busy, *processes])
