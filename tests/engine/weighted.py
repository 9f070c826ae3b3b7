"""Updates whose losses are weighted means, cut into micro-batches and processes, and plain loops over the whole batch.

Started by the tests beside it, in this process or in the processes of a world.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from trainer.engine.clock import Clock
from trainer.engine.losses import WeightedLosses
from trainer.engine.lr_control import LRControl
from trainer.engine.step import ModelStep, PairStep, StepOutput
from trainer.engine.task import TokenCrossEntropy
from trainer.engine.update import Backward, Updater
from trainer.log.metric_buffer import MetricBuffer
from trainer.lr import Horizon, LRPolicy, compose, linear, no_warmup

SAMPLES, LENGTH, CLASSES, UPDATES, LR = 16, 6, 5, 5, 0.5
PAD = -100
CUTS = {1: (1, 2, 4), 2: (1, 2), 4: (1,)}
"""The micro-batches of an update, by the number of processes."""
WEIGHTS = torch.tensor([1.0, 2.0, 0.5, 7.0, 3.3], dtype=torch.float64)


class Language(nn.Module):
    """The logits (B, T, V) of each next token; with labels, the mean loss over those that follow a token, too."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(CLASSES, 4), nn.Linear(4, CLASSES)

    def forward(self, tokens: Tensor, labels: Tensor | None = None) -> Any:
        logits = self.head(self.embed(tokens).tanh())
        if labels is None:
            return logits
        loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=PAD)
        return SimpleNamespace(loss=loss, logits=logits)


def classifier() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, CLASSES))


def padded_step(net: nn.Module, batch: dict[str, Tensor], *, t: int) -> StepOutput:
    """A step as a user would write it: the mean over tokens that are no padding."""
    losses = functional.cross_entropy(net(batch["tokens"]).flatten(0, 1), batch["labels"].flatten(), reduction="none")
    count = (batch["labels"] != PAD).sum()
    return StepOutput(losses.sum() / count.clamp(min=1), count, {"longest": losses.max(), "t": t})


def mean_nll(logits: Tensor, targets: Tensor, counted: Tensor, weights: Tensor | None = None) -> Tensor:
    """Σ w[y] · -log p[y] / Σ w[y] over the counted targets, by hand."""
    logits, targets = logits.reshape(-1, CLASSES), targets.reshape(-1)
    kept = counted.reshape(-1)
    logs = logits[kept].log_softmax(-1).gather(1, targets[kept, None])[:, 0]
    each = torch.ones_like(logs) if weights is None else weights[targets[kept]]
    return -(each * logs).sum() / each.sum()


class Kind(NamedTuple):
    """A net, a step, batches, and the same loss on a whole batch by hand."""

    net: Callable[[], nn.Module]
    step: Callable[[], Any]
    batch: Callable[[torch.Generator], Any]
    by_hand: Callable[[nn.Module, Any], Tensor]


