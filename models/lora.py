"""Low-rank adapters around a net, with peft."""

from collections.abc import Sequence
from typing import Any

from torch import nn


def lora(
    net: nn.Module,
    *,
    r: int = 8,
    alpha: float = 16,
    dropout: float = 0.0,
    target_modules: str | Sequence[str] = "all-linear",
    modules_to_save: Sequence[str] | None = None,
    bias: str = "none",
) -> nn.Module:
    """`net` with W x + (alpha / r) B A x in place of W x, and all but A (r × in) and B (out × r) frozen; B starts at 0.

    `target_modules` are the ends of names of modules, or a regular expression for whole names; `all-linear` are all
    linear layers but those in `modules_to_save`, which are trained in full, such as a new head.
    Hu et al. 2021, arXiv:2106.09685. ModuleNotFoundError without the package peft.
    """
    import peft

    library: Any = peft  # its annotations are narrower than what it takes
    kept = list(modules_to_save or [])
    targets = target_modules if isinstance(target_modules, str) else list(target_modules)
    if targets == "all-linear":
        linear = [name for name, module in net.named_modules() if isinstance(module, nn.Linear)]
        targets = [name for name in linear if not any(f".{name}".endswith(f".{end}") for end in kept)]
    config = library.LoraConfig(
        r=r, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets, modules_to_save=kept or None, bias=bias
    )
    adapted: nn.Module = library.get_peft_model(net, config)
    return adapted
