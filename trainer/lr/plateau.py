"""The plateau factor: rules that lower the learning rate when a validation metric stops improving.

plateau(t) is 1 at the start. A reduction after update t - 1 multiplies it by `factor` from t on, and it never falls
below `floor`. It multiplies the curve that warm-up and schedule give, so its bounds are shares of that curve. Its
state is plain numbers, for the checkpoint.

A value that is not finite (a loss of NaN) counts as no improvement.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from statistics import fmean
from typing import Any, ClassVar

from trainer.lr.bounds import ConfigError, fraction, integer, number, positive

Verdict = tuple[float, str]
"""The new factor, and the reason."""

_MOST = 10**6


@dataclass
class Plateau(ABC):
    """A rule for plateau(t): `observe` takes the value of `monitor` at each validation, and changes `value`.

    mode: "min" where lower is better, "max" where higher is. factor: each reduction multiplies by it. floor: the
    smallest value.
    """

    monitor: str = "val/loss"
    mode: str = "min"
    factor: float = 0.1
    floor: float = 0.0

    _memory: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        self.value = 1.0
        if not isinstance(self.monitor, str) or not self.monitor.strip():
            raise ConfigError(
                f"monitor={self.monitor!r} is not a metric: give one that validation computes, such as val/loss."
            )
        if self.mode not in ("min", "max"):
            raise ConfigError(f"mode={self.mode!r} is not known: choose min or max.")
        for name, below in (("factor", positive), ("floor", fraction)):
            given = getattr(self, name)
            if below(name, given, "it multiplies the learning rate; give a share below 1.") >= 1:
                raise ConfigError(f"{name}={given!r} lowers nothing: give a share of the learning rate below 1.")

    def observe(self, value: float, t: int) -> str | None:
        """Take in the value of a validation before update `t`; returns one line where the factor changes, else None."""
        cost = value if self.mode == "min" else -value
        verdict = self._judge(cost if math.isfinite(cost) else math.inf, t)
        if verdict is None or verdict[0] == self.value:
            return None
        before, (self.value, why) = self.value, verdict
        return f"plateau: {self.monitor} {why}, factor {before:.6g} -> {self.value:.6g}"

    def state_dict(self) -> dict[str, Any]:
        """The state that later reductions depend on."""
        return {**self._kind(), "value": self.value, **{name: getattr(self, name) for name in self._memory}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state. From another rule or another metric, only the factor is restored."""
        self.value = state["value"]
        if self._kind().items() <= state.items():
            for name in self._memory:
                setattr(self, name, state[name])

    def _kind(self) -> dict[str, str]:
        return {"rule": type(self).__name__, "monitor": self.monitor, "mode": self.mode}

    def _lower(self) -> float:
        """The factor after a reduction."""
        return min(self.value, max(self.value * self.factor, self.floor))

    @abstractmethod
    def _judge(self, cost: float, t: int) -> Verdict | None:
        """Take in `cost`, which is low where the metric is good and ∞ where it is not finite."""


@dataclass
class Counting(Plateau, ABC):
    """A rule for plateau(t) that counts validations with a new best, and those without."""

    patience: int = 10
    threshold: float = 1e-4
    threshold_mode: str = "rel"
    cooldown: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        integer("patience", self.patience, "it is a number of validations, 0 or more.", low=0, high=_MOST)
        integer("cooldown", self.cooldown, "it is a number of validations, 0 or more.", low=0, high=_MOST)
        number("threshold", self.threshold, "it is how much better than the best counts as better.", low=0.0)
        if self.threshold_mode not in ("rel", "abs"):
            raise ConfigError(f"threshold_mode={self.threshold_mode!r} is not known: choose rel or abs.")
        if self.threshold_mode == "rel" and self.threshold >= 1:
            raise ConfigError(
                f"threshold={self.threshold!r} is not a possible improvement: give a share of the best below 1."
            )
        self.best, self.best_at, self.bad, self.wait = math.inf, 0, 0, 0

    def _improves(self, cost: float, t: int) -> bool:
        """Whether `cost` is better than the best by more than the threshold; it is then the best."""
        margin = self.threshold if self.best > 0 else -self.threshold
        bound = self.best * (1.0 - margin) if self.threshold_mode == "rel" else self.best - self.threshold
        if cost < bound:
            self.best, self.best_at = cost, t
            return True
        return False

    def _stalled(self, count: int) -> str:
        if self.best == math.inf:
            return f"has not been a finite number for {_counted(count)}"
        best = self.best if self.mode == "min" else -self.best
        return f"has not improved on {best:.6g} of update {self.best_at} for {_counted(count)}"


