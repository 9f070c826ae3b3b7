"""The learning rates that a scheduler of torch gives, as a second source."""

import warnings

import torch


def torch_curve(make_scheduler, updates, lr=1.0, steps=None):
    """What stands in the parameter group at each update of a run with the scheduler that `make_scheduler` makes.

    `steps` is how often it is stepped, by default after every update.
    """
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    with warnings.catch_warnings(action="ignore"):
        scheduler, rates = make_scheduler(optimizer), []
        optimizer.step()
        for t in range(updates):
            rates.append(optimizer.param_groups[0]["lr"])
            if steps is None or t < steps:
                scheduler.step()
    return rates
