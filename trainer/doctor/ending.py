"""Signs in the later part of a run: where it stops moving, or moves the wrong way."""

from collections.abc import Iterator
from statistics import median

from trainer.doctor.log import Finding, Log

LOW, LONG, STILL = 0.01, 0.3, 0.01
"""A rate that is low, as a share of the peak; how much of a run is long; how small a share of the fall is none."""
LATE, FLAT, HIGH = 0.6, 0.02, 0.5
"""Where the last part begins; by how much of itself a loss changes that is flat; a rate that is high."""
NOISY = 0.02
"""How far a loss lies from its median, as a share of the fall, where noise is what keeps it up."""
TIMES = 2.0
"""How many times the noise scale a batch may be."""
RISEN, FALLS, EARLY = 1.1, 0.9, 0.8
"""What has become of the validation loss since its least, and of the training loss; how much of the run is before."""


def early_floor(log: Log) -> Iterator[Finding]:
    """A rate near its floor for a large part of the run, where the loss does not fall any more."""
    peak = max(log.rate.values, default=0.0)
    low = next((t for t, lr in reversed(list(zip(log.rate.updates, log.rate.values))) if lr > LOW * peak), -1) + 1
    share = 1 - low / log.made if peak else 0.0
    before, after = log.loss.middle(low, low + 0.1 * log.made), log.loss.middle(0.9 * log.made, log.made)
    first = log.loss.middle(0, 0.05 * log.made)
    if share <= LONG or before is None or after is None or first is None or log.made < log.total:
        return
    if before - after < STILL * abs(first - before):
        seen = (
            f"from update {low} on, {share:.0%} of the run, the rate is below {LOW:.0%} of its peak, and nothing moves"
        )
        source = "a decay that ends with the run uses all of it (Defazio et al. 2023, arXiv:2310.07831)"
        yield Finding("floor-too-early", seen, share, LONG, source, "schedule=linear")


def ignored_plateau(log: Log) -> Iterator[Finding]:
    """Both losses flat over the last part, at a rate that is still high."""
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
    """A batch beyond the noise scale, where that has been observed."""
    high = log["noise_scale/all/high"].middle(0.5 * log.made, log.made + 1)
    if high is not None and log.batch_size > TIMES * high:
        seen = f"the batch of {log.batch_size} is {log.batch_size / high:.1f} times the noise scale, at most {high:.0f}"
        source = "beyond it more samples buy few updates (McCandlish et al. 2018, arXiv:1812.06162)"
        yield Finding("batch-above-critical", seen, log.batch_size / high, TIMES, source, "data.batch_size, lower")


def over_fitting(log: Log) -> Iterator[Finding]:
    """The validation loss rises from its least while the training loss falls on."""
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
