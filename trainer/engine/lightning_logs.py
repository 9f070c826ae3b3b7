"""Keeps what a LightningModule logs by `self.log`, per update and as means over an epoch."""

import re
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchmetrics import Metric

from trainer.engine.step import as_weight
from trainer.log.metric_buffer import RESERVED
from trainer.lr import ConfigError

_PREFIX = {"train": r"train(ing)?[_/]", "val": r"val(id(ation)?)?[_/]", "test": r"test[_/]"}
_OF_EPOCHS = ("on_train_start", "on_train_epoch_start", "on_train_epoch_end")
_FORBIDDEN = "setup teardown on_fit_start on_fit_end on_train_end on_validation_end on_test_end".split()
_OPERATIONS: Mapping[str, tuple[Callable[[Tensor, Tensor], Tensor], Any]] = {
    "mean": (torch.add, dist.ReduceOp.SUM),
    "sum": (torch.add, dist.ReduceOp.SUM),
    "max": (torch.maximum, dist.ReduceOp.MAX),
    "min": (torch.minimum, dist.ReduceOp.MIN),
}


def score_name(stage: str, name: str) -> str:
    """The name of a logged value below `stage`: without that word in front, as in `val_loss`.

    In training, names that every run logs itself get `logged_` in front.

    >>> score_name("val", "val_loss"), score_name("val", "valid/acc"), score_name("train", "train_loss")
    ('loss', 'acc', 'logged_loss')
    """
    short = re.sub(f"^{_PREFIX[stage]}", "", name) or name
    return f"logged_{short}" if stage == "train" and short in RESERVED else short


@dataclass
class _Mean:
    """A value over the batches of an epoch; the mean is Σ size · value / Σ size, as in Lightning."""

    operation: str
    value: Tensor
    weight: float

    def add(self, value: Tensor, size: float) -> None:
        combine, _ = _OPERATIONS[self.operation]
        self.value, self.weight = combine(self.value, value), self.weight + size

    def compute(self) -> float:
        found = torch.stack([self.value, torch.full_like(self.value, self.weight)])
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            value = found[0].clone()
            dist.all_reduce(value, op=_OPERATIONS[self.operation][1])
            dist.all_reduce(found)
            found[0] = value
        value, weight = found.tolist()
        return value / weight if self.operation == "mean" else value


