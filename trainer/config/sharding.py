"""Checks for FSDP, where each process holds only a part of every weight."""

from torch import nn
from torch.optim import Optimizer

from trainer.config.settings import Settings
from trainer.engine.lightning_kind import lightning_class
from trainer.lr import ConfigError
from trainer.optim.composite import Composite
from trainer.optim.lookahead import Lookahead

SHOWN = {
    "torch.optim": ("SGD", "Adagrad", "Adadelta", "RMSprop", "Adam", "AdamW", "Adamax", "NAdam", "RAdam"),
    "pytorch_optimizer": ("AdaBound", "AdEMAMix", "Lion", "ScheduleFreeSGD", "ScheduleFreeAdamW"),
    "trainer.optim": ("GradientDescent", "RMSpropTF", "CautiousAdamW", "LAMB"),
}
"""Optimizers that tests show to give the same weights with FSDP as in one process, by package."""


def check_sharded(settings: Settings, net: nn.Module, optimizer: Optimizer) -> None:
    """Refuse, with `trainer.strategy=fsdp`, what needs whole weights or gradients, and nets that cannot be sharded.

    A user's optimizer that steps each entry of a weight by itself declares it by `by_number = True` in its class.
    """
    run, sharpness = settings.trainer, settings.measure.get("sharpness")
    if run.strategy != "fsdp":
        return
    asked = [
        *((True, what, instead) for what, instead in run.gradients.conflicts_with_sharding()),
        (lightning_class(net), "task=lightning calls methods of the net beside forward", "trainer.strategy=auto"),
        (
            run.compile,
            f"trainer.compile={str(run.compile).lower()} compiles the net as a whole",
            "trainer.compile=false",
        ),
        (run.channels_last, "trainer.channels_last=true does not shard", "trainer.channels_last=false"),
        (run.precision == "16-mixed", "trainer.precision=16-mixed scales by all gradients", "bf16-mixed"),
        (sharpness, f"measure.sharpness={sharpness} needs the net as a whole", "measure.sharpness=null"),
        *((True, _needs(one), "sgd, momentum, adamw, …") for one in _parts(optimizer) if not _by_number(type(one))),
    ]
    for there, what, instead in asked:
        if there:
            raise ConfigError(
                f"{what}, and with trainer.strategy=fsdp each process holds a part: take {instead}, or trainer=ddp."
            )
    scalar = next((name for name, parameter in net.named_parameters() if not parameter.ndim), None)
    if scalar is not None:
        raise ConfigError(
            f"model: {scalar} is a single number and cannot be sharded: give it the shape [1], or take trainer=ddp."
        )


def _needs(optimizer: Optimizer) -> str:
    return f"optimizer: {type(optimizer).__name__} is not known to step each entry by itself (by_number = True)"


def _by_number(kind: type) -> bool:
    shown = any(kind.__module__.startswith(f"{name}.") and kind.__name__ in kinds for name, kinds in SHOWN.items())
    return shown or getattr(kind, "by_number", False)


def _parts(optimizer: Optimizer) -> list[Optimizer]:
    """The optimizers that step the weights: the parts of a composite, and the base of Lookahead."""
    if isinstance(optimizer, Lookahead):
        return _parts(optimizer.base)
    return (
        [part for one in optimizer.parts for part in _parts(one)] if isinstance(optimizer, Composite) else [optimizer]
    )
