"""Several drivers share one study in PostgreSQL; every trial counts once, whoever dies. A real server on loopback."""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.stand_in import driver, toy

TRIALS = 12


def _binary(name: str) -> str | None:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else shutil.which(name)


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The URL of a server of its own, with its own folder and port, run by another user where this one is root."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    initdb, server = _binary("initdb"), _binary("postgres")
    if initdb is None or server is None:
        pytest.skip("PostgreSQL is not installed")
    user: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="cadence-pg-") as place:
        folder = Path(place) / "data"
        if os.getuid() == 0:
            name = next((u.pw_name for u in pwd.getpwall() if u.pw_name in ("postgres", "nobody")), None)
            if name is None:
                pytest.skip("PostgreSQL does not run as root, and there is no other user")
            user = {"user": name}
            os.chown(place, pwd.getpwnam(name).pw_uid, -1)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        made = subprocess.run(
            [initdb, "-D", folder, "-U", "cadence", "-A", "trust", "--no-sync"],
            capture_output=True,
            text=True,
            cwd=place,
            **user,
        )
        if made.returncode:
            pytest.skip(f"PostgreSQL cannot make a data folder here: {made.stderr.strip().splitlines()[-1]}")
        options = ["-c", "listen_addresses=127.0.0.1", "-k", place, "-c", "fsync=off"]
        running = subprocess.Popen(
            [server, "-D", folder, "-p", str(port), *options], cwd=place, stderr=subprocess.PIPE, **user
        )
        try:
            _wait_for(port, running)
            yield f"postgresql://cadence@127.0.0.1:{port}/postgres"
        finally:
            running.send_signal(signal.SIGQUIT)
            running.wait(60)


def _wait_for(port: int, server: "subprocess.Popen[bytes]") -> None:
    import psycopg

    until = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(host="127.0.0.1", port=port, user="cadence", dbname="postgres").close()
            return
        except psycopg.OperationalError:
            assert server.poll() is None, server.stderr.read() if server.stderr else ""
            assert time.monotonic() < until
            time.sleep(0.2)


def states(app: Path) -> list[dict[str, Any]]:
    """The records of all drivers."""
    found = (app / "outputs/s").glob("on-*/sweep.json")
    return [job for path in sorted(found) for job in json.loads(path.read_text())["jobs"]]


@pytest.mark.sample(0)
@pytest.mark.slow
@pytest.mark.postgres
def test_two_drivers_share_a_study_one_is_killed_and_every_trial_counts_once(postgres: str, tmp_path: Path) -> None:
    app = toy(tmp_path / "app")
    words = (
        *("hydra/sweeper=search", "x=interval(1,4)", "sleep=1", f"hydra.sweeper.trials={TRIALS}"),
        *(f"hydra.sweeper.storage={postgres}", "hydra.sweeper.heartbeat=1", "hydra.launcher.jobs=2"),
    )
    first, second = (driver(app, *words) for _ in range(2))
    until = time.monotonic() + 120
    while not (len(states(app)) >= 5 and len(list((app / "outputs/s").glob("on-*/sweep.json"))) == 2):
        assert time.monotonic() < until, (app / "driver.log").read_text()
        time.sleep(0.1)
    first.kill()
    first.wait()
    assert second.wait(180) == 0, (app / "driver.log").read_text()
    folders = sorted(path.name.partition("-")[0] for path in (app / "outputs/s").iterdir())
    assert folders == ["on", "on"]

    import optuna

    url = postgres.replace("postgresql:", "postgresql+psycopg:")
    trials = optuna.load_study(study_name="s", storage=url).get_trials()
    done = [t for t in trials if t.state.name == "COMPLETE"]
    lost = [t for t in trials if t.state.name == "FAIL" and "error" not in t.user_attrs]
    assert len(done) == TRIALS
    assert not [t for t in trials if t.state.name in ("RUNNING", "WAITING")]
    replaced = [t.user_attrs["replaces"] for t in trials if "replaces" in t.user_attrs and t.state.name == "COMPLETE"]
    assert sorted(replaced) == sorted(t.number for t in lost)
    assert 1 <= len(lost) <= 2
    for again in (t for t in trials if "replaces" in t.user_attrs):
        assert again.params == trials[again.user_attrs["replaces"]].params
    recorded = [job for job in states(app) if job["status"] == "completed"]
    by_value = {t.number: t.params["x"] for t in done}
    assert {job["number"]: job["parameters"]["x"] for job in recorded if job["number"] in by_value} == by_value
    assert len({job["folder"] for job in states(app)}) == len(states(app))
