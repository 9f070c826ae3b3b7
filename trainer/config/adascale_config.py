"""AdaScale's two clocks: its curve counts updates of the base batch, the run counts its own."""

from typing import Any

from trainer.config.instantiate import Node
from trainer.config.settings import Settings, TrainerSettings
from trainer.lr import ConfigError, Horizon
from trainer.lr.scaling_adascale import ADASCALE, gain_smoothing, multiple_of


def is_adascale(scaling: Node) -> bool:
    """Whether a `scaling` config is AdaScale's."""
    return scaling.get("_target_") == ADASCALE


def largest_gain(scaling: Node, batch: int) -> float | None:
    """S = B / B_ref; None without AdaScale."""
    return multiple_of(batch, scaling.get("base_batch_size")) if is_adascale(scaling) else None


def counted_batch(settings: Settings) -> int:
    """The batch in whose updates the curve counts: the base batch with AdaScale, else the global one."""
    largest = largest_gain(settings.curve.scaling, settings.global_batch)
    if largest is None:
        return settings.global_batch
    if largest > 1:
        check_measurable("scaling=adascale", settings.trainer)
    return int(settings.curve.scaling["base_batch_size"])


def adascale_options(settings: Settings) -> dict[str, Any] | None:
    """The arguments of `trainer.measure.adascale.AdaScale`; None where it is not chosen."""
    scaling = settings.curve.scaling
    largest = largest_gain(scaling, settings.global_batch)
    if largest is None:
        return None
    smoothing = gain_smoothing(largest, scaling.get("smoothing"))
    return {"multiple": largest, "base_batch": int(scaling["base_batch_size"]), "smoothing": smoothing}


def in_own_updates(settings: Settings, length: Horizon, samples: int | None) -> Horizon:
    """The horizon of the run in updates of its global batch: at most as many as the curve counts."""
    if not is_adascale(settings.curve.scaling):
        return length
    batch, tokens = settings.global_batch, length.tokens_per_sample
    return Horizon.of(length.total, samples=samples, batch_size=batch, tokens_per_sample=tokens)


def check_measurable(what: str, run: TrainerSettings) -> None:
    """Refuse `what`, which compares the gradients of micro-batches, where they cannot be measured."""
    if run.world * run.accumulate < 2:
        raise ConfigError(
            f"{what} compares the gradients of micro-batches, and each update has one: set trainer.accumulate=2 or "
            "more, with a smaller data.batch_size for the same global batch."
        )
    if run.gradients.sam is not None:
        raise ConfigError(
            f"{what} needs the gradients at the weights, and trainer.sam takes them elsewhere: take trainer.sam=null."
        )
    if run.precision == "16-mixed":
        raise ConfigError(f"{what}: trainer.precision=16-mixed scales its gradients: take bf16-mixed or 32-true.")
    if run.strategy not in ("auto", "ddp"):
        raise ConfigError(
            f"{what} needs whole gradients on each process, and trainer.strategy={run.strategy} splits them: take ddp."
        )