class LoggedValues:
    """What a module logs in one stage: `train`, `val` or `test`. `names` has the module's names for each of ours.

    A value that is logged both on_step and on_epoch has two names for its mean in Lightning: NAME and NAME_epoch.
    """

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.names: dict[str, str] = {}
        self._second_names: dict[str, str] = {}
        self._of_steps: dict[str, list[Tensor]] = {}
        self._means: dict[str, _Mean] = {}
        self._metrics: dict[str, tuple[Metric, bool]] = {}

    def add(self, hook: str | None, name: str, value: Any, options: Mapping[str, Any], size: Callable[[], int]) -> None:
        """Take a value that `hook` logs, with the options of `self.log`; `size()` is that of the batch."""
        if hook is None or hook in _FORBIDDEN:
            raise ConfigError(f"self.log({name!r}) in {hook or 'no hook'}: Lightning logs nothing there. Remove it.")
        by_step = self.stage == "train" and hook not in _OF_EPOCHS
        on_step = by_step if options.get("on_step") is None else options["on_step"] and by_step
        on_epoch = not by_step if options.get("on_epoch") is None else options["on_epoch"]
        short = score_name(self.stage, name)
        if self.names.setdefault(short, name) != name:
            self.names[short := name] = name
        metric, value = (value, value._forward_cache) if isinstance(value, Metric) else (None, value)
        if on_step and value is not None:
            self._of_steps.setdefault(short, []).append(_scalar(name, value))
        if options.get("on_step") and on_epoch:
            self._second_names[f"{short}_epoch" if on_step else short] = name if on_step else f"{name}_epoch"
        if on_step:
            short, name = f"{short}_epoch", f"{name}_epoch"
        self.names[short] = name
        if metric is not None:
            self._metrics[short] = (metric, on_epoch or self.stage != "train")
        elif on_epoch or self.stage != "train":
            self._add_mean(short, name, value, options, size)

    def _add_mean(self, short: str, name: str, value: Any, options: Mapping[str, Any], size: Callable[[], int]) -> None:
        operation = _operation(name, options.get("reduce_fx", "mean"))
        scalar = _scalar(name, value)
        number = as_weight(scalar, scalar.device)
        given = options.get("batch_size")
        weight = float(size() if given is None else given) if operation == "mean" else 1.0
        number = number * weight if operation == "mean" else number
        if short in self._means:
            self._means[short].add(number.to(self._means[short].value.device), weight)
        else:
            self._means[short] = _Mean(operation, number, weight)

    def all_names(self, short: str) -> set[str]:
        """The names that the module may look up a score by."""
        return {self.names.get(short, short), self._second_names.get(short, self.names.get(short, short))}

    def step_means(self, like: Tensor) -> dict[str, Tensor]:
        """The means of what was logged per step since the last call, as scalars like `like`."""
        found, self._of_steps = self._of_steps, {}
        return {name: torch.stack([value.to(like) for value in values]).mean() for name, values in found.items()}

    def drop_steps(self) -> None:
        """Forget what was logged per step since the last call of `step_means`."""
        self._of_steps = {}

    def compute(self) -> dict[str, float]:
        """The means and metrics of the epoch over all processes; resets them."""
        found = {name: mean.compute() for name, mean in self._means.items()}
        for name, (metric, published) in self._metrics.items():
            if published and metric.update_called:
                found[name] = _scalar(self.names[name], metric.compute()).item()
            metric.reset()
        self._means, self._metrics = {}, {}
        return found

    def state_dict(self, net: nn.Module) -> dict[str, Any]:
        """The means and metrics of an epoch that is not over, with the names that metrics have in the net."""
        paths = {id(part): name for name, part in net.named_modules()}
        metrics = {
            short: {"path": paths[id(metric)], "published": published, "count": metric._update_count, "values": values}
            for short, (metric, published) in self._metrics.items()
            if id(metric) in paths and (values := {key: deepcopy(getattr(metric, key)) for key in metric._defaults})
        }
        return {
            "names": dict(self.names),
            "means": {k: asdict(one) for k, one in self._means.items()},
            "metrics": metrics,
        }

    def load_state_dict(self, state: Mapping[str, Any], net: nn.Module) -> None:
        """Go on with the means and metrics of an epoch."""
        self.names |= state.get("names", {})
        self._means = {short: _Mean(**mean) for short, mean in state.get("means", {}).items()}
        parts = dict(net.named_modules())
        for short, one in state.get("metrics", {}).items():
            if isinstance(metric := parts.get(one["path"]), Metric):
                for key, value in one["values"].items():
                    setattr(metric, key, value)
                metric._update_count = one["count"]
                self._metrics[short] = (metric, one["published"])

    def reset(self) -> None:
        """Forget all values."""
        self._means, self._of_steps, self._metrics = {}, {}, {}


def of_ranks(state: dict[str, Any]) -> list[dict[str, Any]]:
    """The states of all ranks; all call it together."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return [state]
    states: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(states, state)
    return states


def of_this_rank(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The state of this rank; empty where there were more or fewer ranks."""
    several = dist.is_available() and dist.is_initialized()
    rank, world = (dist.get_rank(), dist.get_world_size()) if several else (0, 1)
    return states[rank] if len(states) == world else {}


def _scalar(name: str, value: Any) -> Tensor:
    made = value.detach() if isinstance(value, Tensor) else torch.as_tensor(value)
    if made.numel() != 1:
        raise ConfigError(f"self.log({name!r}) has {made.numel()} numbers: log one at a time.")
    made = made.reshape(())
    return made if made.dtype in (torch.float32, torch.float64) else made.float()


def _operation(name: str, given: Any) -> str:
    word = str(given if isinstance(given, str) else getattr(given, "__name__", given)).lower()
    word = {"avg": "mean", "amax": "max", "amin": "min"}.get(word, word)
    if word not in _OPERATIONS:
        raise ConfigError(f"self.log({name!r}, reduce_fx={given}): choose mean, sum, max or min.")
    return word
