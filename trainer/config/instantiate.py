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

from trainer.cli.extras import missing_extra
from trainer.config.arguments import check_names, check_values
from trainer.lr import ConfigError

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

_FAULTS = (LookupError, AttributeError, ArithmeticError, AssertionError, MemoryError)  # of code, not of a value


def build(node: Any, key: str, allow: list[str], **more: Any) -> Any:
    """The object that `node`, found at `key` of the config, describes.

    Every `_target_` in it must lie in an allowed package, which is checked before anything is imported, and every
    argument must fit the target's signature. Raises `ConfigError` for both, and for values that the target refuses.
    """
    if not isinstance(node, DictConfig) or "_target_" not in node:
        raise ConfigError(f"{key}={node!r} names no class: give it a _target_, or leave it out with ~{key}.")
    for path, target in _targets(node, key):
        _check_allowed(path, target, target, allow)
    for path, target in _targets(node, key):
        given: Any = OmegaConf.to_container(OmegaConf.select(node, _below(path, key)), resolve=True)
        called = _locate(path, target, allow)
        check_names(path, called, given, more)
        check_values(path, called, given)
    with refusing(key):
        return instantiate(node, _convert_="all", **more)


def expect(key: str, made: Any, kind: type) -> Any:
    """`made` if the `_target_` at `key` has given an object of the kind that is needed there."""
    if not isinstance(made, kind):
        raise ConfigError(
            f"{key}._target_ makes a {type(made).__name__}, but a {kind.__name__} is needed: name another."
        )
    return made


@contextmanager
def refusing(key: str) -> Iterator[None]:
    """What fails while the part at `key` of the config is made is the user's to mend: one line."""
    try:
        yield
    except InstantiationException as error:
        if isinstance(error.__cause__, _FAULTS):
            raise
        place = re.search(r"full_key: (\S+)", str(error))
        raise ConfigError(_prefixed(place[1] if place else key, error.__cause__ or error)) from error
    except _FAULTS:
        raise
    except Exception as error:
        raise ConfigError(_prefixed(key, error)) from error


def _prefixed(key: str, error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and (line := missing_extra(error, key)):
        return line
    message = " ".join(str(error).split())
    if not isinstance(error, ValueError | TypeError | OSError | RuntimeError):
        message = f"{type(error).__name__}: {message}"
    return message if message.startswith(key.partition(".")[0]) else f"{key}: {message}"


def _targets(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Every `_target_` in `node`, with where it stands."""
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield key, node["_target_"]
        for name in node:
            if not OmegaConf.is_missing(node, name):
                yield from _targets(node[name], f"{key}.{name!s}")
    elif isinstance(node, ListConfig):
        for i in range(len(node)):
            yield from _targets(node[i], f"{key}.{i}")


def _below(path: str, key: str) -> str:
    return path[len(key) :].lstrip(".")


def _check_allowed(path: str, target: Any, home: str, allow: list[str]) -> None:
    """What is called `target`, and is at home at `home`, must lie in an allowed package."""
    if not isinstance(target, str) or "." not in target or not all(map(str.isidentifier, target.split("."))):
        raise ConfigError(f"{path}._target_={target} names no class: write it as package.module.Class.")
    if not any(home.startswith(f"{package}.") for package in (*ALLOWED, *allow)):
        true, root = f" (that is {home})" if home != target else "", home.partition(".")[0]
        raise ConfigError(f"{path}._target_={target}{true} is not in an allowed package: trust it by allow=[{root}].")


def _locate(path: str, target: str, allow: list[str]) -> Callable[..., Any]:
    """The callable called `target`, which must be at home in an allowed package."""
    parts = target.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError as error:
            if line := missing_extra(error, f"{path}._target_={target}"):
                raise ConfigError(line) from error
            if error.name and not target.startswith(error.name):
                raise ConfigError(f"{path}._target_={target} needs the package {error.name}: install it.") from error
            continue
        for i, part in enumerate(parts[cut:], start=cut):
            if not hasattr(found, part):
                known = [name for name in dir(found) if not name.startswith("_")]
                close = difflib.get_close_matches(part, known, n=1)
                hint = f"did you mean {'.'.join(parts[:i])}.{close[0]}?" if close else "check its spelling."
                raise ConfigError(f"{path}._target_={target}: {'.'.join(parts[:i])} has no {part}: {hint}")
            if inspect.isclass(found) and not isinstance(inspect.getattr_static(found, part), classmethod):
                raise ConfigError(f"{path}._target_={target} is a part of a class: name the class, or a function.")
            found = getattr(found, part)
        if not callable(found):
            raise ConfigError(f"{path}._target_={target} cannot be called: name a class or a function.")
        _check_allowed(path, target, f"{getattr(found, '__module__', None)}.{parts[-1]}", allow)
        return found
    raise ConfigError(f"{path}._target_={target} is not found: check its spelling, and that its package is installed.")
