"""What is claimed, what was measured, and whether it holds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["claim", "control", "note"]


@dataclass(frozen=True)
class Verdict:
    """A number beside its threshold.

    A "claim" passes where it holds, a negative "control" where it does not; a "note" is told and decides nothing (what
    the source says, and this setting is known not to show). A number that is NaN passes nothing.
    """

    claim: str
    source: str
    measured: float
    threshold: str
    holds: bool
    role: Role = "claim"

    @property
    def passed(self) -> bool:
        """Whether this is as it should be."""
        if self.role == "note":
            return True
        return not math.isnan(self.measured) and self.holds == (self.role == "claim")

    @property
    def word(self) -> str:
        """The outcome in words, for a table."""
        if self.role == "note":
            return "seen" if self.holds else "not reproduced"
        if self.role == "control":
            return "fails, as it must" if self.passed else "HOLDS, BUT MUST NOT"
        return "pass" if self.passed else "FAIL"

    def row(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "claim": self.claim,
            "source": self.source,
            "measured": self.measured if math.isfinite(self.measured) else str(self.measured),
            "threshold": self.threshold,
            "pass": self.passed,
            "role": self.role,
            "outcome": self.word,
        }


def at_most(claim: str, measured: float, threshold: float, source: str, role: Role = "claim") -> Verdict:
    """measured <= threshold."""
    return Verdict(claim, source, measured, f"<= {threshold:g}", measured <= threshold, role)


def at_least(claim: str, measured: float, threshold: float, source: str, role: Role = "claim") -> Verdict:
    """measured >= threshold."""
    return Verdict(claim, source, measured, f">= {threshold:g}", measured >= threshold, role)


def between(claim: str, measured: float, thresholds: tuple[float, float], source: str, role: Role = "claim") -> Verdict:
    """low <= measured <= high."""
    low, high = thresholds
    return Verdict(claim, source, measured, f"{low:g} to {high:g}", low <= measured <= high, role)


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    return sum(values) / len(values)


def deviation(values: Sequence[float]) -> float:
    """The standard deviation of a sample; NaN for one value or for values that are not finite."""
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return math.nan
    middle = mean(values)
    return math.sqrt(sum((value - middle) ** 2 for value in values) / (len(values) - 1))


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean ± standard deviation, as text.

    >>> spread([1.0, 2.0, 3.0])
    '2.000 ± 1.000'
    """
    if not math.isfinite(mean(values)):
        return "diverges"
    return f"{mean(values):.{digits}f}" + (f" ± {deviation(values):.{digits}f}" if len(values) > 1 else "")
