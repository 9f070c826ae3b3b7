"""Constant schedules: the peak throughout, or a share of it at first."""

from trainer.lr.bounds import fraction
from trainer.lr.horizon import Duration, Horizon
from trainer.lr.schedule import Schedule, annotate


def constant(horizon: Horizon) -> Schedule:
    """m(t) = 1.

    >>> constant(Horizon(10, 1))(7)
    1.0
    """
    return lambda t: 1.0


def constant_until(horizon: Horizon, *, until: Duration = "10%", factor: float = 1 / 3) -> Schedule:
    """m(t) = factor for t < until, then 1: the constant warm-up of Goyal et al. 2017, arXiv:1706.02677.

    Where `until` is the end of the run or later, the peak is never reached.

    >>> [constant_until(Horizon(10, 1), until=4, factor=0.2)(t) for t in (0, 3, 4)]
    [0.2, 0.2, 1.0]
    """
    begin = horizon.updates(until, "until", least=1)
    low = fraction("factor", factor, "it is the share of the peak at the start, from 0 to 1.")
    last = horizon.left - 1
    return annotate(lambda t: low if min(t, last) < begin else 1.0, jumps=[begin])
