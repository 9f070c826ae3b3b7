"""Before the first update the ranks compare config, code, data and weights; where they differ, the run is refused."""

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
"""Claims that follow from others: named only where nothing else differs."""
_MOST = 4
"""How many differences are named."""


class ConsistencyCheck(pl.Callback):
    """Compares the config, plan, code, data and weights of all ranks, each as a short text by name: its claims.

    Where ranks differ, rank 0 raises a ConfigError that names them and what differs, and the others exit with
    the same code.
    """

    def __init__(self, claims: Mapping[str, str]) -> None:
        self.claims = dict(claims)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Compare, after each rank has made its own weights and before DDP overwrites them with those of rank 0."""
        if stage != "fit" or trainer.world_size == 1:
            return
        assert isinstance(pl_module, Module)
        of_data = getattr(trainer.datamodule, "claims", dict)  # type: ignore[attr-defined]
        own = {**self.claims, **of_data(), "weights": hash_tensors(pl_module.net.state_dict().values())}
        found = describe_difference(gather_claims(own))
        if found is None:
            return
        if trainer.global_rank == 0:
            raise ConfigError(found)
        raise SystemExit(2)


def gather_claims(own: dict[str, str]) -> list[dict[str, str]]:
    """The claims of all ranks where they differ, else those of this one."""
    short = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()
    shorts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(shorts, short)
    if len(set(shorts)) == 1:
        return [own]
    everybody: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everybody, own)
    return everybody


def describe_difference(everybody: list[dict[str, str]]) -> str | None:
    """Which ranks differ from rank 0, and in which claims, in one line; None where all are alike.

    >>> describe_difference([{"optimizer.lr": "0.1"}, {"optimizer.lr": "0.1"}, {"optimizer.lr": "0.2"}])
    'rank 2 differs from rank 0: optimizer.lr is 0.2, not 0.1. Start all with one command, on the same code and data.'
    """
    first = everybody[0]
    ranks = [rank for rank, claims in enumerate(everybody) if claims != first]
    if not ranks:
        return None
    other = everybody[ranks[0]]
    differ = [key for key in {**first, **other} if first.get(key) != other.get(key)]
    keys = [key for key in differ if key not in CONSEQUENCES] or differ
    differences = [f"{key} is {other.get(key, 'not set')}, not {first.get(key, 'set')}" for key in keys[:_MOST]]
    more = [f"and {len(keys) - _MOST} more"] if len(keys) > _MOST else []
    who = f"rank {ranks[0]} differs" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))} differ"
    return f"{who} from rank 0: {'; '.join(differences + more)}. Start all with one command, on the same code and data."


def hash_tensors(tensors: Iterable[Tensor]) -> str:
    """A short hash of the bits of tensors."""
    bits = hashlib.sha256()
    for tensor in tensors:
        bits.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return bits.hexdigest()[:12]
