"""A policy and the parameter groups of an optimizer: which curve each group follows, and its settings by name."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from trainer.lr import ConfigError, LRPolicy


def aligned(policy: LRPolicy, groups: Sequence[Mapping[str, Any]]) -> LRPolicy:
    """The policy with its groups in the order of an optimizer's parameter groups.

    Where every group has a `name`, the names must be those of the policy; else the groups are taken in order. A policy
    that has the same curve for all of its groups serves any number of groups with equal rates. Raises `ConfigError`
    where the policy does not tell the curve of each group.
    """
    known = list(policy.groups)
    names = [group.get("name") for group in groups]
    named = None not in names and len(set(names)) == len(names)
    if named and set(names) == set(known):
        return policy if names == known else _picked(policy, {str(name): str(name) for name in names})
    if not named and len(groups) == len(known):
        return policy
    if _same_curve(policy):
        _check_equal(groups)
        labels = ["all"] if len(groups) == 1 else [f"group{i}" for i in range(len(groups))]
        return _picked(policy, dict.fromkeys(map(str, names) if named else labels, known[0]))
    found = f" ({', '.join(map(str, names))})" if named else ""
    raise ConfigError(
        f"the policy knows the groups {', '.join(known)}, but the optimizer has {len(groups)}{found}: "
        "give each parameter group the name of its group in the policy."
    )


def check_settings(policy: LRPolicy, optimizer: Optimizer, others: Collection[str] = ()) -> None:
    """Refuse a policy that schedules what neither the groups of `optimizer` have nor `others` names."""
    for name in policy.hyper_schedules:
        if name not in others and not all(_has(group, name) for group in optimizer.param_groups):
            raise ConfigError(
                f"hyper_schedule.{name}: {type(optimizer).__name__} has no {name} in its parameter groups: "
                f"leave it out by ~hyper_schedule.{name}, or train with cadence."
            )


def read_setting(group: Mapping[str, Any], name: str) -> float:
    """A setting of a parameter group; `momentum` is β1 where the optimizer has betas."""
    if name in group:
        return group[name]
    return group["betas"][1 if name == "beta2" else 0]


def write_setting(group: dict[str, Any], name: str, value: float) -> None:
    """Set what `read_setting` reads. A tensor is filled, because captured graphs and compiled steps read it."""
    if isinstance(group.get(name), Tensor):
        group[name].fill_(value)
    elif name in group:
        group[name] = value
    elif name == "beta2":
        group["betas"] = (group["betas"][0], value)
    else:
        group["betas"] = (value, group["betas"][1])


def _has(group: Mapping[str, Any], name: str) -> bool:
    return name in group or (name in ("momentum", "beta1", "beta2") and "betas" in group)


def _same_curve(policy: LRPolicy) -> bool:
    """Whether all groups have the same values at every update."""
    shared = len({id(policy.schedule_of(name)) for name in policy.groups}) == len(set(policy.groups.values())) == 1
    return shared and all(len(set(one.bases)) == 1 for one in policy.hyper_schedules.values())


def _check_equal(groups: Sequence[Mapping[str, Any]]) -> None:
    """Refuse one curve for groups that the optimizer gives different rates."""
    rates = list(dict.fromkeys(float(group.get("initial_lr", group["lr"])) for group in groups))
    if len(rates) > 1:
        raise ConfigError(
            f"the policy has one curve, but the optimizer's groups have the rates {', '.join(map(str, rates))}: "
            "give the policy these groups with their multipliers, or the optimizer one rate."
        )


def _picked(policy: LRPolicy, source: Mapping[str, str]) -> LRPolicy:
    """The policy of the groups in `source`, each with the curve of the group that it names."""
    index = [list(policy.groups).index(name) for name in source.values()]
    hyper_schedules = {
        name: one if len(one.bases) < len(policy.groups) else one._replace(bases=[one.bases[i] for i in index])
        for name, one in policy.hyper_schedules.items()
    }
    return replace(
        policy,
        groups={name: policy.groups[old] for name, old in source.items()},
        own={name: policy.own[old] for name, old in source.items() if old in policy.own},
        hyper_schedules=hyper_schedules,
    )
