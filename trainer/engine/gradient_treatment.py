"""The settings for what is done to the gradients of each update between backward pass and optimizer step.

This file imports torch only when a gradient is treated, so that the config can be checked without it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

from trainer.lr.bounds import positive

if TYPE_CHECKING:
    from torch import Tensor, nn

Made = TypeVar("Made")


def _setting(check: str, text: str, sharded: tuple[str, str] | None = None) -> Any:
    """A field that is a number above zero, or None where the step is not taken.

    `check` explains the number in the error message. `text` describes the step in the table at the start of a run.
    `sharded`: why the step does not work with FSDP, and what to take instead.
    """
    return field(default=None, metadata={"check": check, "text": text, "sharded": sharded})


@dataclass(frozen=True)
class GradientTreatment:
    """The steps that are taken with gradients, in this order; each field is the key of `trainer` with its name.

    See `trainer.engine.gradients` for `sam`, `agc` and `clip`. `clip` applies to all gradients together, except those
    of groups with their own limit: `limits` has one for each group, or None. `gradient_noise` is σ of noise drawn from
    (`seed`, t).
    """

    sam: float | None = _setting(
        "it is the radius ρ of the ascent; try 0.05, or null.",
        "taken after an ascent of radius {:g} (trainer.sam), two passes each",
        ("needs whole gradients to ascend along", "trainer.sam=null"),
    )
    agc: float | None = _setting(
        "it is the largest norm of a unit's gradient as a share of that of its weights, or null.",
        "each unit's at most {:g} of its weights (trainer.agc)",
        ("needs the norm of each unit's weights", "trainer.clip"),
    )
    clip: float | None = _setting(
        "it is the largest norm of the gradients, or null.",
        "clipped to a norm of {:g} (trainer.clip)",
    )
    gradient_noise: float | None = _setting(
        "it is σ of the noise added to each gradient, or null.",
        "with noise of σ = {:g} (trainer.gradient_noise)",
    )
    seed: int = 0
    limits: tuple[float | None, ...] = ()

    def __post_init__(self) -> None:
        for name, value in self.settings().items():
            positive(f"trainer.{name}", value, _METADATA[name]["check"])

    @staticmethod
    def names() -> list[str]:
        """The keys of `trainer` that belong to the treatment, in the order of the steps."""
        return list(_METADATA)

    def settings(self) -> dict[str, float]:
        """The settings that are not None, by key."""
        return {name: value for name in _METADATA if (value := getattr(self, name)) is not None}

    def summary(self) -> list[str]:
        """The line of the table at the start of a run; empty where nothing is done."""
        settings = self.settings().items()
        return [", ".join(_METADATA[name]["text"].format(value) for name, value in settings)] if settings else []

    def conflicts_with_sharding(self) -> list[tuple[str, str]]:
        """Each setting that needs whole weights or gradients: why, and what to take instead."""
        needs = [(name, value, _METADATA[name]["sharded"]) for name, value in self.settings().items()]
        return [(f"trainer.{name}={value} {reason[0]}", reason[1]) for name, value, reason in needs if reason]

    def at(self, values: Mapping[str, Sequence[float]]) -> "GradientTreatment":
        """The treatment with the values of hyper-parameter schedules in place of its own; 0 leaves the step out."""
        if not values:
            return self
        scheduled: dict[str, Any] = {name: values[name][0] or None for name in self.settings() if name in values}
        return replace(self, **scheduled) if scheduled else self

    def make(self, net: "nn.Module", parameters: "Sequence[nn.Parameter]", backward: "Callable[[], Made]") -> "Made":
        """Make the gradients of an update in `parameters` by `backward`; returns what its first pass returns."""
        made = backward()
        if self.sam is not None:
            from trainer.engine.gradients import ascended  # late: it needs torch

            with ascended(net, parameters, self.sam):
                backward()
        return made

    def apply(self, groups: "Sequence[Sequence[nn.Parameter]]", t: int) -> "Tensor":
        """Treat the gradients of update `t`; returns the norm of all before `clip`, a scalar on the device."""
        from trainer.engine.gradients import add_noise, clip_norms, clip_units  # late: it needs torch

        parameters = [*chain(*groups)]
        if self.agc is not None:
            clip_units(parameters, self.agc)
        norm = clip_norms(groups, self.limits or [None] * len(groups), self.clip)
        if self.gradient_noise is not None:
            add_noise(parameters, self.gradient_noise, self.seed, t)
        return norm


_METADATA = {one.name: one.metadata for one in fields(GradientTreatment) if one.metadata}
