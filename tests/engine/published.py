"""Data, made here, as libraries of LightningModules read it: a table for TabularS3L, molecules for Chemprop, pairs of
states of a trajectory for mlcolvar."""

from typing import Any

import numpy as np
import pandas as pd
import torch

from data.module import DataModule, Splits
from data.source import Workers


class MaskedTable(DataModule):
    """Rows of two categories and six numbers that follow from three hidden ones; the library masks them."""

    def read(self) -> Splits:
        from ts3l.utils.vime_utils import VIMEConfig, VIMEDataset

        draw = np.random.default_rng(0)
        hidden = draw.normal(size=(500, 3))
        numbers = hidden @ draw.normal(size=(3, 6)) + 0.1 * draw.normal(size=(500, 6))
        table: dict[str, Any] = {f"x{i}": column for i, column in enumerate(numbers.T)}
        table |= {"kind": (hidden[:, 0] > 0) * 1 + (hidden[:, 0] > 1) * 1, "side": (hidden[:, 1] > 0) * 1}
        frame = pd.DataFrame(table)
        config = VIMEConfig.__new__(VIMEConfig)
        config.p_m, config.K = 0.3, 3
        columns = {"continuous_cols": [f"x{i}" for i in range(6)], "category_cols": ["kind", "side"]}
        parts = (frame[:400], frame[400:])
        return Splits(*(Workers(VIMEDataset(part, config=config, **columns)) for part in parts))


class Molecules(DataModule):
    """Chains of up to six atoms and their rings, each with the share of atoms that are no carbon."""

    def read(self) -> Splits:
        from chemprop.data import MoleculeDatapoint, MoleculeDataset, collate_batch

        parts = ("C", "N", "O", "S", "C(=O)", "C(F)")
        words = [f"{end}{a}{b}C{c}" for end in ("C", "CC1CC1") for a in parts for b in parts for c in parts]
        targets = [[sum(word.count(atom) for atom in "NOSF") / 5] for word in words]
        points = [MoleculeDatapoint.from_smi(word, target) for word, target in zip(words, targets)]
        order = np.random.default_rng(0).permutation(len(points))
        held_out = [points[i] for i in order[:72]], [points[i] for i in order[72:]]
        val, train = (Workers(MoleculeDataset(part), collate_fn=collate_batch) for part in held_out)
        return Splits(train, val)


def lagged_pairs(count: int, seed: int, lag: int = 4) -> Any:
    """States of a walk between two wells, each with the state `lag` steps later and weights, as mlcolvar's data set."""
    from mlcolvar.data import DictDataset

    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(20 * (count + lag), generator=generator)
    position, slow = torch.tensor(1.0), []
    for kick in noise:
        position = position - 0.04 * position * (position**2 - 1) + 0.2 * kick
        slow.append(position)
    walk = torch.stack(slow)[::20]
    other = torch.randn(len(walk), generator=generator)
    states = torch.stack([walk + other**2, other, walk - other], 1)
    weights = 0.5 + torch.rand(count, 2, generator=generator)
    pair = {"data": states[:count], "data_lag": states[lag:]}
    return DictDataset({**pair, "weights": weights[:, 0], "weights_lag": weights[:, 1]})


def lagged_module(batch_size: int) -> Any:
    """The same data as mlcolvar's own data module."""
    from mlcolvar.data import DictModule

    generator = torch.Generator().manual_seed(2)
    return DictModule(lagged_pairs(900, 0), lengths=(2 / 3, 1 / 3), batch_size=batch_size, generator=generator)
