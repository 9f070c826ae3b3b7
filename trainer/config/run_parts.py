"""What a run trains, on what data, by which loss and optimizer, and where: the first rows of the table at its start."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from trainer.config.resolve import Resolved


def summary_of_parts(resolved: Resolved) -> dict[str, Any]:
    """Model, data, task, optimizer, device, precision, processes and seed as plain values, for `plan.json`."""
    settings, run = resolved.settings, resolved.settings.trainer
    parameters = list(resolved.model.net.parameters())
    train, val, test = resolved.data.splits
    optimizer = resolved.numbers.curve.optimizer
    return {
        "model": type(resolved.model.net).__name__,
        "parameters": sum(parameter.numel() for parameter in parameters),
        "trained_parameters": sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        "data": _target(settings.data.get("train")) or type(resolved.data).__name__,
        "samples": {
            "train": resolved.data.train_samples,
            "val": None if val is None or val is test else len(val),
            "test": None if test is None else len(test),
        },
        "notes": list(resolved.data.notes),
        "task": _target(settings.task.get("loss")) or _target(settings.task.get("step")) or _target(settings.task),
        "metrics": list(settings.task.get("metrics") or ()),
        "monitor": settings.task.get("monitor"),
        "optimizer": str(optimizer.get("class") or optimizer.get("_target_")).rpartition(".")[2],
        "settings": {name: optimizer[name] for name in ("momentum", "betas") if optimizer.get(name)},
        "device": _device(run.accelerator),
        "precision": run.precision,
        "processes": run.world,
        "seed": settings.seed,
    }


def format_parts(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The rows of the table, from a `summary_of_parts`."""
    total, trained = summary["parameters"], summary["trained_parameters"]
    partly = "" if trained == total else f", {trained:,} of them trained"
    yield "model", f"{summary['model']}, {counted(total, 'parameter')}{partly}"
    uses = {"train": "to train", "val": "to validate", "test": "to test"}
    counts = {split: count for split, count in summary["samples"].items() if count is not None}
    samples = [
        f"{count}{' samples' if i == 0 else ''} {uses[split]}" for i, (split, count) in enumerate(counts.items())
    ]
    yield "data", ", ".join([summary["data"], *samples])
    yield from (("", note) for note in summary["notes"])
    best = f"; the best checkpoint by {summary['monitor']}" if summary["monitor"] else ""
    yield "task", ", ".join(filter(None, [summary["task"], *summary["metrics"]])) + best
    yield "optimizer", ", ".join([summary["optimizer"], *(f"{key} {one}" for key, one in summary["settings"].items())])
    yield "device", f"{summary['device']}, {counted(summary['processes'], 'process')}, precision {summary['precision']}"
    yield "seed", str(summary["seed"])


def counted(count: float, noun: str) -> str:
    """A number of things in words.

    >>> counted(1, "process"), counted(2, "process"), counted(1200, "update"), counted(2.5, "epoch")
    ('1 process', '2 processes', '1,200 updates', '2.5 epochs')
    """
    number = f"{count:.4g}" if isinstance(count, float) else f"{count:,}"
    return f"{number} {noun}{'' if count == 1 else 'es' if noun.endswith('s') else 's'}"


def _target(node: Any) -> str:
    """The name of what a node of the config makes, without its module; empty where it makes nothing."""
    return str(node.get("_target_") or "").rpartition(".")[2] if isinstance(node, Mapping) else ""


def _device(accelerator: str) -> str:
    if accelerator == "cpu" or not torch.accelerator.is_available():
        return "cpu"
    kind = torch.accelerator.current_accelerator()
    assert kind is not None
    return f"{kind.type} ({torch.cuda.get_device_name()})" if kind.type == "cuda" else kind.type
