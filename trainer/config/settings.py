"""How long a run is and how its updates are made, from the config alone; and the keys that a config may have."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from trainer.cli.messages import nearest
from trainer.config.adascale_config import counted
from trainer.config.arguments import check_names
from trainer.config.instantiate import build
from trainer.distributed.launch.launcher import devices_and_nodes
from trainer.engine.gradient_treatment import GradientTreatment
from trainer.lr import ConfigError, Horizon
from trainer.lr.bounds import number, positive, whole

GROUPS = (
    "data model task optimizer groups scaling warmup schedule batch_schedule cooldown compat hyper_schedule plateau "
    "resume trainer average measure logger callbacks"
).split()
KEYS = [*GROUPS, *"name seed warmup_mode group_schedule lint allow".split()]
FIXED = {"lint": ["ignore"], "resume": ["path", "snapshot", "policy", "shape", "floor"]}
"""The keys of groups that name no class."""
LONGEST = 10**8
"""Updates of a run: each has a learning rate that is planned, checked and kept in memory."""
PRECISIONS = ("32-true", "bf16-mixed", "bf16-true", "16-mixed", "64-true")


@dataclass(frozen=True)
class TrainerSettings:
    """The `trainer` config, checked: how long, on how many processes, and how each update is made.

    `gradients` holds the keys of `GradientTreatment`, which stand beside the others in the config.
    """

    accelerator: str
    devices: int
    nodes: int
    strategy: str
    precision: str
    duration: int | float | str
    validate: int | float | str
    checkpoint: int | float | str | None
    keep: int
    accumulate: int
    steps_per_execution: int
    log_every: int
    compile: bool
    channels_last: bool
    threads: int | None
    deterministic: bool
    sync_batchnorm: bool
    timeout: float
    max_idle_restarts: int | None
    lightning: dict[str, Any]
    gradients: GradientTreatment
    snapshots: Sequence[int | str] = ()

    def __post_init__(self) -> None:
        for name in ("devices", "nodes", "accumulate", "steps_per_execution", "log_every"):
            whole(f"trainer.{name}", getattr(self, name), "give a number of at least 1.")
        whole("trainer.keep", self.keep, "give the number of checkpoints, 0 for all.", low=0)
        if self.threads is not None:
            cores = os.cpu_count() or 1
            whole("trainer.threads", self.threads, f"give 1 to {cores}, the cores of this machine, or null.", 1, cores)
        positive("trainer.timeout", self.timeout, "within so many seconds a lost process ends all; try 60.")
        if self.max_idle_restarts is not None:
            whole(
                "trainer.max_idle_restarts",
                self.max_idle_restarts,
                "give up a Slurm job after so many, or null for never.",
            )
        for name in ("compile", "channels_last", "deterministic", "sync_batchnorm"):
            _one_of(f"trainer.{name}", getattr(self, name), (True, False))
        if not isinstance(self.lightning, dict):
            raise ConfigError(
                f"trainer.lightning={self.lightning!r} is not a group of options: write lightning.NAME=VALUE."
            )
        if not isinstance(self.snapshots, list | tuple):
            raise ConfigError(f"trainer.snapshots={self.snapshots!r} is no list: write trainer.snapshots=[800, 20ep].")
        _one_of("trainer.accelerator", self.accelerator, ("auto", "cpu", "gpu"))
        _one_of("trainer.strategy", self.strategy, ("auto", "ddp", "fsdp"))
        _one_of("trainer.precision", self.precision, PRECISIONS)

    @property
    def world(self) -> int:
        """Processes of the run."""
        return self.devices * self.nodes


def check_keys(cfg: DictConfig) -> None:
    """Refuse a key at the top that nothing reads, one that is missing, and a number that is none."""
    for key in cfg:
        if key not in KEYS:
            raise ConfigError(f"{key!s} is not a key of the config: {nearest(str(key), KEYS)}")
    missing = sorted(OmegaConf.missing_keys(cfg)) or [key for key in KEYS if key not in cfg]
    if missing:
        raise ConfigError(f"{missing[0]} is not set: add {missing[0]}=VALUE to the command line.")
    for key in (*GROUPS, "group_schedule", "lint"):
        if not isinstance(cfg[key], DictConfig):
            raise ConfigError(f"{key}={cfg[key]!r} is not a group of settings: choose one of its options.")
    for group, known in FIXED.items():
        for name in {*cfg[group], *known}:
            if name not in known:
                raise ConfigError(f"{group}.{name} is not known: {nearest(str(name), known)}")
            if name not in cfg[group]:
                raise ConfigError(f"{group}.{name} is not set: add {group}.{name}=VALUE to the command line.")
    for key, value in _leaves(cfg, ""):
        if isinstance(value, float):
            number(key, value, "nothing can be computed from it.")
    if not (isinstance(cfg.allow, ListConfig) and all(isinstance(name, str) and name for name in cfg.allow)):
        raise ConfigError(f"allow={cfg.allow} is not a list of packages: write allow=[package].")
    if not str(cfg.name or "").strip() or {".", ".."} & set(str(cfg.name).split("/")):
        raise ConfigError(f"name={cfg.name} cannot name the run's folder: give a plain name.")


def _leaves(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Every value of a config, resolved, with its dotted key."""
    if not isinstance(node, DictConfig | ListConfig):
        yield key, node
        return
    names: Any = node if isinstance(node, DictConfig) else range(len(node))
    for name in names:
        yield from _leaves(node[name], f"{key}.{name}".lstrip("."))


