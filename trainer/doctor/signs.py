"""The signs in a run's log that its learning rate, its batch or its length does not fit.

| sign | it is seen where |
| --- | --- |
| not-finite | a loss or a gradient was NaN or infinite |
| lr-too-high | the loss jumps up and stays there, or often rises and falls little; or updates are huge beside weights |
| lr-too-low | the loss hardly moves; or it falls little, and as fast per unit of learning rate late as early |
| warmup-too-short | the loss rises at the start, and then falls |
| floor-too-early | the rate is below 1 % of its peak for more than 30 % of the run, and the loss does not fall there |
| plateau-ignored | neither loss falls over the last 40 % of the run, at a high rate and with much noise |
| batch-above-critical | the batch is more than twice the noise scale |
| over-fitting | the validation loss rises again while the training loss falls |

The thresholds were set on runs of digits that were made bad on purpose and on healthy ones. A sign is a reason to look,
not a proof. All signs but the first compare multiples of the loss, and report nothing where it does not start above
zero. Nothing here changes a run.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from statistics import median

from trainer.doctor.log import Finding, Log

LEAST = 40
"""In a run of fewer updates only numbers that are not finite are reported."""
ABOVE_START = 0.0125
"""Share of the running medians of five losses, past the first tenth of the run, that may lie above the first loss. Of
single losses, with batches of eight and wrong labels, one in forty lies there at the best rate."""
UPDATE_RATIO = 0.25
"""‖Δw‖/‖w‖ of an update: plain SGD on a small net has 0.14 at its best rate."""
STILL_FALLING = 0.8
"""Fall of the loss per unit of learning rate in the second half, as a share of that in the first."""
FALLEN = 0.5
"""A loss that has lost this share of its first value has fallen far."""
OSCILLATES = 0.25
"""Sum of the rises of the loss, as a share of its fall. A loss that falls far may rise as often: with noisy batches, or
at the edge of stability, where it falls over long times only."""
HUMP = 1.25
"""The highest loss early on, as a multiple of the first."""
THROWN, STUCK, MOVED = 1.15, 0.9, 0.05
"""The highest loss of an unstable run and the last loss of a run that has learnt nothing, both as multiples of the
first loss; and the share of the first loss by which a run has moved at all."""
LOW, LONG, STILL = 0.01, 0.3, 0.01
"""A low rate, as a share of the peak; a long part, as a share of the run; a fall that counts as none, as a share of
the whole fall."""
LATE, FLAT, HIGH = 0.6, 0.02, 0.5
"""Where the last part of a run begins; by how much a flat loss changes; a high rate, as a share of the peak."""
NOISY = 0.02
"""How far a loss lies from its median, as a share of the fall, where noise keeps it up."""
TIMES = 2.0
"""The largest batch, as a multiple of the noise scale."""
RISEN, FALLS, EARLY = 1.1, 0.9, 0.8
"""The last validation loss, as a multiple of the lowest; the last training loss, as a multiple of that beside the
lowest validation loss; and the latest time of the lowest, as a share of the run."""


def examine(log: Log) -> list[Finding]:
    """All findings in a log: one for each sign, the first that shows it."""
    found = list(not_finite(log))
    enough = len(log.loss) >= LEAST and first_loss(log) > 0
    for name, sign in SIGNS.items() if enough else ():
        if not (name in EXCLUDED and any(finding.sign == "lr-too-high" for finding in found)):
            found += next(([finding] for finding in sign(log)), [])
    return found


def first_loss(log: Log) -> float:
    """The loss of the first update, which is that of the initial weights."""
    return log.loss.values[0]


def highest_loss(log: Log) -> tuple[float, int]:
    """The highest running median of the loss, as a multiple of the first loss, and its update.

    The median is of five losses, or of a hundredth of the run: a shorter peak does no harm, and is often chance.
    """
    values, width = log.loss.values, max(5, log.made // 100)
    smooth = running_medians(values, width)
    most = max(smooth, default=values[0])
    return most / first_loss(log), smooth.index(most) + width // 2 if smooth else 0


def running_medians(values: Sequence[float], width: int = 5) -> list[float]:
    """The medians of `width` values in a row."""
    return [median(values[i : i + width]) for i in range(len(values) - width + 1)]


def not_finite(log: Log) -> Iterator[Finding]:
    """The first loss, gradient norm or group's gradient norm that is not finite."""
    series = {"loss": log["train/loss"], "gradient norm": log["train/grad_norm"]}
    series |= {f"gradient of group {name}": norms for name, norms in log.of_groups("measure", "grad_norm").items()}
    for name, one in series.items():
        bad = [(t, value) for t, value in zip(one.updates, one.values) if not math.isfinite(value)]
        if bad:
            yield _not_finite(log, f"the {name} is {bad[0][1]} at update {bad[0][0]}", len(bad))
            return
    if "Diverged" in log.error:
        yield _not_finite(log, log.error.partition(": ")[2].partition(":")[0], 1)


