"""Decays along a power of time, which need no end of the run: inverse square root, Noam, power law."""

from trainer.lr.bounds import ConfigError, fraction, integer, positive
from trainer.lr.horizon import Duration, Horizon
from trainer.lr.schedule import FLOOR, Schedule, annotate


def inverse_sqrt(
    horizon: Horizon, *, timescale: Duration | None = None, shift: Duration = 0, floor: float = 0.0, clip: bool = False
) -> Schedule:
    """m(t) = floor + (1 - floor) r(t), or max(floor, r(t)) with `clip`; r(t) = √(s / (t + shift + s)).

    Vaswani et al. 2017, arXiv:1706.03762; Zhai et al. 2021, arXiv:2106.04560. s is `timescale`, by
    default W, the updates of the warm-up, or 10 % of the run where there is none.

    The form of             timescale                       shift                      floor
    Hugging Face            null (10000 without warm-up)    -                          -
    timm (rsqrt)            null                            -                          clip
    big_vision              10000                           for a change of batch      -
    fairseq                 null                            -                          -
    Megatron                null                            -                          clip
    NeMo                    W + 1                           -                          -
    OLMo-core               null                            -                          interpolated
    LLM Foundry             its t_scale                     -                          interpolated

    >>> [inverse_sqrt(Horizon(100, 1), timescale=4)(t) for t in (0, 12, 60)]
    [1.0, 0.5, 0.25]
    """
    scale, low = _timescale(horizon, timescale), fraction("floor", floor, FLOOR)
    if not isinstance(clip, bool):
        raise ConfigError(f"clip={clip!r} is not true or false: choose one.")
    begin, span = scale + horizon.updates(shift, "shift"), horizon.span
    if clip:
        return lambda t: max(low, ((begin + min(t, span)) / scale) ** -0.5)
    return lambda t: low + (1.0 - low) * ((begin + min(t, span)) / scale) ** -0.5


def power_law(
    horizon: Horizon, *, power: float = 0.5, timescale: Duration | None = "10%", floor: float = 0.0
) -> Schedule:
    """m(t) = floor + (1 - floor) (1 + t / s)^-power.  Shen et al. 2024, arXiv:2408.13359; timm's `power`.

    s is `timescale`; null is the W updates of the warm-up, as in `inverse_sqrt`. With it 1 + t / s is n / W for the
    update n = t + W of the run: OLMo-core's (n / W)^b, b = -0.51, is `timescale` null and `power` 0.51.

    >>> [power_law(Horizon(100, 1), power=1.0, timescale=10)(t) for t in (0, 10, 30)]
    [1.0, 0.5, 0.25]
    """
    scale, low, span = _timescale(horizon, timescale), fraction("floor", floor, FLOOR), horizon.span
    exponent = -positive("power", power, "the learning rate falls as time to minus this power.")
    return lambda t: low + (1.0 - low) * ((scale + min(t, span)) / scale) ** exponent


def noam(horizon: Horizon, *, warmup: Duration = "10%", width: int | None = None) -> Schedule:
    """m(t) = min(u, u^-1/2), u = (t + 1) / W: linear up for W = `warmup` updates, then down.

    Vaswani et al. 2017, arXiv:1706.03762, scaled to a peak of 1. With `width`, d, it is the rate of the paper,
    m(t) = d^-1/2 min((t + 1)^-1/2, (t + 1) W^-3/2), for use with optimizer.lr=1. It has its own warm-up: use it with
    warmup=none.

    >>> [noam(Horizon(100, 1), warmup=4)(t) for t in (0, 3, 15)]
    [0.25, 1.0, 0.5]
    """
    peak = 1.0
    if width is not None:
        size = integer("width", width, "it is the width of the model, d_model; null for a peak of 1.", 1, 10**9)
        peak = (size * horizon.updates(warmup, "warmup", least=1)) ** -0.5
    return _hill(horizon, warmup, 0, 0.5, 0.0, peak)


def noam_hold(
    horizon: Horizon, *, warmup: Duration = "10%", hold: Duration = "10%", rate: float = 0.5, floor: float = 0.0
) -> Schedule:
    """m(t) = (t + 1) / W, then 1 for H updates, then max(floor, (W / (t + 1 - H))^rate).

    Kim et al. 2022, arXiv:2206.00888; NeMo's NoamHoldAnnealing. W is `warmup` and H `hold`, in updates. It has its
    own warm-up: use it with warmup=none.

    >>> [noam_hold(Horizon(100, 1), warmup=4, hold=10)(t) for t in (0, 3, 13, 25)]
    [0.25, 1.0, 1.0, 0.5]
    """
    low = fraction("floor", floor, FLOOR)
    exponent = positive("rate", rate, "the learning rate falls as time to minus this power.")
    return _hill(horizon, warmup, horizon.updates(hold, "hold"), exponent, low, 1.0)


def _timescale(horizon: Horizon, timescale: Duration | None) -> float:
    if timescale is None and horizon.start > 0:
        return horizon.start
    return horizon.exact("10%" if timescale is None else timescale, "timescale", least=1)


def _hill(horizon: Horizon, warmup: Duration, hold: int, rate: float, low: float, peak: float) -> Schedule:
    """Linear up to `peak` over the warm-up, constant for `hold` updates, then down as a power of time."""
    lead, extent = horizon.convention.progress(horizon.updates(warmup, "warmup", least=1))
    span, top = horizon.span, extent - lead

    def factor(t: float) -> float:
        t = min(t, span)
        if t < top:
            return peak * ((t + lead) / extent)
        if t <= top + hold:
            return peak
        return peak * max(low, (extent / (t + lead - hold)) ** rate)

    return annotate(factor, knots=[top, top + hold] if hold else [top])
