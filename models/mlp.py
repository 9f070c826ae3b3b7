"""A multi-layer perceptron."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

NORMS = ("none", "batch")
DRAWS_FROM_TORCH_ALONE = True
"""So that an update need not seed the generators of numpy and Python."""


class MLP(nn.Module):
    """(N, …) flattened to (N, in_features), a ReLU layer for each width in `hidden`, then (N, classes).

    `norm`: "batch" puts BatchNorm before each ReLU. `gain`: None is PyTorch's initialisation; with a number the weights
    are normal with standard deviation gain · sqrt(2 / inputs) and the biases 0 (gain 1: He et al., arXiv:1502.01852).
    ValueError for a width below 1, a dropout outside [0, 1), an unknown norm or a gain that is not positive.
    """

    def __init__(
        self,
        in_features: int,
        classes: int,
        hidden: Sequence[int] = (128, 128),
        dropout: float = 0.0,
        norm: str = "none",
        gain: float | None = None,
    ) -> None:
        super().__init__()
        if any(width < 1 for width in hidden):
            raise ValueError(f"model.hidden={list(hidden)} has a width below 1: give the width of each hidden layer.")
        if not 0 <= dropout < 1:
            raise ValueError(f"model.dropout={dropout} must be at least 0 and below 1.")
        if norm not in NORMS:
            raise ValueError(f"model.norm={norm} is not known: choose from {', '.join(NORMS)}.")
        if gain is not None and not (math.isfinite(gain) and gain > 0):
            raise ValueError(f"model.gain={gain} must be above 0: it is a factor of He's initialisation, or null.")
        widths = [in_features, *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in zip(widths, widths[1:]):
            normed = [nn.BatchNorm1d(after)] if norm == "batch" else []
            layers += [nn.Linear(before, after), *normed, nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], classes))
        if gain is not None:
            self._initialise(gain)

    def _initialise(self, gain: float) -> None:
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=gain * math.sqrt(2 / layer.in_features))
                nn.init.zeros_(layer.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs)

    def stages(self) -> list[list[nn.Module]]:
        """The linear layers with their norms, from input to output."""
        stages: list[list[nn.Module]] = []
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                stages.append([layer])
            elif next(layer.parameters(), None) is not None:  # a norm
                stages[-1].append(layer)
        return stages
