"""Gaussian inputs with the targets of a fixed random teacher net, of any size."""

from typing import Any

import torch
from torch import Tensor

from data.bounds import integer
from data.module import DataModule, Splits
from data.source import Memory

_SEED, _HIDDEN = 0, 32


class Synthetic(DataModule):
    """x ~ N(0, I) of `features` numbers; the teacher is t(x) = tanh(x A / √features) B with Gaussian A and B.

    `kind` "classification" gives argmax t(x) over `classes` as int64 (N,), and "regression" t(x) as floats
    (N, 1), with `classes` 1. The run's seed changes only the order of the samples.
    """

    def __init__(
        self,
        *,
        kind: str,
        features: int,
        classes: int,
        samples: int,
        val_samples: int,
        test_samples: int,
        **base: Any,
    ) -> None:
        super().__init__(samples=integer("data.samples", samples), val_samples=val_samples, **base)
        if kind not in ("classification", "regression"):
            raise ValueError(f"data.kind={kind!r} is unknown: use 'classification' or 'regression'.")
        if (kind == "regression") != (integer("data.classes", classes) == 1):
            raise ValueError(f"data.classes={classes} does not fit {kind}: regression has 1, classification 2 or more.")
        self.kind, self.features, self.classes = kind, integer("data.features", features), classes
        self.sizes = [
            samples,
            val_samples,
            integer("data.test_samples", test_samples, 0),
        ]

    @property
    def shape(self) -> dict[str, int]:
        return {"in_features": self.features, "classes": self.classes}

    def read(self) -> Splits:
        inputs, outputs = self._teach(torch.Generator().manual_seed(_SEED))
        targets = outputs if self.kind == "regression" else outputs.argmax(dim=1)
        train, *held_out = zip(inputs.split(self.sizes), targets.split(self.sizes))
        return Splits(Memory(train), *(Memory(part) if len(part[0]) else None for part in held_out))

    def _teach(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        first = torch.randn(self.features, _HIDDEN, generator=generator) / self.features**0.5
        second = torch.randn(_HIDDEN, self.classes, generator=generator)
        inputs = torch.randn(sum(self.sizes), self.features, generator=generator)
        return inputs, torch.tanh(inputs @ first) @ second
