"""Trains on one process, with ddp and with fsdp, and leaves weights, log, checkpoints and what was exchanged in files.

Started by the tests beside it, in this process or in the processes of a world.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from hydra import compose, initialize_config_dir
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.optim import Optimizer

from tests.distributed.worlds import ROOT
from tests.engine.equality import assembled, weights
from trainer.checkpoint.io import checkpoint_path, read
from trainer.cli.hydra_internals import VERSION_BASE
from trainer.config.model_data import build_model
from trainer.config.settings import settings_of
from trainer.config.sharding import check_sharded
from trainer.distributed.fsdp import adapt_optimizer, shard_net
from trainer.engine.averaging import averages
from trainer.engine.update import Diverged
from trainer.optim.composite import keep_configured
from trainer.optim.shards import gather, local
from trainer.run import Parts, evaluate, fit

ADAMW = ["optimizer=adamw", "optimizer.lr=0.01"]
SHORT = ["trainer.duration=20", "trainer.validate=10", "logger=none"]
OPTIMIZERS = (
    *("sgd", "nesterov", "adagrad", "adadelta", "rmsprop", "adam", "adamax", "nadam", "radam", "adabound", "ademamix"),
    *("lion", "schedule_free_sgd", "schedule_free_adamw", "rmsprop_tf", "cautious_adamw", "lamb", "lookahead"),
)
"""Those that `trainer.config.sharding` lets pass, beside momentum and adamw, which get longer runs."""
EVERYTHING = [
    *ADAMW,
    *("trainer.clip=0.05", "measure=norms", "average=ema", "trainer.gradient_noise=0.01"),
    *("model.norm=batch", "trainer.sync_batchnorm=true", "model.hidden=[17,5]"),
]
LONG: dict[str, list[str]] = {
    "momentum": ["optimizer=momentum", "optimizer.lr=0.1", "average=swa", "average.start=50%", "average.every=5"],
    "adamw": ADAMW,
    "everything": EVERYTHING,
}
"""Runs of 50 updates."""
CUTS = {
    "momentum": [(2, 2), (4, 1)],
    "adamw": [(2, 1), (2, 4)],
    "everything": [(2, 1)],
}
KINDS: dict[str, list[str]] = {
    "one": [],
    "ddp": ["trainer.strategy=ddp"],
    "fsdp": ["trainer.strategy=fsdp"],
}
RESUMED = [*ADAMW, "trainer.checkpoint=20", "trainer.keep=0", "average=ema", "logger=none", "model.dropout=0.3"]
MIDDLE = 20
BFLOAT = [*ADAMW, "trainer.precision=bf16-mixed", *SHORT]
GPT = [
    *("data=text", "data.context=8", "model=gpt", "model.layers=2", "model.heads=3", "model.width=15"),
    *("task=language_modelling", "trainer.clip=0.5", *SHORT),
]
"""A net whose head is tied to its embedding; no dimension of it divides by two."""
Plant = Callable[[Parts], Any]


def ended(assembly: Parts) -> dict[str, Any]:
    """The weights at the end, the scores, and what is in the event file of rank 0."""
    for logger in assembly.trainer.loggers:
        logger.close()  # type: ignore[attr-defined]
    scores = assembly.checkpointing.best["scores"]
    return {"weights": weights(assembly.module.net), "scores": scores, "logged": logged(assembly.folder)}


def logged(folder: Path) -> dict[str, list[float]]:
    """What is in the event file of each update, by tag; nothing on the ranks that write none."""
    if not any(folder.glob("events.out.tfevents*")):
        return {}
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag.startswith(("lr/", "train/", "measure/", "val/"))]
    return {tag: [point.value for point in events.Scalars(tag)] for tag in tags}


def train(folder: Path, world: int, accumulate: int, *words: str, plant: Plant = lambda a: None) -> dict[str, Any]:
    """The end of a run."""
    assembly = assembled(folder, world, accumulate, *words)
    plant(assembly)
    fit(assembly)
    return ended(assembly)


def go_on(folder: Path, world: int, kind: str, point: Path | None) -> None:
    """A run of 50 updates from a checkpoint, or from the start; its weights and test scores are kept."""
    words = [*RESUMED, *KINDS[kind], *([f"resume.path={point}"] if point else [])]
    assembly = assembled(folder, world, 2 // world, *words, resumed=point)
    fit(assembly)
    end = ended(assembly) | {"test": evaluate(assembly)}
    torch.save(end, folder.parent / f"{folder.name}.{assembly.trainer.global_rank}.pt")


def middle(place: Path, kind: str) -> Path:
    """The checkpoint in the middle of the unbroken run of this kind."""
    return checkpoint_path(place / f"whole-{kind}" / "checkpoints", MIDDLE)


def alone(place: Path) -> None:
    """What one process does: each run, and a run that is stopped."""
    for name, words in LONG.items():
        torch.save(train(place / name, 1, 1, *words), place / f"{name}.pt")
    (place / "words.txt").write_text("the quick brown fox jumps over the lazy dog, and once more.\n" * 40)
    torch.save(train(place / "gpt", 1, 1, *GPT, f"data.path={place / 'words.txt'}"), place / "gpt.pt")
    go_on(place / "whole-one", 1, "one", None)


def together(rank: int, world: int, place: Path) -> None:
    """What several processes do with fsdp, one run after the other in one process group."""
    fsdp = KINDS["fsdp"]
    for name, cuts in CUTS.items():
        for accumulate in (accumulate for size, accumulate in cuts if size == world):
            where = place / f"{name}-{world}x{accumulate}"
            torch.save(train(where, world, accumulate, *LONG[name], *fsdp), place / f"{where.name}.{rank}.pt")
    if world != 2:
        return
    bug = train(place / "summed", 2, 1, *LONG["momentum"], *fsdp, plant=summed)
    torch.save(bug, place / f"summed.{rank}.pt")
    torch.save({name: stepped(name, rank) for name in OPTIMIZERS}, place / f"stepped.{rank}.pt")
    words = [*GPT, f"data.path={place / 'words.txt'}", *fsdp]
    torch.save(train(place / "gpt-2", 2, 2, *words), place / f"gpt-2.{rank}.pt")
    for kind in ("ddp", "fsdp"):
        torch.save(train(place / f"bf16-{kind}", 2, 1, *BFLOAT, *KINDS[kind]), place / f"bf16-{kind}.{rank}.pt")
    torch.save(looked_at(place / "looked", rank), place / f"looked.{rank}.pt")
    torch.save(diverged(place / "diverged", rank), place / f"diverged.{rank}.pt")
    go_on(place / "whole-fsdp", 2, "fsdp", None)
    go_on(place / "whole-ddp", 2, "ddp", None)
    for before, after in (("fsdp", "fsdp"), ("fsdp", "ddp"), ("ddp", "fsdp"), ("one", "fsdp")):
        go_on(place / f"{before}-to-{after}", 2, after, middle(place, before))


def summed(assembly: Parts) -> None:
    """A bug: gradients are added over the processes, and not divided."""
    start = assembly.module.on_fit_start

    def planted() -> None:
        start()
        for module in assembly.module.net.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)

    assembly.module.on_fit_start = planted  # type: ignore[method-assign]


def stepped(name: str, rank: int) -> dict[str, float]:
    """How far an optimizer of parts is from one of the whole: after 10 steps, in its state, and 5 steps on from it."""
    with initialize_config_dir(str(ROOT / "conf"), **VERSION_BASE):
        cfg = compose("train", [f"optimizer={name}", "trainer=fsdp", "name=x"])
    mesh, nets, optimizers = init_device_mesh("cpu", (2,)), [], []
    for shared in (False, True, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 7), nn.Tanh(), nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 1)).double()
        settings = settings_of(cfg)
        model = build_model(settings.curve, net, settings.full_batch)
        groups, make = model.groups, model.optimizer
        check_sharded(settings, net, make())
        if shared:
            shard_net(net, groups, mesh)
        optimizer = make()
        optimizer.register_load_state_dict_pre_hook(keep_configured)
        if shared:
            adapt_optimizer(optimizer)
        if averages(optimizer):
            optimizer.train()  # type: ignore[attr-defined]
        nets.append(net)
        optimizers.append(optimizer)
    inputs = torch.randn(15, 16, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for batch in inputs[:10]:
        step(nets[0], optimizers[0], batch)
        step(nets[1], optimizers[1], batch[rank::2])
    found = {"weights": (weights(nets[1]) - weights(nets[0])).abs().max().item()}
    state, ours = optimizers[0].state_dict(), gather(optimizers[1].state_dict())
    found["state"] = farthest(ours["state"], state["state"])
    nets[2].load_state_dict(nets[0].state_dict())
    optimizers[2].load_state_dict(copy.deepcopy(state))
    for batch in inputs[10:]:
        step(nets[0], optimizers[0], batch)
        step(nets[2], optimizers[2], batch[rank::2])
    found["on"] = (weights(nets[2]) - weights(nets[0])).abs().max().item()
    return found


def step(net: nn.Module, optimizer: Optimizer, inputs: Tensor) -> None:
    """One update towards the sum of the inputs."""
    (net(inputs)[:, 0] - inputs.sum(1)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def farthest(one: Any, other: Any) -> float:
    """The largest difference of two trees of the same names and shapes."""
    if isinstance(other, dict):
        assert one.keys() == other.keys()
        return max([farthest(one[key], other[key]) for key in other], default=0.0)
    if isinstance(other, Tensor):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        return (one - other).abs().max().item()
    return abs(one - other) if isinstance(other, int | float) else 0.0


def looked_at(folder: Path, rank: int) -> dict[str, Any]:
    """The reduce-scatters in each update of four micro-batches, and how much of the net and its state a rank holds."""
    assembly = assembled(folder, 2, 4, *ADAMW, *SHORT, *KINDS["fsdp"])
    seen: list[int] = []
    scatter = dist.reduce_scatter_single

    def counted(*args: Any, **kwargs: Any) -> Any:
        seen.append(assembly.module.clock.t)
        return scatter(*args, **kwargs)

    dist.reduce_scatter_single = counted
    try:
        fit(assembly)
    finally:
        dist.reduce_scatter_single = scatter
    (optimizer,) = assembly.trainer.optimizers
    moments = [value for state in optimizer.state.values() for key, value in state.items() if key != "step"]
    parameters = list(assembly.module.net.parameters())
    return {
        "scattered": [seen.count(t) for t in range(20)],
        "parameters": [sum(local(one.detach()).numel() for one in parameters), sum(one.numel() for one in parameters)],
        "moments": [sum(local(one).numel() for one in moments), sum(one.numel() for one in moments)],
    }


def diverged(folder: Path, rank: int) -> str:
    """What a rank says where the loss of rank 1 alone is not finite in the sixth update."""
    assembly = assembled(folder, 2, 1, *ADAMW, *SHORT, *KINDS["fsdp"])
    module = assembly.module
    assert isinstance(module.step.loss, nn.Module)

    def plant(loss: nn.Module, inputs: Any, value: Tensor) -> Tensor:
        return value * torch.nan if module.clock.t == 5 and rank == 1 else value

    module.step.loss.register_forward_hook(plant)
    try:
        fit(assembly)
    except Diverged as error:
        return str(error)
    return "went on"


def state_of(path: Path) -> dict[str, Any]:
    """A checkpoint's weights, optimizer state and average, as one level of names."""
    checkpoint = read(path)
    (optimizer,) = checkpoint["optimizer_states"]
    moments = {f"{i}.{key}": value for i, part in optimizer["state"].items() for key, value in part.items()}
    means = {f"mean.{name}": value for name, value in checkpoint["averaging"]["mean"].items()}
    return {**checkpoint["state_dict"], **moments, **means}
