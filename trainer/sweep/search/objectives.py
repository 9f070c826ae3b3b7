"""What a search is for: its metrics, and whether little or much of each is good."""

from typing import Any

from trainer.lr import ConfigError


def goals(metric: Any, direction: Any, task: Any) -> tuple[list[str], list[str]]:
    """The metrics with `min` or `max` for each; what is null comes from the monitor of the task.

    >>> goals(None, None, {"monitor": "loss", "mode": "min"})
    (['val/loss'], ['min'])
    """
    monitor = f"val/{task.get('monitor', 'loss')}"
    metrics = [monitor] if metric is None else metric if isinstance(metric, list) else [metric]
    if not metrics or not all(isinstance(one, str) and one for one in metrics) or len(set(metrics)) < len(metrics):
        raise ConfigError(f"hydra.sweeper.metric={metric} must name one metric, or several in a list, as val/loss")
    if direction is None:
        known = {monitor: task.get("mode", "min")} | {one: "min" for one in metrics if one.endswith("loss")}
        if unknown := [one for one in metrics if one not in known]:
            raise ConfigError(
                f"hydra.sweeper.metric={unknown[0]}: say what is good: hydra.sweeper.direction=min or max"
            )
        return metrics, [known[one] for one in metrics]
    directions = direction if isinstance(direction, list) else [direction]
    if len(directions) != len(metrics) or not set(directions) <= {"min", "max"}:
        raise ConfigError(f"hydra.sweeper.direction={direction} must be min or max for each of {', '.join(metrics)}")
    return metrics, directions
