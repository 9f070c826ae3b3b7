"""What the data tells the metrics and nets of a task, and the direction in which its metrics get better."""

from collections.abc import Mapping, Sequence
from typing import Any

from trainer.config.instantiate import Node, called_by, needs, takes
from trainer.lr import ConfigError

FROM_SHAPE = {"num_classes": ("classes", "vocab_size"), "num_labels": ("labels",), "vocab_size": ("vocab_size",)}
"""Arguments of metrics, and the numbers of the data's shape that they stand for; the first one that there is."""
HEADS = "MultitaskWrapper"
"""The metric of several tasks, of which each has its own numbers."""


def with_shape(task: Node, shape: Mapping[str, int], allow: Sequence[str]) -> Node:
    """The node of a task with the numbers of the data's shape.

    What a step holds, such as the net of a teacher, gets those that it needs by their names. In metrics, `num_classes`
    is the number of classes or tokens, `num_labels` that of labels, and `task`, of the metrics for several kinds of
    classification, multiclass or multilabel. Raises `ConfigError` for a number of a metric that is another.
    """
    metrics, step = task.get("metrics"), task.get("step")
    made = dict(task)
    if isinstance(metrics, Mapping):
        made["metrics"] = _filled(metrics, "task.metrics", shape, allow)
    if isinstance(step, Mapping):
        made["step"] = {name: _given(part, f"task.step.{name!s}", shape, allow) for name, part in step.items()}
    return made


def _given(node: Any, key: str, shape: Mapping[str, int], allow: Sequence[str]) -> Any:
    """A node with the numbers of the shape that its constructor needs and that are left out."""
    if isinstance(node, list):
        return [_given(part, f"{key}.{i}", shape, allow) for i, part in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    made = {name: _given(part, f"{key}.{name!s}", shape, allow) for name, part in node.items()}
    needed = needs(node, key, allow) if "_target_" in node and not node.get("_partial_") else set()
    return {name: value for name, value in shape.items() if name in needed and name not in made} | made


def _filled(node: Any, key: str, shape: Mapping[str, int], allow: Sequence[str]) -> Any:
    if isinstance(node, list):
        return [_filled(part, f"{key}.{i}", shape, allow) for i, part in enumerate(node)]
    if not isinstance(node, Mapping) or str(node.get("_target_")).endswith(f".{HEADS}"):
        return node
    made = {name: _filled(part, f"{key}.{name!s}", shape, allow) for name, part in node.items()}
    if "_target_" not in node:
        return made
    for name, sources in FROM_SHAPE.items():
        source = next((source for source in sources if shape.get(source, 0) > 1), None)
        if source is None or not takes(node, key, allow, name):
            continue
        if made.get(name) not in (None, shape[source]):
            raise ConfigError(
                f"{key}.{name}={made[name]}, but the data has {source}={shape[source]}: leave {name} out."
            )
        made[name] = shape[source]
    if "task" not in made and takes(node, key, allow, "task"):
        kinds = {"num_classes": "multiclass", "num_labels": "multilabel"}
        made |= {"task": kind for name, kind in kinds.items() if name in made}  # noqa: B035 - one of them, or none
    return made


def direction_of(task: Mapping[str, Any], score: str, allow: Sequence[str]) -> str | None:
    """The better direction of a score, as val/accuracy: min or max; None where its class does not say it."""
    name = score.partition("/")[2]
    if name == "loss":
        return "min"
    node = (task.get("metrics") or {}).get(name)
    if not isinstance(node, Mapping):
        return None
    higher = getattr(called_by(node, f"task.metrics.{name}", allow), "higher_is_better", None)
    return {True: "max", False: "min"}.get(higher) if isinstance(higher, bool) else None
