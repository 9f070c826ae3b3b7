"""A decoder-only transformer."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DRAWS_FROM_TORCH_ALONE = True
"""So that an update need not seed the generators of numpy and Python."""


class Attention(nn.Module):
    """Causal self-attention of `heads` heads.  Vaswani et al. 2017, arXiv:1706.03762."""

    def __init__(self, width: int, heads: int, dropout: float, bias: bool) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)

    def forward(self, hidden: Tensor) -> Tensor:
        count, length, width = hidden.shape
        heads = self.qkv(hidden).view(count, length, 3, self.heads, -1).transpose(1, 3)
        query, key, value = heads.unbind(dim=2)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(count, length, width))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); the hidden layer of the MLP is four times as wide."""

    def __init__(self, width: int, heads: int, dropout: float, bias: bool) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width, bias=bias)
        self.attention = Attention(width, heads, dropout, bias)
        self.norm_mlp = nn.LayerNorm(width, bias=bias)
        self.expand = nn.Linear(width, 4 * width, bias=bias)
        self.contract = nn.Linear(4 * width, width, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = hidden + self.dropout(self.attention(self.norm_attention(hidden)))
        return hidden + self.dropout(self.contract(F.gelu(self.expand(self.norm_mlp(hidden)))))


class GPT(nn.Module):
    """Tokens (N, T) int64 with T ≤ context, to logits (N, T, vocab_size) for the next token at each position.

    GPT-2 (Radford et al. 2019): learned positions, head tied to the embedding. Embeddings start at N(0, 0.02),
    linear layers at N(0, √(2 / 5 width)) (Nguyen & Salazar 2019, arXiv:1910.05895; 0.02 for a width of 1000), those
    that write to the residual stream at that divided by √(2 layers). ValueError where `heads` does not divide
    `width` or T > context.
    """

    def __init__(
        self,
        vocab_size: int,
        context: int,
        layers: int = 4,
        heads: int = 4,
        width: int = 128,
        dropout: float = 0.0,
        bias: bool = False,
    ) -> None:
        super().__init__()
        if min(layers, heads, width) < 1:
            raise ValueError(f"model.layers={layers}, heads={heads} and width={width} must each be at least 1.")
        if width % heads:
            raise ValueError(f"model.width={width} must be a multiple of model.heads={heads}.")
        if not 0 <= dropout < 1:
            raise ValueError(f"model.dropout={dropout} must be at least 0 and below 1.")
        self.context = context
        self.tokens = nn.Embedding(vocab_size, width)
        self.positions = nn.Embedding(context, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(Block(width, heads, dropout, bias) for _ in range(layers)))
        self.norm = nn.LayerNorm(width, bias=bias)
        self.head = nn.Linear(width, vocab_size, bias=False)
        self._initialise(width, layers)
        self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        if length > self.context:
            raise ValueError(f"{length} tokens are more than model.context={self.context}: give a shorter sequence.")
        positions = self.positions(torch.arange(length, device=tokens.device))
        return self.head(self.norm(self.blocks(self.dropout(self.tokens(tokens) + positions))))

    def stages(self) -> list[list[nn.Module]]:
        """The embeddings, each block, and the head with its norm."""
        return [[self.tokens, self.positions], *([block] for block in self.blocks), [self.norm, self.head]]

    def _initialise(self, width: int, layers: int) -> None:
        spread = (2 / (5 * width)) ** 0.5
        for name, module in self.named_modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                residual = name.endswith(("attention.out", "contract"))
                nn.init.normal_(module.weight, std=spread / (2 * layers) ** 0.5 if residual else spread)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