def trainer_settings(cfg: DictConfig) -> TrainerSettings:
    """The checked `trainer` group of the config."""
    values: Any = OmegaConf.to_container(cfg.trainer, resolve=True)
    check_names("trainer", TrainerSettings, values, ["gradients"], GradientTreatment.names())
    values |= devices_and_nodes(values)
    treatment = {name: values.pop(name) for name in GradientTreatment.names()}
    if values["accumulate"] == "all":
        values["accumulate"] = _whole_epoch(cfg, values)
    return TrainerSettings(**values, gradients=GradientTreatment(**treatment))


def _whole_epoch(cfg: DictConfig, values: dict[str, Any]) -> int:
    """The micro-batches of an update that sees each training sample once: gradient descent on the full batch."""
    samples, batch = declared_samples(cfg), whole("data.batch_size", cfg.data.get("batch_size"), "it is at least 1.")
    if samples is None:
        raise ConfigError("trainer.accumulate=all: the number of training samples is not known: set data.samples.")
    world = whole("trainer.devices", values["devices"], "it is a number of processes.") * whole(
        "trainer.nodes", values["nodes"], "it is a number of machines."
    )
    if samples % (batch * world):
        fits = [size for size in range(1, samples // world + 1) if samples % (size * world) == 0]
        near = sorted(sorted(fits, key=lambda size: abs(size - batch))[:3])
        advice = f"take data.batch_size={' or '.join(map(str, near))}" if near else "take another number of devices"
        raise ConfigError(
            f"trainer.accumulate=all: batches of {batch} on {world} processes do not make up the {samples} samples: "
            f"{advice}."
        )
    return samples // (batch * world)


def global_batch(cfg: DictConfig, run: TrainerSettings) -> int:
    """B = per-device batch × devices × nodes × accumulation."""
    batch = whole("data.batch_size", cfg.data.get("batch_size"), "it is a number of samples, at least 1.")
    return batch * run.world * run.accumulate


def horizon(cfg: DictConfig, run: TrainerSettings, samples: int | None = None) -> Horizon:
    """The length of the run's curve; `samples` is what the data really holds, where it has been read."""
    if samples is None:
        samples = declared_samples(cfg)
    tokens = cfg.data.get("tokens_per_sample")
    if tokens is not None:
        whole("data.tokens_per_sample", tokens, "give the number of tokens in a sample, or null.")
    batch = counted(cfg, run, global_batch(cfg, run))
    length = Horizon.of(run.duration, samples=samples, batch_size=batch, tokens_per_sample=tokens)
    if length.total > LONGEST:
        raise ConfigError(f"trainer.duration={run.duration} is {length.total} updates, beyond any plan: shorten it.")
    return length


def declared_samples(cfg: DictConfig) -> int | None:
    """The training samples of an epoch as the config declares or counts them; None where only the data knows."""
    samples = cfg.data.get("samples")
    if isinstance(samples, DictConfig):
        samples = build(samples, "data.samples", list(cfg.allow))
    return None if samples is None else whole("data.samples", samples, "an epoch has at least one sample.")


def _one_of(name: str, value: object, known: tuple[object, ...]) -> None:
    if value not in known or type(value) is not type(known[0]):
        raise ConfigError(f"{name}={value!r} is not known: choose one of {', '.join(map(str, known))}.")
