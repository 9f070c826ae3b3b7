"""Several losses by name, each a mean over what counts for it, with weights that may follow a schedule."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trainer.engine.step import PairStep, StepOutput, as_weight, samples
from trainer.log.metric_buffer import RESERVED
from trainer.lr import ConfigError
from trainer.lr.bounds import number


def checked_weights(names: list[str], given: Mapping[str, float]) -> dict[str, float]:
    """The factor of each loss, 1 where none is given. `ConfigError` for bad names and numbers."""
    if not names:
        raise ConfigError("task.step.losses is empty: add task.step.losses.NAME._target_=CLASS for each loss.")
    if taken := sorted(RESERVED.intersection(names)):
        raise ConfigError(f"task.step.losses.{taken[0]}: every run logs train/{taken[0]} itself: give another name.")
    for name in given:
        if name not in names:
            known = ", ".join(names)
            raise ConfigError(f"task.step.loss_weights.{name}: there is no such loss: choose one of {known}.")
    why = "it is the factor of this loss in the sum, at least 0."
    return {name: number(f"task.step.loss_weights.{name}", given.get(name, 1.0), why, low=0.0) for name in names}


def combined(losses: Tensor, loss_weights: Mapping[str, float]) -> Tensor:
    """Σ factor · loss over losses (K,)."""
    parts = [loss * factor for loss, factor in zip(losses.unbind(), loss_weights.values(), strict=True)]
    return torch.stack(parts).sum()


def joined_weights(weights: list[Tensor | None], batch: Any) -> Tensor | None:
    """The weights of several losses of a batch as one vector (K,); None where each loss is a mean over samples."""
    known = [weight for weight in weights if weight is not None]
    if not known:
        return None
    device, count = known[0].device, float(samples(batch))
    return torch.stack([as_weight(count if weight is None else weight, device) for weight in weights])


class WeightedLosses(nn.Module):
    """Σ λ · loss(net(inputs), targets) over losses by name, for batches (inputs, targets).

    `loss_weights` are the factors λ, 1 where left out; each may follow `hyper_schedule.loss_weights.NAME`. Validation
    and test take the configured ones. Where the net gives a mapping, each loss takes the output of its own name, or of
    `heads[name]`, and so it is with the targets. Each loss has a weight of its own in the means over batches, as
    `PairStep` finds it: the update's loss is Σ_k λ_k Σᵢ w_kᵢ ℓ_kᵢ / Σᵢ w_kᵢ over its micro-batches i.
    """

    def __init__(
        self,
        losses: Mapping[str, Callable[[Any, Any], Tensor]],
        loss_weights: Mapping[str, float] | None = None,
        heads: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.loss_weights = checked_weights(list(losses), loss_weights or {})
        self.heads = {name: name for name in losses} | dict(heads or {})
        if unknown := sorted(self.heads.keys() - losses.keys()):
            raise ConfigError(f"task.step.heads.{unknown[0]}: there is no such loss: choose of {', '.join(losses)}.")
        self.pairs = nn.ModuleList(PairStep(loss) for loss in losses.values())

    def __call__(self, net: nn.Module, batch: Any, *, t: int) -> StepOutput:
        inputs, targets = batch
        outputs = net(inputs)
        found: list[Tensor] = []
        scored = dict(outputs) if isinstance(outputs, Mapping) else outputs
        for name, pair in zip(self.loss_weights, self.pairs):
            own = self._of(name, outputs, "outputs of the net")
            one = pair(lambda _, own=own: own, (None, self._of(name, targets, "targets")), t=t)
            found.append(one.loss)
            if isinstance(scored, dict):
                scored[self.heads[name]] = one.outputs
            else:
                scored = one.outputs
        parts = torch.stack(found)
        total = combined(parts, self.loss_weights)
        return StepOutput(total, self.weight_of(batch), outputs=scored, targets=targets, parts=parts)

    def weight_of(self, batch: Any) -> Tensor | None:
        """The weight of each loss (K,); None where each is a mean over samples."""
        targets = [self._of(name, batch[1], "targets") for name in self.loss_weights]
        weights = [pair.weight_of((None, own)) for pair, own in zip(self.pairs, targets)]  # type: ignore[operator]
        return joined_weights(weights, batch)

    def _of(self, name: str, given: Any, what: str) -> Any:
        """What a loss takes of outputs or targets."""
        if not isinstance(given, Mapping):
            return given
        head = self.heads[name]
        if head not in given:
            raise ConfigError(
                f"task.step.losses.{name} needs {head} of the {what}, which are {', '.join(map(str, given))}: "
                f"set task.step.heads.{name}."
            )
        return given[head]
