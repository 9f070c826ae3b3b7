"""The random generators of this process that transforms draw from: torch's, numpy's and Python's."""

import random
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch.utils.data import get_worker_info


def seed_generators(seed: int) -> None:
    """Seed all three; torch's on the CPU only."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002
    random.seed(seed)


def restored_generators() -> AbstractContextManager[None]:
    """Afterwards the generators are as they were. In a worker of a loader nothing else draws, and they may differ."""
    return nullcontext() if get_worker_info() is not None else isolate_rng(include_cuda=False)
