"""The clock and its units: how many optimizer updates a duration lasts."""

import re
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction

from trainer.lr.bounds import ConfigError, integer
from trainer.lr.convention import OURS, ROUNDING, Convention
from trainer.lr.growth import STEADY, Growth

Duration = int | float | str
"""A number of updates, or a string with a unit: "500", "5ep", "10%", "2e6 samples", "1e9 tokens"."""

UNITS = 'a number of updates (500) or one with a unit: "5ep", "10%", "2e6 samples", "1e9 tokens"'
_FORM = re.compile(r"([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]{1,3})?)\s*(ep|%|samples|tokens|)")


@dataclass(frozen=True)
class Horizon:
    """The length of a run in optimizer updates, and what one update is worth in every other unit.

    `t = 0 … total-1` counts applied updates. A schedule that follows a warm-up sees the horizon
    `after` it: `start` updates are gone and `span = total - start` are left. `convention` says how a curve over
    it is read. `stretch` multiplies every duration that is not a percentage. Where the batch grows from `batch_size`,
    `growth` maps the updates of the run to those of its `reference`, in which durations are given.

    >>> run = Horizon.of("20ep", samples=1000, batch_size=50)
    >>> run.total, run.updates("10%"), run.updates("2ep"), run.updates("500 samples")
    (400, 40, 40, 10)
    """

    total: int
    batch_size: int
    updates_per_epoch: int | None = None
    tokens_per_sample: int | None = None
    start: float = 0
    convention: Convention = OURS
    stretch: Fraction = Fraction(1)
    growth: Growth = STEADY

    @classmethod
    def of(
        cls,
        duration: Duration,
        *,
        samples: int | None = None,
        batch_size: int,
        tokens_per_sample: int | None = None,
        name: str = "trainer.duration",
    ) -> "Horizon":
        """The horizon of a run of `duration` over `samples` samples an epoch, in updates of `batch_size`.

        An epoch has `samples // batch_size` updates; the remaining samples of its shuffle are left out.
        """
        integer("batch_size", batch_size, "the global batch is a number of samples, at least 1.")
        epoch = None
        if samples is not None:
            epoch = integer("samples", samples, "an epoch has at least one sample.") // batch_size
            if epoch == 0:
                raise ConfigError(
                    f"the global batch of {batch_size} is larger than the {samples} training samples: "
                    "lower data.batch_size, trainer.accumulate or trainer.devices."
                )
        unit = cls(0, batch_size, epoch, tokens_per_sample)
        return replace(unit, total=unit.updates(duration, name, least=1))

    @property
    def left(self) -> float:
        """Updates from `start` to the end of the run."""
        return self.total - self.start

    @property
    def span(self) -> float:
        """Updates from `start` to the end of a decay: to T, or to T-1 where the convention says so."""
        return self.left - self.convention.early

    @property
    def reference(self) -> "Horizon":
        """The same run in updates of its starting batch."""
        return replace(self, total=self.growth.reference or self.total, growth=STEADY)

    @property
    def epochs(self) -> float | None:
        """The length in epochs, where they are known."""
        return self.total / self.updates_per_epoch if self.updates_per_epoch else None

    def grown(self, growth: Growth) -> "Horizon":
        """The same run with a batch that grows: it ends with the first update that has reached the old end."""
        return replace(self, total=growth.first(self.total), growth=growth)

    def batch(self, t: int) -> int:
        """The samples of update `t`."""
        return self.batch_size * self.growth.ratio(t)

    def after(self, updates: float) -> "Horizon":
        """The horizon that begins `updates` updates later."""
        return replace(self, start=self.start + updates)

    def updates(self, duration: Duration, name: str = "duration", least: int = 0) -> int:
        """`duration` in whole updates; percentages are of the whole run, and at least one update.

        They are rounded to the nearest, or as the convention says.
        Where the batch grows, these are the updates from the start of the run until `duration` has passed.
        Raises `ConfigError` for what is not a duration, for a unit this run cannot count, and for a duration
        above zero in another unit that is less than half an update.
        """
        if self.growth.grows:
            return self.growth.first(self.reference.updates(duration, name, least))
        amount, unit = _parse(duration, name)
        exact = self._unrounded(amount, unit, duration, name)
        if unit == "%" and self.convention.rounding != "nearest":
            share = float(amount / 100)  # the product of floats that the tools round, which may lie above a whole one
            count = ROUNDING[self.convention.rounding](self.total * share)
        else:
            count = ROUNDING[self.convention.rounding](exact)
        if unit == "%" and exact > 0:
            count = max(count, 1)
        if count < least or (count == 0 and exact > 0):
            raise ConfigError(f"{name}={duration} is {count} updates of {self.batch_size} samples: make it longer.")
        return count

    def exact(self, duration: Duration, name: str = "duration", least: int = 0) -> float:
        """`duration` in updates, a fraction where the convention has boundaries between updates; else `updates`."""
        ratio = self.ratio(duration, name, least)
        return ratio.numerator if ratio.denominator == 1 else float(ratio)

    def ratio(self, duration: Duration, name: str = "duration", least: int = 0) -> Fraction:
        """`exact` without the rounding of a float."""
        if self.growth.grows or not self.convention.exact:
            return Fraction(self.updates(duration, name, least))
        exact = self._unrounded(*_parse(duration, name, whole=False), duration, name)
        if exact < least:
            raise ConfigError(f"{name}={duration} is {float(exact):g} updates, below {least}: make it longer.")
        return exact

    def _unrounded(self, amount: Fraction, unit: str, duration: Duration, name: str) -> Fraction:
        return amount * self._worth(unit, duration, name) * (1 if unit == "%" else self.stretch)

    def _worth(self, unit: str, duration: Duration, name: str) -> Fraction:
        """Updates in one `unit`."""
        if unit == "%":
            if not self.total:
                raise ConfigError(f"{name}={duration} is a share of itself: give updates, ep, samples or tokens.")
            return Fraction(self.total, 100)
        if unit == "ep":
            if not self.updates_per_epoch:
                raise ConfigError(f"{name}={duration} counts epochs, and data.samples is not known: set it.")
            return Fraction(self.updates_per_epoch)
        if unit == "tokens":
            if not self.tokens_per_sample:
                raise ConfigError(f"{name}={duration} counts tokens, and this data has none: give samples or ep.")
            return Fraction(1, self.batch_size * self.tokens_per_sample)
        return Fraction(1, self.batch_size if unit == "samples" else 1)


def _parse(duration: Duration, name: str, whole: bool = True) -> tuple[Fraction, str]:
    match = None if isinstance(duration, bool) else _FORM.fullmatch(str(duration).strip())
    if not match:
        raise ConfigError(f"{name}={duration!r} is not a duration: give {UNITS}.")
    amount, unit = Fraction(match[1]), match[2]
    if amount > 10**15:
        raise ConfigError(f"{name}={duration} is above 1e15: make it shorter.")
    if whole and not unit and amount.denominator != 1:
        raise ConfigError(f"{name}={duration!r} is not a whole number of updates: give {UNITS}.")
    return amount, unit


def multiple(duration: Duration, count: int, name: str = "duration") -> Duration:
    """`count` times a duration, in the same unit.

    >>> multiple("1.5ep", 3), multiple(100, 2)
    ('4.5ep', 200)
    """
    amount, unit = _parse(duration, name)
    total = amount * count
    if not unit:
        return int(total)
    return f"{Decimal(total.numerator) / Decimal(total.denominator):f}{unit}"
