"""Weights to start from: read from files of several kinds without running code, and put into a net by name."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainer.checkpoint.io import read
from trainer.cli.extras import needed
from trainer.files.checksums import has_checksum
from trainer.lr import ConfigError

IN_FOLDER = (
    "checkpoints/best.ckpt",
    "best.ckpt",
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)
"""What is looked for in a folder, the first one first: a run of ours, then what Hugging Face writes."""
NESTED = ("state_dict", "model_state_dict", "model")
"""Keys under which others save the weights beside more."""

Rename = Mapping[str, str | None]
"""Starts of names, in whole parts, and what stands there instead; None leaves the tensors out."""


@dataclass(frozen=True)
class Loaded:
    """What a net got from a file: how many tensors, and the names that fit nothing on either side."""

    path: str
    tensors: int
    missing: Sequence[str]
    left_over: Sequence[str]
    prefix: str = ""

    def table(self) -> list[tuple[str, str]]:
        """The rows of the table at the start of a run."""
        without = f", whose names begin with {self.prefix}" if self.prefix else ""
        return [
            ("weights", f"{self.tensors} tensors from {self.path}{without}"),
            ("", f"missing in the file, so as initialised: {_some(self.missing)}"),
            ("", f"left over in the file: {_some(self.left_over)}"),
        ]


def load_weights(net: nn.Module, path: str, rename: Rename, strict: bool) -> Loaded:
    """Copy the weights of a file or folder into `net`. A tensor that is tied to one in the file counts as there.

    Where no name fits, the start of the names that makes most of them fit is left out, such as `model.` or `module.`.

    Raises:
        ConfigError: there are no weights; a tensor has another shape; none fits; with `strict`, one is missing or left.
    """
    given = _renamed(path, read_weights(Path(path)), rename)
    own = net.state_dict(keep_vars=True)
    given, prefix = _without_prefix(given, own)
    fit = [name for name in own if name in given]
    if not fit:
        raise ConfigError(
            f"init.path={path}: no tensor fits. The file has {_some(list(given))}, and the model "
            f"{_some(list(own))}: map the names with init.rename={{START: NEW}}."
        )
    _check_tensors(path, given, own, fit, lambda start: _before_renaming(f"{prefix}{start}", rename))
    there = {id(own[name]) for name in fit}
    missing = [name for name, value in own.items() if id(value) not in there]
    left_over = [name for name in given if name not in own]
    if strict and (missing or left_over):
        raise ConfigError(
            f"init.path={path}: missing in the file: {_some(missing)}; left over in it: {_some(left_over)}. "
            "Map names with init.rename={START: NEW}, or allow it with init.strict=false."
        )
    net.load_state_dict({name: given[name] for name in fit}, strict=False)
    return Loaded(path, len(fit), missing, left_over, prefix)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors in a file or folder by name, on the CPU.

    A file holds a state dict, alone or as `state_dict` or `model` beside more, or is in the format safetensors. Of a
    checkpoint of ours these are the weights of the net; those of `best.ckpt` are the weights that were scored.
    """
    if path.is_dir():
        found = [path / name for name in IN_FOLDER if (path / name).is_file()]
        if not found:
            raise ConfigError(f"init.path={path} holds none of {', '.join(IN_FOLDER)}: name a file with weights.")
        path = found[0]
    if not path.is_file():
        raise ConfigError(f"init.path={path} does not exist: give a file or a folder with weights, or null.")
    if path.suffix != ".json":
        return _read_file(path)
    shards = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
    for shard in shards:
        if not (path.parent / shard).is_file():
            raise ConfigError(f"init.path={path} names {shard}, which is not beside it: complete the folder.")
    return {name: value for shard in shards for name, value in _read_file(path.parent / shard).items()}


