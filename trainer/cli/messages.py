"""One line for a mistake of the user, where Hydra and OmegaConf print several, and what was probably meant."""

import difflib
import re
import shlex
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import Container, DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from trainer.cli.extras import missing_extra
from trainer.cli.other_names import key_of_others, option_of_others
from trainer.lr import ConfigError

NOTHING = ";"
OF_SEVERAL = ("callbacks", "logger", "hyper_schedule", "experiment")
"""The groups that take several options, `group=[a,b]`: each option adds entries of its own, or changes keys."""


class RunFailed(RuntimeError):
    """A run failed: exit code 1, and the message without a traceback."""


@contextmanager
def mistakes_in_one_line() -> Iterator[None]:
    """Turns an error that is the user's mistake into a `ConfigError` of one line, for calls from Python."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        if (line := user_error_message(error)) is None:
            raise
        raise ConfigError(line) from error


def user_error_message(error: BaseException) -> str | None:
    """The line that says what to correct, or None where `error` is not a mistake of the user."""
    for cause in _causes(error):
        if isinstance(cause, ConfigError):
            return one_line(str(cause))
        if isinstance(cause, ModuleNotFoundError) and (line := missing_extra(cause)):
            return line
    missing = str(getattr(error, "missing_cfg_file", None) or "")
    if line := several_options(sys.argv[1:], [missing.rpartition("/")[0]]) or _several_values(str(error)):
        return line
    match error:
        case MissingConfigException(options=[*options], missing_cfg_file=str(file)):
            return _no_option(*file.rpartition("/")[::2], options)
        case OverrideParseException():
            return f"cannot read the override {error.override!r}: {_unreadable(error.override, error.message)}"
        case ConfigCompositionException():
            return _no_composition(error)
        case InstantiationException() if not isinstance(error.__cause__, TypeError | ImportError | None):
            return None
        case OmegaConfBaseException():
            return _bad_value(error)
        case HydraException():
            return one_line(str(error))
        case _ if (mark := getattr(error, "problem_mark", None)) and not hasattr(error, "run_folder"):
            problem = getattr(error, "problem", "")
            return f"{mark.name}, line {mark.line + 1}: {problem}: this is not YAML that can be read, correct it."
        case OSError(filename=str(path)) if hasattr(error, "groups"):
            return f"{path}: {error.strerror}: choose another folder for the run, by name or hydra.run.dir."
        case ValueError() | TypeError() if hasattr(error, "groups"):
            choices = [word for word in sys.argv[1:] if "." not in word.partition("=")[0]]
            return one_line(f"cannot choose {' '.join(choices)}: {error}: give the name of an option.")
    return None


def config_groups() -> list[str]:
    """The config groups of the running program, without those of Hydra."""
    app: Any = GlobalHydra.instance().hydra
    return _groups_in(app.config_loader.repository, "") if app else []


def _groups_in(repository: Any, parent: str) -> list[str]:
    """The groups below `parent`; `list_all_config_groups` of Hydra copies the repository for each one."""
    found = []
    for name in repository.get_group_options(parent.rstrip("/"), ObjectType.GROUP):
        if (group := f"{parent}{name}") != "hydra":
            found += [group] if repository.get_group_options(group, ObjectType.CONFIG) else []
            found += _groups_in(repository, f"{group}/")
    return found


def check_options(words: Sequence[str]) -> None:
    """Refuse several options for a group that takes one; while Hydra composes the config, it knows the groups."""
    listed = [word for word in words if "=[" in word and "." not in word.partition("=")[0]]
    if listed and (line := several_options(listed, config_groups())):
        raise ConfigError(line)


def several_options(overrides: Sequence[str], groups: Collection[str]) -> str | None:
    """What is wrong with an override that gives several options to a group of the given ones; None without such."""
    for word in overrides:
        group, _, value = word.partition("=")
        if group in groups and group not in OF_SEVERAL and value.startswith("["):
            each = value.strip("[]").replace(" ", "")
            return f"{word}: {group} takes one option: give one, or compare them in a sweep by -m {group}={each}."
    return None


def _several_values(text: str) -> str | None:
    """What is wrong where Hydra meets the values of a sweep without one."""
    found = re.search(r"Ambiguous value for argument '(.+?)'\s+1\.", text, re.DOTALL)
    if found is None:
        return None
    key, _, values = found[1].partition("=")
    return f"{found[1]} has several values: add -m for a sweep with a job for each; a list is {key}=[{values}]."


def one_line(text: str) -> str:
    """`text` with every run of white space as one space, without the list of places Hydra searched."""
    text = re.sub(r"Config search path:.*", "", text, flags=re.DOTALL)
    return " ".join(text.split())


def nearest(word: str, known: Sequence[str]) -> str:
    """A hint that names what `word` was probably meant to be, and what there is."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"{f'did you mean {close[0]}? ' if close else ''}Known: {', '.join(known)}."


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it was raised from, each once: `raise error from error` makes an error its own cause."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        yield error
        found.append(error)
        error = error.__cause__


