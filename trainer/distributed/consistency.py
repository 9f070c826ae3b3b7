"""Before the first update the processes of a run compare what they are about to do, and refuse to differ."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import Tensor

from trainer.engine.module import Module
from trainer.lr import ConfigError

CONSEQUENCES = ("the plan", "weights", "training samples", "first batch", "first samples")
"""Claims that are told only where nothing differs from which they follow."""
_MOST = 4
"""Differences that are told."""


class ConsistencyCheck(pl.Callback):
    """Gathers what each rank claims of its config, plan, code, data and weights; each claim is a short text by name.

    Where ranks differ, rank 0 raises a ConfigError that names them and what differs, and the others leave with it.
    """

    def __init__(self, claims: Mapping[str, str]) -> None:
        self.claims = dict(claims)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Compare, after each rank has made its own weights and before one overwrites those of the others."""
        if stage != "fit" or trainer.world_size == 1:
            return
        assert isinstance(pl_module, Module)
        of_data = getattr(trainer.datamodule, "claims", dict)  # type: ignore[attr-defined]
        own = {**self.claims, **of_data(), "weights": digest(pl_module.net.state_dict().values())}
        told = difference(gathered(own))
        if told is None:
            return
        if trainer.global_rank == 0:
            raise ConfigError(told)
        raise SystemExit(2)


def gathered(own: dict[str, str]) -> list[dict[str, str]]:
    """The claims of all ranks where they differ, else those of this one."""
    short = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()
    shorts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(shorts, short)
    if len(set(shorts)) == 1:
        return [own]
    everybody: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everybody, own)
    return everybody


def difference(everybody: list[dict[str, str]]) -> str | None:
    """In which claims which ranks differ from rank 0, in one line; None where all are alike.

    >>> difference([{"optimizer.lr": "0.1"}, {"optimizer.lr": "0.1"}, {"optimizer.lr": "0.2"}])
    'rank 2 differs from rank 0: optimizer.lr is 0.2, not 0.1. Start all with one command, on the same code and data.'
    """
    first = everybody[0]
    ranks = [rank for rank, claims in enumerate(everybody) if claims != first]
    if not ranks:
        return None
    other = everybody[ranks[0]]
    differ = [key for key in {**first, **other} if first.get(key) != other.get(key)]
    keys = [key for key in differ if key not in CONSEQUENCES] or differ
    told = [f"{key} is {other.get(key, 'not set')}, not {first.get(key, 'set')}" for key in keys[:_MOST]]
    more = [f"and {len(keys) - _MOST} more"] if len(keys) > _MOST else []
    who = f"rank {ranks[0]} differs" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))} differ"
    return f"{who} from rank 0: {'; '.join(told + more)}. Start all with one command, on the same code and data."


def digest(tensors: Iterable[Tensor]) -> str:
    """A short hash of the bits of tensors."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:12]
