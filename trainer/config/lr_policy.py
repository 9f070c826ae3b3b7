"""From checked settings to the learning-rate policy, without torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from trainer.cli.messages import nearest
from trainer.config.batch_scaling import ScaledNumbers
from trainer.config.compat import Compat
from trainer.config.instantiate import Node, expect, instantiate, refusing
from trainer.config.nested_schedules import expanded, named
from trainer.config.settings import LOSS_WEIGHTS, RUN_VALUES, CurveSettings
from trainer.config.tuned_hyperparameters import is_number
from trainer.lr import (
    ConfigError,
    Horizon,
    HyperSchedule,
    LRPolicy,
    Schedule,
    Warmup,
    auto_updates,
    compose,
    compose_schedule,
)
from trainer.lr.bounds import number, positive


@dataclass(frozen=True)
class GroupFacts:
    """What a policy needs of a parameter group; `schedule` is the config of its own schedule, if it has one."""

    lr_mult: float
    weight_decay: float | None
    schedule: Any = None


Groups = Mapping[str, GroupFacts]
"""Parameter groups by name, the first one first."""


def lr_policy(numbers: ScaledNumbers, groups: Groups, most_gain: float | None = None) -> LRPolicy:
    """The learning rate of every update: optimizer.lr, scaling, warm-up, schedule and cooldown of the config.

    `most_gain` is S, the largest gain of AdaScale, where it is chosen.
    """
    curve, length, scale = numbers.curve, numbers.length, numbers.scale
    if "lr" not in curve.optimizer:
        raise ConfigError("optimizer.lr is not set: the policy starts from it.")
    base = positive("optimizer.lr", curve.optimizer["lr"], "it is the learning rate at the peak.")
    compat = Compat.of(curve)
    read = compat.horizon(length)
    made = _schedules(curve, compat, groups, base * scale)
    warmup_mode, cool = compat.warmup_mode(curve.warmup_mode), _cooldown(curve, compat, base * scale)
    rise = _warmup(curve, compat, read, scale, base * scale)
    _, common = compose(read, lambda _: rise, next(iter(made.values())), warmup_mode, cool)
    own = {
        name: compose_schedule(read, rise.length, one, warmup_mode, cool) for name, one in list(made.items())[1:] if one
    }
    policy = LRPolicy(
        base,
        scale,
        Warmup(rise.updates, compat.held(rise.factor, length)),
        compat.held(common, length),
        {name: group.lr_mult for name, group in groups.items()},
        {name: compat.held(one, length) for name, one in own.items()},
        most_gain=most_gain,
        adaptive=numbers.unsuited,
    )
    return replace(policy, hyper_schedules=_hyper_schedules(curve, length, group_settings(curve, groups)))


def assumed_groups(curve: CurveSettings) -> Groups:
    """The groups that a model will have, as far as the config says: with weight decay, `decay` and `no_decay`."""
    decay = curve.optimizer.get("weight_decay")
    if not decay:
        return {"all": GroupFacts(1.0, decay)}
    return {"decay": GroupFacts(1.0, decay), "no_decay": GroupFacts(1.0, 0.0)}


def group_settings(curve: CurveSettings, groups: Groups) -> dict[str, dict[str, float]]:
    """The configured settings of each parameter group but lr; `momentum` is β1 where there are betas."""
    options = curve.optimizer
    shared = {name: float(value) for name, value in options.items() if is_number(value) and name != "lr"}
    betas = options.get("betas")
    if isinstance(betas, list) and len(betas) == 2 and all(map(is_number, betas)):
        shared |= {"beta1": float(betas[0]), "beta2": float(betas[1]), "momentum": float(betas[0])}
    return {
        name: shared if group.weight_decay is None else {**shared, "weight_decay": float(group.weight_decay)}
        for name, group in groups.items()
    }


def _warmup(curve: CurveSettings, compat: Compat, length: Horizon, scale: float, peak: float) -> Warmup:
    """The warm-up of the config, with `auto` values and the optimizer's β2 filled in."""
    node = dict(curve.warmup)
    betas = curve.optimizer.get("betas")
    beta2 = betas[1] if betas is not None and len(betas) == 2 else None
    if node.get("duration") == "auto":
        node["duration"] = auto_updates(replace(length, total=round(length.total / length.stretch)), beta2)
    if node.get("start") == "auto":
        node["start"] = 1.0 / scale if scale > 1.0 else 0.0
    elif compat.start == "lr" and node.get("start"):
        node["start"] = number("warmup.start", node["start"], "it is a learning rate.", 0.0, peak) / peak
    if "beta2" in node and node["beta2"] is None:
        node["beta2"] = beta2
    return _called("warmup", instantiate(node, "warmup", curve.allow), Warmup)(length)


