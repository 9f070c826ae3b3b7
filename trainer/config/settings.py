"""The config as checked, frozen, plain values; and the keys that a config may have."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from trainer.cli.allow import allowed_by_environment
from trainer.cli.allow import check_names as check_allow
from trainer.cli.environment import stored
from trainer.cli.messages import nearest
from trainer.cli.other_names import key_of_others
from trainer.config.instantiate import Node, check_names, instantiate
from trainer.distributed.launch.launcher import devices_and_nodes
from trainer.distributed.launch.time_limit import seconds_of
from trainer.engine.gradient_treatment import GradientTreatment
from trainer.lr import ConfigError
from trainer.lr.bounds import integer, number, positive
from trainer.resume.curve_history import CURVE, ResumeSettings

GROUPS = (
    "data model task optimizer groups scaling warmup schedule batch_schedule cooldown compat hyper_schedule plateau "
    "resume trainer average measure logger callbacks adapter guard"
).split()
KEYS = [*GROUPS, *"name seed warmup_mode group_schedule init freeze lint allow".split()]
FIXED = {
    "lint": ["ignore"],
    "init": ["path", "strict", "rename"],
    "resume": ["path", "snapshot", "policy", "shape", "floor"],
}
"""The keys of groups without a `_target_`."""
RUN_VALUES = {
    "label_smoothing": "task.loss.label_smoothing",
    "dropout": "model.dropout",
    "gradient_noise": "trainer.gradient_noise",
}
"""Settings of the whole run that may follow a schedule, and their keys in the config."""
CHECKED = ("optimizer", "trainer", "seed", "resume", "data.folds", "data.fold", "data.split_seed", *RUN_VALUES.values())
"""Settings beside the curve whose numbers a resumed run is checked by."""
LOSS_WEIGHTS = "loss_weights"
"""The factors of several losses, in `task.step` and in `hyper_schedule`."""
PRECISIONS = ("32-true", "bf16-mixed", "bf16-true", "16-mixed", "64-true")
COMPILE = (False, True, "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
"""True is torch's default mode; the others are modes of `torch.compile`."""


@dataclass(frozen=True)
class DDPOptions:
    """Options of torch's DistributedDataParallel, by its names and with its defaults except for the last one."""

    find_unused_parameters: bool = False
    static_graph: bool = False
    bucket_cap_mb: int | float | None = None
    gradient_as_bucket_view: bool = True

    def __post_init__(self) -> None:
        for name in ("find_unused_parameters", "static_graph", "gradient_as_bucket_view"):
            _one_of(f"trainer.ddp.{name}", getattr(self, name), (True, False))
        if self.bucket_cap_mb is not None:
            why = "it is how many MB of gradients are exchanged at once, or null."
            positive("trainer.ddp.bucket_cap_mb", self.bucket_cap_mb, why)
        if self.find_unused_parameters and self.static_graph:
            raise ConfigError(
                "trainer.ddp.static_graph=true uses every parameter in each update, and "
                "trainer.ddp.find_unused_parameters=true allows to leave some out: choose one."
            )


