"""The stages of a net, from its input to its output: those that it names, or those found in its modules."""

import inspect
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from trainer.lr import ConfigError
from trainer.optim.kinds import EMBEDDINGS

UNROLLED = (nn.Sequential, nn.ModuleList)
OF_THE_INPUT = ("token", "pos", "embed")
"""A net's own parameter with one of these in its name belongs to the first stage, as a class token does."""


@dataclass
class Part:
    """A part of a net that lies in one stage. `repeated`: it is one of several blocks of the same class."""

    parameters: list[nn.Parameter]
    repeated: bool = False
    embeds: bool = False
    of_the_input: bool = False


def stages(net: nn.Module) -> list[list[nn.Parameter]]:
    """The trainable parameters of each stage of `net`, from input to output; each in the first stage that holds it.

    The stages come from the model's method `stages()`: a list of lists of its modules or parameters. In a model without
    one they are found:

    - A module around a single other one, such as a wrapper, counts as the inner one.
    - Each child is a stage, in the order of definition, and so is each child of a Sequential or ModuleList.
    - A child that holds a stack of blocks, such as the encoder of a transformer, is taken child by child in turn; one
      with a method `stages()` by that. A stack is a Sequential or ModuleList with several blocks of one class.
    - Embeddings at the beginning are one stage, with the net's own tokens and positions.
    - A child with vectors alone, such as a norm, belongs to the stage before it; after blocks, to the stage after it.

    A parameter in no stage is refused.

    >>> len(stages(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.ReLU(), nn.Linear(2, 1))))
    2
    """
    claimed: set[int] = set()
    found: list[list[nn.Parameter]] = []
    for stage in _joined(list(_parts(net))):
        fresh = {id(p): p for p in stage if p.requires_grad and id(p) not in claimed}
        claimed |= fresh.keys()
        found.append(list(fresh.values()))
    left = [name for name, p in net.named_parameters() if p.requires_grad and id(p) not in claimed]
    if left:
        raise ConfigError(
            f"groups: {', '.join(left[:5])}{', …' if len(left) > 5 else ''} of {type(net).__name__} "
            f"{'belong' if len(left) > 1 else 'belongs'} to no stage: give the model a method stages() that holds all."
        )
    return found


def several_stages(net: nn.Module, rule: str) -> list[list[nn.Parameter]]:
    """`stages(net)`, refused where fewer than two of them have trainable parameters: `rule` would change nothing."""
    found = stages(net)
    if (count := sum(map(bool, found))) < 2:
        raise ConfigError(
            f"groups={rule}: {type(net).__name__} has {count} stage with trainable parameters, and two are needed: "
            "give the model a method stages(), or choose groups=patterns and name the parameters."
        )
    return found


def _joined(parts: Sequence[Part]) -> list[list[nn.Parameter]]:
    """The parameters of the stages that these parts make up."""
    first = [parameter for part in parts if part.of_the_input for parameter in part.parameters]
    made: list[list[nn.Parameter]] = []
    ahead: list[nn.Parameter] = []
    only_embeddings = after_block = False
    for part in (part for part in parts if not part.of_the_input):
        if made and all(parameter.ndim < 2 for parameter in part.parameters):
            (ahead if after_block else made[-1]).extend(part.parameters)
        elif only_embeddings and part.embeds:
            made[-1] += part.parameters
        else:
            only_embeddings = part.embeds and not made
            made.append(ahead + part.parameters)
            ahead, after_block = [], part.repeated
    made = made or [[]]
    made[0] = first + made[0]
    made[-1] += ahead
    return made


def _parts(net: nn.Module) -> Iterator[Part]:
    """The parts of a net, from input to output."""
    while not _names_stages(net) and len(_children(net)) == 1 and not list(net.parameters(recurse=False)):
        net = _children(net)[0]
    if _children(net) or _names_stages(net):
        yield from _opened(net, outermost=True)
    else:
        yield Part(list(net.parameters()))


def _opened(module: nn.Module, outermost: bool = False) -> Iterator[Part]:
    """The parts of a module that is taken child by child."""
    if _names_stages(module):
        yield from map(Part, _given(module))
        return
    if own := [p for name, p in module.named_parameters(recurse=False) if any(word in name for word in OF_THE_INPUT)]:
        yield Part(own, of_the_input=True)
    listed = isinstance(module, UNROLLED) and not outermost
    repeated = _repeated(module)
    for child in _children(module):
        stacked = any(isinstance(inner, UNROLLED) and _repeated(inner) for inner in child.modules())
        nested = isinstance(child, UNROLLED) and (stacked or not listed)
        if type(child) not in repeated and (nested or _names_stages(child) or (stacked and not listed)):
            yield from _opened(child)
        else:
            yield Part(list(child.parameters()), type(child) in repeated, isinstance(child, EMBEDDINGS))


def _children(module: nn.Module) -> list[nn.Module]:
    """The children that have parameters."""
    return [child for child in module.children() if next(child.parameters(), None) is not None]


def _repeated(module: nn.Module) -> set[type]:
    """The classes of the blocks of which `module` has several: its children that have children, but are no lists."""
    blocks = [child for child in _children(module) if _children(child) and not isinstance(child, UNROLLED)]
    return {kind for kind, count in Counter(map(type, blocks)).items() if count > 1}


def _names_stages(module: nn.Module) -> bool:
    return inspect.ismethod(getattr(module, "stages", None))


def _given(net: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters of the stages that the model names."""
    known = {id(part) for part in (*net.modules(), *net.parameters())}
    found: Any = net.stages()  # type: ignore[operator]
    if not isinstance(found, list | tuple) or not found:
        raise ConfigError(f"groups: {type(net).__name__}.stages() returns {found!r}: return a list of stages.")
    for i, stage in enumerate(found):
        if not isinstance(stage, list | tuple) or not all(id(part) in known for part in stage):
            raise ConfigError(
                f"groups: stage {i} of {type(net).__name__}.stages() is not a list of the model's own modules."
            )
    return [
        [p for part in stage for p in ([part] if isinstance(part, nn.Parameter) else part.parameters())]
        for stage in found
    ]
