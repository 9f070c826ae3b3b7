"""What a target takes, read from its signature: an argument that is misspelt, missing or of the wrong kind."""

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from trainer.cli.messages import nearest
from trainer.lr import ConfigError

OF_HYDRA = {"_target_", "_partial_", "_recursive_", "_convert_", "_args_"}
SEALED = ("pytorch_optimizer",)
"""Packages whose `**kwargs` take any name and ignore it."""
_WORDS = {float: "a number", int: "a whole number", bool: "true or false", str: "a text", NoneType: "null"}
_REST = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
_LISTS = {list, set, frozenset, Sequence, Collection, Iterable}


def check_names(
    path: str,
    called: Callable[..., Any],
    given: Mapping[str, Any],
    filled: Collection[str] = (),
    more: Collection[str] = (),
) -> None:
    """Refuse in `given`, found at `path` of the config, what `called` does not take, and the lack of what it needs.

    `filled` names the arguments that are added in code, `more` what is needed beside those of `called`. A partial call
    may lack some; `**kwargs` take any name.
    """
    parameters = _parameters(called)
    known = [name for name, parameter in parameters.items() if parameter.kind not in _REST and name not in filled]
    known += more
    sealed = str(getattr(called, "__module__", "")).startswith(SEALED)
    if sealed or not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        for name in given:
            if name not in OF_HYDRA and name not in known:
                raise ConfigError(f"{path}.{name} is not known to {called.__name__}: {nearest(name, known)}")
    if given.get("_partial_") or given.get("_args_"):
        return
    for name in known:
        needed = name in more or parameters[name].default is inspect.Parameter.empty
        if needed and name not in given:
            raise ConfigError(f"{path}.{name} is not set, and {called.__name__} needs it: add {path}.{name}=VALUE.")


def check_values(path: str, called: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Refuse a value in `given` that is not of the kind which the signature of `called` asks for."""
    parameters = _parameters(called)
    for name in given.keys() & parameters.keys():
        value, hint = given[name], parameters[name].annotation
        by_default = value is None and parameters[name].default is None
        if not by_default and hint is not inspect.Parameter.empty and not fits(value, hint):
            raise ConfigError(f"{path}.{name}={value!r} does not fit {called.__name__}: give {_words(hint)}.")


def _parameters(called: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters by name, their annotations evaluated where they can be; any, where nothing is known of them."""
    try:
        return inspect.signature(called, eval_str=True).parameters
    except ValueError:
        return {"any": inspect.Parameter("any", inspect.Parameter.VAR_KEYWORD)}
    except (NameError, AttributeError, TypeError, SyntaxError):
        return inspect.signature(called).parameters


def fits(value: Any, hint: Any, strict: bool = False) -> bool:
    """Whether a value of a config can be what the annotation `hint` says; True where that cannot be judged.

    A text may stand for an object of a class (a path, a device) unless `strict`: a union that names plain types
    means just these. A mapping with a `_target_` stands for the object that it will become.
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
    if kind is tuple or kind in _LISTS:
        return isinstance(value, list) and all(fits(item, inner[0]) for item in value if inner)
    if kind in (dict, Mapping):
        return isinstance(value, Mapping) and all(fits(item, inner[1]) for item in value.values() if inner)
    if kind is Callable:
        return callable(value)
    if kind is Any or not inspect.isclass(kind) or getattr(kind, "_is_protocol", False):
        return True
    return isinstance(value, kind) or (isinstance(value, str) and not strict and kind not in _WORDS)


def _words(hint: Any) -> str:
    """What to give for an annotation, in words."""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        words = dict.fromkeys(_words(part) for part in inner if part is not int or float not in inner)
        return " or ".join(words)
    if kind is Literal:
        return " or ".join(map(str, inner))
    if kind is tuple and inner and inner[-1] is not ...:
        return f"a list of {len(inner)}: {', '.join(map(_words, inner))}"
    if kind is tuple or kind in _LISTS:
        return f"a list, each {_words(inner[0])}" if inner else "a list"
    if kind in (dict, Mapping):
        return f"names, each for {_words(inner[1])}" if inner else "names and values"
    return _WORDS.get(kind) or f"a {getattr(kind, '__name__', kind)}"
