"""Chebyshev step sizes in fractal order: short steps after long ones keep the training stable."""

import math

from trainer.lr.bounds import ConfigError, integer, positive
from trainer.lr.horizon import Horizon
from trainer.lr.schedule import Schedule, annotate


def chebyshev(horizon: Horizon, *, steps: int = 8, condition: float = 0.1) -> Schedule:
    """m(t) = γ_1 / γ_σ(k), k = 1 + ⌊n x⌋: n = `steps` stairs of equal length, the highest at 1.

    Agarwal, Goel & Zhang 2021, arXiv:2103.01338. γ_i = c + (1 - c) sin²((i - 1/2) π / 2n) are the roots of the n-th
    Chebyshev polynomial on [c, 1], c = `condition`: the smallest curvature as a share of the largest. σ is the
    fractal order: (1) for n = 1, and σ(1), 2n + 1 - σ(1), σ(2), 2n + 1 - σ(2), … for 2n; so n is a power of two. The
    paper repeats a short cycle of steps: combine this with the schedule `repeat`.

    >>> [round(chebyshev(Horizon(8, 1), steps=4)(t), 3) for t in (0, 2, 4, 6)]
    [1.0, 0.139, 0.355, 0.186]
    """
    left = int(horizon.left)
    count = integer("steps", steps, f"each stair has at least one of the {left} updates of the schedule.", 1, left)
    if count & (count - 1):
        raise ConfigError(f"steps={steps} is not a power of two: give 4, 8, 16, …")
    low = positive("condition", condition, "it is the smallest curvature as a share of the largest.")
    if low > 1:
        raise ConfigError(
            f"condition={condition!r} is above 1: the smallest curvature is at most the largest; give 1 or less."
        )
    roots = [low + (1.0 - low) * math.sin((i - 0.5) * math.pi / (2 * count)) ** 2 for i in range(1, count + 1)]
    values, last = [roots[0] / roots[i - 1] for i in fractal(count)], left - 1
    jumps = [-(-i * left // count) for i in range(1, count)]
    return annotate(lambda t: values[min(int(t), last) * count // left], jumps=jumps)


def fractal(count: int) -> list[int]:
    """1 … count, a power of two, in the order in which the roots are used.

    >>> fractal(8)
    [1, 8, 4, 5, 2, 7, 3, 6]
    """
    order = [1]
    while len(order) < count:
        order = [i for first in order for i in (first, 2 * len(order) + 1 - first)]
    return order
