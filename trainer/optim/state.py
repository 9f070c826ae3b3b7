"""What a resumed optimizer takes from a checkpoint."""

import inspect
from typing import Any

from torch.optim import Optimizer


def keep_configured(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """A resumed optimizer takes its state from the checkpoint and its numbers from the configuration."""
    settings = inspect.signature(type(optimizer)).parameters.keys() | {"name"}
    groups = [
        {key: now[key] if key in settings and key in now else value for key, value in saved.items()}
        for saved, now in zip(state["param_groups"], optimizer.state_dict()["param_groups"], strict=True)
    ]
    return {**state, "param_groups": groups}