@dataclass
class CountPlateau(Counting):
    """plateau(t) times `factor` after more than `patience` validations in a row without a new best.

    The rule of torch's `ReduceLROnPlateau`, which acts when bad > patience (optax's acts at bad = patience). A value
    is better where it is below best · (1 - threshold), or best - threshold with `threshold_mode: abs`. For
    `cooldown` validations after a reduction no bad one is counted. There is no smallest reduction, as with torch's
    eps at 0. Where the best is negative, torch's relative margin has the wrong sign and accepts worse values; this one
    does not.

    >>> rule = CountPlateau(patience=1)
    >>> [rule.observe(loss, t) for t, loss in ((10, 0.5), (20, 0.6))]
    [None, None]
    >>> rule.observe(0.5, 30)
    'plateau: val/loss has not improved on 0.5 of update 10 for 2 validations, factor 1 -> 0.1'
    """

    _memory = ("best", "best_at", "bad", "wait")

    def _judge(self, cost: float, t: int) -> Verdict | None:
        self.bad = 0 if self._improves(cost, t) else self.bad + 1
        if self.wait:
            self.wait, self.bad = self.wait - 1, 0
        if self.bad <= self.patience:
            return None
        why = self._stalled(self.bad)
        self.wait, self.bad = self.cooldown, 0
        return self._lower(), why


@dataclass
class Greedy(Counting):
    """plateau(t) / `factor` after more than `patience` new bests in a row, times `factor` after as many without one.

    GreedyLR, arXiv:2512.14527, as in transformers, whose bounds are absolute learning rates: here `floor` and
    `highest` are shares of the curve. With `highest` above 1 the rate may exceed the planned curve. The mean of the
    last `smooth` validations is compared. The `cooldown` validations after a change do not count.

    >>> rule = Greedy(patience=0, factor=0.5, highest=4.0)
    >>> for t, loss in enumerate((0.9, 0.8, 0.8)):
    ...     print(rule.observe(loss, t))
    plateau: val/loss has improved for 1 validation in a row, factor 1 -> 2
    plateau: val/loss has improved for 1 validation in a row, factor 2 -> 4
    plateau: val/loss has not improved on 0.8 of update 1 for 1 validation, factor 4 -> 2
    """

    factor: float = 0.95
    floor: float = 0.1
    threshold: float = 1e-6
    threshold_mode: str = "abs"
    highest: float = 1.0
    smooth: int = 1

    _memory = ("best", "best_at", "bad", "wait", "good", "recent")

    def __post_init__(self) -> None:
        super().__post_init__()
        number("highest", self.highest, "it is a share of the curve, from 1 to 1000.", low=1.0, high=1000.0)
        integer("smooth", self.smooth, "it is a number of validations, 1 for no smoothing.", high=_MOST)
        self.good, self.recent = 0, list[float]()

    def _judge(self, cost: float, t: int) -> Verdict | None:
        if cost < math.inf:
            self.recent = [*self.recent, cost][-self.smooth :]
            cost = fmean(self.recent)
        if self.wait:
            self.wait, self.good, self.bad = self.wait - 1, 0, 0
            return None
        self.good, self.bad = (self.good + 1, 0) if self._improves(cost, t) else (0, self.bad + 1)
        if max(self.good, self.bad) <= self.patience:
            return None
        if self.good:
            raised = max(self.value, min(self.value / self.factor, self.highest))
            verdict = raised, f"has improved for {_counted(self.good)} in a row"
        else:
            verdict = self._lower(), self._stalled(self.bad)
        self.wait, self.good, self.bad = self.cooldown, 0, 0
        return verdict


def _counted(validations: int) -> str:
    return "1 validation" if validations == 1 else f"{validations} validations"
