"""From a config to the learning-rate policy, without torch: what a plan needs, and what training uses."""

from dataclasses import dataclass, fields
from typing import Any

from omegaconf import DictConfig, OmegaConf

from trainer.assemble.targets import build, nearest, refusing
from trainer.lr import Horizon, Policy, Refusal, compose
from trainer.lr.bounds import positive, whole

KEYS = (
    "data model task optimizer scaling warmup schedule trainer logger callbacks name seed composition resume allow"
).split()
PRECISIONS = ("32-true", "bf16-mixed", "bf16-true", "16-mixed")


@dataclass(frozen=True)
class Run:
    """The `trainer` config, checked: how long, on how many processes, and how each update is made."""

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
    clip: float | None
    updates_per_call: int
    log_every: int
    compile: bool
    channels_last: bool
    threads: int | None
    deterministic: bool
    lightning: dict[str, Any]

    def __post_init__(self) -> None:
        for name in ("devices", "nodes", "accumulate", "updates_per_call", "log_every"):
            whole(f"trainer.{name}", getattr(self, name), "give a number of at least 1.")
        whole("trainer.keep", self.keep, "give the number of checkpoints, 0 for all.", low=0)
        if self.threads is not None:
            whole("trainer.threads", self.threads, "give a number of at least 1, or null.")
        if self.clip is not None:
            positive("trainer.clip", self.clip, "it is the largest norm of the gradients, or null.")
        for name in ("compile", "channels_last", "deterministic"):
            _one_of(f"trainer.{name}", getattr(self, name), (True, False))
        _one_of("trainer.accelerator", self.accelerator, ("auto", "cpu", "gpu"))
        _one_of("trainer.strategy", self.strategy, ("auto", "ddp"))
        _one_of("trainer.precision", self.precision, PRECISIONS)
        if self.accelerator == "cpu" and self.precision == "16-mixed":
            raise Refusal("trainer.precision=16-mixed needs a GPU: take bf16-mixed or 32-true on the CPU.")

    @property
    def world(self) -> int:
        """Processes of the run."""
        return self.devices * self.nodes


def check_keys(cfg: DictConfig) -> None:
    """Refuse a key at the top that nothing reads, and a value that is still missing."""
    for key in cfg:
        if key not in KEYS:
            raise Refusal(f"{key} is not a key of the config: {nearest(str(key), KEYS)}")
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise Refusal(f"{missing[0]} is not set: add {missing[0]}=VALUE to the command line.")


def trainer_settings(cfg: DictConfig) -> Run:
    """The checked `trainer` group of the config."""
    values = OmegaConf.to_container(cfg.trainer, resolve=True)
    assert isinstance(values, dict)
    known = [field.name for field in fields(Run)]
    for key in values:
        if key not in known:
            raise Refusal(f"trainer.{key} is not known: {nearest(str(key), known)}")
    return Run(**{str(key): value for key, value in values.items()})


def global_batch(cfg: DictConfig, run: Run) -> int:
    """B = per-device batch × devices × nodes × accumulation."""
    batch = whole("data.batch_size", cfg.data.get("batch_size"), "it is a number of samples, at least 1.")
    return batch * run.world * run.accumulate


def horizon(cfg: DictConfig, run: Run, samples: int | None = None) -> Horizon:
    """The length of the run; `samples` is what the data really holds, where it has been read."""
    if samples is None:
        samples = declared_samples(cfg)
    return Horizon.of(
        run.duration,
        samples=samples,
        batch_size=global_batch(cfg, run),
        tokens_per_sample=cfg.data.get("tokens_per_sample"),
    )


def declared_samples(cfg: DictConfig) -> int | None:
    """The training samples of an epoch as the config declares or counts them; None where only the data knows."""
    samples = cfg.data.get("samples")
    if isinstance(samples, DictConfig):
        samples = build(samples, "data.samples", list(cfg.allow))
    return None if samples is None else whole("data.samples", samples, "an epoch has at least one sample.")


def policy(cfg: DictConfig, length: Horizon, groups: dict[str, float] | None = None) -> Policy:
    """The learning rate of every update: optimizer.lr, scaling, warm-up and schedule of the config, composed."""
    allow = list(cfg.allow)
    warmup = build(cfg.warmup, "warmup", allow)
    schedule = build(cfg.schedule, "schedule", allow)
    rule = build(cfg.scaling, "scaling", allow)
    if "lr" not in cfg.optimizer:
        raise Refusal("optimizer.lr is not set: the policy starts from it.")
    with refusing("scaling"):
        scale = rule(length.batch_size)
    rise, fall = compose(length, _refusing("warmup", warmup), _refusing("schedule", schedule), cfg.composition)
    return Policy(cfg.optimizer.lr, scale, rise, fall, groups or {"all": 1.0})


def _refusing(key: str, function: Any) -> Any:
    def call(length: Horizon) -> Any:
        with refusing(key):
            return function(length)

    return call


def _one_of(name: str, value: object, known: tuple[object, ...]) -> None:
    if value not in known or isinstance(value, int) != isinstance(known[0], int):
        raise Refusal(f"{name}={value!r} is not known: choose one of {', '.join(map(str, known))}.")
