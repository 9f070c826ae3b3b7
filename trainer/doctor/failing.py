"""Signs of a rate that the weights cannot follow, or hardly notice."""

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from statistics import median

from trainer.doctor.log import Finding, Log

ABOVE_START = 0.0125
"""Share of the updates past the first tenth around which the loss may lie above where it started. It is the median of
five: of single batches of eight with wrong labels, one in forty lies there at the best rate."""
UPDATE_RATIO = 0.25
"""‖Δw‖/‖w‖ of an update: plain SGD on a small net has 0.14 at its best rate."""
STILL_FALLING = 0.8
"""Fall of the loss per unit of learning rate in the second half, as a share of that in the first."""
FALLEN = 0.5
"""Share of the first loss that a run has lost which has come far."""
OSCILLATES = 0.25
"""Rise of the loss in all, as a share of its fall. A run that comes far may rise as often: so does one with noisy
batches, and one at the edge of stability, where the loss falls over long times only."""
HUMP = 1.25
"""The highest loss early on, as a multiple of the first."""
THROWN, STUCK, MOVED = 1.15, 0.9, 0.05
"""The highest loss of a run that is unstable, the last one of a run that has learnt nothing, both as multiples of the
first; and the share of the first loss by which a run has moved at all."""


def start(log: Log) -> float:
    """The loss before anything was learnt: that of the first update."""
    return log.loss.values[0]


