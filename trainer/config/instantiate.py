"""From a config node to the object it names: imports come from allowed packages only, and arguments are checked."""

import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from hydra.errors import InstantiationException

from trainer.cli.extras import missing_extra
from trainer.cli.hydra_internals import failed_key, instantiate_checked
from trainer.cli.messages import nearest
from trainer.cli.other_names import key_of_others
from trainer.config.targets import ALL, check_found, check_text
from trainer.lr import ConfigError

Node = Mapping[str, Any]
"""A part of the config as plain, resolved values: what to call (`_target_`), and its arguments."""

_FAULTS = (LookupError, AttributeError, ArithmeticError, AssertionError, MemoryError)  # bugs in code, not wrong values

FINISHED_BY_RUN = set("model optimizer groups scaling warmup schedule batch_schedule cooldown average adapter".split())
"""Groups whose `_target_` gets its last arguments from the run, and so needs `_partial_: true`."""
OF_HYDRA = {"_target_", "_partial_", "_recursive_", "_convert_", "_args_"}
SEALED = ("pytorch_optimizer",)
"""Packages whose `**kwargs` take any name and ignore it."""
_WORDS = {float: "a number", int: "a whole number", bool: "true or false", str: "a text", NoneType: "null"}
_REST = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
_LISTS = {list, set, frozenset, Sequence, Collection, Iterable}


def instantiate(node: Any, key: str, allow: Sequence[str], **more: Any) -> Any:
    """The object that `node`, found at `key` of the config, describes.

    Every `_target_` in it must be one that its group allows (`targets`): its text is checked before anything is
    imported, its kind before it is called. Every argument must fit the target's signature. Raises `ConfigError` for
    both, and for values that the target refuses.
    """
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise ConfigError(f"{key}={node!r} names no class: give it a _target_, or leave it out with ~{key}.")
    check_texts(node, key, allow)
    for path, part in _parts(node, key):
        called = _locate(path, part["_target_"], allow)
        check_names(path, called, part, more)
        check_values(path, called, part)
    with refusing(key):
        return instantiate_checked(_with_tensors(node, key, allow), **more)


def check_texts(node: Any, key: str, allow: Sequence[str]) -> None:
    """Refuse a `_target_` in `node` by its text alone; nothing is imported."""
    for path, part in _parts(node, key):
        check_text(path, part["_target_"], allow)


def called_by(node: Node, key: str, allow: Sequence[str]) -> Callable[..., Any]:
    """The class or function that a node names."""
    check_text(key, node.get("_target_"), allow)
    return _locate(key, node["_target_"], allow)


def takes(node: Node, key: str, allow: Sequence[str], name: str, in_rest: bool = False) -> bool:
    """Whether what a node names takes an argument of this name; `in_rest`: also as one of `**kwargs`."""
    parameters = _parameters(called_by(node, key, allow))
    return name in parameters or (in_rest and any(one.kind is one.VAR_KEYWORD for one in parameters.values()))


def expect(key: str, made: Any, kind: type) -> Any:
    """`made` if the `_target_` at `key` has given an object of the kind that is needed there."""
    if not isinstance(made, kind):
        raise ConfigError(
            f"{key}._target_ makes a {type(made).__name__}, but a {kind.__name__} is needed: name another."
        )
    return made


def needs(node: Node, key: str, allow: Sequence[str]) -> set[str]:
    """The arguments without a default of what a node names."""
    parameters = _parameters(called_by(node, key, allow)).items()
    return {name for name, one in parameters if one.default is one.empty and one.kind not in _REST}


@contextmanager
def refusing(key: str) -> Iterator[None]:
    """Turns an error while the part at `key` of the config is made into a `ConfigError` of one line."""
    try:
        yield
    except InstantiationException as error:
        if isinstance(error.__cause__, _FAULTS):
            raise
        raise ConfigError(_prefixed(_failed_key(key, error), error.__cause__ or error)) from error
    except _FAULTS:
        raise
    except Exception as error:
        raise ConfigError(_prefixed(_failed_key(key, error), error)) from error


def _failed_key(key: str, error: BaseException) -> str:
    inner = failed_key(error)
    return f"{key}.{inner}" if inner else key


