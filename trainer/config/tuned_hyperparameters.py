"""The optimizers of a config, and the numbers that were tuned for each."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from trainer.config.instantiate import build

AVERAGED = {"betas", "beta2", "beta2_decay", "rho", "initial_accumulator_value"}
"""Settings of second moments, by which an optimizer divides; `alpha` is one beside an `eps`."""
LINKED = ("beta1", "beta2", "momentum", "alpha", "eps", "weight_decay")
"""The numbers beside the learning rate that a rule may change."""


@dataclass(frozen=True)
class Owner:
    """An optimizer of the config, or a group with a weight decay of its own: where it stands, and its tuned numbers.

    `node` is the optimizer's, `names` are its settings and those of one that it wraps, and `places` are the keys of
    the numbers that a rule may change here.
    """

    key: str
    node: dict[str, Any]
    names: set[str]
    tuned: dict[str, float]
    places: dict[str, str]


def owners(cfg: DictConfig) -> Iterator[Owner]:
    """The run's optimizer, then those of groups, and groups with a weight decay of their own."""
    node: Any = OmegaConf.to_container(cfg.optimizer, resolve=True)
    main = _owner("optimizer", node)
    yield main
    tree: Any = OmegaConf.to_container(cfg.groups, resolve=True) if "groups" in cfg else {}
    parts = {"groups": tree}
    parts |= {f"groups.patterns.{i}": part for i, part in enumerate(tree.get("patterns") or [])}
    for key, part in parts.items():
        if not isinstance(part, dict):
            continue
        stepper = part.get("optimizer")
        own = _owner(f"{key}.optimizer", stepper) if isinstance(stepper, dict) else None
        if own is not None:
            yield own
        decay: Any = part.get("weight_decay")
        if _is_number(decay):
            whose, place = own or main, {"weight_decay": f"{key}.weight_decay"}
            yield Owner(key, whose.node, whose.names, {**whose.tuned, "weight_decay": float(decay)}, place)


def _owner(key: str, node: dict[str, Any]) -> Owner:
    """The numbers of an optimizer, and of one that it wraps."""
    wrapped = {f"{key}.{name}": part for name, part in node.items() if isinstance(part, dict) and "_target_" in part}
    names: set[str] = set()
    tuned: dict[str, float] = {}
    places: dict[str, str] = {}
    for path, part in {key: node, **wrapped}.items():
        betas: Any = part.get("betas")
        two = isinstance(betas, list) and len(betas) == 2 and all(map(_is_number, betas))
        numbers = {"beta1": betas[0], "beta2": betas[1]} if two else {}
        numbers |= {name: part[name] for name in LINKED if _is_number(part.get(name))}
        names |= set(part)
        tuned |= {name: float(value) for name, value in numbers.items()}
        places |= {name: f"{path}.{name}" for name in numbers}
    if "betas" in names:  # then alpha is no decay of second moments
        tuned.pop("alpha", None)
        places.pop("alpha", None)
    if _is_number(node.get("lr")):
        tuned["lr"] = float(node["lr"])
    return Owner(key, node, names, tuned, places)


def adaptive(owner: Owner, allow: list[str]) -> bool:
    """Whether an optimizer divides by second moments: by its settings, or those of its class where they do not tell."""
    if _divides(owner.names) or "momentum" in owner.names:
        return _divides(owner.names)
    made = build(OmegaConf.create(owner.node), owner.key, allow)
    return _divides(set(inspect.signature(made).parameters))


def _divides(names: set[str]) -> bool:
    return bool(AVERAGED & names) or {"alpha", "eps"} <= names


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
