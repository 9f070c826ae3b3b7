"""Images of scikit-learn's digits, with the digit or with whether it is odd."""

import torch
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset


def digits(start: int, stop: int | None = None, modulo: int = 10) -> TensorDataset:
    """The images from `start` to `stop`; the class of a digit is its remainder."""
    images, classes = load_digits(return_X_y=True)
    inputs = torch.tensor(images[start:stop] / 16, dtype=torch.float32)
    return TensorDataset(inputs, torch.tensor(classes[start:stop] % modulo))