def _no_option(group: str, option: str, options: list[str]) -> str:
    known = ", ".join(sorted(options))
    choice = option_of_others(group, option, options)
    meant = f", did you mean {choice}?" if choice else _meant(option, options)
    own = "" if any(word.startswith("--config-d") for word in sys.argv) else "; for your own add --config-dir FOLDER"
    return f"{group}={option}: no such option{meant} options of {group}: {known}{own}"


def setting_in_flags(message: str) -> str | None:
    """What to write in place of a setting with dashes, from a message of argparse; None where there is none.

    >>> setting_in_flags("unrecognized arguments: --optimizer.lr=0.1 --no-such")
    'a setting has no dashes: write optimizer.lr=0.1'
    """
    found = re.match(r"unrecognized arguments: --?([A-Za-z_][\w./-]*)(?:=(\S+))?(?=\s|$)", message)
    if found is None:
        return None
    after = sys.argv[sys.argv.index(f"--{found[1]}") + 1 :] if f"--{found[1]}" in sys.argv else []
    value = found[2] or (after[0] if after and not re.search(r"=|^-\D", after[0]) else "VALUE")
    key = found[1].replace("-", "_")
    answer = key_of_others(key, value.replace("VALUE", "")) or (f"write {key}={value}" if "." in key else None)
    return f"a setting has no dashes: {answer}" if answer else None


def taken_apart(words: Sequence[str], key: str) -> str | None:
    """How to write a setting whose braces a shell has expanded into several words; None where that is not so.

    >>> taken_apart(["data.train=_target_:a.B", "seed=1", "data.train=n:[2]"], "data.train")
    "your shell has taken the braces apart: quote them: 'data.train={_target_: a.B, n: [2]}'."
    """
    values = [word.partition("=")[2] for word in words if word.startswith(f"{key}=")]
    pairs = [re.fullmatch(r"(\w+):(.+)", value) for value in values]
    if len(pairs) < 2 or not all(pairs):
        return None
    inner = ", ".join(f"{pair[1]}: {pair[2]}" for pair in pairs if pair)
    return f"your shell has taken the braces apart: quote them: '{key}={{{inner}}}'."


def _unreadable(override: str, message: str) -> str:
    """What is wrong with an override, and how it may be written."""
    key, equals, value = override.partition("=")
    if line := taken_apart(sys.argv[1:], key):
        return line
    if re.fullmatch(r"[\w.@/:~+-]+", override):
        return f"write KEY=VALUE without spaces: {_joined(sys.argv[1:], override)}."
    if equals and re.fullmatch(r"[\w.@/~+]+", key) and to_quote(value):
        quoted = shlex.quote(key + '="' + value + '"')
        return f"quote the value: {quoted}."
    return _grammar(message)


def _joined(words: Sequence[str], word: str) -> str:
    """The setting that `word` was probably part of, where there are spaces around its equals sign."""
    i = words.index(word) if word in words else len(words)
    before, after = words[i - 1] if 0 < i < len(words) else "", words[i + 1 : i + 3]
    if before.endswith("=") and before != "=":
        return f"{before}{word}"
    if after and after[0].startswith("="):
        return f"{word}{''.join(after) if after[0] == '=' else after[0]}"
    return f"{word}=VALUE"


def to_quote(value: str) -> bool:
    """Whether quotes make a plain value of one that Hydra cannot read."""
    structured = value.startswith(("[", "{")) or any(sign in value for sign in ("'", '"', "${", "("))
    return not structured and bool(re.search(r"[^\x00-\x7f]|[=#&;!~<>^`]", value))


def _grammar(message: str) -> str:
    """What is wrong with an override; Hydra 1.4 says first which of all overrides it is."""
    message = re.sub(r"^Error when parsing index: .*? out of \[.*?\]\.\n", "", message, flags=re.DOTALL)
    return one_line(re.sub(r"See https?://\S+ for details", "", message))


