"""A net that helps to train another and is not trained itself, such as a teacher."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainer.files.checksums import Damaged, has_checksum, verify
from trainer.lr import ConfigError

BEST = Path("checkpoints", "best.ckpt")
"""Of a run's folder, what it stands for."""


class Frozen(nn.Module):
    """`net` without gradients and always in evaluation mode, on the device and in the precision of the run.

    `path` is a checkpoint of a run, of which it takes the net, a run's folder, which stands for its best checkpoint, or
    a state_dict; None keeps the weights that `net` has.
    With `save`, checkpoints hold the net; without, they do not, and a run that resumes makes it again.
    """

    def __init__(self, net: nn.Module, path: str | None = None, save: bool = False, key: str = "teacher") -> None:
        super().__init__()
        if path is not None:
            load_weights(net, path, key)
        net.eval().requires_grad_(False)
        self.save = save
        if save:
            self.net = net
        self.__dict__["net"] = net  # where it is no part of the module, nothing saves or averages it

    @torch.no_grad()
    def forward(self, *inputs: Any) -> Any:
        return self.net(*inputs)

    def train(self, mode: bool = True) -> "Frozen":
        """The mode of the net stays."""
        self.training = mode
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Frozen":
        """Move and convert the net, too."""
        super()._apply(fn, recurse)
        if not self.save:
            self.net._apply(fn, recurse)
        return self


def load_weights(net: nn.Module, path: str, key: str) -> None:
    """Load the weights of a checkpoint or a state_dict into `net`. `ConfigError` names what does not fit."""
    file = Path(path) / BEST if Path(path).is_dir() else Path(path)
    try:
        content: Any = _load(file)
    except Exception as error:
        line = " ".join(str(error).split())[:200]
        raise ConfigError(f"{key}.path={path} cannot be read ({type(error).__name__}: {line}).") from error
    weights = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(weights, Mapping):
        raise ConfigError(f"{key}.path={path} holds no weights: give a checkpoint or a state_dict.")
    own = {name[4:]: value for name, value in weights.items() if name.startswith("net.")} or dict(weights)
    known = net.state_dict()
    kind = type(net).__name__
    for what, names in (
        ("lacks", known.keys() - own.keys()),
        ("has, beside those of the net,", own.keys() - known.keys()),
    ):
        if names:
            first = ", ".join(sorted(names)[:3])
            raise ConfigError(
                f"{key}.path={path} {what} {len(names)} tensors of {kind}, such as {first}: give its net."
            )
    for name, value in own.items():
        if value.shape != known[name].shape:
            shapes = f"{tuple(value.shape)}, and {kind} needs {tuple(known[name].shape)}"
            raise ConfigError(f"{key}.path={path}: {name} has the shape {shapes}: give the settings of its net.")
    net.load_state_dict(own)


def _load(file: Path) -> Any:
    """What a file holds; a checkpoint of a run is verified."""
    checked = has_checksum(file)
    if checked:
        verify(file)
    content = torch.load(file, map_location="cpu", weights_only=True)
    if not checked and isinstance(content, Mapping) and "cadence" in content:
        raise Damaged("it is a checkpoint that does not end with its checksum")
    return content


def check_modules(step: object) -> None:
    """Refuse a step with parameters that nothing would train, or with tensors that nothing would move to the device."""
    kind = type(step).__name__
    if isinstance(step, nn.Module):
        if found := [name for name, parameter in step.named_parameters() if parameter.requires_grad]:
            raise ConfigError(
                f"task.step: {kind} has the parameter {found[0]}, which no optimizer trains: make it a part of the "
                "net, or take trainer.engine.frozen.Frozen."
            )
        return
    for name, value in {**getattr(step, "keywords", {}), **getattr(step, "__dict__", {})}.items():
        if isinstance(value, nn.Module) and value.state_dict():
            raise ConfigError(
                f"task.step: {name} of {kind} is a module with tensors, which stay on the CPU: make the step a class "
                "that is a torch.nn.Module."
            )


def check_saved(step: nn.Module, names: Iterable[str]) -> None:
    """Refuse a checkpoint, with tensors of these names, that has more or fewer tensors of the step."""
    known = {f"step.{name}" for name in step.state_dict()}
    saved = {name for name in names if name.startswith("step.")}
    for what, there, remedy in (("lacks", known - saved, "false"), ("has also", saved - known, "true")):
        if there:
            raise ConfigError(
                f"the checkpoint {what} {len(there)} tensors of task.step, such as {min(there)}: it was written with "
                f"another step, or with task.step.save_teacher={remedy}."
            )
