"""One batch of a LightningModule that optimizes by hand: each of its optimizers has a clock and a policy of its own."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from trainer.engine.gradient_treatment import GradientTreatment
from trainer.engine.guard import check_finite
from trainer.engine.lr_control import LRControl
from trainer.engine.protocols import MicroBatch
from trainer.engine.update import Updater
from trainer.lr import ConfigError, LRPolicy
from trainer.lr.backoff import backoff
from trainer.lr.bounds import number


@dataclass(frozen=True)
class Turn:
    """How often an optimizer steps: once in `every` batches, or 1 / every times in each batch, as 0.2 or "1/5".

    `lr` is the rate of its first group, or None for that of the module.
    """

    every: Fraction = Fraction(1)
    lr: float | None = None

    @classmethod
    def of(cls, key: str, given: Any) -> "Turn":
        """From the config at `key`. Raises `ConfigError` for other names and values."""
        given = given or {}
        if not isinstance(given, Mapping) or set(given) - {"every", "lr"}:
            raise ConfigError(f"{key}={given} is not known: give every, lr, or both, as {{every: 1, lr: 1e-4}}.")
        every, lr = given.get("every", 1), given.get("lr")
        try:
            exact = Fraction(str(every))
        except (ValueError, ZeroDivisionError):
            exact = Fraction(0)
        if exact <= 0:
            raise ConfigError(f"{key}.every={every} is not a number of batches above zero: try 1, 5 or 1/5.")
        return cls(exact, None if lr is None else number(f"{key}.lr", lr, "it is a learning rate.", low=0.0))

    def at(self, step: int) -> int:
        """The place on the curve of a step of this optimizer: the batch in which it is due."""
        return math.floor(step * self.every)

    def steps(self, batches: int) -> int:
        """The steps that are due in `batches` batches."""
        return math.ceil(batches / self.every)


def named_turns(given: Mapping[str, Turn], count: int) -> dict[str, Turn]:
    """The turns of `count` optimizers by name: as given, or named by their number. `ConfigError` for another number."""
    if given and len(given) != count:
        raise ConfigError(
            f"task.step.optimizers names {', '.join(given)}, and configure_optimizers gives {count}: name each, in the "
            "order of the module."
        )
    return dict(given) or {f"optimizer_{i}" if count > 1 else "all": Turn() for i in range(count)}


class NamedOptimizer:
    """An optimizer as the module steps it: `step` writes the rate of its own clock, verifies it and counts.

    The clock is the number of its steps so far, in `clocks`; its rate is that of the curve at `Turn.at`. Other
    attributes are those of the optimizer.
    """

    def __init__(self, name: str, optimizer: Optimizer, turn: Turn, updater: "ManualUpdater") -> None:
        self.name, self.optimizer, self.turn, self._updater = name, optimizer, turn, updater
        names = [group["name"] for group in optimizer.param_groups]
        policy, treatment = updater.control.policy, updater.treatment
        limits = dict(zip(updater.control.names, treatment.limits))
        self.control = LRControl(restricted(policy, names))
        self.control.attach(optimizer)
        self.treatment: GradientTreatment = replace(treatment, limits=tuple(limits.get(name) for name in names))
        self.last: int | None = None
        self.__class__ = type("Named" + type(optimizer).__name__, (type(self), type(optimizer)), {})

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["optimizer"], name)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of the optimizer."""
        return self.optimizer.param_groups

    @property
    def state(self) -> Any:
        """That of the optimizer."""
        return self.optimizer.state

    def zero_grad(self, set_to_none: bool = True) -> None:
        """That of the optimizer."""
        self.optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """That of the optimizer."""
        return self.optimizer.state_dict()

    def step(self, closure: Callable[[], Any] | None = None, **more: Any) -> Any:
        """Step at the policy's rate; a closure, which makes the gradients, is called first."""
        made = None
        if closure is not None:
            with torch.enable_grad():
                made = closure()
        self._updater.step_of(self)
        return made

    @contextmanager
    def toggle_model(self, sync_grad: bool = True) -> Iterator[None]:
        """Only this optimizer's parameters have gradients inside."""
        net: Any = self._updater.net
        net.toggle_optimizer(self)
        try:
            yield
        finally:
            net.untoggle_optimizer(self)

    def rates(self, clock: int, total: int) -> tuple[list[float], int]:
        """The rates of its last step and their place on the curve; before its first step, those that it will have."""
        if self.last is not None:
            return self.control.applied, self.last
        at = min(self.turn.at(clock), total - 1)
        common = self._updater.control
        return self.control.policy.lrs(at, common.plateau, backoff=backoff(at, common.rollbacks)), at


