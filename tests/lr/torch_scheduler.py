"""The learning rates that a scheduler of torch gives, as a second source."""

import torch


def torch_curve(make_scheduler, updates, lr=1.0):
    """What stands in the parameter group at each update of a run with the scheduler that `make_scheduler` makes."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler, rates = make_scheduler(optimizer), []
    for _ in range(updates):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates
