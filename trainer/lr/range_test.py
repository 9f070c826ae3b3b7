"""The range test: a sweep of rates, where its loss falls, and the rate at which training breaks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from trainer.lr.bounds import ConfigError, integer, positive

SPACINGS = ("exponential", "linear")
BETA = 0.98
STOP = 4.0
"""A sweep ends where its smoothed loss exceeds its lowest by this factor."""
WINDOW, FIRST, FEWEST = 7, 10, 20
DROP, LEAST, QUIET = 2.5, 0.002, 30
"""A fall of the loss counts above DROP times the noise (4 % of curves of pure noise have one) and LEAST of the loss."""
SHARE, WEIGHT = 0.75, 0.25
"""The suggestion lies between the rate at which this share of the fall is made and the rate of the lowest loss, by this
part of the way. Measured: docs/range_test.md."""


def rates(start: float, end: float, updates: int, spacing: str = "exponential") -> list[float]:
    """r(t) for t = 0 … N-1: start (end / start)^(t / (N-1)), or start + (end - start) t / (N-1) where linear.

    >>> [round(rate, 6) for rate in rates(1e-3, 10.0, 21)[::5]]
    [0.001, 0.01, 0.1, 1.0, 10.0]
    """
    positive("--start", start, "it is the first value of the sweep.")
    positive("--end", end, "it is the last value of the sweep.")
    integer("--updates", updates, f"a sweep has at least {FEWEST} updates; try 100.", low=FEWEST)
    if not start < end:
        raise ConfigError(f"--start={start:g} is not below --end={end:g}: a sweep goes up.")
    if spacing not in SPACINGS:
        raise ConfigError(f"--spacing={spacing} is not known: choose one of {', '.join(SPACINGS)}.")
    last = updates - 1
    if spacing == "linear":
        return [start + (end - start) * t / last for t in range(updates)]
    return [start * (end / start) ** (t / last) for t in range(updates)]


@dataclass
class Smooth:
    """A bias-corrected running mean: s_t = Σ β^(t-i) (1-β) x_i / (1 - β^(t+1)). Kingma & Ba 2014, sec. 3."""

    beta: float = BETA
    total: float = 0.0
    count: int = 0

    def __call__(self, value: float) -> float:
        """Take in a value; the mean now."""
        self.count += 1
        self.total = self.beta * self.total + (1.0 - self.beta) * value
        return self.total / (1.0 - self.beta**self.count)


def smoothed(losses: Sequence[float], beta: float = BETA) -> list[float]:
    """The running mean after each loss.

    >>> [round(value, 3) for value in smoothed([2.0, 2.0, 5.0], 0.5)]
    [2.0, 2.0, 3.714]
    """
    smooth = Smooth(beta)
    return [smooth(loss) for loss in losses]


@dataclass
class Stop:
    """Says when to stop a sweep: the smoothed loss exceeds `STOP` times its lowest, and that is above 0."""

    smooth: Smooth = field(default_factory=Smooth)
    lowest: float = math.inf

    def __call__(self, loss: float) -> bool:
        """Take in the next loss; whether to stop here. A loss that is not finite always stops."""
        if not math.isfinite(loss):
            return True
        now = self.smooth(loss)
        self.lowest = min(self.lowest, now)
        return now > STOP * self.lowest > 0


@dataclass(frozen=True)
class Sweep:
    """The loss at each rate of a sweep.

    `broke` is the rate at which it stopped before its end. `dead` names the weights whose gradient was 0 throughout.
    """

    rates: list[float]
    losses: list[float]
    broke: float | None = None
    seed: int = 0
    planned: int = 0
    dead: Sequence[str] = ()

    def finite(self) -> "Sweep":
        """Without the points whose loss is not finite."""
        kept = [(rate, loss) for rate, loss in zip(self.rates, self.losses) if math.isfinite(loss)]
        return replace(self, rates=[rate for rate, _ in kept], losses=[loss for _, loss in kept])


class Unread(ConfigError):
    """A curve that tells nothing. `remedy` names the option that may help: "end", "start", "updates", or none."""

    def __init__(self, text: str, remedy: str = "") -> None:
        super().__init__(text)
        self.remedy = remedy


@dataclass(frozen=True)
class Fall:
    """The fall of the loss: the first, the lowest and its rate, the rate where `SHARE` of it is made, and the noise."""

    first: float
    lowest: float
    rate: float
    best: float
    noise: float

    @property
    def suggested(self) -> float:
        """`WEIGHT` of the way, on the log axis, from the rate where `SHARE` is made to that of the lowest loss."""
        return self.rate ** (1 - WEIGHT) * self.best**WEIGHT


@dataclass(frozen=True)
class Edge:
    """Where training breaks: the first loss, the lowest and its rate, and the rate where it is half-way back up."""

    first: float
    lowest: float
    best: float
    rate: float


def running_median(values: Sequence[float], width: int = WINDOW) -> list[float]:
    """The median of the `width` values around each; of fewer at the ends.

    >>> running_median([1.0, 9.0, 1.0, 2.0, 3.0], 3)
    [5.0, 1.0, 2.0, 2.0, 2.5]
    """
    half = width // 2
    return [median(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]


def pooled(sweeps: Sequence[Sweep]) -> Sweep:
    """The median over the seeds of the loss at each rate, up to the first rate that not every seed has reached."""
    finite = [sweep.finite() for sweep in sweeps]
    count = min(len(sweep.losses) for sweep in finite)
    losses = [median(sweep.losses[i] for sweep in finite) for i in range(count)]
    shortest = min(finite, key=lambda sweep: len(sweep.losses))
    return Sweep(shortest.rates[:count], losses, shortest.broke, shortest.seed, shortest.planned)


def fall(sweep: Sweep) -> Fall:
    """The fall of a sweep's loss.

    m is the running median of seven losses, m_0 the median of the first ten losses and m_k the minimum of m. The noise
    is that of the losses around m up to its minimum.
    Raises `Unread` for a curve that is flat, only falls or only rises, and `ConfigError` for too few points.
    """
    sweep = sweep.finite()
    middle, found, k = _fallen(sweep)
    if k >= len(middle) - 1 - WINDOW // 2 and sweep.broke is None:
        raise Unread(
            f"the loss falls from {found.first:.4g} to {found.lowest:.4g} and does not rise up to the last rate, "
            f"{sweep.rates[-1]:.3g}: raise --end.",
            "end",
        )
    return found


def edge(sweep: Sweep) -> Edge:
    """The divergence edge of a sweep: the first rate after the minimum of m with m > m_k + ½ (m_0 - m_k); see `fall`.

    Where m does not rise that far but the sweep stopped early, the edge is where it stopped.
    Raises `ConfigError` as `fall` does, and where the loss does not come half-way back up.
    """
    sweep = sweep.finite()
    middle, found, k = _fallen(sweep)
    half = found.lowest + 0.5 * (found.first - found.lowest)
    after = [i for i in range(k + 1, len(middle)) if middle[i] > half]
    if after:
        return Edge(found.first, found.lowest, found.best, sweep.rates[after[0]])
    if sweep.broke is not None:
        return Edge(found.first, found.lowest, found.best, sweep.broke)
    raise ConfigError(
        f"the loss falls from {found.first:.4g} to {found.lowest:.4g} and does not come half-way back up to the last "
        f"rate, {sweep.rates[-1]:.3g}: raise --end."
    )


def _fallen(sweep: Sweep) -> tuple[list[float], Fall, int]:
    """The running median of a sweep's losses, its fall, and the place of its minimum."""
    count = len(sweep.losses)
    if count < FEWEST:
        raise ConfigError(
            f"only {count} of its losses are finite, and {FEWEST} are needed: lower --start, or fix the run."
        )
    middle = running_median(sweep.losses)
    first = median(sweep.losses[:FIRST])
    k = min(range(count), key=middle.__getitem__)
    drop = first - middle[k]
    noise = 1.4826 * median(abs(loss - m) for loss, m in zip(sweep.losses, middle[: max(k, QUIET) + 1]))
    if drop <= max(DROP * noise, LEAST * abs(first)):
        raise _no_drop(sweep, first, drop, noise, middle[-1])
    part = next(i for i in range(count) if middle[i] <= first - SHARE * drop)
    return middle, Fall(first, middle[k], sweep.rates[part], sweep.rates[k], noise), k


def _no_drop(sweep: Sweep, first: float, drop: float, noise: float, last: float) -> Unread:
    """The error of a curve that does not fall."""
    measured = f"the loss falls by {max(drop, 0):.2g} from {first:.4g}, with a noise of {noise:.2g}"
    if sweep.broke is not None or last > first + max(DROP * noise, LEAST * abs(first)):
        text = "and then rises: its minimum is at the start. Lower --start, or the model is trained already."
        return Unread(f"{measured}, {text}", "start")
    return Unread(
        f"the curve is flat: {measured}. Raise --end or --updates, or the model is trained already.", "updates"
    )


def middle_rate(values: Sequence[float]) -> float:
    """The median on the log axis: of an even number of rates the geometric mean of the middle two.

    >>> round(middle_rate([0.01, 1.0]), 9)
    0.1
    """
    return math.exp(median(map(math.log, values)))
