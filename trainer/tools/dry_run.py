"""A dry run: all that a training does before its first update, and one forward pass; nothing is trained or written.

`cadence train --dry-run` calls it. The ranks of a distributed run are started and compare themselves, too.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from trainer.checkpoint.owned_folder import owned
from trainer.cli.streams import shown
from trainer.config.components import Parts, build
from trainer.config.resolve import resolve
from trainer.config.run_summary import show_start
from trainer.config.settings import Settings
from trainer.distributed.consistency import ConsistencyCheck
from trainer.distributed.launch.folder_lock import FolderLock, remove_empty
from trainer.engine.failed_batch import OF_BATCHES, explained_update
from trainer.engine.module import Module
from trainer.engine.plateau import PlateauControl
from trainer.engine.rehearsal import check_step, eager
from trainer.measure.memory import Memory, kept_for_backward, memory_of
from trainer.resume.resume_point import resume_point
from trainer.resume.stopped_early import check_not_completed
from trainer.sweep.checked_jobs import READY
from trainer.tools.plan.tables import align, format_milestones, format_sketches

DEPTH, ROWS = 2, 40
"""How deep layers are nested that have a row of their own, and the most rows."""
NOTES = {
    "activations": "what a forward pass keeps, one micro-batch",
    "in all": "in each process, without operations' buffers",
}
"""What is meant by a row of the memory."""
KEPT = (ConsistencyCheck, PlateauControl)
"""The callbacks that are called: others act on a training, or write files."""


class Examined(Exception):  # noqa: N818
    """The first batch was examined, and the fit ends."""


@dataclass(frozen=True)
class Layer:
    """A row of the table of layers; `shape` is that of its output for the first micro-batch, where it is known."""

    name: str
    kind: str
    shape: str
    parameters: int


def dry_run(settings: Settings) -> None:
    """Check a training and show what it would be: the table at its start, its curve, its layers, its memory.

    Refuses what the training would refuse before its first update.
    """
    folder, trainer = Path(HydraConfig.get().runtime.output_dir), settings.trainer
    lock = FolderLock(folder)
    with owned(lock, trainer.devices, trainer.nodes, trainer.timeout) as monitor:
        parts = build(resolve(settings, resume_point(settings.resume, folder)), folder, monitor)
        if not parts.resolved.changed:
            check_not_completed(parts.resolved.checkpoint, folder, parts.trainer, settings.record["callbacks"])
        show = parts.trainer.is_global_zero
        if show:
            show_start(parts)
            print(shown("\n".join(["", *format_curve(parts)])), flush=True)
        found = examined(parts)
        monitor.finish()
        if show:
            print(shown("\n".join(format_found(parts, found))), flush=True)
    if lock.fresh:
        remove_empty([folder])  # another rank may have made it


class FirstBatch(pl.Callback):
    """Passes the first micro-batch through the net and the loss, then ends the fit by raising `Examined`."""

    loss: float | None = None
    memory: Memory
    layers: Sequence[Layer] = ()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, i: int) -> None:
        """The first update is there."""
        assert isinstance(pl_module, Module)
        update = trainer.precision_plugin.convert_input(batch[0])
        activations = None if pl_module.hooks.optimizes_by_hand else self._forward(trainer, pl_module, update)
        self.layers = self.layers or layers_of(pl_module.net, {})
        self.memory = memory_of(pl_module, activations)
        raise Examined

    def _forward(self, trainer: pl.Trainer, module: Module, update: Any) -> int:
        """The bytes that the forward pass of the first micro-batch keeps."""
        module.spec.check_batch(module.clock.t, update)
        check_step(module, update[0].batch)
        with (
            trainer.precision_plugin.train_step_context(),
            eager(module.net),
            shapes_of(module.net) as shapes,
            kept_for_backward(module.net) as kept,
        ):
            try:
                module.hooks.begin_update()
                output = module.run_step(module.hooks.begin_batch(0, update[0].batch))
            except OF_BATCHES as error:
                found = explained_update(error, module, update)
                raise found from (None if found is error else error)
        self.loss, self.layers = output.loss.item(), layers_of(module.net, shapes)
        return kept.total


def examined(parts: Parts) -> FirstBatch:
    """What the fit of a run meets before its first update."""
    trainer: Any = parts.trainer
    found = FirstBatch()
    trainer.callbacks = [*(one for one in trainer.callbacks if isinstance(one, KEPT)), found]
    trainer.loggers = []
    if (checkpoint := parts.resolved.checkpoint) is not None:
        trainer.precision_plugin.convert_module(parts.module)
        trainer.strategy.checkpoint_io.preload(checkpoint.path, checkpoint.content)
    try:
        path = None if checkpoint is None else checkpoint.path
        trainer.fit(parts.module, datamodule=parts.data, ckpt_path=path, weights_only=True)
    except Examined:
        parts.data.teardown("fit")
    return found


@contextmanager
def shapes_of(net: nn.Module) -> Iterator[dict[str, str]]:
    """The shape of the first output of each layer that is called in this context, by the layer's name."""
    shapes: dict[str, str] = {}

    def noted(name: str) -> Any:
        def note(layer: nn.Module, given: Any, output: Any) -> None:
            first = next((one for one in tree_leaves(output) if isinstance(one, Tensor)), None)
            if first is not None:
                shapes.setdefault(name, " × ".join(map(str, first.shape)) or "a scalar")

        return note

    hooks = [layer.register_forward_hook(noted(name)) for name, layer in net.named_modules()]
    try:
        yield shapes
    finally:
        for hook in hooks:
            hook.remove()


