"""Gradient descent by its name, so that nobody takes it for its stochastic form."""

from torch.optim import SGD


class GradientDescent(SGD):
    """w ← w - η g with g the gradient over the whole training set: torch's SGD, which a run refuses on smaller batches.

    Cauchy 1847.
    """