def _no_composition(error: ConfigCompositionException) -> str:
    cause = error.__cause__
    added = re.search(r"To append to your config use \+(?P<override>.+)", str(error), re.DOTALL)
    if added and isinstance(cause, ConfigKeyError | ConfigAttributeError):
        return _no_key(added["override"].strip(), cause, getattr(error, "groups", []))
    if not isinstance(cause, OmegaConfBaseException):
        return one_line(re.sub(r"^In '.+?': (?=You must specify)", "", str(error)))  # Hydra 1.4 names the config
    override = str(error).removeprefix("Error merging override").strip()
    bad = _bad_value(cause)
    return one_line(f"{override}: {bad.removeprefix(f'{cause.full_key}: ')}" if override else bad)


def _no_key(override: str, cause: OmegaConfBaseException, groups: list[str]) -> str:
    key = override.partition("=")[0]
    parent = cause.parent_node
    if not isinstance(parent, DictConfig):
        return one_line(f"{override}: {_bad_value(cause)}")
    if named := _known_elsewhere(override, OmegaConf.to_container(parent._get_root(), resolve=False)):
        return f"{override}: {named}"
    node = str(parent._get_full_key(None) or "")
    names = {str(name) for name in parent if not re.fullmatch(r"hydra|_\w+_", str(name))}
    names |= set() if node else set(groups)
    if key == node:  # a dictionary with an entry that is not there
        name = str(cause.key)
        meant = _meant(name, sorted(names), f"{node}.").replace(NOTHING, f": add it as +{node}.{name}=VALUE;", 1)
        return f"{override}: there is no key {node}.{name}{meant} keys of {node}: {', '.join(sorted(names)) or 'none'}"
    if node and not names and node not in ("callbacks", "logger"):  # what the config leaves to the user
        return f"{override}: there is no key {key} in the config: add it as {shlex.quote(f'+{override}')}."
    place = f"keys of {node}" if node else "keys"
    meant = _meant(key.rpartition(".")[2], sorted(names), f"{node}." if node else "")
    if meant == NOTHING:
        meant = _meant(key, list(_leaves(parent, key)))
    return f"{override}: there is no key {key}{meant} {place}: {', '.join(sorted(names)) or 'none'}"


def _known_elsewhere(override: str, plain: Any) -> str | None:
    """What to write in place of a key that is set in another way here; `plain` is the whole config as plain values."""
    key, _, value = override.partition("=")
    group, _, name = key.rpartition(".")
    if name == "_target_" and group in ("logger", "callbacks"):
        own = value.rpartition(".")[2].lower().removesuffix("logger") or "mine"
        return f"{group} has named entries: add {shlex.quote(f'+{group}.{own}={{_target_: {value}}}')}."
    if key == "task.step":
        return f"a step is a node: write ~task.loss +task.step._target_={value} +task.step._partial_=true."
    return key_of_others(key, value, plain)


def _leaves(node: Container, key: str) -> Iterator[str]:
    """All dotted keys of the config that `node` is part of; the settings of Hydra only where `key` is one."""
    plain = OmegaConf.to_container(node._get_root(), resolve=False)
    stack = [("", plain)]
    while stack:
        prefix, value = stack.pop()
        if isinstance(value, dict):
            stack += [(f"{prefix}.{name!s}".lstrip("."), inner) for name, inner in value.items()]
        elif prefix.startswith("hydra") == key.startswith("hydra"):
            yield prefix


def _meant(word: str, known: list[str], prefix: str = "") -> str:
    """`, did you mean ...?`: the known keys that end in just this word, else the nearest known word."""
    same = sorted(name for name in known if name.rpartition(".")[2] == word)[:3]
    near = [f"{prefix}{name}" for name in same or difflib.get_close_matches(word, known, n=1, cutoff=0.75)]
    return f", did you mean {' or '.join(near)}?" if near else NOTHING


def _bad_value(error: OmegaConfBaseException) -> str:
    to_missing = re.search(r"Missing mandatory value: (\S+)", str(error))
    if to_missing or isinstance(error, MissingMandatoryValue):
        key = to_missing[1] if to_missing else error.full_key or "a value"
        return f"{key} is not set: add {key}=VALUE to the command line."
    first = one_line(str(error).partition("full_key:")[0])
    return f"{error.full_key}: {first}" if error.full_key and error.full_key not in first else first
