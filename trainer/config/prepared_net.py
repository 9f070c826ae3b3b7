"""What becomes of a net before its groups are made: weights to start from, an adapter, frozen parts, memory format."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from trainer.checkpoint.weights import Loaded, load_weights
from trainer.checkpoint.without_base import leave_out_frozen
from trainer.config.instantiate import expect, instantiate, refusing
from trainer.config.settings import Settings
from trainer.engine.lightning_kind import lightning_class
from trainer.engine.sync_norm import synced
from trainer.lr import ConfigError
from trainer.optim.frozen import Frozen, freeze, frozen

MAKE_GRAPHS = ("reduce-overhead", "max-autotune")
"""Modes of `torch.compile` that record CUDA graphs of their own."""


@dataclass(frozen=True)
class Origin:
    """Which weights a net starts from, which are frozen, and the hash of those that checkpoints leave out."""

    loaded: Loaded | None = None
    frozen: Frozen | None = None
    base: str | None = None

    def summary(self) -> dict[str, Any]:
        """As plain values, for `plan.json`."""
        loaded, cold = (part and asdict(part) for part in (self.loaded, self.frozen))
        return {"loaded": loaded, "frozen": cold, "base": self.base}


def format_origin(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The rows of the table at the start of a run, from an `Origin.summary()`."""
    rows = Loaded(**summary["loaded"]).table() if summary["loaded"] else []
    if summary["frozen"]:
        rows.append(("frozen", Frozen(**summary["frozen"]).text()))
    if summary["base"]:
        rows.append(("", f"left out of the checkpoints; hash {summary['base']}"))
    return rows


def prepared_net(net: nn.Module, settings: Settings, read: bool) -> tuple[nn.Module, Origin]:
    """The net as it is trained. `read`: load the weights of `init.path`.

    A run that resumes has the weights of its checkpoint, and loads others only for a net below an adapter.
    """
    run, init, loaded = settings.trainer, settings.init, None
    if init.path is not None and read:
        if run.precision == "64-true":
            net = net.double()  # before loading: otherwise float64 weights would be rounded
        with refusing("init"):
            loaded = load_weights(net, init.path, init.rename or {}, init.strict)
    if settings.adapter:
        net = _adapted(net, settings)
    if run.sync_batchnorm:
        net = synced(net, run.accelerator != "cpu" and torch.accelerator.is_available())
    freeze(net, settings.freeze)
    base = leave_out_frozen(net) if settings.adapter else None
    if run.channels_last:
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if run.compile:
        compile_net(net, run.compile)
    return net, Origin(loaded, frozen(net), base)


def compile_net(net: nn.Module, mode: bool | str) -> None:
    """Compile the calls of a net in a mode of `torch.compile`; True is torch's default.

    A mode that makes CUDA graphs writes each output to the memory of the one before: callers get copies, which metrics
    and logs may keep.
    """
    net.compile(mode=None if mode is True else mode)
    call = net._compiled_call_impl
    if mode in MAKE_GRAPHS and call is not None:
        net._compiled_call_impl = lambda *args, **kwargs: tree_map_only(Tensor, torch.clone, call(*args, **kwargs))


def _adapted(net: nn.Module, settings: Settings) -> nn.Module:
    if settings.trainer.strategy == "fsdp":
        raise ConfigError("adapter: the frozen net below it is not sharded: take trainer=ddp, or adapter=none.")
    if lightning_class(net) is not None:
        raise ConfigError(f"adapter: {type(net).__name__} is a LightningModule: adapt its net in its __init__.")
    adapt = instantiate(settings.adapter, "adapter", settings.allow)
    with refusing("adapter"):
        return expect("adapter", adapt(net), nn.Module)