def _not_finite(log: Log, seen: str, count: int) -> Finding:
    why = "updates that are not finite; the weights after a step along one are not either"
    return Finding("not-finite", seen, count, 0, why, lower_lr(log, 10))


def share_of_rises(log: Log) -> float:
    """The sum of the loss's rises from one block to the next where the rate does not rise, as a share of its fall.

    0 where the loss has hardly moved, because its rises are then only noise.
    """
    losses, rates = log.blocks(log.loss), dict(log.blocks(log.rate))
    fall = first_loss(log) - min(value for _, value in losses)
    pairs = [(a, b) for a, b in pairwise(losses) if rates.get(b[0], 0.0) <= 1.001 * rates.get(a[0], 0.0)]
    return sum(max(0.0, b[1] - a[1]) for a, b in pairs) / fall if fall > MOVED * first_loss(log) else 0.0


def too_high(log: Log) -> Iterator[Finding]:
    """The loss jumps up and stays there, is often above its start, or often rises; or an update changes too much."""
    first, last = first_loss(log), log.loss.middle(0.9 * log.made, log.made)
    thrown, at = highest_loss(log)
    why = "an update at a rate that is stable lowers the loss on the whole (Cohen et al. 2021, arXiv:2103.00065)"
    if last is not None and thrown > THROWN and last > STUCK * first:
        seen = f"the loss, {first:.4g} at the start, is {thrown * first:.4g} at update {at} and ends at {last:.4g}"
        yield Finding("lr-too-high", seen, last / first, STUCK, why, lower_lr(log, 10))
    late = log.loss.between(0.1 * log.made, log.made)
    around = running_medians(late)
    share = sum(value > first for value in around) / max(1, len(around))
    if share > ABOVE_START and median(late) < STUCK * first:
        seen = f"past the first tenth {share:.1%} of the medians of five losses lie above {first:.4g}, where it started"
        yield Finding("lr-too-high", seen, share, ABOVE_START, why, lower_lr(log, 3))
    risen = share_of_rises(log)
    if risen > OSCILLATES and last is not None and last > FALLEN * first:
        seen = (
            f"where the rate does not rise, the loss rises again by {risen:.0%} of its whole fall, "
            f"and ends at {last:.4g}, from {first:.4g}"
        )
        yield Finding("lr-too-high", seen, risen, OSCILLATES, why, lower_lr(log, 3))
    for name, ratio in log.of_groups("measure", "update_ratio").items():
        middle = ratio.middle(0.1 * log.made, 0.5 * log.made)
        if middle is not None and middle > UPDATE_RATIO:
            seen = f"an update changes group {name} by {middle:.1%} of its norm (median of its first half)"
            yield Finding(
                "lr-too-high", seen, middle, UPDATE_RATIO, "healthy updates are near 0.1 %", lower_lr(log, 10)
            )


def too_low(log: Log) -> Iterator[Finding]:
    """The loss has hardly moved; or it has fallen little, and as fast per unit of learning rate late as early.

    The late part begins at half of the sum of the rates, which is early where the rate falls in steps.
    """
    first, half, tenth = first_loss(log), half_spent(log), 0.1 * log.made
    middle, last = (log.loss.middle(b - tenth, b) for b in (half + tenth / 2, log.made))
    if middle is None or last is None or highest_loss(log)[0] > THROWN:
        return
    fallen, early, late = 1 - last / first, first - middle, middle - last
    source = "far below the best rate the fall is in proportion to the sum of the rates"
    if abs(fallen) < MOVED:
        seen = f"the loss, {first:.4g} at the start, ends at {last:.4g}, and never rose"
        yield Finding("lr-too-low", seen, fallen, MOVED, source, higher_lr(log, 10))
    elif 0 < fallen < FALLEN and early > 0 and late / early > STILL_FALLING:
        seen = (
            f"the loss has lost {fallen:.0%} of its start, and falls per unit of learning rate "
            f"{late / early:.2g} times as fast in the second half of their sum as in the first"
        )
        yield Finding("lr-too-low", seen, late / early, STILL_FALLING, source, higher_lr(log, 10))


def half_spent(log: Log) -> int:
    """The update at which the sum of the rates so far is half of the whole sum."""
    sums = list(accumulate(log.rate.values))
    return next((t for t, spent in zip(log.rate.updates, sums) if 2 * spent >= sums[-1]), 0)


