"""A rare class: one handwritten digit in ten is an eight."""

import torch
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset


def eights() -> TensorDataset:
    """All 1,797 images of scikit-learn's digits; class 1 are the 174 eights."""
    images, digits = load_digits(return_X_y=True)
    return TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(digits == 8).long())
