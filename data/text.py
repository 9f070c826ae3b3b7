"""A text file as a sequence of characters."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.bounds import integer
from data.module import DataModule, Splits
from data.order import Pick, mix
from data.size import cut, has_windows_line_ends, phased_windows, text

_PHASE = -1  # in place of a slice index, which is never negative


class Windows:
    """Non-overlapping windows of `context` tokens; the targets are the tokens one later.

    With a `seed` the first window starts at a phase in [0, context) drawn for each epoch, else at the first token.
    """

    def __init__(self, tokens: Tensor, context: int, seed: int | None = None) -> None:
        self.tokens, self.context, self.seed = tokens, context, seed
        self._reach = torch.arange(context, device=tokens.device)

    @property
    def home(self) -> torch.device:
        return self.tokens.device

    def __len__(self) -> int:
        if self.seed is None:
            return (len(self.tokens) - 1) // self.context
        return phased_windows(len(self.tokens), self.context)

    def to(self, device: torch.device) -> "Windows":
        return Windows(self.tokens.to(device), self.context, self.seed)

    def batches(self, picks: Iterable[Pick]) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and targets, (N, context) int64 each."""
        for epoch, indices, _ in picks:
            first = self.phase(epoch) + indices * self.context
            positions = first[:, None] + self._reach
            yield self.tokens[positions].long(), self.tokens[positions + 1].long()

    def phase(self, epoch: int) -> int:
        """Where the first window of an epoch starts."""
        return 0 if self.seed is None else mix(self.seed, epoch, _PHASE) % self.context


class Text(DataModule):
    """A UTF-8 file, one token per character; the vocabulary is the sorted set of its characters.

    The last `test_fraction` of the file is for test, `val_fraction` before it for validation. A sample is a window of
    `context` tokens. FileNotFoundError without the file; ValueError where it is too short for this split, or has
    characters that are not in the vocabulary of a trained run.
    """

    def __init__(
        self,
        *,
        path: str,
        context: int,
        val_fraction: float = 0.1,
        test_fraction: float = 0.0,
        tokens_per_sample: int | None = None,
        **base: Any,
    ) -> None:
        tokens = integer("data.context", context) if tokens_per_sample is None else tokens_per_sample
        super().__init__(tokens_per_sample=tokens, **base)
        if self.tokens_per_sample != context:
            raise ValueError(f"data.tokens_per_sample={tokens_per_sample} must be data.context={context}.")
        self.path, self.context = path, context
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.vocabulary = ""

    def read(self) -> Splits:
        content = text(self.path)
        train, val, test = cut(len(content), self.val_fraction, self.test_fraction)
        points = np.frombuffer(content.encode("utf-32-le"), dtype=np.uint32)
        characters, tokens = np.unique(points, return_inverse=True)
        found = "".join(map(chr, characters))
        self.vocabulary = found if self._fitted is None else self._fitted["vocabulary"]
        if new := sorted(set(found) - set(self.vocabulary)):
            raise ValueError(f"data.path={self.path} has the character {new[0]!r}, with which the run was not trained.")
        if self.vocabulary != found:
            tokens = np.array([self.vocabulary.index(one) for one in found])[tokens]
        self._fitted = {"vocabulary": self.vocabulary}
        parts = torch.from_numpy(tokens.astype(np.int32)).split([train, val, test])
        return Splits(
            Windows(parts[0], self.context, self.seed),
            self._held_out("val", parts[1]),
            self._held_out("test", parts[2]),
        )

    @property
    def shape(self) -> dict[str, int]:
        self.setup()
        return {"vocab_size": len(self.vocabulary), "context": self.context}

    @property
    def notes(self) -> list[str]:
        return ["line ends \\r\\n are read as \\n"] if has_windows_line_ends(self.path) else []

    def _held_out(self, name: str, tokens: Tensor) -> Windows | None:
        if not len(tokens):
            return None
        if len(tokens) <= self.context:
            raise ValueError(
                f"data.{name}_fraction leaves {len(tokens)} characters, but a window of "
                f"data.context={self.context} needs {self.context + 1}: raise it, or set it to 0."
            )
        return Windows(tokens, self.context)
