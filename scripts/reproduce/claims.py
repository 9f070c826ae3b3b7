"""A claim, its threshold, and whether what was measured meets it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.lr import Refusal


class ClaimFailed(RuntimeError):
    """What was measured does not meet a threshold."""


@dataclass(frozen=True)
class Claim:
    """`measured` lies between `low` and `high`, ends included; what is not a number lies nowhere.

    What is not `required` is told, and does not count.
    """

    claim: str
    source: str
    measured: float
    low: float = -math.inf
    high: float = math.inf
    required: bool = True

    @property
    def passed(self) -> bool:
        return self.low <= self.measured <= self.high

    @property
    def threshold(self) -> str:
        """The threshold in words."""
        if math.isinf(self.low):
            return f"at most {self.high:g}"
        return f"at least {self.low:g}" if math.isinf(self.high) else f"{self.low:g} to {self.high:g}"

    def told(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "claim": self.claim,
            "source": self.source,
            "measured": self.measured,
            "threshold": self.threshold,
            "pass": self.passed,
            "required": self.required,
        }


def table(claims: Sequence[Claim]) -> list[str]:
    """A line for each claim."""
    rows = [(one.claim, f"{one.measured:.3g}", one.threshold, _outcome(one)) for one in claims]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def _outcome(one: Claim) -> str:
    return ("pass" if one.passed else "FAIL") + ("" if one.required else ", does not count")


def verdict(claims: Sequence[Claim]) -> None:
    """Raise ClaimFailed, which names the required claims that failed, if there are any."""
    failed = [one.claim for one in claims if one.required and not one.passed]
    if failed:
        raise ClaimFailed(f"{len(failed)} of {len(claims)} claims failed: {'; '.join(failed)}.")


def check_writable(stem: Path) -> None:
    """Refuse a place that cannot be written, before anything is trained."""
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        with Path(f"{stem}.json").open("a"):
            pass
    except OSError as error:
        raise Refusal(f"--out={stem} cannot be written ({error.strerror}): name another place.") from error