def _schedules(curve: CurveSettings, compat: Compat, groups: Groups, peak: float) -> dict[str, Any]:
    """A function that makes the schedule of each group; None for a group that follows the first one's."""
    for name in curve.group_schedule:
        if name not in groups:
            raise ConfigError(f"group_schedule.{name}: there is no such group. Known: {', '.join(groups)}.")
    given = {name: group.schedule for name, group in groups.items() if group.schedule} | dict(curve.group_schedule)
    nodes = {
        name: compat.relative(expanded(curve.schedule, "schedule"), peak * group.lr_mult)
        for name, group in groups.items()
    }
    for name, part in given.items():
        node = named(expanded(part, f"group_schedule.{name}"), f"group_schedule.{name}")
        nodes[name] = compat.relative(node, peak * groups[name].lr_mult)
    made: dict[str, Any] = {}
    for name, node in nodes.items():
        if not made or node != next(iter(nodes.values())):
            key = f"group_schedule.{name}" if name in given else "schedule"
            made[name] = _called(key, instantiate(node, key, curve.allow))
        else:
            made[name] = None
    return made


def _cooldown(curve: CurveSettings, compat: Compat, peak: float) -> Any:
    made = instantiate(compat.relative(curve.cooldown, peak), "cooldown", curve.allow)

    def call(length: Horizon, schedule: Schedule) -> Any:
        with refusing("cooldown"):
            return expect("cooldown", made(length, schedule), Callable)  # type: ignore[arg-type]

    return call


def _called(key: str, function: Any, kind: type = Callable) -> Any:  # type: ignore[assignment]
    def call(length: Horizon) -> Any:
        with refusing(key):
            return expect(key, function(length), kind)

    return call


def _hyper_schedules(
    curve: CurveSettings, length: Horizon, settings: Mapping[str, Mapping[str, float]]
) -> dict[str, HyperSchedule]:
    """A schedule for each entry of `hyper_schedule`."""
    wanted = dict(curve.hyper_schedule)
    several = wanted.get(LOSS_WEIGHTS)
    if isinstance(several, Mapping):
        del wanted[LOSS_WEIGHTS]
        wanted |= {f"{LOSS_WEIGHTS}.{name}": node for name, node in several.items()}
    if "momentum" in wanted and "beta1" in wanted and "momentum" not in curve.optimizer:
        raise ConfigError(
            "hyper_schedule.momentum and hyper_schedule.beta1 are the same number of this optimizer: keep one."
        )
    return {name: _hyper_schedule(curve, name, node, length, settings) for name, node in wanted.items()}


def _hyper_schedule(
    curve: CurveSettings, name: str, node: Node, length: Horizon, settings: Mapping[str, Mapping[str, float]]
) -> HyperSchedule:
    key = f"hyper_schedule.{name}"
    if not isinstance(node, Mapping):
        raise ConfigError(f"{key}={node} is not a rule: give it a _target_, such as trainer.lr.tied.")
    bases: list[Any]
    if name in curve.run_values:
        bases, home = [curve.run_values[name]], RUN_VALUES.get(name, f"task.step.{name}")
    else:
        bases, home = [group.get(name) for group in settings.values()], f"optimizer.{name}"
        if bases[0] is None:
            known = sorted({*curve.run_values, *next(iter(settings.values()))})
            raise ConfigError(f"{key}: there is no such hyper-parameter here: {nearest(name, known)}")
    if not any(bases):
        raise ConfigError(f"{key} would be 0 at every update, for {home}={bases[0]}: set it above zero.")
    with refusing(key):
        rule = instantiate(expanded(node, key), key, curve.allow)(length)
    return HyperSchedule(rule, [float(base) for base in bases])
