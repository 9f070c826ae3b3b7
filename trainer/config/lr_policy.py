"""From a config to the learning-rate policy, without torch: what a plan shows, and what training applies."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from trainer.config import adascale_config as pace
from trainer.config.batch_scaling import rescaled
from trainer.config.compat import Compat
from trainer.config.hyper_schedules import hyper_schedules
from trainer.config.instantiate import build, expect, refusing
from trainer.config.nested_schedules import expanded, named
from trainer.config.settings import global_batch, trainer_settings
from trainer.lr import ConfigError, Horizon, LRPolicy, Schedule, Warmup, auto_updates, compose, place
from trainer.lr.bounds import number, positive

Groups = Mapping[str, Mapping[str, Any]]
"""Parameter groups by name, each with its `lr_mult`, its `weight_decay` and the config of its own `schedule`."""


def facts(lr_mult: float, weight_decay: float | None, schedule: Any = None) -> dict[str, Any]:
    """What a policy asks of a group."""
    return {"lr_mult": lr_mult, "weight_decay": weight_decay, "schedule": schedule}


def policy(cfg: DictConfig, length: Horizon, groups: Groups | None = None) -> LRPolicy:
    """The learning rate of every update: optimizer.lr, scaling, warm-up, schedule and cooldown of the config.

    Its numbers are the tuned ones: what `scaling` makes of them is made here. Where the model is not known, `groups`
    are those that the optimizer's weight decay calls for.
    """
    if "lr" not in cfg.optimizer:
        raise ConfigError("optimizer.lr is not set: the policy starts from it.")
    base = positive("optimizer.lr", cfg.optimizer.lr, "it is the learning rate at the peak.")
    now = rescaled(cfg, length)
    cfg, scale = now.cfg, now.scale
    groups = assumed_groups(cfg) if groups is None else groups
    compat = Compat.of(cfg)
    read = compat.horizon(length)
    made = _schedules(cfg, compat, groups, base * scale)
    warmup_mode, cool = compat.warmup_mode(cfg.warmup_mode), _cooldown(cfg, compat, base * scale)
    rise = _warmup(cfg, compat, read, scale, base * scale)
    _, common = compose(read, lambda _: rise, next(iter(made.values())), warmup_mode, cool)
    own = {name: place(read, rise.updates, curve, warmup_mode, cool) for name, curve in list(made.items())[1:] if curve}
    whole_run = LRPolicy(
        base,
        scale,
        Warmup(rise.updates, compat.held(rise.factor, length)),
        compat.held(common, length),
        {name: group["lr_mult"] for name, group in groups.items()},
        {name: compat.held(curve, length) for name, curve in own.items()},
        most_gain=most_gain(cfg),
        adaptive=pace.unsuited(cfg),
    )
    return hyper_schedules(cfg, whole_run, length, settings(cfg, groups))


def most_gain(cfg: DictConfig) -> float | None:
    """S, the largest gain of AdaScale, where it is chosen."""
    return pace.multiple(cfg, global_batch(cfg, trainer_settings(cfg))) if pace.chosen(cfg.scaling) else None


def assumed_groups(cfg: DictConfig) -> Groups:
    """The groups that a model will have, as far as the config says: vectors are spared weight decay."""
    decay = cfg.optimizer.get("weight_decay")
    if not decay:
        return {"all": facts(1.0, decay)}
    return {"decay": facts(1.0, decay), "no_decay": facts(1.0, 0.0)}


def settings(cfg: DictConfig, groups: Groups | None = None) -> dict[str, dict[str, float]]:
    """The other numbers of each parameter group, as the config has them; `momentum` is β1 where there are betas."""
    options: Any = OmegaConf.to_container(cfg.optimizer, resolve=True)
    shared = {name: float(value) for name, value in options.items() if _is_number(value) and name != "lr"}
    betas = options.get("betas")
    if isinstance(betas, list) and len(betas) == 2 and all(map(_is_number, betas)):
        shared |= {"beta1": float(betas[0]), "beta2": float(betas[1]), "momentum": float(betas[0])}
    decays = assumed_groups(cfg) if groups is None else groups
    return {
        name: shared if group["weight_decay"] is None else {**shared, "weight_decay": float(group["weight_decay"])}
        for name, group in decays.items()
    }


def _warmup(cfg: DictConfig, compat: Compat, length: Horizon, scale: float, peak: float) -> Warmup:
    """The warm-up of the config; what is `auto` or the optimizer's own is filled in."""
    node: Any = OmegaConf.to_container(cfg.warmup, resolve=True)
    betas = cfg.optimizer.get("betas")
    beta2 = betas[1] if betas is not None and len(betas) == 2 else None
    if node.get("duration") == "auto":
        node["duration"] = auto_updates(replace(length, total=round(length.total / length.stretch)), beta2)
    if node.get("start") == "auto":
        node["start"] = 1.0 / scale if scale > 1.0 else 0.0
    elif compat.start == "lr" and node.get("start"):
        node["start"] = number("warmup.start", node["start"], "it is a learning rate.", 0.0, peak) / peak
    if "beta2" in node and node["beta2"] is None:
        node["beta2"] = beta2
    return _called("warmup", build(OmegaConf.create(node), "warmup", list(cfg.allow)), Warmup)(length)


def _schedules(cfg: DictConfig, compat: Compat, groups: Groups, peak: float) -> dict[str, Any]:
    """What makes the schedule of each group; None for a group that follows the first one's."""
    plain: Any = OmegaConf.to_container(cfg.schedule, resolve=True)
    chosen: Any = OmegaConf.to_container(cfg.group_schedule, resolve=True)
    for name in chosen:
        if name not in groups:
            raise ConfigError(f"group_schedule.{name}: there is no such group. Known: {', '.join(groups)}.")
    given = {name: group["schedule"] for name, group in groups.items() if group.get("schedule")} | chosen
    nodes = {
        name: compat.relative(expanded(plain, "schedule"), peak * group["lr_mult"]) for name, group in groups.items()
    }
    for name, part in given.items():
        node = named(expanded(part, f"group_schedule.{name}"), f"group_schedule.{name}")
        nodes[name] = compat.relative(node, peak * groups[name]["lr_mult"])
    made: dict[str, Any] = {}
    for name, node in nodes.items():
        if not made or node != next(iter(nodes.values())):
            key = f"group_schedule.{name}" if name in given else "schedule"
            made[name] = _called(key, build(OmegaConf.create(node), key, list(cfg.allow)))
        else:
            made[name] = None
    return made


def _cooldown(cfg: DictConfig, compat: Compat, peak: float) -> Any:
    node = compat.relative(OmegaConf.to_container(cfg.cooldown, resolve=True), peak)
    made = build(OmegaConf.create(node), "cooldown", list(cfg.allow))

    def call(length: Horizon, schedule: Schedule) -> Any:
        with refusing("cooldown"):
            return expect("cooldown", made(length, schedule), Callable)  # type: ignore[arg-type]

    return call


def _called(key: str, function: Any, kind: type = Callable) -> Any:  # type: ignore[assignment]
    def call(length: Horizon) -> Any:
        with refusing(key):
            return expect(key, function(length), kind)

    return call


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