def height(log: Log) -> tuple[float, int]:
    """The highest median of losses in a row, as a multiple of the first loss, and its update.

    Of five, or of a hundredth of the run: a peak that is over sooner does no harm, and of small batches it is chance.
    """
    values, width = log.loss.values, max(5, log.made // 100)
    smooth = medians(values, width)
    most = max(smooth, default=values[0])
    return most / start(log), smooth.index(most) + width // 2 if smooth else 0


def medians(values: Sequence[float], width: int = 5) -> list[float]:
    """The medians of `width` values in a row."""
    return [median(values[i : i + width]) for i in range(len(values) - width + 1)]


def not_finite(log: Log) -> Iterator[Finding]:
    """A loss, a gradient norm or a group's gradient that is not finite: the first one."""
    series = {"loss": log["train/loss"], "gradient norm": log["train/grad_norm"]}
    series |= {f"gradient of group {name}": one for name, one in log.of_groups("measure", "grad_norm").items()}
    for name, one in series.items():
        bad = [(t, value) for t, value in zip(one.updates, one.values) if not math.isfinite(value)]
        if bad:
            yield _broken(log, f"the {name} is {bad[0][1]} at update {bad[0][0]}", len(bad))
            return
    if "Diverged" in log.error:
        yield _broken(log, log.error.partition(": ")[2].partition(":")[0], 1)


def _broken(log: Log, seen: str, count: int) -> Finding:
    why = "updates that are not finite; the weights after a step along one are not either"
    return Finding("not-finite", seen, count, 0, why, lower(log, 10))


def rises(log: Log) -> float:
    """How much the loss rises from one block to the next in all, as a share of its fall; where the rate does not.

    Of a loss that has hardly moved it is noise alone: 0.
    """
    losses, rates = log.blocks(log.loss), dict(log.blocks(log.rate))
    fall = start(log) - min(value for _, value in losses)
    pairs = [(a, b) for a, b in pairwise(losses) if rates.get(b[0], 0.0) <= 1.001 * rates.get(a[0], 0.0)]
    return sum(max(0.0, b[1] - a[1]) for a, b in pairs) / fall if fall > MOVED * start(log) else 0.0


def too_high(log: Log) -> Iterator[Finding]:
    """The loss ends where it has been thrown to, or is often above its start; or an update changes too much."""
    first, last = start(log), log.loss.middle(0.9 * log.made, log.made)
    thrown, at = height(log)
    why = "an update at a rate that is stable lowers the loss on the whole (Cohen et al. 2021, arXiv:2103.00065)"
    if last is not None and thrown > THROWN and last > STUCK * first:
        seen = f"the loss, {first:.4g} at the start, is {thrown * first:.4g} at update {at} and ends at {last:.4g}"
        yield Finding("lr-too-high", seen, last / first, STUCK, why, lower(log, 10))
    late = log.loss.between(0.1 * log.made, log.made)
    around = medians(late)
    share = sum(value > first for value in around) / max(1, len(around))
    if share > ABOVE_START and median(late) < STUCK * first:
        seen = f"past the first tenth {share:.1%} of the medians of five losses lie above {first:.4g}, where it started"
        yield Finding("lr-too-high", seen, share, ABOVE_START, why, lower(log, 3))
    risen = rises(log)
    if risen > OSCILLATES and last is not None and last > FALLEN * first:
        seen = (
            f"where the rate does not rise, the loss rises again by {risen:.0%} of its whole fall, "
            f"and ends at {last:.4g}, from {first:.4g}"
        )
        yield Finding("lr-too-high", seen, risen, OSCILLATES, why, lower(log, 3))
    for name, ratio in log.of_groups("measure", "update_ratio").items():
        middle = ratio.middle(0.1 * log.made, 0.5 * log.made)
        if middle is not None and middle > UPDATE_RATIO:
            seen = f"an update changes group {name} by {middle:.1%} of its norm (median of its first half)"
            yield Finding("lr-too-high", seen, middle, UPDATE_RATIO, "healthy updates are near 0.1 %", lower(log, 10))


def too_low(log: Log) -> Iterator[Finding]:
    """The loss has hardly moved; or it has not come far, and falls per unit of rate as fast late as early.

    Late is where the second half of the sum of the rates is spent: of a rate that falls in steps, nearly all the run.
    """
    first, half, tenth = start(log), half_spent(log), 0.1 * log.made
    middle, last = (log.loss.middle(b - tenth, b) for b in (half + tenth / 2, log.made))
    if middle is None or last is None or height(log)[0] > THROWN:
        return
    fallen, early, late = 1 - last / first, first - middle, middle - last
    source = "far below the best rate the fall is in proportion to the sum of the rates"
    if abs(fallen) < MOVED:
        seen = f"the loss, {first:.4g} at the start, ends at {last:.4g}, and never rose"
        yield Finding("lr-too-low", seen, fallen, MOVED, source, higher(log, 10))
    elif 0 < fallen < FALLEN and early > 0 and late / early > STILL_FALLING:
        seen = (
            f"the loss has lost {fallen:.0%} of its start, and falls per unit of learning rate "
            f"{late / early:.2g} times as fast in the second half of their sum as in the first"
        )
        yield Finding("lr-too-low", seen, late / early, STILL_FALLING, source, higher(log, 10))


def half_spent(log: Log) -> int:
    """The update by which half of the sum of the rates is spent."""
    sums = list(accumulate(log.rate.values))
    return next((t for t, spent in zip(log.rate.updates, sums) if 2 * spent >= sums[-1]), 0)


def short_warmup(log: Log) -> Iterator[Finding]:
    """A hump at the start that the run comes down from."""
    first, last = start(log), log.loss.middle(0.9 * log.made, log.made)
    most, at = height(log)
    if last is not None and most > HUMP and at < max(2 * log.warmup, log.made / 5) and last < STUCK * first:
        seen = f"the loss rises to {most:.2f} times its start by update {at}, and then falls"
        source = (
            "warm-up keeps early updates from a region of high curvature (Kalra & Barkeshli 2024, arXiv:2406.09405)"
        )
        longer = max(2 * log.warmup, log.total // 10)
        yield Finding("warmup-too-short", seen, most, HUMP, source, f"warmup=linear warmup.duration={longer}")


def lower(log: Log, by: float) -> str:
    return f"optimizer.lr={log.lr / by:.2g}" if log.lr else "optimizer.lr, lower"


def higher(log: Log, by: float) -> str:
    return f"optimizer.lr={log.lr * by:.2g}" if log.lr else "optimizer.lr, higher"
