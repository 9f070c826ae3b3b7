"""Groups by name: patterns choose the parameters that have their own rate, weight decay or optimizer."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from trainer.lr import ConfigError
from trainer.lr.bounds import number, positive
from trainer.optim.groups import Group, Make, decay_groups, own_lr_mult, own_weight_decay, trainable
from trainer.optim.kinds import no_decay


@dataclass(frozen=True)
class Pattern:
    """The parameters whose names fit `match`, with `*` and `?` as in a shell, and their settings; None: the run's.

    `lr_mult` 0 freezes. `schedule` is a name or {schedule: NAME, …}; one that starts at 0 unfreezes later.
    An `optimizer` has its own lr, which `lr_mult` then multiplies, and its own weight decay.
    """

    name: str
    match: str
    lr_mult: float = 1.0
    weight_decay: float | None = None
    schedule: Any = None
    clip: float | None = None
    optimizer: Make | None = None

    def group(self, parameters: list[nn.Parameter], weight_decay: float | None, lr: float) -> Group:
        """The group of `parameters` in a run with these settings."""
        mult = self.lr_mult
        if self.optimizer is not None:
            mult *= own_lr_mult(self.optimizer, lr, f"group {self.name}")
            weight_decay = own_weight_decay(self.optimizer)
        if self.weight_decay is not None:
            if weight_decay is None:
                raise ConfigError(
                    f"group {self.name}: weight_decay={self.weight_decay!r}, but the optimizer has none: "
                    "add +optimizer.weight_decay=0 if it takes one."
                )
            weight_decay = self.weight_decay
        return Group(self.name, parameters, weight_decay, mult, self.schedule, self.clip, self.optimizer)


def pattern_groups(
    net: nn.Module,
    weight_decay: float | None,
    lr: float,
    *,
    patterns: Sequence[Mapping] = (),
    bias: bool = False,
    norm: bool = False,
    embedding: bool = False,
) -> list[Group]:
    """A group for each pattern, and `decay` and `no_decay` for the rest (or `rest`, where it is of one kind).

    A group with parameters of both kinds is split into NAME and NAME_no_decay. A pattern that matches
    nothing, and two that match the same parameter, are refused.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    >>> head = {"name": "head", "match": "1.*", "lr_mult": 10.0}
    >>> [(group.name, group.lr_mult) for group in pattern_groups(net, 0.0, 1.0, patterns=[head])]
    [('rest', 1.0), ('head', 10.0)]
    """
    read = [_read(i, entry) for i, entry in enumerate(patterns)]
    if not read:
        return decay_groups(net, weight_decay, lr, bias=bias, norm=norm, embedding=embedding)
    owner = _pattern_of_parameters(net, read)
    undecayed = no_decay(net, bias, norm, embedding)
    left = [parameter for parameter in trainable(net) if id(parameter) not in owner]
    groups = Group("decay", left, weight_decay).split_no_decay(undecayed) if left else []
    names = ["rest"] if len(groups) == 1 else ["decay", "no_decay"]
    groups = [Group(name, group.parameters, group.weight_decay) for name, group in zip(names, groups)]
    for pattern in read:
        mine = [parameter for parameter in trainable(net) if owner.get(id(parameter)) is pattern]
        groups += pattern.group(mine, weight_decay, lr).split_no_decay(undecayed)
    return groups


def _read(i: int, entry: Mapping[str, Any]) -> Pattern:
    """Entry `i` of the list, checked."""
    key, known = f"groups.patterns.{i}", [field.name for field in fields(Pattern)]
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{key}={entry!r} is not a pattern: give {{name: NAME, match: PATTERN}} and its settings.")
    for name in entry:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise ConfigError(f"{key}.{name} is not known: {hint}Known: {', '.join(known)}.")
    for name in ("name", "match"):
        if not isinstance(entry.get(name), str) or not entry[name]:
            raise ConfigError(f"{key}.{name}={entry.get(name)!r} is not a text: give each pattern a name and a match.")
    if not entry["name"].isidentifier():
        raise ConfigError(f"{key}.name={entry['name']!r} is not a valid name: use letters, digits and _ only.")
    number(f"{key}.lr_mult", entry.get("lr_mult", 1.0), "give 0 to freeze, 1 to leave.", low=0.0)
    if entry.get("weight_decay") is not None:
        number(f"{key}.weight_decay", entry["weight_decay"], "give 0 for none, null for the optimizer's.", low=0.0)
    if entry.get("clip") is not None:
        positive(f"{key}.clip", entry["clip"], "it is the largest norm of the group's gradients together.")
    if not isinstance(entry.get("schedule"), str | Mapping | None):
        raise ConfigError(f"{key}.schedule is an object: name an option of conf/schedule, or {{schedule: NAME, …}}.")
    if entry.get("optimizer") is not None and not callable(entry["optimizer"]):
        raise ConfigError(
            f"{key}.optimizer={entry['optimizer']!r} is not an optimizer: give _target_ and _partial_: true."
        )
    return Pattern(**entry)


def _pattern_of_parameters(net: nn.Module, patterns: list[Pattern]) -> dict[int, Pattern]:
    """The pattern of each parameter, by its id; a tied parameter can match by any of its names."""
    named = [(name, p) for name, p in net.named_parameters(remove_duplicate=False) if p.requires_grad]
    owner: dict[int, Pattern] = {}
    for pattern in patterns:
        found = [(name, parameter) for name, parameter in named if fnmatchcase(name, pattern.match)]
        if not found:
            some = ", ".join(name for name, _ in named[:: max(1, len(named) // 4)])
            raise ConfigError(
                f"groups.patterns: {pattern.match!r} of {pattern.name} matches no trainable parameter of "
                f"{type(net).__name__}: its names are such as {some}."
            )
        for name, parameter in found:
            other = owner.setdefault(id(parameter), pattern)
            if other is not pattern:
                raise ConfigError(
                    f"groups.patterns: {other.match!r} of {other.name} and {pattern.match!r} of {pattern.name} both "
                    f"match {name}: each parameter belongs to one group."
                )
    return owner