def labelled(ignored: int | None) -> Callable[[torch.Generator], Any]:
    """Pairs with classes; the last quarter is ignored as a whole, and some others."""

    def draw(generator: torch.Generator) -> Any:
        targets = torch.randint(CLASSES, (SAMPLES,), generator=generator)
        if ignored is not None:
            targets[torch.rand(SAMPLES, generator=generator) < 0.3] = ignored
            targets[-SAMPLES // 4 :] = ignored
        return torch.randn(SAMPLES, 3, generator=generator, dtype=torch.float64), targets

    return draw


def padded(generator: torch.Generator) -> dict[str, Tensor]:
    """Texts of different lengths with a label for each token; the padding has none."""
    tokens = torch.randint(CLASSES, (SAMPLES, LENGTH), generator=generator)
    lengths = torch.randint(1, LENGTH + 1, (SAMPLES, 1), generator=generator)
    lengths[: SAMPLES // 4] = 0
    return {"tokens": tokens, "labels": tokens.where(torch.arange(LENGTH) < lengths, PAD)}


def tagged(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    batch = padded(generator)
    return batch["tokens"], batch["labels"]


def many_labels(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    inputs, _ = labelled(None)(generator)
    return inputs, (torch.rand(SAMPLES, CLASSES, generator=generator) < 0.5).double()


def sharpness(logits: Tensor, targets: Tensor) -> Tensor:
    """A loss that is a mean over samples."""
    return logits.square().mean()


def pair(loss: Callable[[], Any]) -> Callable[[], PairStep]:
    return lambda: PairStep(loss())


KINDS = {
    "class_weights": Kind(
        classifier,
        pair(lambda: nn.CrossEntropyLoss(weight=WEIGHTS.clone())),
        labelled(None),
        lambda net, batch: mean_nll(net(batch[0]), batch[1], batch[1] >= 0, WEIGHTS),
    ),
    "ignored_class": Kind(
        classifier,
        pair(lambda: nn.CrossEntropyLoss(ignore_index=0)),
        labelled(0),
        lambda net, batch: mean_nll(net(batch[0]), batch[1], batch[1] != 0),
    ),
    "ignored_by_default": Kind(
        classifier,
        pair(nn.CrossEntropyLoss),
        labelled(PAD),
        lambda net, batch: mean_nll(net(batch[0]), batch[1], batch[1] != PAD),
    ),
    "function": Kind(
        classifier,
        pair(lambda: partial(functional.cross_entropy, ignore_index=0)),
        labelled(0),
        lambda net, batch: mean_nll(net(batch[0]), batch[1], batch[1] != 0),
    ),
    "nll": Kind(
        lambda: nn.Sequential(classifier(), nn.LogSoftmax(-1)),
        pair(lambda: nn.NLLLoss(WEIGHTS.clone(), ignore_index=1)),
        labelled(1),
        lambda net, batch: mean_nll(net(batch[0]), batch[1], batch[1] != 1, WEIGHTS),
    ),
    "tokens": Kind(
        Language,
        pair(lambda: TokenCrossEntropy(ignore_index=PAD)),
        tagged,
        lambda net, batch: mean_nll(net(batch[0]), batch[1], batch[1] != PAD),
    ),
    "own_step": Kind(
        Language,
        lambda: padded_step,
        padded,
        lambda net, batch: mean_nll(net(batch["tokens"]), batch["labels"], batch["labels"] != PAD),
    ),
    "model": Kind(
        Language,
        lambda: ModelStep("shifted_labels"),
        padded,
        lambda net, batch: mean_nll(
            net(batch["tokens"])[:, :-1], batch["labels"][:, 1:], batch["labels"][:, 1:] != PAD
        ),
    ),
    "several": Kind(
        classifier,
        lambda: WeightedLosses(
            {
                "rare": nn.CrossEntropyLoss(weight=WEIGHTS.clone(), ignore_index=1),
                "most": nn.CrossEntropyLoss(ignore_index=0),
                "sharp": sharpness,
            },
            {"most": 0.3, "sharp": 0.05},
        ),
        labelled(0),
        lambda net, batch: (
            mean_nll(net(batch[0]), batch[1], batch[1] != 1, WEIGHTS)
            + 0.3 * mean_nll(net(batch[0]), batch[1], batch[1] != 0)
            + 0.05 * net(batch[0]).square().mean()
        ),
    ),
    "many_labels": Kind(
        classifier,
        pair(lambda: nn.BCEWithLogitsLoss(weight=WEIGHTS.clone())),
        many_labels,
        lambda net, batch: (
            -(
                WEIGHTS * (batch[1] * net(batch[0]).sigmoid().log() + (1 - batch[1]) * (-net(batch[0])).sigmoid().log())
            ).mean()
        ),
    ),
}


class Micro(NamedTuple):
    batch: Any
    seed: int


def cut(batch: Any, place: int, pieces: int) -> Any:
    """One of the equal pieces of a batch."""
    if isinstance(batch, dict):
        return {name: cut(value, place, pieces) for name, value in batch.items()}
    return (
        tuple(part.chunk(pieces)[place] for part in batch) if isinstance(batch, tuple) else batch.chunk(pieces)[place]
    )


def started(kind: Kind) -> tuple[nn.Module, LRControl, torch.Generator]:
    torch.manual_seed(0)
    policy = LRPolicy(LR, 1.0, *compose(Horizon(UPDATES, 1), no_warmup, linear))
    return kind.net().double(), LRControl(policy), torch.Generator().manual_seed(1)


def flat(net: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])


def whole(name: str) -> dict[str, Any]:
    """Weights and losses of a plain loop over the whole batches."""
    kind = KINDS[name]
    net, control, generator = started(kind)
    optimizer, losses = torch.optim.SGD(net.parameters(), lr=LR, momentum=0.9), []
    for t in range(UPDATES):
        loss = kind.by_hand(net, kind.batch(generator))
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = control.policy.lr(t)
        optimizer.step()
        losses.append(loss.item())
    return {"weights": flat(net), "losses": losses}


def train(name: str, rank: int, world: int, accumulate: int, known: int | None = None) -> dict[str, Any]:
    """Weights, losses and logs of updates that are cut; with `known`, the updater takes that for the processes."""
    kind = KINDS[name]
    net, control, generator = started(kind)
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=0.9)
    control.attach(optimizer)
    backward: dict[str, Any] = {"device": torch.device("cpu"), "world": known or world}
    if world > 1:
        ddp = DistributedDataParallel(net, gradient_as_bucket_view=True)

        def prepare(_: Tensor) -> None:
            if ddp.require_backward_grad_sync:
                ddp.reducer.prepare_for_backward([])

        backward |= {"before_backward": prepare, "no_sync": ddp.no_sync}
    update = Updater(net, kind.step(), optimizer, control, Clock(), MetricBuffer(), Backward(**backward))
    for _ in range(UPDATES):
        batch = kind.batch(generator)
        pieces = [cut(batch, micro * world + rank, accumulate * world) for micro in range(accumulate)]
        update([Micro(piece, 0) for piece in pieces])
    columns = update.metric_buffer.columns(control.policy, lambda own: own)
    logs = {tag: columns[tag] for tag in ("train/longest", "train/t") if tag in columns}
    return {"weights": flat(net), "losses": columns["train/loss"], "logs": logs}


def train_all(rank: int, world: int, folder: Path) -> None:
    """Every kind and cut on this world, and a bug: each process takes its own weights for those of all."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world)
    for name in KINDS:
        for accumulate in CUTS[world]:
            torch.save(train(name, rank, world, accumulate), folder / f"{name}-{accumulate}x{world}.{rank}.pt")
    for name in ("class_weights", "own_step"):
        torch.save(train(name, rank, world, 4 // world, known=1), folder / f"alone-{name}.{rank}.pt")
    torch.distributed.destroy_process_group()
