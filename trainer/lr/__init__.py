"""The learning rate at every update: schedules, warm-ups, scaling, policy and plan. Standard library only."""

from trainer.lr.anneal import (
    cosine,
    half_cosine,
    linear,
    linear_rate,
    polynomial,
    rex,
    sqrt_annealing,
    square_annealing,
    tanh,
)
from trainer.lr.bounds import ConfigError
from trainer.lr.chebyshev import chebyshev
from trainer.lr.combine import product, repeat, sequence, stretch
from trainer.lr.compose import Cooldown, compose, compose_schedule, cooldown, cooled, no_cooldown
from trainer.lr.constant import constant, constant_until
from trainer.lr.convention import OURS, Convention
from trainer.lr.cycles import cyclic, hard_restarts, restarts
from trainer.lr.exponential import exponential, exponential_decay, final_exponential, inverse_time, natural_exponential
from trainer.lr.grow import grow, grown
from trainer.lr.growth import Growth
from trainer.lr.horizon import Duration, Horizon
from trainer.lr.hyper_schedule import HyperSchedule, Rule, coupled, mirrored, scheduled, tied
from trainer.lr.inverse_sqrt import inverse_sqrt, noam, noam_hold, power_law
from trainer.lr.noise import noisy
from trainer.lr.one_cycle import flat_cosine, one_cycle, one_cycle_stairs
from trainer.lr.plan import Plan
from trainer.lr.plateau import CountPlateau, Greedy, Plateau
from trainer.lr.policy import LRPolicy
from trainer.lr.scaling import linear_scaling, no_scaling, sqrt_scaling
from trainer.lr.schedule import Schedule, annotate, annotations
from trainer.lr.stairs import multi_step, piecewise, step
from trainer.lr.table import function, table
from trainer.lr.trend import TrendPlateau
from trainer.lr.untuned import (
    auto_updates,
    radam_warmup,
    saturating_warmup,
    untuned_exponential_warmup,
    untuned_linear_warmup,
)
from trainer.lr.warmup import (
    Warmup,
    constant_warmup,
    cosine_warmup,
    exponential_warmup,
    hold_warmup,
    linear_warmup,
    log_warmup,
    no_warmup,
    one_minus_sqrt_warmup,
    polynomial_warmup,
    sqrt_warmup,
)
from trainer.lr.wsd import tri_stage, wsd, wsd_s

__all__ = [
    "ConfigError",
    "Convention",
    "Cooldown",
    "CountPlateau",
    "Duration",
    "Greedy",
    "Growth",
    "Horizon",
    "HyperSchedule",
    "LRPolicy",
    "OURS",
    "Plan",
    "Plateau",
    "Rule",
    "Schedule",
    "TrendPlateau",
    "Warmup",
    "annotate",
    "annotations",
    "auto_updates",
    "chebyshev",
    "compose",
    "constant",
    "constant_until",
    "constant_warmup",
    "cooldown",
    "cooled",
    "cosine",
    "cosine_warmup",
    "coupled",
    "cyclic",
    "exponential",
    "exponential_decay",
    "exponential_warmup",
    "final_exponential",
    "flat_cosine",
    "function",
    "grow",
    "grown",
    "half_cosine",
    "hard_restarts",
    "hold_warmup",
    "inverse_sqrt",
    "inverse_time",
    "linear",
    "linear_rate",
    "linear_scaling",
    "linear_warmup",
    "log_warmup",
    "mirrored",
    "multi_step",
    "natural_exponential",
    "no_cooldown",
    "no_scaling",
    "no_warmup",
    "noam",
    "noam_hold",
    "noisy",
    "one_cycle",
    "one_cycle_stairs",
    "one_minus_sqrt_warmup",
    "piecewise",
    "compose_schedule",
    "polynomial",
    "polynomial_warmup",
    "power_law",
    "product",
    "radam_warmup",
    "repeat",
    "restarts",
    "rex",
    "saturating_warmup",
    "scheduled",
    "sequence",
    "sqrt_annealing",
    "sqrt_scaling",
    "sqrt_warmup",
    "square_annealing",
    "step",
    "stretch",
    "table",
    "tanh",
    "tied",
    "tri_stage",
    "untuned_exponential_warmup",
    "untuned_linear_warmup",
    "wsd",
    "wsd_s",
]