def _read_file(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        load = needed("safetensors.torch", f"init.path={path}").load_file
        return _read(path, lambda: load(path, device="cpu"))
    sealed = _read(path, lambda: has_checksum(path))
    content = read(path, "init.path") if sealed else _read(path, lambda: _unpickled(path))
    if isinstance(content, dict) and isinstance(content.get("cadence"), dict):
        if not sealed:
            read(path, "init.path")  # refuses it: a checkpoint of ours ends with its checksum
        if content["cadence"].get("base") is not None:
            raise ConfigError(f"init.path={path} holds an adapter without the net below it: resume from it instead.")
        state = content.get("state_dict", {})
        return {name.removeprefix("net."): value for name, value in state.items() if name.startswith("net.")}
    for inner in (content, *(content.get(key) for key in NESTED if isinstance(content, dict))):
        if isinstance(inner, dict) and (found := _tensors(inner)):
            return found
    what = f"a dict of {_some([str(key) for key in content])}" if isinstance(content, dict) else type(content).__name__
    raise ConfigError(f"init.path={path} holds {what}, no weights by name: save net.state_dict().")


def _read(path: Path, read: Any) -> Any:
    try:
        return read()
    except Exception as error:
        why = "it is damaged, or holds more than plain weights"
        raise ConfigError(f"init.path={path} cannot be read: {why}. Save net.state_dict() alone.") from error


def _unpickled(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap" not in str(error):
            raise
        return torch.load(path, map_location="cpu", weights_only=True)  # a file of torch before 1.6


def _tensors(state: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The state dict without the extra state of modules; empty where it holds anything but tensors by name."""
    plain = {name: value for name, value in state.items() if not str(name).endswith("_extra_state")}
    named = all(isinstance(name, str) and isinstance(value, Tensor) for name, value in plain.items())
    return dict(plain) if named else {}


def _renamed(path: str, weights: Mapping[str, Tensor], rename: Rename) -> dict[str, Tensor]:
    """The weights by their new names. A start of a name that none has is refused, and so are two equal names."""
    renamed: dict[str, Tensor] = {}
    used: set[str] = set()
    for name, value in weights.items():
        old = next((old for old in rename if not old or f"{name}.".startswith(f"{old}.")), None)
        if old is not None:
            used.add(old)
            new = rename[old]
            if new is None:
                continue
            name = f"{new}.{name.removeprefix(old).lstrip('.')}".strip(".")
        if name in renamed:
            raise ConfigError(f"init.rename gives two tensors of init.path={path} the name {name}: keep them apart.")
        renamed[name] = value
    if unused := [old for old in rename if old not in used]:
        raise ConfigError(
            f"init.rename: no name in init.path={path} begins with {unused[0]}: it has {_some(list(weights))}."
        )
    return renamed


def _without_prefix(given: dict[str, Tensor], own: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """The weights, without the start of their names that makes most of them fit where none fits as it is."""
    if given.keys() & own.keys():
        return given, ""
    parts = [name.split(".") for name in given]
    starts = Counter(".".join(p[:n]) + "." for p in parts for n in (1, 2) if ".".join(p[n:]) in own)
    if not starts:
        return given, ""
    (prefix, _), *_ = starts.most_common(1)
    return {name.removeprefix(prefix): value for name, value in given.items()}, prefix


def _before_renaming(start: str, rename: Rename) -> str:
    """The start of names in the file that `rename` gives the start `start`."""
    for old, new in rename.items():
        if new is not None and f"{start}.".startswith(f"{new}." if new else ""):
            return f"{old}.{start.removeprefix(new).lstrip('.')}".strip(".")
    return start


def _check_tensors(
    path: str, given: Mapping[str, Tensor], own: Mapping[str, Tensor], fit: Sequence[str], in_file: Callable[[str], str]
) -> None:
    """Refuse tensors of another shape or kind, and tied ones with two values; `in_file` gives the file's own names."""
    wrong = [name for name in fit if given[name].shape != own[name].shape]
    if wrong:
        name, more = wrong[0], f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        start = in_file(name.rpartition(".")[0] or name)
        raise ConfigError(
            f"init.path={path}: {name}{more} has shape {list(given[name].shape)} in the file and "
            f"{list(own[name].shape)} in the model: leave it out with init.rename={{{start}: null}} init.strict=false."
        )
    first: dict[int, str] = {}
    for name in fit:
        if given[name].is_floating_point() != own[name].is_floating_point():
            raise ConfigError(
                f"init.path={path}: {name} is {given[name].dtype} in the file and {own[name].dtype} in the model: "
                "give weights that are not quantised."
            )
        other = first.setdefault(id(own[name]), name)
        if other != name and not torch.equal(given[other], given[name]):
            raise ConfigError(
                f"init.path={path}: {other} and {name} are one tensor in the model and two in the file: "
                f"leave one out with init.rename={{{name}: null}}."
            )


def _some(names: Sequence[str]) -> str:
    """How many names there are, and the first three."""
    if not names:
        return "none"
    return f"{len(names)}: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}"