def layers_of(net: nn.Module, shapes: dict[str, str]) -> list[Layer]:
    """The net and the layers in it, to the depth at which they fill no more than `ROWS` rows."""
    named = [(name, layer) for name, layer in net.named_modules() if len(name.split(".")) <= DEPTH]
    if len(named) > ROWS:
        named = [(name, layer) for name, layer in named if "." not in name]
    return [
        Layer(
            name="  " * name.count(".") + name.rpartition(".")[2] if name else "net",
            kind=type(layer).__name__,
            shape=shapes.get(name, ""),
            parameters=sum(parameter.numel() for parameter in layer.parameters()),
        )
        for name, layer in named
    ]


def format_curve(parts: Parts) -> list[str]:
    """A sketch of the learning rate, and the updates at which something happens."""
    plan = parts.resolved.plan
    return [*format_sketches(plan, height=6), "", *format_milestones(plan)]


def format_found(parts: Parts, found: FirstBatch) -> list[str]:
    """The layers, the first loss, the memory, and a line that sums up."""
    layers = [(one.name, one.kind, one.shape, f"{one.parameters:,}") for one in found.layers[:ROWS]]
    more = [f"… and {len(found.layers) - ROWS} more"] if len(found.layers) > ROWS else []
    loss = [] if found.loss is None else [f"loss        {found.loss:.5g} of the first micro-batch, before any update"]
    horizon, plan = parts.module.horizon, parts.resolved.plan.summary()
    size = f"{horizon.total} updates of {horizon.batch_size} samples, peak {plan['peak_lr']:g}"
    return [
        *align([("layer", "", "output", "parameters"), *layers], words=3),
        *more,
        "",
        *loss,
        *format_memory(found.memory),
        f"{READY} {size}, about {format_bytes(found.memory.total)}; nothing was trained",
    ]


def format_memory(memory: Memory) -> list[str]:
    """A row for each part of the memory, and their sum."""
    sizes = [(name, format_bytes(size)) for name, size in [*memory.items(), ("in all", memory.total)]]
    return [
        f"{'' if i else 'memory':<12}{name:<11}{size:>9}  {NOTES.get(name, '')}".rstrip()
        for i, (name, size) in enumerate(sizes)
    ]


def format_bytes(size: float) -> str:
    """A size in the unit that fits.

    >>> format_bytes(123), format_bytes(45_678), format_bytes(1.5e9)
    ('123 B', '45.7 kB', '1.5 GB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