def _prefixed(key: str, error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and (line := missing_extra(error, key)):
        return line
    message = " ".join(str(error).split())
    if not isinstance(error, ValueError | TypeError | OSError | RuntimeError):
        message = f"{type(error).__name__}: {message}"
    return message if message.startswith(key.partition(".")[0]) else f"{key}: {message}"


def _parts(node: Any, key: str) -> Iterator[tuple[str, Node]]:
    """Every mapping in `node` that has a `_target_`, with its key."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield key, node
        for name, part in node.items():
            yield from _parts(part, f"{key}.{name!s}")
    elif isinstance(node, Sequence) and not isinstance(node, str):
        for i, part in enumerate(node):
            yield from _parts(part, f"{key}.{i}")


def _with_tensors(node: Any, key: str, allow: Sequence[str]) -> Any:
    """A copy of `node`, with lists of numbers for arguments that are tensors as nodes that make tensors."""
    if isinstance(node, list):
        return [_with_tensors(part, f"{key}.{i}", allow) for i, part in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    parts = {name: _with_tensors(part, f"{key}.{name!s}", allow) for name, part in node.items()}
    lists = [name for name, part in parts.items() if isinstance(part, list)]
    if lists and "_target_" in node:
        parameters = _parameters(_locate(key, node["_target_"], allow))
        for name in lists:
            if name in parameters and _takes_tensor(parameters[name].annotation):
                parts[name] = {"_target_": f"{__name__}.doubles", "numbers": parts[name]}  # no config holds a tensor
    return parts


def doubles(numbers: list[float]) -> Any:
    """Numbers as a tensor in double precision."""
    import torch  # late: few nodes need it

    return torch.tensor(numbers, dtype=torch.float64)


def _takes_tensor(hint: Any) -> bool:
    """Whether an annotation names torch's tensor, and no list."""
    kinds = get_args(hint) or (hint,)
    names = [f"{getattr(kind, '__module__', '')}.{getattr(kind, '__name__', '')}" for kind in kinds]
    return "torch.Tensor" in names and not _LISTS.intersection(get_origin(kind) or kind for kind in kinds)


def _locate(path: str, target: str, allow: Sequence[str]) -> Callable[..., Any]:
    """The callable named `target`, which must be defined in an allowed package."""
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
                raise ConfigError(f"{path}._target_={target} is a member of a class: name the class, or a function.")
            found = getattr(found, part)
            if inspect.ismodule(found):
                raise ConfigError(
                    f"{path}._target_={target}: {found.__name__} is a module that {parts[i - 1]} has imported: name a "
                    "class or function where it is defined."
                )
        if not callable(found):
            raise ConfigError(f"{path}._target_={target} cannot be called: name a class or a function.")
        check_found(path, target, found, allow)
        _check_one_file(path, target, parts[:cut])
        return found
    raise ConfigError(f"{path}._target_={target} is not found: check its spelling, and that its package is installed.")


def _check_one_file(path: str, target: str, module: Sequence[str]) -> None:
    """Refuse a module of an open package that two folders hold with other content: the second one would be ignored."""
    places = getattr(sys.modules[module[0]], "__path__", ())
    files = [Path(place, *module[1:]).with_suffix(".py") for place in places] if len(module) > 1 else []
    there = [file for file in files if file.is_file()]
    if len({file.read_bytes() for file in there}) > 1:
        raise ConfigError(
            f"{path}._target_={target}: {there[0]} and {there[1]} are both {'.'.join(module)}: rename yours."
        )


def check_names(
    path: str,
    called: Callable[..., Any],
    given: Mapping[str, Any],
    filled: Collection[str] = (),
    more: Collection[str] = (),
) -> None:
    """Refuse names in `given`, found at `path` of the config, that `called` does not take, and missing arguments.

    `filled` are arguments that code adds, `more` names that are required beside those of `called`. A partial call may
    lack some; `**kwargs` take any name.
    """
    parameters = _parameters(called)
    known = [name for name, parameter in parameters.items() if parameter.kind not in _REST and name not in filled]
    known += more
    if not _takes_any_name(called, parameters):
        for name in given:
            if name not in OF_HYDRA and name not in known:
                hint = key_of_others(f"{path}.{name}", given[name]) or (
                    nearest(name, known) if known else "it takes no settings."
                )
                raise ConfigError(f"{path}.{name} is not known to {called.__name__}: {hint}")
    if given.get("_partial_") or given.get("_args_"):
        return
    for name in known:
        needed = name in more or parameters[name].default is inspect.Parameter.empty
        if needed and name not in given:
            remedy = (
                f"add _partial_: true to the config of {path}, so that the run can set it."
                if path in FINISHED_BY_RUN
                else f"add {path}.{name}=VALUE."
            )
            raise ConfigError(f"{path}.{name} is not set, and {called.__name__} needs it: {remedy}")


def _takes_any_name(called: Callable[..., Any], parameters: Mapping[str, inspect.Parameter]) -> bool:
    """Whether only the call of `called` tells which names it takes.

    A wrapper of a package that the user has allowed may take more names than what it wraps, as the configs of
    transformers do, and its signature shows those of what it wraps.
    """
    module = str(getattr(called, "__module__", ""))
    if module.startswith(SEALED):
        return False
    known = any(module.startswith(f"{package}.") for package in (*ALL, "pytorch_lightning.trainer"))
    taken = [parameters] if known else [parameters, _parameters(called, follow_wrapped=False)]
    return any(parameter.kind is parameter.VAR_KEYWORD for names in taken for parameter in names.values())


def check_values(path: str, called: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Refuse a value in `given` that does not fit the annotation in the signature of `called`."""
    parameters = _parameters(called)
    for name in given.keys() & parameters.keys():
        value, hint = given[name], parameters[name].annotation
        by_default = value is None and parameters[name].default is None
        if not by_default and hint is not inspect.Parameter.empty and not fits(value, hint):
            raise ConfigError(f"{path}.{name}={value!r} does not fit {called.__name__}: give {_allowed_values(hint)}.")


def _parameters(called: Callable[..., Any], follow_wrapped: bool = True) -> Mapping[str, inspect.Parameter]:
    """The parameters by name, with evaluated annotations if possible; `**any` where there is no signature."""
    try:
        return inspect.signature(called, eval_str=True, follow_wrapped=follow_wrapped).parameters
    except ValueError:
        return {"any": inspect.Parameter("any", inspect.Parameter.VAR_KEYWORD)}
    except (NameError, AttributeError, TypeError, SyntaxError):
        return inspect.signature(called, follow_wrapped=follow_wrapped).parameters


def fits(value: Any, hint: Any, strict: bool = False) -> bool:
    """Whether a value of a config fits the annotation `hint`; True where that cannot be decided.

    A text may stand for an object of a class (a path, a device) unless `strict`, in a union that names plain types. A
    mapping with a `_target_` stands for the object that it describes.
    """
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if isinstance(value, Mapping) and "_target_" in value:
        return True
    if kind in (Union, UnionType):
        return any(fits(value, part, strict=bool({bool, int, float, str}.intersection(inner))) for part in inner)
    if kind is Literal:
        return value in inner
    if kind in (float, int):
        return isinstance(value, int | kind) and not isinstance(value, bool)
    if kind is tuple and inner and inner[-1] is not ...:
        return isinstance(value, list) and len(value) == len(inner) and all(map(fits, value, inner))
    if isinstance(value, list) and _takes_tensor(kind):
        return all(isinstance(item, int | float) and not isinstance(item, bool) for item in value)
    if kind is tuple or kind in _LISTS:
        return isinstance(value, list) and all(fits(item, inner[0]) for item in value if inner)
    if kind in (dict, Mapping):
        return isinstance(value, Mapping) and all(fits(item, inner[1]) for item in value.values() if inner)
    if kind is Callable:
        return callable(value)
    if kind is Any or not inspect.isclass(kind) or getattr(kind, "_is_protocol", False):
        return True
    return isinstance(value, kind) or (isinstance(value, str) and not strict and kind not in _WORDS)


def _allowed_values(hint: Any) -> str:
    """The values that an annotation allows, in words."""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        words = dict.fromkeys(_allowed_values(part) for part in inner if part is not int or float not in inner)
        return " or ".join(words)
    if kind is Literal:
        return " or ".join(map(str, inner))
    if kind is Callable:
        return "a function, as {_target_: module.name, _partial_: true}"
    if kind is tuple and inner and inner[-1] is not ...:
        return f"a list of {len(inner)}: {', '.join(map(_allowed_values, inner))}"
    if kind is tuple or kind in _LISTS:
        return f"a list, each {_allowed_values(inner[0])}" if inner else "a list"
    if _takes_tensor(kind):
        return "a list of numbers"
    if kind in (dict, Mapping):
        return f"names, each for {_allowed_values(inner[1])}" if inner else "names and values"
    return _WORDS.get(kind) or f"a {getattr(kind, '__name__', kind)}"
