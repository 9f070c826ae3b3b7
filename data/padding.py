"""Batches of named values of which some are sequences of unequal length, and tokenizers that make such."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

IGNORED = -100
"""The label of a token that does not count, for transformers and `nn.CrossEntropyLoss`."""


class Pad:
    """Makes a batch, {name: tensor}, of samples {name: value}.

    Sequences are padded at their end to the longest in the batch: `labels` with -100, `input_ids` with `pad_id`, other
    sequences with 0. Texts become lists. ValueError for values of other unequal shapes, with their name.
    """

    def __init__(self, pad_id: int = 0) -> None:
        self.values = {"labels": IGNORED, "input_ids": pad_id}

    def __call__(self, samples: list[Mapping[str, Any]]) -> dict[str, Any]:
        return {name: self._joined(name, [sample[name] for sample in samples]) for name in samples[0]}

    def _joined(self, name: str, values: list[Any]) -> Any:
        if isinstance(values[0], str):
            return values
        tensors = [torch.as_tensor(value) for value in values]
        if len({tensor.shape for tensor in tensors}) == 1:
            return torch.stack(tensors)
        if any(tensor.ndim != 1 for tensor in tensors):
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors[:3])
            raise ValueError(f"{name} has the shapes {shapes}, …: give values of one shape, or sequences of numbers.")
        return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=self.values.get(name, 0))


def load_tokenizer(name: str) -> Any:
    """A tokenizer of transformers, by the name of a model of the hub or a folder. FileNotFoundError without it."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # it raises many kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FileNotFoundError(
            f"data.tokenizer={name} cannot be loaded: {reason}: give the name of a model of the hub, or a folder."
        ) from error


def pad_id(tokenizer: Any) -> int:
    """The token to pad with: its own, or else that of the end; masked tokens have no influence."""
    return next((one for one in (tokenizer.pad_token_id, tokenizer.eos_token_id) if one is not None), 0)


def token_ids(tokenizer: Any, texts: list[str], **options: Any) -> list[list[int]]:
    """The tokens of each text."""
    return tokenizer(texts, verbose=False, return_attention_mask=False, **options)["input_ids"]


def windows(tokens: Tensor, length: int) -> Tensor:
    """Non-overlapping windows, (N, length); what does not fill one is left out."""
    return tokens[: len(tokens) // length * length].view(-1, length)
