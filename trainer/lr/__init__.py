"""The clock room: what the learning rate is at every update. Standard library only."""

from trainer.lr.bounds import Refusal
from trainer.lr.horizon import Duration, Horizon
from trainer.lr.plan import Plan
from trainer.lr.policy import Policy, compose
from trainer.lr.scaling import linear_scaling, no_scaling, sqrt_scaling
from trainer.lr.schedule import Schedule, constant, cosine, linear, step, wsd
from trainer.lr.warmup import Warmup, linear_warmup, no_warmup

__all__ = [
    "Duration",
    "Horizon",
    "Plan",
    "Policy",
    "Refusal",
    "Schedule",
    "Warmup",
    "compose",
    "constant",
    "cosine",
    "linear",
    "linear_scaling",
    "linear_warmup",
    "no_scaling",
    "no_warmup",
    "sqrt_scaling",
    "step",
    "wsd",
]
