"""Which job of a sweep may start, and on which devices.

A job needs a number of devices (GPUs), which may be 0. At most `slots` jobs run at once and no device belongs to two
jobs. Jobs start in their order, so a job that needs many devices never waits for later, smaller ones.
"""

import os
import subprocess
from collections import deque
from collections.abc import Sequence
from typing import Any

from trainer.lr import ConfigError

VISIBLE = "CUDA_VISIBLE_DEVICES"
ADVICE = "give auto, or a list as in hydra.launcher.devices=[0,1,3]"


class DevicePool:
    """Jobs that wait, jobs that run, and the devices that each running job holds.

    >>> pool = DevicePool(slots=2, devices=["0", "1", "3"])
    >>> for job, need in enumerate([2, 2, 1]):
    ...     pool.wait(job, need)
    >>> pool.admit()
    {0: ('0', '1')}
    >>> pool.release(0)
    >>> pool.admit()
    {1: ('0', '1'), 2: ('3',)}
    """

    def __init__(self, slots: int, devices: Sequence[str]) -> None:
        self.slots, self.devices = slots, tuple(devices)
        self.held: dict[int, tuple[str, ...]] = {}
        self._waiting: deque[tuple[int, int]] = deque()

    @property
    def free(self) -> tuple[str, ...]:
        """The devices that no job holds, in their order."""
        taken = {device for devices in self.held.values() for device in devices}
        return tuple(device for device in self.devices if device not in taken)

    def wait(self, job: int, need: int) -> None:
        """Put a job at the end of the queue; refuse one that needs more devices than there are."""
        if need > len(self.devices):
            there = f"only {len(self.devices)} ({', '.join(self.devices)})" if self.devices else "no GPU"
            advice = "lower trainer.devices" if self.devices else "take trainer.accelerator=cpu"
            raise ConfigError(
                f"job {job} takes {need} GPUs and the sweep has {there}: {advice}, "
                "or name more, as in hydra.launcher.devices=[0,1]"
            )
        self._waiting.append((job, need))

    def admit(self) -> dict[int, tuple[str, ...]]:
        """The jobs to start now, each with its devices; they hold them until `release`."""
        started = {}
        while self._waiting and len(self.held) < self.slots and self._waiting[0][1] <= len(self.free):
            job, need = self._waiting.popleft()
            started[job] = self.held[job] = self.free[:need]
        return started

    def release(self, job: int) -> None:
        """Take back the devices of a job that has ended, however it ended."""
        del self.held[job]

    def close(self) -> None:
        """Start no more jobs."""
        self._waiting.clear()

    @property
    def has_room(self) -> bool:
        """Whether a slot is free that no waiting job will take."""
        return len(self.held) + len(self._waiting) < self.slots

    @property
    def idle(self) -> bool:
        """Whether no job runs and none waits."""
        return not (self.held or self._waiting)


def parse_devices(devices: Any) -> list[str]:
    """The devices of `hydra.launcher.devices`: a list of numbers or names, or `auto` for all that are visible."""
    if devices == "auto":
        return visible_devices()
    if not isinstance(devices, list):
        raise ConfigError(f"hydra.launcher.devices={devices} is not a list: {ADVICE}")
    names = [str(device) for device in devices]
    for device, name in zip(devices, names):
        number = isinstance(device, int) and not isinstance(device, bool) and device >= 0
        if not number and not (isinstance(device, str) and name and not set(name) & set(", ")):
            raise ConfigError(f"hydra.launcher.devices={devices}: {device!r} is not a device: {ADVICE}")
        if names.count(name) > 1:
            raise ConfigError(f"hydra.launcher.devices={devices} holds {name} twice: two jobs would share it; {ADVICE}")
    return names


def visible_devices() -> list[str]:
    """The GPUs that a process sees: those of `CUDA_VISIBLE_DEVICES`, else all that the NVIDIA driver knows."""
    if (value := os.environ.get(VISIBLE)) is not None:
        names = [name.strip() for name in value.split(",")]
        return names[: names.index("-1")] if "-1" in names else [name for name in names if name]
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number in range(sum(line.startswith("GPU ") for line in listing.stdout.splitlines()))]


def devices_needed(settings: Any, devices: Sequence[str]) -> int:
    """How many devices a job with these `trainer` settings takes: none on the CPU, or where there are none.

    A setting that is not a whole number counts as 1: the job itself refuses it.
    """
    accelerator, wanted = settings.get("accelerator", "auto"), settings.get("devices", 1)
    if accelerator == "cpu" or (accelerator == "auto" and not devices):
        return 0
    return wanted if isinstance(wanted, int) and not isinstance(wanted, bool) and wanted > 0 else 1


def threads_per_process(settings: Any, jobs: int) -> int:
    """How many threads each process of a job gets where `jobs` run at once and share the cores; at least 1."""
    ranks = settings.get("devices", 1)
    ranks = ranks if isinstance(ranks, int) and ranks > 0 else 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // (jobs * ranks))
