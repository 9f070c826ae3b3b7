"""The signs by which a run shows that its learning rate, its batch or its length does not fit.

| sign | it is seen where |
| --- | --- |
| not-finite | a loss or a gradient was NaN or infinite |
| lr-too-high | the loss is thrown up and stays, or often rises and comes not far; or updates are huge beside weights |
| lr-too-low | the loss hardly moves; or it has not come far, and falls per unit of rate as fast late as early |
| warmup-too-short | the loss has a hump at the start, and comes down from it |
| floor-too-early | the rate is below 1 % of its peak for more than 30 % of the run, and nothing moves there |
| plateau-ignored | no loss gets better over the last 40 % of the run, and noise holds it up at a high rate |
| batch-above-critical | the batch is more than twice the noise scale |
| over-fitting | the validation loss rises again while the training loss falls |

The thresholds were set on runs of digits that were made bad on purpose and on healthy ones; a sign is a reason to
look, not a proof. All but the first compare multiples of the loss, and say nothing of one that does not start above
zero. Nothing here changes a run.
"""

from collections.abc import Callable, Iterator

from trainer.doctor import ending, failing
from trainer.doctor.log import Finding, Log

LEAST = 40
"""Updates below which nothing but a number that is not finite is told of a run."""

SIGNS: dict[str, Callable[[Log], Iterator[Finding]]] = {
    "lr-too-high": failing.too_high,
    "lr-too-low": failing.too_low,
    "warmup-too-short": failing.short_warmup,
    "floor-too-early": ending.early_floor,
    "plateau-ignored": ending.ignored_plateau,
    "batch-above-critical": ending.large_batch,
    "over-fitting": ending.over_fitting,
}


EXCLUDED = ("lr-too-low", "plateau-ignored", "over-fitting")
"""What cannot be told of a run whose rate is too high."""


def examined(log: Log) -> list[Finding]:
    """Everything that is found in a log; one finding for each sign, the first that shows it."""
    found = list(failing.not_finite(log))
    says = len(log.loss) >= LEAST and failing.start(log) > 0
    for name, sign in SIGNS.items() if says else ():
        if not (name in EXCLUDED and any(one.sign == "lr-too-high" for one in found)):
            found += next(([one] for one in sign(log)), [])
    return found
