"""From a config node to the object it names: nothing is imported that is not allowed, nothing is passed unseen."""

import difflib
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf

from trainer.assemble.arguments import check_arguments
from trainer.lr import Refusal

ALLOWED = (
    "trainer",
    "models",
    "data",
    "torch.nn",
    "torch.optim",
    "torchmetrics",
    "pytorch_lightning.callbacks",
    "pytorch_lightning.loggers",
    "pytorch_lightning.profilers",
    "pytorch_optimizer",
)


def build(node: DictConfig, key: str, allow: list[str], **more: Any) -> Any:
    """The object that `node`, found at `key` of the config, describes.

    Every `_target_` in it must lie in an allowed package, which is checked before anything is imported, and every
    argument must be in the target's signature. Raises `Refusal` for both, and for values that the target refuses.
    """
    for path, target in _targets(node, key):
        _check_allowed(path, target, allow)
    for path, target in _targets(node, key):
        _check_arguments(path, _locate(path, target, allow), OmegaConf.select(node, _below(path, key)), more)
    with refusing(key):
        return instantiate(node, _convert_="all", **more)


@contextmanager
def refusing(key: str) -> Iterator[None]:
    """Errors about values, raised by what the config at `key` describes, are the user's to mend: one line."""
    try:
        yield
    except Refusal as error:
        raise Refusal(_prefixed(key, error)) from error
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ValueError | TypeError | OSError | RuntimeError):
            raise Refusal(_prefixed(key, cause)) from error
        raise
    except (ValueError, TypeError, OSError) as error:
        raise Refusal(_prefixed(key, error)) from error


def _prefixed(key: str, error: BaseException) -> str:
    message = " ".join(str(error).split())
    return message if message.startswith(key.partition(".")[0]) else f"{key}: {message}"


def _targets(node: Any, key: str) -> Iterator[tuple[str, str]]:
    """Every `_target_` in `node`, with where it stands."""
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield key, str(node["_target_"])
        for name in node:
            if not OmegaConf.is_missing(node, name):
                yield from _targets(node[name], f"{key}.{name}")
    elif isinstance(node, ListConfig):
        for i in range(len(node)):
            yield from _targets(node[i], f"{key}.{i}")


def _below(path: str, key: str) -> str:
    return path[len(key) :].lstrip(".")


def _check_allowed(path: str, target: str, allow: list[str]) -> None:
    if not any(target.startswith(f"{package}.") for package in (*ALLOWED, *allow)):
        root = target.partition(".")[0]
        raise Refusal(f"{path}._target_={target} is not in an allowed package: if you trust it, add allow=[{root}].")


def _locate(path: str, target: str, allow: list[str]) -> Callable[..., Any]:
    """The callable called `target`, which must be at home in an allowed package."""
    parts = target.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError as error:
            if error.name and not target.startswith(error.name):
                raise Refusal(f"{path}._target_={target} needs the package {error.name}: install it.") from error
            continue
        for i, part in enumerate(parts[cut:], start=cut):
            if not hasattr(found, part):
                known = [name for name in dir(found) if not name.startswith("_")]
                close = difflib.get_close_matches(part, known, n=1)
                hint = f"did you mean {'.'.join(parts[:i])}.{close[0]}?" if close else "check its spelling."
                raise Refusal(f"{path}._target_={target}: {'.'.join(parts[:i])} has no {part}: {hint}")
            found = getattr(found, part)
        if not callable(found):
            raise Refusal(f"{path}._target_={target} cannot be called: name a class or a function.")
        _check_allowed(path, f"{getattr(found, '__module__', None)}.{parts[-1]}", allow)
        return found
    raise Refusal(f"{path}._target_={target} is not found: check its spelling, and that its package is installed.")