class ManualUpdater(Updater):
    """Calls the module's training step, in which it steps its optimizers; an update of the run is one batch.

    Gradients are averaged over processes after each `manual_backward`. The loss that is logged is what the step
    returns, or else the sum of the losses that went backward; the gradient norm is that of all steps together.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        step: Any = self.step
        self.module_step = step
        parts: Sequence[Optimizer] = getattr(self.optimizer, "parts", [self.optimizer])
        turns = step.turns(len(parts))
        self.named = [NamedOptimizer(name, part, turns[name], self) for name, part in zip(turns, parts, strict=True)]
        self.norms: list[Tensor] = []
        self.losses: list[Tensor] = []

    def __call__(self, update: Sequence[MicroBatch]) -> bool:
        """Make one batch."""
        (micro,) = update
        self.backward.reseed(micro.seed)
        self.norms, self.losses = [], []
        loss = self.module_step.by_hand(self.hooks.begin_batch(0, micro.batch))
        zero = torch.zeros((), device=self.backward.device)
        if loss is None:
            loss = torch.stack([one.float() for one in self.losses]).sum() if self.losses else zero
        norm = torch.linalg.vector_norm(torch.stack(self.norms)) if self.norms else zero.to(loss)
        self._show_rates()
        self.conclude(loss, norm.to(loss), {})
        return True

    def manual_backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Add the gradients of a loss, averaged over all processes."""
        self.hooks.call("on_before_backward", loss)
        with self.backward.full_precision(), self.backward.no_sync():
            loss.backward(*args, **kwargs)
        if self.backward.world > 1:
            for parameter in self.net.parameters():
                if parameter.grad is not None:
                    torch.distributed.all_reduce(parameter.grad)
                    parameter.grad /= self.backward.world
        self.hooks.after_backward()
        self.losses.append(loss.detach())

    @torch.no_grad()
    def step_of(self, one: NamedOptimizer) -> None:
        """Treat the gradients of one optimizer, write the rates of its clock, step it and advance its clock."""
        clocks, total = self.module_step.clocks, self.module_step.run.horizon.total
        step = clocks[one.name]
        at = one.turn.at(step)
        if at >= total:
            raise ConfigError(
                f"{one.name} makes step {step + 1}, and every={one.turn.every} plans {one.turn.steps(total)} in "
                f"{total} batches: set task.step.optimizers.{one.name}.every to the batches between two of its steps."
            )
        self.hooks.before_step(one.optimizer)
        groups = [list(group["params"]) for group in one.optimizer.param_groups]
        with self.backward.full_precision():
            norm = one.treatment.apply(groups, step)
            if self.backward.device.type == "cpu":
                check_finite(self.clock.t, norm.item())
            one.control.plateau, one.control.rollbacks = self.control.plateau, self.control.rollbacks
            one.control.write(one.optimizer, at)
            one.optimizer.step()
        one.last, clocks[one.name] = at, step + 1
        self.norms.append(norm.detach().clone())

    def _show_rates(self) -> None:
        """Give the rates of all groups to the log."""
        clocks, total = self.module_step.clocks, self.module_step.run.horizon.total
        self.control.applied, places = [], []
        for one in self.named:
            rates, at = one.rates(clocks[one.name], total)
            self.control.applied += rates
            places += [at] * len(rates)
        self.control.place = (places, 1.0)
        self.control.backoff = backoff(self.clock.at, self.control.rollbacks)


def restricted(policy: LRPolicy, names: Sequence[str]) -> LRPolicy:
    """The policy of some of its groups."""
    own = {name: schedule for name, schedule in policy.own.items() if name in names}
    return replace(policy, groups={name: policy.groups[name] for name in names}, own=own)
