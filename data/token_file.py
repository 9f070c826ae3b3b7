"""Files of token ids, mapped into memory: only the parts that a batch needs are read, so a file may be of any size."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from data.bounds import integer
from data.module import DataModule, Splits
from data.order import Pick
from data.reader import SampleError
from data.size import ids_in_file
from data.text import Windows
from data.tree import moved


class MappedWindows(Windows):
    """Windows of a mapped file: the tokens stay in the file, and each batch goes to the device.

    SampleError for a batch with an id of `vocab_size` or more.
    """

    def __init__(
        self, tokens: Tensor, context: int, vocab_size: int, seed: int | None = None, device: str | torch.device = "cpu"
    ) -> None:
        super().__init__(tokens, context, seed)
        self.vocab_size, self._device = vocab_size, torch.device(device)

    def to(self, device: torch.device) -> "MappedWindows":
        return MappedWindows(self.tokens, self.context, self.vocab_size, self.seed, device)

    def batches(self, picks: Iterable[Pick]) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in super().batches(picks):
            if (found := int(max(part.max() for part in batch))) >= self.vocab_size:
                raise SampleError(
                    f"data.vocab_size={self.vocab_size}, and the file has the token {found}: set it to at least "
                    f"{found + 1}, or data.dtype to that of the file."
                )
            yield moved(batch, self._device)


class TokenFile(DataModule):
    """Token ids one after another in a file of `dtype` without a header, as nanoGPT's train.bin.

    A sample is a window of `context` tokens; the targets are the tokens one later. `val_path` and `test_path` are
    further files. FileNotFoundError without a file; ValueError where it is too short or no whole number of tokens.
    """

    def __init__(
        self,
        *,
        path: str,
        context: int,
        vocab_size: int,
        dtype: str = "uint16",
        val_path: str | None = None,
        test_path: str | None = None,
        tokens_per_sample: int | None = None,
        **base: object,
    ) -> None:
        tokens = integer("data.context", context) if tokens_per_sample is None else tokens_per_sample
        super().__init__(tokens_per_sample=tokens, **base)  # type: ignore[arg-type]
        if self.tokens_per_sample != context:
            raise ValueError(f"data.tokens_per_sample={tokens_per_sample} must be data.context={context}.")
        self.paths = {"path": path, "val_path": val_path, "test_path": test_path}
        self.context, self.vocab_size, self.dtype = context, integer("data.vocab_size", vocab_size), dtype

    def read(self) -> Splits:
        return Splits(*(self._windows(name, path) for name, path in self.paths.items()))  # type: ignore[arg-type]

    @property
    def shape(self) -> dict[str, int]:
        return {"vocab_size": self.vocab_size, "context": self.context}

    def _windows(self, name: str, path: str | None) -> MappedWindows | None:
        if path is None:
            return None
        file, count = ids_in_file(f"data.{name}", path, self.dtype)
        if count <= self.context:
            raise ValueError(
                f"data.{name}={path} has {count} tokens: a window of data.context={self.context} needs more."
            )
        tokens = torch.from_file(str(file), shared=False, size=count, dtype=getattr(torch, self.dtype))
        return MappedWindows(tokens, self.context, self.vocab_size, self.seed if name == "path" else None)
