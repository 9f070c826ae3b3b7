"""The driver's side of Ray: jobs are given to it, signals are sent through it, and it tells what has become of them."""

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra_plugins.process_launcher import python_path
from trainer.cli.extras import needed
from trainer.lr import ConfigError
from trainer.sweep import ray_job
from trainer.sweep.job import LEFTOVER

POLL, ANSWER = 0.25, 10.0
STORE = 80 * 2**20
"""Bytes for the objects of a Ray of the sweep's own; there are none but exit codes."""


class Ray:
    """What the driver knows of Ray: the jobs that it has given it, and what has become of them."""

    def __init__(self, address: str | None, cpus: int, gpus: float) -> None:
        self.address, self.cpus, self.gpus = address, cpus, gpus
        self._jobs: dict[Any, Placed] = {}
        self._heard = 0.0

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Be a driver of the cluster, or start a Ray on this machine; all its jobs have ended in the end."""
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        ray = needed("ray", "hydra/launcher=ray")
        asked = signal.getsignal(signal.SIGTERM)
        local = {"address": "local", "object_store_memory": STORE}
        place = {**local, "include_dashboard": False} if self.address is None else {"address": self.address}
        try:
            if self.address not in (None, "auto"):  # Ray itself would try for minutes
                host, _, port = str(self.address).partition(":")
                socket.create_connection((host, int(port)), timeout=ANSWER).close()
            ray.init(**place, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, OverflowError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"hydra.launcher.address={self.address}: no Ray answers there ({error}): start one, or null"
            ) from None
        signal.signal(signal.SIGTERM, asked)  # Ray has taken it
        self._ray = ray
        try:
            self._check()
            yield
        finally:
            ray.shutdown()

    def __call__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> "Placed":
        """Give a job to Ray, which starts it when a machine has room."""
        own = {name: value for name, value in environment.items() if not name.startswith("RAY_")}
        own["PYTHONPATH"] = python_path(own.get("PYTHONPATH"))
        program = [sys.executable, "-S", "-m", ray_job.__name__, str(log.parent), *command]
        self._ray.cloudpickle.register_pickle_by_value(ray_job)
        actor = self._ray.remote(ray_job.Place).options(
            num_cpus=self.cpus, num_gpus=self.gpus, max_restarts=0, max_task_retries=0, max_concurrency=8
        )
        handle = actor.remote()
        placed = Placed(self, handle, log)
        self._jobs[handle.run.remote(program, own, self.gpus > 0, str(Path.cwd()))] = placed
        self._jobs[handle.host.remote()] = placed
        return placed

    def listen(self) -> None:
        """Take in which jobs have begun and ended; Ray is asked every `POLL` seconds."""
        now = time.monotonic()
        if now < self._heard + POLL or not self._jobs:
            return
        self._heard = now
        for known in self._ray.wait(list(self._jobs), num_returns=len(self._jobs), timeout=0)[0]:
            placed = self._jobs.pop(known)
            try:
                placed.take(self._ray.get(known))
            except Exception as error:  # of whatever kind: a worker, a machine or the project's folder is not there
                placed.lose(getattr(error, "cause", None) or error)

    def give_up(self, handle: Any) -> None:
        """Ray forgets a job, and ends its worker."""
        self._ray.kill(handle)

    def _check(self) -> None:
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if any(has.get("CPU", 0) >= self.cpus and has.get("GPU", 0) >= self.gpus for has in nodes):
            return
        there = ", ".join(f"{has.get('CPU', 0):g} cpus and {has.get('GPU', 0):g} gpus" for has in nodes)
        told = f"a job takes hydra.launcher.cpus={self.cpus} and gpus={self.gpus:g}, and Ray has machines of {there}"
        if self.address is None:
            raise ConfigError(f"{told}: lower them")
        print(f"{told}: the jobs wait for a larger one", file=sys.stderr, flush=True)


class Placed:
    """A job that was given to Ray: no process of this machine, so its id is 0."""

    pid = 0

    def __init__(self, ray: Ray, handle: Any, log: Path) -> None:
        self._ray, self._handle, self._log = ray, handle, log
        self._given, self._begun, self._killed = time.monotonic(), 0.0, 0.0
        self._code: int | None = None

    @property
    def waited(self) -> float:
        """Seconds from when it was given to Ray to when it began."""
        return (self._begun or time.monotonic()) - self._given

    def poll(self) -> int | None:
        """The exit code, once it has one."""
        self._ray.listen()
        return self._code

    def alive(self) -> bool:
        """Whether it, or a process that it started, still runs or waits to be run."""
        return self._code is None

    def send(self, signum: int) -> None:
        """Send it a signal, where it has begun; otherwise, and where SIGKILL has not ended it, Ray is to forget it."""
        if self._code is not None:
            return
        if self._begun and not self._killed:
            self._killed = time.monotonic() if signum == signal.SIGKILL else 0.0
            self._handle.end.remote(signum)
        elif not self._begun or time.monotonic() > self._killed + LEFTOVER:
            self._over(-signum)

    def take(self, told: str | int) -> None:
        """It has begun on a machine, or ended with a code."""
        if isinstance(told, str):
            self._begun = time.monotonic()
        else:
            self._over(told)

    def lose(self, error: BaseException) -> None:
        """It has ended without a code: its log tells why."""
        if self._code is None:
            with self._log.open("a") as log:
                log.write(f"lost by Ray: {' '.join(str(error).split())}\n")
            self._over(1)

    def _over(self, code: int) -> None:
        self._code = code
        self._ray.give_up(self._handle)
