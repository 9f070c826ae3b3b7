"""Text files as tokens of a tokenizer of transformers, for language models of transformers."""

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from data.bounds import integer, share
from data.module import DataModule, Splits
from data.padding import Pad, load_tokenizer, pad_id, token_ids, windows
from data.size import cut, text
from data.source import Memory, Workers


class TokenizedText(DataModule):
    """Samples {input_ids, attention_mask, labels}, int64, for a causal language model, which shifts the labels itself.

    `path` is a UTF-8 text file, or a folder of .txt files. Packed, the tokens of all files, with the tokenizer's end
    token after each file, are cut into windows of `context` tokens. Otherwise each line with text is a sample, of at
    most `context` tokens; a batch is padded to its longest, with labels of -100. The last `test_fraction` of tokens or
    lines is for test, `val_fraction` before it for validation.

    `tokenizer` is the name of a model of the hub, or a folder. FileNotFoundError where one of both cannot be read;
    ValueError for a text that is too short.
    """

    def __init__(
        self,
        *,
        path: str,
        tokenizer: str,
        context: int = 128,
        packed: bool = True,
        val_fraction: float = 0.1,
        test_fraction: float = 0.0,
        tokens_per_sample: int | None = None,
        **base: Any,
    ) -> None:
        tokens = integer("data.context", context, low=2) if packed and tokens_per_sample is None else tokens_per_sample
        super().__init__(tokens_per_sample=tokens, **base)
        self.path, self.tokenizer, self.context, self.packed = path, tokenizer, context, packed
        self.fractions = share("data.val_fraction", val_fraction), share("data.test_fraction", test_fraction)
        self._words = 0

    @property
    def shape(self) -> dict[str, int]:
        self.setup()
        return {"vocab_size": self._words, "context": self.context}

    def read(self) -> Splits:
        texts = [text(str(file)) for file in self._files()]
        tokenizer = load_tokenizer(self.tokenizer)
        self._words = len(tokenizer)
        parts = self._windows(tokenizer, texts) if self.packed else self._line_samples(tokenizer, texts)
        if parts[0] is None:
            wanted = f"data.context={self.context} tokens" if self.packed else "a line with text"
            raise ValueError(f"data.path={self.path} is too short to train on: it needs {wanted}.")
        return Splits(*parts)

    def _files(self) -> list[Path]:
        folder = Path(self.path).expanduser()
        files = sorted(folder.rglob("*.txt")) if folder.is_dir() else [folder]
        if not files:
            raise FileNotFoundError(f"data.path={self.path} holds no .txt file: give a text file, or a folder of some.")
        return files

    def _windows(self, tokenizer: Any, texts: list[str]) -> list[Any]:
        end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        documents = token_ids(tokenizer, texts, add_special_tokens=False)
        tokens = torch.tensor([token for document in documents for token in (*document, *end)])
        parts = [windows(part, self.context) for part in tokens.split(list(cut(len(tokens), *self.fractions)))]
        return [
            Memory({"input_ids": part, "attention_mask": torch.ones_like(part), "labels": part.clone()})
            if len(part)
            else None
            for part in parts
        ]

    def _line_samples(self, tokenizer: Any, texts: list[str]) -> list[Any]:
        lines = [line for one in texts for line in one.splitlines() if line.strip()]
        if not lines:
            return [None]
        samples = token_ids(tokenizer, lines, truncation=True, max_length=self.context)
        train, val, _ = cut(len(samples), *self.fractions)
        parts = samples[:train], samples[train : train + val], samples[train + val :]
        pad = Pad(pad_id(tokenizer))
        return [Workers(Lines(part), collate_fn=pad) if part else None for part in parts]


class Lines(Dataset):
    """A sample {input_ids, attention_mask, labels} of each list of tokens."""

    def __init__(self, samples: list[list[int]]) -> None:
        self.samples, self.lengths = samples, [len(sample) for sample in samples]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        tokens = torch.tensor(self.samples[index], dtype=torch.int64)
        return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": tokens}
