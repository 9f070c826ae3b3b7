"""A GPT-2 whose loss is computed in double precision: transformers itself casts logits to single precision."""

from typing import Any

from torch import Tensor
from torch.nn import functional
from transformers import GPT2LMHeadModel


class DoubleGPT2(GPT2LMHeadModel):
    """The same model and loss. `loss_type` tells Trainer that labels are shifted, which it then counts so."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.loss_type = "ForCausalLM"

    def loss_function(self, logits: Tensor, labels: Tensor, num_items_in_batch: Any = None, **more: Any) -> Tensor:
        """Σ of the cross entropy at counted labels, over their number here or the given one."""
        logits, labels = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        total = functional.cross_entropy(logits, labels, ignore_index=-100, reduction="sum")
        return total / ((labels != -100).sum() if num_items_in_batch is None else num_items_in_batch)
