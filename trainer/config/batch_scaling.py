"""What the batch-size rule makes of a config: the numbers that were tuned at one batch, carried to that of the run."""

import copy
import inspect
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf

from trainer.config import adascale_config as pace
from trainer.config.instantiate import build, refusing
from trainer.config.settings import global_batch, trainer_settings
from trainer.config.tuned_hyperparameters import LINKED, Owner, adaptive, owners
from trainer.lr import ConfigError, Horizon
from trainer.lr.bounds import number, whole
from trainer.lr.scaling import Scaled
from trainer.lr.scaling_average import scaled_decay


@dataclass(frozen=True)
class Rescaled:
    """A config with the numbers in use; `optimizer.lr` is still the tuned one, which `scale` multiplies.

    `changed` holds (before, after) for each number that is another one now, `kept` those that a rule could have
    changed, both by their key.
    """

    cfg: DictConfig
    scale: float
    changed: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        """What was changed and what was kept, as plain values."""
        return {"changed": {key: list(pair) for key, pair in self.changed.items()}, "kept": self.kept}


def rescaled(cfg: DictConfig, length: Horizon) -> Rescaled:
    """The config with what `scaling` makes of its numbers at the global batch of the run."""
    rule = build(cfg.scaling, "scaling", list(cfg.allow))
    reference = cfg.scaling.get("base_batch_size")
    if reference is not None:
        whole("scaling.base_batch_size", reference, "it is the global batch at which optimizer.lr was tuned.")
    takes = inspect.signature(rule).parameters if callable(rule) else {}
    main, *others = owners(cfg)
    first = _applied(cfg, rule, takes, main, length.batch_size)
    now: dict[str, tuple[Any, Any]] = {}
    kept: dict[str, Any] = {}
    for owner in [main, *others] if {"tuned", "adaptive"} & set(takes) else [main]:
        outcome = first if owner is main else _applied(cfg, rule, takes, owner, length.batch_size)
        if outcome.lr != first.lr:
            raise ConfigError(
                f"scaling: it gives {main.key} × {first.lr:g} and {owner.key} × {outcome.lr:g}, and one factor scales "
                "the rates of all groups: choose scaling=linear or scaling=sqrt."
            )
        _compare(owner, outcome, now, kept)
    before, after = _warmup(cfg, first.warmup, length)
    if before != after:
        now["warmup.duration"] = (before, after)
    elif before is not None:
        kept["warmup.duration"] = before
    made = _written(cfg, {key: value for key, (_, value) in now.items()}) if now else cfg
    _average(cfg, now, kept)
    kept["trainer.duration"] = _length(cfg)
    rate = main.tuned.get("lr")
    if rate is not None and first.lr != 1.0:
        now = {"optimizer.lr": (rate, rate * first.lr), **now}
    return Rescaled(made, first.lr, now, kept)


def lines(told: dict[str, Any], kappa: float | None) -> list[str]:
    """What `Rescaled.told` says as text, where the batch is not the one of the tuning."""
    if not told["changed"] and kappa in (None, 1.0):
        return []
    changed = [f"{key} {_short(before)} → {_short(after)}" for key, (before, after) in told["changed"].items()]
    return [
        *changed,
        f"kept: {', '.join(f'{key} {_short(value)}' for key, value in told['kept'].items()) or 'nothing'}",
    ]


def _applied(cfg: DictConfig, rule: Any, takes: Any, owner: Owner, batch_size: int) -> Scaled:
    """What the rule makes of an owner's numbers."""
    given: dict[str, Any] = {"tuned": dict(owner.tuned)} if "tuned" in takes else {}
    if "adaptive" in takes and cfg.scaling.get("adaptive") is None:
        given["adaptive"] = adaptive(owner, list(cfg.allow))
    with refusing("scaling"):
        made = rule(batch_size, **given)
        scaled = made if isinstance(made, Scaled) else Scaled(made)
        number("scaling", scaled.lr, "the rule must give a finite number, or a Scaled, for the learning rate.")
        for name, value in scaled.settings.items():
            if name not in LINKED or name not in owner.tuned:
                raise ConfigError(f"scaling: the rule sets {name}, which {owner.key} does not have as a number.")
            number(f"scaling: {owner.key}.{name}", value, "the rule must give a finite number from 0.", low=0.0)
    return scaled


def _compare(owner: Owner, outcome: Scaled, now: dict[str, tuple[Any, Any]], kept: dict[str, Any]) -> None:
    """Sort an owner's numbers into those that change and those that stay."""
    for name, place in owner.places.items():
        before = owner.tuned[name]
        after = float(outcome.settings.get(name, before))
        if after != before:
            now[place] = (before, after)
        else:
            kept[place] = before


def _warmup(cfg: DictConfig, factor: float, length: Horizon) -> tuple[Any, Any]:
    """The warm-up's duration before and after: `factor` times the epochs, where it is fixed in epochs or samples.

    One of updates has κ times the epochs already, as has a share of a run that is fixed in updates.
    """
    duration = cfg.warmup.get("duration")
    unit = str(duration).strip()
    unit = str(cfg.trainer.duration).strip() if unit.endswith("%") else unit
    if factor == 1.0 or duration is None or not unit.endswith(("ep", "samples", "tokens")):
        return duration, duration
    with refusing("warmup"):
        return duration, round(length.updates(duration, "warmup.duration") * factor)


def _length(cfg: DictConfig) -> str:
    """The length of the run with what is kept of it at another batch: its epochs, samples or tokens, or its updates."""
    duration = str(cfg.trainer.duration).strip()
    units = {"ep": "epochs", "samples": "samples", "tokens": "tokens"}
    unit = next((word for end, word in units.items() if duration.endswith(end)), "updates")
    return f"{duration} ({'scale-invariant iterations' if pace.chosen(cfg.scaling) else unit})"


def _average(cfg: DictConfig, now: dict[str, tuple[Any, Any]], kept: dict[str, Any]) -> None:
    """The decay of an average, which makes itself the `scaled_decay` that is told here."""
    tree: Any = OmegaConf.to_container(cfg, resolve=True)
    node = tree["average"]
    decay = node.get("decay")
    if decay is None or cfg.scaling.get("base_batch_size") is None and not node.get("scaled"):
        return
    if not node.get("scaled"):
        kept["average.decay"] = decay
        return
    batch = global_batch(cfg, trainer_settings(cfg))
    now["average.decay"] = (decay, scaled_decay(decay, batch, node.get("base_batch_size"), node.get("every", 1)))


def _written(cfg: DictConfig, numbers: dict[str, Any]) -> DictConfig:
    """A copy of the config with these numbers at their keys; beta1 and beta2 are those of `betas`, where there are."""
    made = copy.deepcopy(cfg)
    for key, value in numbers.items():
        path, _, name = key.rpartition(".")
        node = OmegaConf.select(made, path)
        if name in node:
            node[name] = value
        else:
            node.betas = [value if f"beta{i}" == name else beta for i, beta in enumerate(node.betas, start=1)]
    return made


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