@dataclass(frozen=True)
class TrainerSettings:
    """The `trainer` config, checked. `gradients` has the keys of `GradientTreatment`; its seed is that of the run."""

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
    steps_per_execution: int | None
    log_every: int
    compile: bool | str
    channels_last: bool
    threads: int | None
    deterministic: bool
    sync_batchnorm: bool
    timeout: float
    max_idle_restarts: int | None
    lightning: dict[str, Any]
    gradients: GradientTreatment
    ddp: DDPOptions
    snapshots: Sequence[int | str] = ()
    overfit: int | None = None
    profile: bool = False
    quiet: bool = False
    max_time: str | None = None
    cuda_graph: bool = False

    def __post_init__(self) -> None:
        for name in ("devices", "nodes", "accumulate", "log_every"):
            integer(f"trainer.{name}", getattr(self, name), "give a number of at least 1.")
        integer("trainer.keep", self.keep, "give the number of checkpoints, 0 for all.", low=0)
        if self.threads is not None:
            cores = os.cpu_count() or 1
            integer(
                "trainer.threads", self.threads, f"give 1 to {cores}, the cores of this machine, or null.", 1, cores
            )
        why = "it is the seconds within which a lost process ends the others, at most a day; try 60."
        number("trainer.timeout", self.timeout, why, high=86400)
        positive("trainer.timeout", self.timeout, why)
        if self.max_time is not None:
            seconds_of("trainer.max_time", self.max_time)
        counts = {
            "overfit": "it is how many batches are trained on again and again, or null.",
            "steps_per_execution": "it is how many updates a chunk has, or null.",
            "max_idle_restarts": "it is how many starts in a row without a new update end a Slurm job; null: no limit.",
        }
        for name, why in counts.items():
            if getattr(self, name) is not None:
                integer(f"trainer.{name}", getattr(self, name), why)
        _one_of("trainer.compile", self.compile, COMPILE)
        for name in ("cuda_graph", "channels_last", "deterministic", "sync_batchnorm", "profile", "quiet"):
            _one_of(f"trainer.{name}", getattr(self, name), (True, False))
        if not isinstance(self.lightning, dict):
            raise ConfigError(
                f"trainer.lightning={self.lightning!r} is not a group of options: write lightning.NAME=VALUE."
            )
        if not isinstance(self.snapshots, list | tuple):
            raise ConfigError(
                f"trainer.snapshots={self.snapshots!r} is not a list: write trainer.snapshots=[800, 20ep]."
            )
        _one_of("trainer.accelerator", self.accelerator, ("auto", "cpu", "gpu"))
        _one_of("trainer.strategy", self.strategy, ("auto", "ddp", "fsdp"))
        _one_of("trainer.precision", self.precision, PRECISIONS)
        if self.strategy == "fsdp" and self.ddp != DDPOptions():
            raise ConfigError(
                "trainer.ddp has options of DDP, and trainer.strategy=fsdp has none of them: leave them out."
            )

    @property
    def longest(self) -> float:
        """`max_time` in seconds."""
        return math.inf if self.max_time is None else seconds_of("trainer.max_time", self.max_time)

    @property
    def world(self) -> int:
        """The number of processes of the run."""
        return self.devices * self.nodes


@dataclass(frozen=True)
class CurveSettings:
    """The settings that decide the learning rate of every update, from this run's config or that of a checkpoint.

    `duration` is `trainer.duration`, and `run_values` are the values of `RUN_VALUES`, and of `task.step.loss_weights`
    as `loss_weights.NAME`.
    """

    optimizer: Node
    groups: Node
    scaling: Node
    warmup: Node
    schedule: Node
    group_schedule: Node
    batch_schedule: Node
    cooldown: Node
    compat: Node
    hyper_schedule: Node
    warmup_mode: str
    duration: int | float | str
    run_values: Mapping[str, Any]
    allow: Sequence[str]

    @classmethod
    def of(cls, config: Mapping[str, Any], allow: Sequence[str]) -> "CurveSettings":
        """From a config of plain, resolved values. What it allows itself does not count: a checkpoint may hold it."""
        nodes = ("optimizer", "groups", "scaling", "warmup", "schedule", "group_schedule", "batch_schedule", "cooldown")
        return cls(
            **{name: config[name] for name in (*nodes, "compat", "hyper_schedule", "warmup_mode")},
            duration=config["trainer"]["duration"],
            run_values={name: _at(config, key) for name, key in RUN_VALUES.items()} | _loss_weights(config),
            allow=allow,
        )


@dataclass(frozen=True)
class InitSettings:
    """The weights that a run starts from: a file or folder, or None for those of the model."""

    path: str | None
    strict: bool
    rename: Mapping[str, str | None] | None

    def __post_init__(self) -> None:
        _one_of("init.strict", self.strict, (True, False))
        if not isinstance(self.path, str | None) or self.path == "":
            raise ConfigError(f"init.path={self.path!r} is not a path: give a file or folder with weights, or null.")
        renames = self.rename or {}
        if not isinstance(renames, Mapping) or not all(
            isinstance(old, str) and isinstance(new, str | None) for old, new in renames.items()
        ):
            raise ConfigError(
                f"init.rename={self.rename!r} does not map names: give {{START: NEW}}, or {{START: null}} to leave out."
            )


