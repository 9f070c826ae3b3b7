"""AdaScale on the clock of another batch: its curve counts updates of the base batch, the run those of its own."""

from typing import TYPE_CHECKING, Any, NamedTuple

from omegaconf import DictConfig

from trainer.config.tuned_hyperparameters import adaptive, owners
from trainer.lr import ConfigError, Horizon
from trainer.lr.scaling_adascale import gain_smoothing, multiple_of

if TYPE_CHECKING:
    from trainer.config.settings import TrainerSettings

RULE = "trainer.lr.scaling_adascale.adascale_scaling"


def chosen(scaling: Any) -> bool:
    """Whether a `scaling` config is AdaScale's."""
    return scaling.get("_target_") == RULE


def multiple(cfg: DictConfig, batch: int) -> float | None:
    """S = B / B_ref, the largest gain; None without AdaScale."""
    return multiple_of(batch, cfg.scaling.get("base_batch_size")) if chosen(cfg.scaling) else None


def unsuited(cfg: DictConfig) -> tuple[str, ...]:
    """The keys of the optimizers that AdaScale, where it is chosen, was not derived for: those like Adam."""
    if not chosen(cfg.scaling):
        return ()
    optimizers = [owner for owner in owners(cfg) if owner.key.endswith("optimizer")]
    return tuple(owner.key for owner in optimizers if adaptive(owner, list(cfg.allow)))


def counted(cfg: DictConfig, run: "TrainerSettings", batch: int) -> int:
    """The batch in whose updates the curve counts: the base batch with AdaScale, else the global one."""
    largest = multiple(cfg, batch)
    if largest is None:
        return batch
    if largest > 1:
        check_measurable("scaling=adascale", run)
    return int(cfg.scaling.base_batch_size)


def gains(cfg: DictConfig, batch: int) -> dict[str, Any] | None:
    """What `trainer.measure.adascale.AdaScale` is made of; None where it is not chosen."""
    largest = multiple(cfg, batch)
    if largest is None:
        return None
    smoothing = gain_smoothing(largest, cfg.scaling.get("smoothing"))
    return {"multiple": largest, "base_batch": int(cfg.scaling.base_batch_size), "smoothing": smoothing}


def in_updates(cfg: DictConfig, length: Horizon, batch: int, samples: int) -> Horizon:
    """The horizon of the run in updates of its global batch: at most as many as the curve counts."""
    if not chosen(cfg.scaling):
        return length
    return Horizon.of(length.total, samples=samples, batch_size=batch, tokens_per_sample=length.tokens_per_sample)


def check_measurable(what: str, run: "TrainerSettings") -> None:
    """Refuse what needs the gradients of micro-batches where there are none to compare, or not as they are."""
    if run.world * run.accumulate < 2:
        raise ConfigError(
            f"{what} compares the gradients of micro-batches, and each update has one: set trainer.accumulate=2 or "
            "more, with a smaller data.batch_size for the same global batch."
        )
    if run.gradients.sam is not None:
        raise ConfigError(
            f"{what} measures the gradients at the weights, and trainer.sam steps away: take trainer.sam=null."
        )
    if run.precision == "16-mixed":
        raise ConfigError(f"{what}: trainer.precision=16-mixed scales its gradients: take bf16-mixed or 32-true.")
    if run.strategy not in ("auto", "ddp"):
        raise ConfigError(
            f"{what} needs whole gradients on each process, which trainer.strategy={run.strategy} has not: take ddp."
        )


class Words(NamedTuple):
    """What the table at the start says of the scale, of the place of the peak, and of the length."""

    scale: str
    peak: str
    updates: str


def worded(facts: dict[str, Any], length: str) -> Words:
    """The words for the facts of a run; `length` tells its epochs."""
    total, peak = facts["total_updates"], facts["peak_update"]
    if "most_gain" not in facts:
        return Words(f"scale {facts['scale']:g}", f"update {peak}", f"T = {total}, {length}")
    units = f"T = {total} scale-invariant iterations of {facts['base_batch_size']} samples"
    return Words(
        f"S = {facts['most_gain']:g}, a gain from 1 to S at each update",
        f"iteration {peak}, times the gain",
        f"between {facts['fewest_updates']} and {total}, until {units}: {length}",
    )
