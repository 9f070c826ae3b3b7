"""Trains the same global batch on so many processes and so many micro-batches, and leaves weights and log in a file.

Started by the tests beside it, in this process or in the processes of a world.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from hydra import compose, initialize_config_dir
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from tests.distributed.worlds import ROOT
from trainer.cli.hydra_internals import VERSION_BASE
from trainer.cli.run_id import register_run_id
from trainer.distributed.consistency import ConsistencyCheck
from trainer.optim.shards import gather
from trainer.run import Parts, assemble, fit

GLOBAL, UPDATES = 16, 50
OPTIMIZERS = {
    "momentum": ["optimizer=momentum", "optimizer.lr=0.1"],
    "adamw": ["optimizer=adamw", "optimizer.lr=0.01"],
    "muon": ["optimizer=muon", "optimizer.lr=0.02"],
}


NORMED = ["model.norm=batch"]


def assembled(folder: Path, world: int, accumulate: int, *words: str, resumed: Path | None = None) -> Parts:
    """A run of 50 updates of 16 digits in float64, cut for this world."""
    register_run_id()
    common = [
        *([] if any(word.startswith("model=") for word in words) else ["model.hidden=[16,16]"]),
        *(f"data.batch_size={GLOBAL // (world * accumulate)}", "trainer.precision=64-true"),
        *(f"trainer.devices={world}", f"trainer.accumulate={accumulate}", f"trainer.duration={UPDATES}"),
        *(
            "warmup.duration=5",
            "trainer.validate=25",
            "trainer.accelerator=cpu",
            "trainer.threads=1",
            "callbacks=none",
            "name=x",
        ),
    ]
    with initialize_config_dir(str(ROOT / "conf"), **VERSION_BASE):
        return assemble(compose("train", [*common, *words]), folder, resumed)


def weights(net: nn.Module) -> Tensor:
    """All weights in one vector, put together where each process holds a part."""
    return torch.cat([gather(parameter.detach()).flatten() for parameter in net.parameters()])


def train(folder: Path, world: int, accumulate: int, *words: str, plant: Callable[[Parts], Any] = lambda a: None):
    """The weights after 50 updates and every logged number; `plant` puts a bug into the run."""
    assembly = assembled(folder, world, accumulate, *words)
    plant(assembly)
    rates: list[list[float]] = []
    configure = assembly.module.configure_optimizers

    def watched() -> torch.optim.Optimizer:
        optimizer = configure()
        optimizer.register_step_post_hook(lambda opt, *_: rates.append([group["lr"] for group in opt.param_groups]))
        return optimizer

    assembly.module.configure_optimizers = watched  # type: ignore[method-assign]
    fit(assembly)
    for logger in assembly.trainer.loggers:
        logger.close()  # type: ignore[attr-defined]
    scores = assembly.checkpointing.best["scores"]
    return {"weights": weights(assembly.module.net), "rates": rates, "logged": logged(folder), "scores": scores}


def logged(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The learning rates in the event file, by tag; nothing on the ranks that write none."""
    if not any(folder.glob("events.out.tfevents*")):
        return {}
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag.startswith("lr/")]
    return {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in tags}


def splits(world: int) -> list[int]:
    """How many micro-batches are accumulated on a world of this size."""
    return {1: [1, 2, 4], 2: [1, 2], 4: [1]}[world]


def train_all(rank: int, world: int, folder: Path, names: Sequence[str]) -> None:
    """Each of these optimizers with every accumulation on this world, one after the other, in one process group."""
    for name in names:
        for accumulate in splits(world):
            where = folder / f"{name}-{world}x{accumulate}"
            torch.save(train(where, world, accumulate, *OPTIMIZERS[name]), folder / f"{where.name}.{rank}.pt")


def own_shuffle(assembly: Parts) -> None:
    """A bug: each rank shuffles for itself, and nobody compares."""
    data, trainer = assembly.data, assembly.trainer
    trainer.callbacks = [one for one in trainer.callbacks if not isinstance(one, ConsistencyCheck)]  # type: ignore
    make = data.train_dataloader

    def planted() -> Any:
        data.seed = trainer.global_rank  # type: ignore[attr-defined]
        return make()

    data.train_dataloader = planted  # type: ignore[method-assign]


def louder(times: float) -> Callable[[Parts], None]:
    """A bug: the loss is scaled, as by the world size, or for want of a division by the accumulation."""

    def plant(assembly: Parts) -> None:
        assert isinstance(assembly.module.step.loss, nn.Module)
        assembly.module.step.loss.register_forward_hook(lambda loss, inputs, value: times * value)

    return plant


def train_more(rank: int, world: int, folder: Path) -> None:
    """What must differ, and BatchNorm apart and together; how often gradients were exchanged; scores of odd splits."""
    runs: dict[str, tuple[int, list[str], Callable[[Parts], Any]]] = {
        "own_shuffle": (1, OPTIMIZERS["momentum"], own_shuffle),
        "times_world": (1, OPTIMIZERS["momentum"], louder(world)),
        "no_division": (2, OPTIMIZERS["momentum"], louder(2)),
        "norm": (1, NORMED, lambda assembly: None),
        "sync_norm": (1, [*NORMED, "trainer.sync_batchnorm=true"], lambda assembly: None),
    }
    for name, (accumulate, words, plant) in runs.items():
        torch.save(train(folder / name, world, accumulate, *words, plant=plant), folder / f"{name}.{rank}.pt")
    torch.save(exchanges(folder / "exchanges", world), folder / f"exchanges.{rank}.pt")


def exchanges(folder: Path, world: int, accumulate: int = 4) -> list[int]:
    """The gradient buckets that were exchanged in each of 50 updates of four micro-batches."""
    assembly = assembled(folder, world, accumulate, "optimizer=momentum")
    seen: list[int] = []
    start = assembly.module.on_fit_start

    def hooked() -> None:
        start()
        ddp = assembly.trainer.strategy.model

        def count(state: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
            seen.append(assembly.module.clock.t)
            return allreduce_hook(dist.group.WORLD, bucket)

        ddp.register_comm_hook(None, count)  # type: ignore[union-attr, operator]

    assembly.module.on_fit_start = hooked  # type: ignore[method-assign]
    fit(assembly)
    return [seen.count(t) for t in range(UPDATES)]


def score(rank: int, world: int, folder: Path) -> None:
    """The scores of the starting weights on 43 and 41 samples, which no number of processes divides."""
    odd = ["data=synthetic", "data.samples=64", "data.val_samples=43", "data.test_samples=41", "data.eval_batch_size=8"]
    assembly = assembled(folder / f"score{world}", world, 1, *odd, f"data.batch_size={12 // world}")
    module, data, trainer = assembly.module, assembly.data, assembly.trainer
    seen: list[int] = []
    measure = module._score
    module._score = lambda stage, batch, i: (seen.append(len(batch[1])), measure(stage, batch, i))  # type: ignore
    scores: dict[str, float] = {}
    for check in (trainer.validate, trainer.test):
        check(module, datamodule=data, verbose=False)
        scores |= {name: value.item() for name, value in trainer.callback_metrics.items()}
    torch.save({"samples": seen, "scores": scores}, folder / f"score{world}.{rank}.pt")