@dataclass(frozen=True)
class Settings:
    """The whole config, checked. Groups with a `_target_` stay plain mappings, which must not be changed.

    `global_batch` is B = per-device batch × devices × nodes × accumulation, with `full_batch` the whole training set.
    `record` is the resolved config that checkpoints keep, except for what comes from the environment; `source` is the
    config as written, with interpolations. `planned` is the plan that was made of them before torch was imported, a
    `Planned` of `trainer.config.resolve`; None where there is none.
    """

    name: str
    seed: int
    trainer: TrainerSettings
    curve: CurveSettings
    resume: ResumeSettings
    init: InitSettings
    freeze: Sequence[str]
    global_batch: int
    full_batch: bool
    data: Node
    model: Node
    task: Node
    plateau: Node
    average: Node
    adapter: Node
    measure: Node
    logger: Node
    callbacks: Node
    guard: Node
    allow: Sequence[str]
    lint_ignore: Sequence[str]
    record: Mapping[str, Any] = field(repr=False)
    source: Mapping[str, Any] = field(repr=False)
    planned: Any = field(default=None, repr=False, compare=False)


def settings_of(cfg: DictConfig) -> Settings:
    """The config as frozen values. Raises `ConfigError` for an invalid key or value."""
    check_keys(cfg)
    allow = [*dict.fromkeys([*cfg.allow, *allowed_by_environment()])]
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    source: Any = OmegaConf.to_container(cfg)
    trainer = _trainer_settings(config, allow)
    batch = integer("data.batch_size", config["data"].get("batch_size"), "it is a number of samples, at least 1.")
    nodes = "data model task plateau average adapter measure logger callbacks guard freeze".split()
    return Settings(
        **{name: config[name] for name in ("name", "seed", *nodes)},
        allow=allow,
        trainer=trainer,
        curve=CurveSettings.of(config, allow),
        resume=ResumeSettings(**config["resume"]),
        init=InitSettings(**config["init"]),
        global_batch=batch * trainer.world * trainer.accumulate,
        full_batch=config["trainer"]["accumulate"] == "all",
        lint_ignore=config["lint"]["ignore"],
        record=stored(cfg, (*CURVE, *CHECKED)),
        source=source,
    )


def check_keys(cfg: DictConfig) -> None:
    """Refuse unknown and missing keys at the top, and numbers that are not finite."""
    for key in cfg:
        if key not in KEYS:
            hint = key_of_others(str(key), cfg[key]) or nearest(str(key), KEYS)
            raise ConfigError(f"{key!s} is not a key of the config: {hint}")
    missing = sorted(OmegaConf.missing_keys(cfg)) or [key for key in KEYS if key not in cfg]
    if missing:
        raise ConfigError(f"{missing[0]} is not set: add {missing[0]}=VALUE to the command line.")
    for key in (*GROUPS, "group_schedule", "lint", "init"):
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
            number(key, value, "give a finite one.")
    if not (isinstance(cfg.allow, ListConfig) and all(isinstance(name, str) and name for name in cfg.allow)):
        raise ConfigError(f"allow={cfg.allow} is not a list of packages: write allow=[package].")
    check_allow(cfg.allow, "allow")
    if not (isinstance(cfg.freeze, ListConfig) and all(isinstance(name, str) and name for name in cfg.freeze)):
        raise ConfigError(f"freeze={cfg.freeze} is not a list of patterns: write freeze=[backbone.*].")
    if (
        isinstance(cfg.name, DictConfig | ListConfig)
        or not str(cfg.name or "").strip()
        or {".", ".."} & set(str(cfg.name).split("/"))
    ):
        raise ConfigError(f"name={cfg.name} cannot name the run's folder: give a plain name.")


