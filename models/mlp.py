"""A multi-layer perceptron."""

from collections.abc import Sequence

from torch import Tensor, nn


class MLP(nn.Module):
    """(N, …) flattened to (N, in_features), a ReLU layer for each width in `hidden`, then (N, classes).

    PyTorch's own initialisation. ValueError for a width below 1 or a dropout outside [0, 1).
    """

    def __init__(
        self, in_features: int, classes: int, hidden: Sequence[int] = (128, 128), dropout: float = 0.0
    ) -> None:
        super().__init__()
        if any(width < 1 for width in hidden):
            raise ValueError(f"model.hidden={list(hidden)} has a width below 1: give the width of each hidden layer.")
        if not 0 <= dropout < 1:
            raise ValueError(f"model.dropout={dropout} must be at least 0 and below 1.")
        widths = [in_features, *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in zip(widths, widths[1:]):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], classes))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs)

    def stages(self) -> list[list[nn.Module]]:
        """The linear layers, from input to output."""
        return [[layer] for layer in self.layers if isinstance(layer, nn.Linear)]
