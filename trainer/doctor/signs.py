"""The signs in a run's log that its learning rate, its batch, its data or its length does not fit.

| sign | it is seen where |
| --- | --- |
| not-finite | a loss or a gradient was NaN or infinite |
| zero-gradients | most gradients are exactly zero |
| lr-too-high | the loss is thrown up, a fall is undone, or it ends above its start; or an update changes too much |
| target-scale | the loss starts in the thousands and hardly falls |
| weight-decay-too-high | Σ rate · weight decay is large, and a fall is undone or prevented, or nothing falls any more |
| lr-too-low | the loss has fallen little, and still falls as fast per unit of learning rate at the end |
| not-learning | the loss shows no trend beside the noise of its batches |
| warmup-too-short | the loss rises at the start, and then falls |
| floor-too-early | the rate is below 1 % of its peak for more than 35 % of the run, and the loss does not fall there |
| plateau-ignored | neither loss falls over the last 40 % of the run, at a high rate and with much noise |
| batch-above-critical | the batch is more than twice the noise scale |
| over-fitting | the validation loss rises again while the training loss falls |

A sign is a reason to look, not a proof. Of the signs from zero-gradients to not-learning at most one is reported, and
none of plateau-ignored and over-fitting beside it: see `trainer.doctor.verdict`. All signs but the first compare
multiples of the loss, and report nothing where it does not start above zero. Nothing here changes a run.
"""

import math
import re
from collections.abc import Callable, Iterator
from statistics import median

from trainer.doctor.log import Finding, Log
from trainer.doctor.statistics import running_medians
from trainer.doctor.verdict import lower_lr, verdict

LEAST = 40
"""In a run of fewer updates only numbers that are not finite are reported."""
OF_DATA = re.compile(r"Its data is not finite, (.+?)\.(?: |$)")
"""What the guard says of samples that are not finite."""
HUMP, WILD = 10.0, 1e3
"""The highest loss early on, as a multiple of the first: plain SGD at its best rate may have 6, Adagrad 200."""
BACK = 0.9
"""The last loss of a run that has come back from a hump, as a multiple of the first."""
FAR = 0.5
"""The last loss of a run that a hump has done no harm, as a multiple of the first."""
LOW, LONG, STILL = 0.01, 0.35, 0.01
"""A low rate, as a share of the peak; a long part, as a share of the run; a fall that counts as none, as a share of
the whole fall."""
LATE, FLAT, HIGH = 0.6, 0.02, 0.5
"""Where the last part of a run begins; by how much a flat loss changes; a high rate, as a share of the peak."""
NOISY = 0.03
"""How far a loss lies from its median, as a share of the fall, where noise keeps it up."""
TIMES = 2.0
"""The largest batch, as a multiple of the noise scale."""
RISEN, FALLS, EARLY = 1.1, 0.9, 0.8
"""The last validation loss, as a multiple of the lowest; the last training loss, as a multiple of that beside the
lowest validation loss; and the latest time of the lowest, as a share of the run."""


def examine(log: Log) -> list[Finding]:
    """All findings in a log: what is not finite, the verdict on the rate, and one for each other sign."""
    found = list(not_finite(log))
    if len(log.loss) < LEAST or first_loss(log) <= 0:
        return found
    if (main := verdict(log)) is not None:
        found.append(main)
    for name, sign in SIGNS.items():
        if main is None or name not in EXCLUDED:
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
    why, advice = "updates that are not finite; the weights after a step along one are not either", lower_lr(log, 10)
    if data := OF_DATA.search(log.error):
        seen, advice = f"{seen}, and so is its data, {data[1]}", "correcting these samples, or leaving them out"
    return Finding("not-finite", seen, count, 0, why, advice)


def short_warmup(log: Log) -> Iterator[Finding]:
    """The loss rises at the start, and then falls."""
    first, last = first_loss(log), log.loss.middle(0.9 * log.made, log.made)
    most, at = highest_loss(log)
    if last is not None and most > HUMP and at < max(2 * log.warmup, log.made / 5) and last < BACK * first:
        seen = f"the loss rises to {most:.2f} times its start by update {at}, and then falls"
        source = (
            "warm-up keeps early updates from a region of high curvature (Kalra & Barkeshli 2024, arXiv:2406.09405)"
        )
        longer = max(2 * log.warmup, log.total // 10)
        override = f"warmup=linear warmup.duration={longer}"
        harmless = last < FAR * first and most < WILD
        yield Finding("warmup-too-short", seen, most, HUMP, source, override, note=harmless)


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
    if noise > NOISY and moved < FLAT and (1 - FLAT) * best < min(valid) < RISEN * best:
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
        yield Finding("over-fitting", seen, last / least, RISEN, source, override, note=True)


SIGNS: dict[str, Callable[[Log], Iterator[Finding]]] = {
    "warmup-too-short": short_warmup,
    "floor-too-early": early_floor,
    "plateau-ignored": ignored_plateau,
    "batch-above-critical": large_batch,
    "over-fitting": over_fitting,
}
EXCLUDED = ("plateau-ignored", "over-fitting", "floor-too-early")
"""Signs that are not reported of a run that has not learned as it could."""
NAMES = (
    *("not-finite", "zero-gradients", "lr-too-high", "target-scale", "weight-decay-too-high", "lr-too-low"),
    *("not-learning", *SIGNS),
)
"""All signs."""