def _leaves(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Every value of a config, resolved, with its dotted key."""
    if not isinstance(node, DictConfig | ListConfig):
        yield key, node
        return
    names: Any = node if isinstance(node, DictConfig) else range(len(node))
    for name in names:
        yield from _leaves(node[name], f"{key}.{name}".lstrip("."))


def _trainer_settings(config: Mapping[str, Any], allow: Sequence[str]) -> TrainerSettings:
    """The checked `trainer` group of the config."""
    values = dict(config["trainer"])
    check_names("trainer", TrainerSettings, values, ["gradients"], GradientTreatment.names())
    values |= {**devices_and_nodes(values), "ddp": _ddp_options(values.get("ddp"))}
    treatment = {name: values.pop(name) for name in GradientTreatment.names()}
    if values["accumulate"] == "all":
        values["accumulate"] = _whole_epoch(config, values, allow)
    return TrainerSettings(**values, gradients=GradientTreatment(**treatment, seed=config["seed"]))


def _ddp_options(values: Any) -> DDPOptions:
    if not isinstance(values, Mapping):
        raise ConfigError(f"trainer.ddp={values!r} is not a group of options: write trainer.ddp.NAME=VALUE.")
    check_names("trainer.ddp", DDPOptions, values)
    return DDPOptions(**values)


def _whole_epoch(config: Mapping[str, Any], values: Mapping[str, Any], allow: Sequence[str]) -> int:
    """The micro-batches of an update on the whole training set, for gradient descent."""
    data = config["data"]
    samples, batch = (
        declared_samples(data, allow),
        integer("data.batch_size", data.get("batch_size"), "it is at least 1."),
    )
    if samples is None:
        raise ConfigError("trainer.accumulate=all: the number of training samples is not known: set data.samples.")
    world = integer("trainer.devices", values["devices"], "it is a number of processes.") * integer(
        "trainer.nodes", values["nodes"], "it is a number of machines."
    )
    if samples % (batch * world):
        fits = [size for size in range(1, samples // world + 1) if samples % (size * world) == 0]
        near = sorted(sorted(fits, key=lambda size: abs(size - batch))[:3])
        advice = f"take data.batch_size={' or '.join(map(str, near))}" if near else "take another number of devices"
        raise ConfigError(
            f"trainer.accumulate=all: batches of {batch} on {world} processes do not divide the {samples} samples: "
            f"{advice}."
        )
    return samples // (batch * world)


def declared_samples(data: Node, allow: Sequence[str]) -> int | None:
    """The training samples of an epoch that the config declares or counts; None where only reading the data tells.

    With `data.folds` these are N - N // folds, less one where data.fold < N mod folds, of the N samples for training
    and validation together.
    """
    samples = _counted(data, "samples", allow)
    if samples is None:
        return None
    samples = integer("data.samples", samples, "an epoch has at least one sample.")
    if data.get("folds") is None:
        return samples
    if (held_out := _counted(data, "val_samples", allow)) is None:
        return None
    both = samples + integer("data.val_samples", held_out, "it is how many samples validate.", low=0)
    folds = integer("data.folds", data["folds"], "it is a number of parts, 2 or more, or null.", low=2)
    fold = integer("data.fold", data.get("fold"), f"give one from 0 to {folds - 1}.", low=0, high=folds - 1)
    return both - both // folds - (fold < both % folds)


def _counted(data: Node, name: str, allow: Sequence[str]) -> Any:
    declared = data.get(name)
    return instantiate(declared, f"data.{name}", allow) if isinstance(declared, Mapping) else declared


def _loss_weights(config: Mapping[str, Any]) -> dict[str, Any]:
    """The factors of several losses, by the names of their schedules."""
    given = _at(config, f"task.step.{LOSS_WEIGHTS}")
    return {f"{LOSS_WEIGHTS}.{name}": value for name, value in given.items()} if isinstance(given, Mapping) else {}


def _at(config: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key; None where there is none."""
    found: Any = config
    for name in key.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _one_of(name: str, value: object, known: tuple[object, ...]) -> None:
    if value not in known or type(value) not in map(type, known):
        raise ConfigError(f"{name}={value!r} is not known: choose one of {', '.join(map(str, known))}.")
