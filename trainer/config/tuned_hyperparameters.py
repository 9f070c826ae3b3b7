"""The optimizers of a config, and the numbers that were tuned for each."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.config.instantiate import Node, instantiate
from trainer.config.settings import CurveSettings

SECOND_MOMENTS = {"betas", "beta2", "beta2_decay", "rho", "initial_accumulator_value"}
"""Settings of second moments, by which an optimizer divides; so is `alpha` if there is an `eps`."""
LINKED = ("beta1", "beta2", "momentum", "alpha", "eps", "weight_decay")
"""The numbers beside the learning rate that a rule may change."""


@dataclass(frozen=True)
class Tuned:
    """The tuned numbers of an optimizer of the config, or of a group with its own weight decay.

    `key` is its key in the config, `node` the optimizer's config, `names` are its settings and those of an optimizer
    that it wraps, and `places` are the keys of the numbers that a rule may change.
    """

    key: str
    node: Node
    names: frozenset[str]
    numbers: Mapping[str, float]
    places: Mapping[str, str]


def tuned_hyperparameters(curve: CurveSettings) -> list[Tuned]:
    """Those of the run's optimizer, then of groups with an optimizer or a weight decay of their own."""
    return list(_found(curve))


def _found(curve: CurveSettings) -> Iterator[Tuned]:
    main = _of_optimizer("optimizer", curve.optimizer)
    yield main
    parts: dict[str, Any] = {"groups": curve.groups}
    parts |= {f"groups.patterns.{i}": part for i, part in enumerate(curve.groups.get("patterns") or [])}
    for key, part in parts.items():
        if not isinstance(part, Mapping):
            continue
        optimizer = part.get("optimizer")
        own = _of_optimizer(f"{key}.optimizer", optimizer) if isinstance(optimizer, Mapping) else None
        if own is not None:
            yield own
        decay: Any = part.get("weight_decay")
        if is_number(decay):
            whose = own or main
            numbers = {**whose.numbers, "weight_decay": float(decay)}
            yield Tuned(key, whose.node, whose.names, numbers, {"weight_decay": f"{key}.weight_decay"})


def _of_optimizer(key: str, node: Node) -> Tuned:
    """The numbers of an optimizer, and of one that it wraps."""
    wrapped = {f"{key}.{name}": part for name, part in node.items() if isinstance(part, dict) and "_target_" in part}
    names: set[str] = set()
    tuned: dict[str, float] = {}
    places: dict[str, str] = {}
    for path, part in {key: node, **wrapped}.items():
        betas: Any = part.get("betas")
        two = isinstance(betas, list) and len(betas) == 2 and all(map(is_number, betas))
        numbers = {"beta1": betas[0], "beta2": betas[1]} if two else {}
        numbers |= {name: part[name] for name in LINKED if is_number(part.get(name))}
        names |= set(part)
        tuned |= {name: float(value) for name, value in numbers.items()}
        places |= {name: f"{path}.{name}" for name in numbers}
    if "betas" in names:  # then alpha is not the decay of second moments
        tuned.pop("alpha", None)
        places.pop("alpha", None)
    if is_number(node.get("lr")):
        tuned["lr"] = float(node["lr"])
    return Tuned(key, node, frozenset(names), tuned, places)


def adaptive(tuned: Tuned, allow: Sequence[str]) -> bool:
    """Whether an optimizer divides by second moments: by its config, or else by the signature of its class."""
    if _divides(tuned.names) or "momentum" in tuned.names:
        return _divides(tuned.names)
    made = instantiate(tuned.node, tuned.key, allow)
    return _divides(set(inspect.signature(made).parameters))


def is_number(value: Any) -> bool:
    """Whether a value of a config is a number; true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _divides(names: set[str] | frozenset[str]) -> bool:
    return bool(SECOND_MOMENTS & names) or {"alpha", "eps"} <= names
