"""Two jobs never share a device, no job is overtaken, and what a job held is free again; jobs are drawn here."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.lr import ConfigError
from trainer.sweep.device_pool import DevicePool, devices_needed, parse_devices, visible_devices
from trainer.sweep.watchdog import Watchdog, end

DEVICES = st.lists(st.integers(0, 9).map(str), unique=True, max_size=6)


@given(DEVICES, st.integers(1, 5), st.data())
def test_jobs_never_share_a_device_start_in_order_and_all_of_them_start(
    devices: list[str], slots: int, data: st.DataObject
) -> None:
    pool = DevicePool(slots, devices)
    needs = data.draw(st.lists(st.integers(0, len(devices)), max_size=12))
    for job, wanted in enumerate(needs):
        pool.wait(job, wanted)
    started: list[int] = []
    while not pool.idle:
        new = pool.admit()
        for job, held in new.items():
            assert len(held) == needs[job]
        started += new
        assert new or pool.held, "nothing runs and nothing starts: the sweep would hang"
        used = [device for held in pool.held.values() for device in held]
        assert len(set(used)) == len(used)
        assert set(used) | set(pool.free) == set(devices)
        assert len(pool.held) <= slots
        assert not pool.admit(), "all that can start has started"
        pool.release(data.draw(st.sampled_from(sorted(pool.held))))
    assert started == list(range(len(needs)))
    assert pool.free == tuple(devices)


@given(DEVICES)
def test_a_job_that_could_never_start_is_refused(devices: list[str]) -> None:
    with pytest.raises(ConfigError, match=f"job 3 takes {len(devices) + 1} GPUs"):
        DevicePool(1, devices).wait(3, len(devices) + 1)


def test_after_close_nothing_starts_and_what_runs_goes_on() -> None:
    pool = DevicePool(1, [])
    for job in (0, 1):
        pool.wait(job, 0)
    assert pool.admit() == {0: ()}
    pool.close()
    assert not pool.idle
    pool.release(0)
    assert pool.idle
    assert pool.admit() == {}


@pytest.mark.parametrize(
    ("shown", "devices"),
    [
        ("0,2", ["0", "2"]),
        ("", []),
        ("-1", []),
        ("3,-1,4", ["3"]),
        ("GPU-8a,MIG-7", ["GPU-8a", "MIG-7"]),
        (" 1 , 0 ", ["1", "0"]),
    ],
)
def test_auto_takes_the_devices_that_the_environment_shows(
    monkeypatch: pytest.MonkeyPatch, shown: str, devices: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    assert parse_devices("auto") == devices


def test_auto_asks_the_driver_where_the_environment_says_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_devices() == []
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\necho 'GPU 0: A (UUID: GPU-1)'\necho '  MIG 1g (UUID: MIG-1)'\necho 'GPU 1: A (UUID: 2)'\n"
    )
    tool.chmod(0o755)
    assert visible_devices() == ["0", "1"]
    tool.write_text("#!/bin/sh\necho failed to initialise\nexit 9\n")
    assert visible_devices() == []


@pytest.mark.parametrize("devices", [2, "0,1", None, [True], [1.5], [""], ["0,1"], [-1], [[0]], [1, "1"], {"a": 1}])
def test_what_names_no_devices_is_refused(devices: object) -> None:
    with pytest.raises(ConfigError, match="give auto, or a list"):
        parse_devices(devices)


@pytest.mark.parametrize(
    ("settings", "there", "wanted"),
    [
        ({}, ["0"], 1),
        ({"devices": 3}, ["0"], 3),
        ({"devices": 3}, [], 0),
        ({"devices": 3, "accelerator": "cpu"}, ["0"], 0),
        ({"devices": 3, "accelerator": "gpu"}, [], 3),
        ({"devices": "auto"}, ["0"], 1),
        ({"devices": -2}, ["0"], 1),
    ],
)
def test_a_job_takes_as_many_devices_as_it_has_processes_on_gpus(
    settings: dict[str, object], there: list[str], wanted: int
) -> None:
    assert devices_needed(settings, there) == wanted


def test_the_watchdog_kills_what_does_not_heed_sigterm() -> None:
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    words = [sys.executable, "-S", "-c", deaf]
    job = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert job.stdout is not None
    assert job.stdout.readline() == "deaf\n"
    begun = time.monotonic()
    end({job.pid}, grace=0.5)
    assert job.wait(60) == -signal.SIGKILL
    assert time.monotonic() - begun >= 0.5


def test_the_watchdog_spares_what_it_was_told_to_forget() -> None:
    watchdog = Watchdog()
    jobs = [
        subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"], start_new_session=True)
        for _ in "ab"
    ]
    for job in jobs:
        watchdog.add(job.pid)
    watchdog.remove(jobs[0].pid)
    watchdog.close()
    assert jobs[1].wait(60) == -signal.SIGTERM
    assert jobs[0].poll() is None
    jobs[0].kill()
    jobs[0].wait(60)
