"""Jobs through Ray: the driver submits them, sends signals through Ray, and asks it how they have ended.

Ray is an optional package, and only decides where and when a job runs. The run is not a task inside a Ray worker but a
process beside it (see `ray_job`).
"""

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

from trainer.cli.extras import needed
from trainer.lr import ConfigError
from trainer.sweep import ray_job
from trainer.sweep.job import LEFTOVER
from trainer.sweep.spawn import python_path

POLL, ANSWER = 0.25, 10.0
STORE = 80 * 2**20
"""Bytes of object store of a Ray that the sweep starts; its objects are only exit codes."""


class Ray:
    """A connection to Ray: starts jobs there and knows which have begun and ended."""

    def __init__(self, address: str | None, cpus: int, gpus: float) -> None:
        self.address, self.cpus, self.gpus = address, cpus, gpus
        self._jobs: dict[Any, RayProcess] = {}
        self._asked = 0.0

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Connect to the cluster, or start a Ray on this machine; at the end all jobs of this driver have ended."""
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        ray = needed("ray", "hydra/launcher=ray")
        handler = signal.getsignal(signal.SIGTERM)
        local = {"address": "local", "object_store_memory": STORE}
        place = {**local, "include_dashboard": False} if self.address is None else {"address": self.address}
        try:
            if self.address not in (None, "auto"):  # Ray itself would try for minutes
                host, _, port = str(self.address).partition(":")
                socket.create_connection((host, int(port)), timeout=ANSWER).close()
            ray.init(**place, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, OverflowError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"hydra.launcher.address={self.address}: no Ray answers there ({error}): start one, or give null"
            ) from None
        signal.signal(signal.SIGTERM, handler)  # Ray has replaced it
        self._ray = ray
        try:
            self._check()
            yield
        finally:
            ray.shutdown()

    def __call__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> "RayProcess":
        """Submit a job to Ray, which starts it when a machine has room."""
        own = {name: value for name, value in environment.items() if not name.startswith("RAY_")}
        own["PYTHONPATH"] = python_path(own.get("PYTHONPATH"))
        program = [sys.executable, "-S", "-m", ray_job.__name__, str(log.parent), *command]
        self._ray.cloudpickle.register_pickle_by_value(ray_job)
        actor = self._ray.remote(ray_job.RayActor).options(
            num_cpus=self.cpus, num_gpus=self.gpus, max_restarts=0, max_task_retries=0, max_concurrency=8
        )
        handle = actor.remote()
        process = RayProcess(self, handle, log)
        self._jobs[handle.run.remote(program, own, self.gpus > 0, str(Path.cwd()))] = process
        self._jobs[handle.host.remote()] = process
        return process

    def update(self) -> None:
        """Learn which jobs have begun and ended; asks Ray every `POLL` seconds."""
        now = time.monotonic()
        if now < self._asked + POLL or not self._jobs:
            return
        self._asked = now
        for known in self._ray.wait(list(self._jobs), num_returns=len(self._jobs), timeout=0)[0]:
            process = self._jobs.pop(known)
            try:
                process.set_answer(self._ray.get(known))
            except Exception as error:  # any kind: the worker, the machine or the project's folder may be missing
                process.set_lost(getattr(error, "cause", None) or error)

    def forget(self, handle: Any) -> None:
        """Let Ray forget a job and end its worker."""
        self._ray.kill(handle)

    def _check(self) -> None:
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if any(has.get("CPU", 0) >= self.cpus and has.get("GPU", 0) >= self.gpus for has in nodes):
            return
        there = ", ".join(f"{has.get('CPU', 0):g} cpus and {has.get('GPU', 0):g} gpus" for has in nodes)
        needs = f"a job takes hydra.launcher.cpus={self.cpus} and gpus={self.gpus:g}, and Ray has machines of {there}"
        if self.address is None:
            raise ConfigError(f"{needs}: lower them")
        print(f"{needs}: the jobs wait for a larger one", file=sys.stderr, flush=True)


class RayProcess:
    """A job submitted to Ray. It is not a process of this machine, so its id is 0."""

    pid = 0

    def __init__(self, ray: Ray, handle: Any, log: Path) -> None:
        self._ray, self._handle, self._log = ray, handle, log
        self._submitted, self._begun, self._killed = time.monotonic(), 0.0, 0.0
        self._code: int | None = None

    @property
    def waited(self) -> float:
        """Seconds from the submission to the start."""
        return (self._begun or time.monotonic()) - self._submitted

    def poll(self) -> int | None:
        """The exit code, once it has one."""
        self._ray.update()
        return self._code

    def alive(self) -> bool:
        """Whether it waits or runs, or a process that it has started runs."""
        return self._code is None

    def send(self, signum: int) -> None:
        """Send a signal to a job that has begun; let Ray forget one that has not, or that SIGKILL has not ended."""
        if self._code is not None:
            return
        if self._begun and not self._killed:
            self._killed = time.monotonic() if signum == signal.SIGKILL else 0.0
            self._handle.end.remote(signum)
        elif not self._begun or time.monotonic() > self._killed + LEFTOVER:
            self._end(-signum)

    def set_answer(self, answer: str | int) -> None:
        """Note an answer: a host name when the job has begun, an exit code when it has ended."""
        if isinstance(answer, str):
            self._begun = time.monotonic()
        else:
            self._end(answer)

    def set_lost(self, error: BaseException) -> None:
        """Note that the job has ended without an exit code, and write the reason to its log."""
        if self._code is None:
            with self._log.open("a") as log:
                log.write(f"lost by Ray: {' '.join(str(error).split())}\n")
            self._end(1)

    def _end(self, code: int) -> None:
        self._code = code
        self._ray.forget(self._handle)