def short_warmup(log: Log) -> Iterator[Finding]:
    """The loss rises at the start, and then falls."""
    first, last = first_loss(log), log.loss.middle(0.9 * log.made, log.made)
    most, at = highest_loss(log)
    if last is not None and most > HUMP and at < max(2 * log.warmup, log.made / 5) and last < STUCK * first:
        seen = f"the loss rises to {most:.2f} times its start by update {at}, and then falls"
        source = (
            "warm-up keeps early updates from a region of high curvature (Kalra & Barkeshli 2024, arXiv:2406.09405)"
        )
        longer = max(2 * log.warmup, log.total // 10)
        yield Finding("warmup-too-short", seen, most, HUMP, source, f"warmup=linear warmup.duration={longer}")


def early_floor(log: Log) -> Iterator[Finding]:
    """The rate is near its floor for a large part of the run, and the loss does not fall there any more."""
    peak = max(log.rate.values, default=0.0)
    low = next((t for t, lr in reversed(list(zip(log.rate.updates, log.rate.values))) if lr > LOW * peak), -1) + 1
    share = 1 - low / log.made if peak else 0.0
    before, after = log.loss.middle(low, low + 0.1 * log.made), log.loss.middle(0.9 * log.made, log.made)
    first = log.loss.middle(0, 0.05 * log.made)
    if share <= LONG or before is None or after is None or first is None or log.made < log.total:
        return
    if before - after < STILL * abs(first - before):
        seen = (
            f"from update {low} on, {share:.0%} of the run, the rate is below {LOW:.0%} of its peak, "
            "and the loss does not fall"
        )
        source = "a decay that ends with the run uses all of it (Defazio et al. 2023, arXiv:2310.07831)"
        yield Finding("floor-too-early", seen, share, LONG, source, "schedule=linear")


def ignored_plateau(log: Log) -> Iterator[Finding]:
    """Both losses are flat over the last part of the run, at a rate that is still high."""
    first, begin = log.loss.middle(0, 0.05 * log.made), LATE * log.made
    parts = [log.loss.middle(begin + a * log.made, begin + (a + 0.2) * log.made) for a in (0.0, 0.2)]
    valid = log.finite("val/loss").between(begin, log.made + 1)
    rates = log.rate.between(begin, log.made)
    peak = max(log.rate.values, default=0.0)
    if first is None or None in parts or len(valid) < 3 or not rates or not min(rates) > HIGH * peak > 0:
        return
    before, after = parts[0] or 0.0, parts[1] or 0.0
    moved = abs(before - after) / (abs(first - before) or 1.0)
    best = min(log.finite("val/loss").between(0, begin), default=min(valid))
    late = log.loss.between(begin, log.made)
    noise = median(abs(value - after) for value in late) / (abs(first - after) or 1.0)
    if noise > NOISY and moved < FLAT and min(valid) > (1 - FLAT) * best:
        seen = (
            f"over the last {1 - LATE:.0%} of the run the training loss moves by {moved:.1%} of its fall, "
            f"the validation loss finds no new best, and the rate stays above {HIGH:.0%} of its peak"
        )
        source = (
            "noise keeps a constant rate above the loss that a decay reaches (Defazio et al. 2023, arXiv:2310.07831)"
        )
        yield Finding("plateau-ignored", seen, moved, FLAT, source, "plateau=count")


def large_batch(log: Log) -> Iterator[Finding]:
    """The batch is beyond the noise scale, where that was measured."""
    high = log["noise_scale/all/high"].middle(0.5 * log.made, log.made + 1)
    if high is not None and log.batch_size > TIMES * high:
        seen = f"the batch of {log.batch_size} is {log.batch_size / high:.1f} times the noise scale, at most {high:.0f}"
        source = "beyond it more samples buy few updates (McCandlish et al. 2018, arXiv:1812.06162)"
        yield Finding("batch-above-critical", seen, log.batch_size / high, TIMES, source, "data.batch_size, lower")


def over_fitting(log: Log) -> Iterator[Finding]:
    """The validation loss rises from its lowest value while the training loss still falls."""
    valid = log.finite("val/loss")
    if len(valid) < 4 or (least := min(valid.values)) <= 0:
        return
    at = valid.updates[list(valid.values).index(least)]
    last = sorted(valid.values[-3:])[1]
    then, now = log.loss.middle(at - 0.05 * log.made, at + 0.05 * log.made), log.loss.middle(0.9 * log.made, log.made)
    if then is None or now is None or at > EARLY * log.made:
        return
    if last > RISEN * least and now < FALLS * then:
        seen = (
            f"the validation loss is lowest, {least:.4g}, at update {at} and {last:.4g} at the end, "
            f"while the training loss falls from {then:.4g} to {now:.4g}"
        )
        source = "the gap between the losses grows"
        override = f"trainer.duration={at + 1}"
        yield Finding("over-fitting", seen, last / least, RISEN, source, override)


def lower_lr(log: Log, by: float) -> str:
    return f"optimizer.lr={log.lr / by:.2g}" if log.lr else "optimizer.lr, lower"


def higher_lr(log: Log, by: float) -> str:
    return f"optimizer.lr={log.lr * by:.2g}" if log.lr else "optimizer.lr, higher"


SIGNS: dict[str, Callable[[Log], Iterator[Finding]]] = {
    "lr-too-high": too_high,
    "lr-too-low": too_low,
    "warmup-too-short": short_warmup,
    "floor-too-early": early_floor,
    "plateau-ignored": ignored_plateau,
    "batch-above-critical": large_batch,
    "over-fitting": over_fitting,
}
EXCLUDED = ("lr-too-low", "plateau-ignored", "over-fitting")
"""Signs that are not reported of a run whose rate is too high."""
