"""`trainer.max_time`: what counts as a time, and how early a run stops so that it has ended in time."""

import signal
import subprocess
import sys

import pytest

from trainer.config.settings import settings_of
from trainer.distributed.launch import time_limit
from trainer.distributed.launch.requeue import wanted
from trainer.distributed.launch.signals import TIME_IS_UP, Interrupted
from trainer.distributed.launch.time_limit import LEAVING, TimeLimit, process_age, seconds_of
from trainer.lr import ConfigError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("11h30m", 41400), ("90m", 5400), ("3600s", 3600), ("1d12h", 129600), ("1.5h", 5400), ("1d2h3m4.5s", 93784.5)],
)
def test_times_are_numbers_with_units(text, seconds):
    assert seconds_of("trainer.max_time", text) == seconds


@pytest.mark.parametrize("given", ["", "90", "11:30:00", "30m11h", "0s", "-1h", "1 h", "1h1h", "h", "inf", "1e3s"])
def test_what_is_no_time_is_refused_in_one_line(given):
    with pytest.raises(ConfigError, match=r"^trainer\.max_time=.* is not a time: write 11h30m, 90m, 3600s or 1d12h"):
        seconds_of("trainer.max_time", given)


@pytest.mark.parametrize("given", ["trainer.max_time=90", "trainer.max_time=11:30:00", "trainer.max_time=true"])
def test_the_config_refuses_it_too(compose, given):
    with pytest.raises(ConfigError, match=r"trainer\.max_time"):
        settings_of(compose(given))


def test_the_config_takes_a_time(compose):
    assert settings_of(compose("trainer.max_time=11h30m")).trainer.longest == 41400


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved: `clock[0]` is the time."""
    now = [100.0]
    monkeypatch.setattr(time_limit.time, "monotonic", lambda: now[0])
    return now


def test_it_leaves_time_for_the_longest_stretch_a_save_and_the_end(clock):
    limit = TimeLimit(1000.0, begun=100.0)
    assert not limit.is_up()
    clock[0] += 300  # the model is compiled
    assert not limit.is_up()
    for _ in range(5):
        clock[0] += 10
        assert not limit.is_up()
    with limit.saving():
        clock[0] += 20
    clock[0] = 1100 - LEAVING - 20 - 10 - 0.1
    limit._asked = clock[0] - 10
    assert not limit.is_up()
    clock[0] += 0.2
    assert limit.is_up()


def test_before_a_save_is_measured_its_size_is_what_counts(clock):
    limit = TimeLimit(100.0, begun=100.0)
    limit.expect_save(int(50 * time_limit.BYTES_PER_SECOND))
    limit.is_up()
    limit._asked = clock[0] = 200 - 50 - LEAVING - 0.1
    assert not limit.is_up()
    limit._asked = clock[0] = clock[0] + 0.2
    assert limit.is_up()


@pytest.mark.parametrize(("start", "leaving"), [(6, 5), (30, 10), (600, 20)])
def test_a_process_that_starts_slowly_gets_more_time_to_end(clock, start, leaving):
    limit = TimeLimit(1000.0, begun=clock[0] - start)
    limit.is_up()
    limit._asked = clock[0] = limit.end - leaving - 0.1
    assert not limit.is_up()
    limit._asked = clock[0] = clock[0] + 0.2
    assert limit.is_up()


def test_no_limit_is_never_up():
    assert not TimeLimit().is_up()


def test_the_time_counts_from_the_start_of_the_process():
    code = (
        "import time; time.sleep(0.5); from trainer.distributed.launch import time_limit as t; print(t.process_age())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0.4 < float(done.stdout) < process_age()


def test_slurm_starts_a_job_again_whose_time_is_up_and_not_one_that_a_person_has_stopped(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.delenv("CADENCE_NO_REQUEUE", raising=False)
    assert wanted(TIME_IS_UP)
    assert not wanted(signal.SIGINT)
    assert not wanted(signal.SIGHUP)


def test_a_time_that_is_over_before_the_first_update_says_to_raise_it():
    over = Interrupted(TIME_IS_UP)
    assert over.advice == "its start and a save take longer: raise trainer.max_time"
    over.command = "cadence train resume=auto"
    assert over.advice == "go on with: cadence train resume=auto"
