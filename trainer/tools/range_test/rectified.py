"""What a rate in an early update is worth later: RAdam and its kin warm up by themselves."""

from dataclasses import replace

from trainer.config.resolve import Resolved
from trainer.lr import Horizon, radam_warmup
from trainer.lr.range_test import Sweep

RECTIFIED = ("RAdam", "Ranger", "ScheduleFreeRAdam")
"""Classes of optimizers whose step has the factor of RAdam: Liu et al. 2019, arXiv:1908.03265."""
BETA2, NEVER = 0.999, 0.6
"""Their default β2, and the largest β2 with which no step has the factor: ρ stays below 4, as for SGD."""


def as_in_the_run(sweep: Sweep, resolved: Resolved) -> Sweep:
    """The sweep with rates that move the weights as much in the middle of the run, T updates long.

    With w the factor of `radam_warmup`, a rate r in update t is worth r w(t) / w(T / 2). Other optimizers have none,
    and neither has a β2 of at most `NEVER`.
    """
    settings = resolved.settings.curve.optimizer
    if str(settings.get("_target_")).rpartition(".")[2] not in RECTIFIED:
        return sweep
    beta2 = float(settings["betas"][1]) if "betas" in settings else BETA2
    if beta2 <= NEVER:
        return sweep
    total = resolved.horizon.total
    own = radam_warmup(Horizon(total, 1), beta2=beta2).factor
    worth = [rate * own(t) / own(total // 2) for t, rate in enumerate(sweep.rates)]
    broke = None if sweep.broke is None else sweep.broke * own(len(worth)) / own(total // 2)
    return replace(sweep, rates=worth, broke=broke)
