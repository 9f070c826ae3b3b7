"""Why a run has not learned as it could: at most one of these signs, the first that fits.

The thresholds were set on short runs of seven families (perceptrons on digits and on a regression, deep tanh, a small
GPT, a convolution with BatchNorm; AdamW, SGD, momentum) at rates from 1e-8 to 1e3 of the best, and mended on
others since. Each compares with the noise of single batches, so that one noisy batch is no trend.
"""

from collections.abc import Callable

from trainer.doctor.course import Course
from trainer.doctor.log import Finding, Log

ZERO, SOLVED = 0.5, 1e-3
"""Share of the updates whose gradient is exactly zero; and of the start, at a loss whose gradient may well be zero."""
THROWN, EXPLODED, BACK = 1.2, 10.0, 0.75
"""The highest loss as a multiple of the start, also where it comes back; and the last loss that has come back."""
UNDONE, FAR = 0.25, 0.5
"""Part of the fall that is lost again at the end, a little more on the way; and a last loss that has fallen far."""
ABOVE = 1.05
"""The last loss of a run that ends above its start, as a multiple."""
COLLAPSED = 0.3
"""Gradient norm beside the first ones, where the loss has not fallen: below a rate that is stable it keeps its size."""
LARGE = 1e3
"""A loss of a mean over samples that only targets of another scale start with."""
MOVED, LITTLE, SOME, FLAT = 0.05, 0.12, 0.25, 0.05
"""Shares of the start by which a loss has moved, little, or some; and late slope over early slope of an ended fall."""
PROPORTIONAL, HARDLY = 0.5, 0.3
"""Late slope over early slope of a fall in proportion to the rates; and of the training loss after hardly any fall."""
STEADY = 0.3
"""Share of the start up to which a fall that has not slowed at all tells of a low rate; healthy runs fall farther."""
SURE, LIKELY, HINT = 6.0, 5.0, 2.5
"""Standard errors of what is counted as a fact, as likely, and as a hint that needs another."""
FORGOTTEN, MOST = 2.0, 20.0
"""Σ ηλ at which weight decay may undo a fall, and at which it dominates in any run."""
UPDATE_RATIO = 0.25
"""‖Δw‖/‖w‖ of an update: plain SGD on a small net has 0.14 at its best rate."""
STABLE = "an update at a rate that is stable lowers the loss on the whole (Cohen et al. 2021, arXiv:2103.00065)"
LINEAR = "far below the best rate the fall is in proportion to the sum of the rates"
FORGETS = "weights forget their past in 1/(ηλ) updates (Wang & Aitchison 2024, arXiv:2405.13698)"
UNKNOWN = "trainer.overfit=1"


def verdict(log: Log) -> Finding | None:
    """The first sign that fits the loss, None where the run looks healthy."""
    course = Course.of(log)
    return next((found for sign in VERDICTS if (found := sign(log, course)) is not None), None)


def zero_gradients(log: Log, course: Course) -> Finding | None:
    """Most gradients are exactly zero: a dead net, frozen weights, or a loss that does not depend on them."""
    norms = log["train/grad_norm"].values
    share = sum(norm == 0 for norm in norms) / max(1, len(norms))
    if share <= ZERO or course.last < SOLVED * course.start:
        return None
    seen = f"the gradient is exactly 0 in {share:.0%} of the updates: no rate moves such weights"
    return Finding(
        "zero-gradients", seen, share, ZERO, "a net that learns has gradients", "freeze, the net or the loss"
    )


def too_high(log: Log, course: Course) -> Finding | None:
    """The loss is thrown up and stays there, or a fall is undone, or it ends above its start."""
    if _creeps(course):
        return None
    start, last, peak = course.start, course.last, course.peak
    thrown = peak > start + SURE * course.sigma and peak > THROWN * start and peak - start > (start - course.lowest) / 2
    late_only = course.early.score > -HINT and last > FAR * start  # it falls only where the rate is low
    exploded = peak > EXPLODED * start and course.peak_at >= max(2 * log.warmup, log.made / 5)  # else: the warm-up
    if thrown and (last > BACK * start or exploded or late_only):
        seen = f"the loss, {start:.4g} at the start, is {peak:.4g} at update {course.peak_at} and ends at {last:.4g}"
        return Finding("lr-too-high", seen, peak / start, THROWN, STABLE, lower_lr(log, 10))
    if _undone(course) and course.forgotten <= FORGOTTEN:
        seen = (
            f"the loss falls from {start:.4g} to {course.lowest:.4g}, and {course.undone:.0%} of that is undone at the "
            f"end, {course.undone_most:.0%} on the way"
        )
        return Finding("lr-too-high", seen, course.undone, UNDONE, STABLE, lower_lr(log, 3))
    real = course.fallen > LITTLE and course.whole.score < -LIKELY and not course.falls
    if real and course.risen > UNDONE and last > FAR * start:
        seen = (
            f"where the rate does not rise, the loss rises again by {course.risen:.0%} of its whole fall, and ends at "
            f"{last:.4g}, from {start:.4g}"
        )
        return Finding("lr-too-high", seen, course.risen, UNDONE, STABLE, lower_lr(log, 3))
    if last > ABOVE * start and course.above > SURE:
        seen = f"the loss, {start:.4g} at the start, ends above it, at {last:.4g}"
        return Finding("lr-too-high", seen, last / start, ABOVE, STABLE, lower_lr(log, 10))
    return None


def collapsed(log: Log, course: Course) -> Finding | None:
    """The loss has hardly fallen, and the gradient is small: the outputs do not depend on the inputs any more."""
    if course.shrunk >= COLLAPSED or course.last <= (1 - LITTLE) * course.start:
        return None
    seen = (
        f"the loss, {course.start:.4g} at the start, ends at {course.last:.4g}, and the gradient has shrunk to "
        f"{course.shrunk:.0%} of its first: the net has collapsed"
    )
    return Finding("lr-too-high", seen, course.shrunk, COLLAPSED, STABLE, lower_lr(log, 10))


def large_updates(log: Log, course: Course) -> Finding | None:
    """An update changes a group by a quarter of its norm, where that was measured."""
    for name, ratio in log.of_groups("measure", "update_ratio").items():
        middle = ratio.middle(0.1 * log.made, 0.5 * log.made)
        if middle is not None and middle > UPDATE_RATIO:
            seen = f"an update changes group {name} by {middle:.1%} of its norm (median of its first half)"
            source = "healthy updates are near 0.1 %"
            return Finding("lr-too-high", seen, middle, UPDATE_RATIO, source, lower_lr(log, 10))
    return None


def _undone(course: Course) -> bool:
    return course.undone > UNDONE and course.undone_most > 1.2 * UNDONE and course.undone_score > SURE


def weight_decay(log: Log, course: Course) -> Finding | None:
    """The decay undoes a fall or prevents one; or it is so strong that nothing is learned any more."""
    stuck = course.fallen < MOVED or _undone(course)
    if not (course.forgotten > MOST and course.late.score > -LIKELY or course.forgotten > FORGOTTEN and stuck):
        return None
    seen = (
        f"Σ rate · weight decay is {course.forgotten:.3g} over the run, and the loss ends at {course.last:.4g}, from "
        f"{course.start:.4g}"
    )
    decay = f"optimizer.weight_decay={log.weight_decay / 10:.2g}"
    return Finding("weight-decay-too-high", seen, course.forgotten, FORGOTTEN, FORGETS, decay)


def target_scale(log: Log, course: Course) -> Finding | None:
    """A loss in the thousands that hardly falls: targets whose scale is far from 1."""
    if not (course.start > LARGE and course.last > MOVED * course.start):
        return None
    seen = f"the loss starts at {course.start:.4g} and ends at {course.last:.4g}"
    why = "nets start with outputs near 0 to 1, and need many updates to reach targets of another scale"
    return Finding("target-scale", seen, course.start, LARGE, why, "standardised targets")


def too_low(log: Log, course: Course) -> Finding | None:
    """The loss still falls at the end, and as fast per unit of rate as at the start, but has not fallen far."""
    if course.steady is not None:
        found, measured = _creeps(course), (course.steady, PROPORTIONAL)
        seen = (
            f"the validation loss falls all the time, but not far, {course.steady:.2g} times as fast per unit of rate "
            f"late as early; the loss is {course.start:.4g} at the start and {course.last:.4g} at the end"
        )
    else:
        found, measured = _trend_goes_on(course), (course.fallen, LITTLE)
        how = f"{-course.late.score:.0f} standard errors in the second half of the sum of the rates"
        seen = f"the loss has fallen from {course.start:.4g} to {course.last:.4g}, and still falls at the end: {how}"
    if not found:
        return None
    return Finding("lr-too-low", seen, *measured, LINEAR, higher_lr(log, 10))


def _creeps(course: Course) -> bool:
    """Whether the validation loss, which has no noise of batches, falls in proportion to the rates, and not far."""
    near = course.last > (1 - STEADY) * course.start
    return course.steady is not None and course.steady > PROPORTIONAL and near


def _trend_goes_on(course: Course) -> bool:
    """Whether the training loss, with the noise of its batches, falls late as early."""
    early, late, whole = course.early, course.late, course.whole
    if course.fallen < MOVED or course.last > (1 - MOVED) * course.start:
        goes_on = late.slope < HARDLY * early.slope or early.score > -HINT
        falls = whole.score < -LIKELY and late.score < -HINT and course.last < course.start
        return falls and goes_on and course.at_once < 0.5
    near = course.last > (1 - STEADY) * course.start
    share = PROPORTIONAL if course.last > (1 - LITTLE) * course.start else 1.0
    return near and late.score < -SURE and late.slope < share * early.slope < 0


def not_learning(log: Log, course: Course) -> Finding | None:
    """The loss shows no trend, or one that has ended soon: the log does not tell why."""
    hardly = course.fallen < MOVED or course.last > (1 - MOVED) * course.start
    late, early = course.late, course.early
    no_trend = course.whole.score > -LIKELY and early.score > -SURE / 2 and late.score > -HINT
    flat = abs(late.score) < 2 and abs(late.slope) < FLAT * abs(early.slope)
    ended = (course.fallen < LITTLE and late.score > -HINT) or (course.fallen < SOME and flat)
    if not (hardly or no_trend or ended):
        return None
    seen = (
        f"the loss, {course.start:.4g} at the start, ends at {course.last:.4g}, and has no trend that goes on: the log "
        "does not tell why. A batch that can be fitted shows that net and loss work; then look at the labels, and "
        "measure the rate by cadence tune"
    )
    why = "a run that learns falls by more than the noise of its batches"
    return Finding("not-learning", seen, course.fallen, MOVED, why, UNKNOWN)


def lower_lr(log: Log, by: float) -> str:
    return f"optimizer.lr={log.lr / by:.2g}" if log.lr else "optimizer.lr, lower"


def higher_lr(log: Log, by: float) -> str:
    return f"optimizer.lr={log.lr * by:.2g}" if log.lr else "optimizer.lr, higher"


VERDICTS: tuple[Callable[[Log, Course], Finding | None], ...] = (
    zero_gradients, too_high, large_updates, target_scale, weight_decay, collapsed, too_low, not_learning,
)  # fmt: skip
"""In this order: each explains more than those after it."""
