"""How YAML is read and written: refused where it is huge, deep or grows without bound; by libyaml; each text once.

OmegaConf 2.3 parses in Python, which took a third of the time to compose a config. OmegaConf 2.4 takes libyaml itself.
"""

import inspect
import io
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import omegaconf._utils
import yaml
from omegaconf import OmegaConf

from trainer.files.plain import read_text
from trainer.lr import ConfigError

MOST_CHARACTERS, MOST_VALUES, DEEPEST = 1_000_000, 5_000, 60
MOST_TEXTS = 1_000
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_known: dict[str, bytes] = {}
"""The texts that this process has read, and the config of those that it has read twice, pickled: 10 times as fast."""
_written: dict[str, str] = {}
"""The entries that this process has written, by their `repr`."""


def check_yaml(text: str, name: str) -> None:
    """Refuse a text with more than `MOST_VALUES` values, counted with what its aliases repeat, or too deep.

    A config has a few hundred values, and the time to compose one grows with them.

    Raises:
        ConfigError: it is too large or too deep.
    """
    if len(text) > MOST_CHARACTERS:
        raise ConfigError(f"{name} has {len(text)} characters: a config has at most {MOST_CHARACTERS}: shorten it.")
    sizes: dict[str, int] = {}
    opened: list[tuple[str | None, int]] = []
    count = 0
    try:
        for event in yaml.parse(text, LOADER):
            if isinstance(event, yaml.AliasEvent):
                if event.anchor not in sizes:
                    raise ConfigError(
                        f"{name} has an alias, *{event.anchor}, inside of what it stands for: write it out."
                    )
                count += sizes[event.anchor]
            elif isinstance(event, yaml.ScalarEvent):
                count += 1
                sizes[event.anchor] = 1
            elif isinstance(event, yaml.CollectionStartEvent):
                opened.append((event.anchor, count))
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, before = opened.pop()
                sizes[str(anchor)] = count - before + 1
            if count > MOST_VALUES:
                raise ConfigError(f"{name} has more than {MOST_VALUES} values, aliases included: shorten it.")
            if len(opened) > DEEPEST:
                raise ConfigError(f"{name} is nested more than {DEEPEST} times: flatten it.")
    except yaml.YAMLError:
        return  # whoever reads it says so


@contextmanager
def plain_yaml() -> Iterator[None]:
    """Meanwhile `OmegaConf.load`, by which Hydra reads its files, refuses such a text, and is fast."""
    owner: Any = OmegaConf
    before = inspect.getattr_static(owner, "load")
    if getattr(before.__func__, "reads_plain_yaml", False):
        yield
        return
    owner.load = staticmethod(_checked(owner.load))
    try:
        yield
    finally:
        owner.load = before


def _checked(load: Callable[..., Any]) -> Callable[..., Any]:
    def checked(file: Any, **more: Any) -> Any:
        if isinstance(file, str | Path):
            text, name = Path(file).read_text(encoding="utf-8"), str(file)
        else:
            text, name = file.read(), str(getattr(file, "name", "a config"))
        if more:
            check_yaml(text, name)
            return load(_stream(text, name), **more)
        if kept := _known.get(text):
            return pickle.loads(kept)
        check_yaml(text, name)
        config = _parsed(load, text, name)
        if len(_known) >= MOST_TEXTS:
            _known.clear()
        _known[text] = pickle.dumps(config) if text in _known else b""
        return config

    checked.reads_plain_yaml = True  # type: ignore[attr-defined]
    return checked


def _parsed(load: Callable[..., Any], text: str, name: str) -> Any:
    """The config of a text; where libyaml finds an error, the parser of OmegaConf tells it."""
    try:
        with _libyaml():
            return load(_stream(text, name))
    except yaml.YAMLError:
        return load(_stream(text, name))


def _stream(text: str, name: str) -> io.StringIO:
    stream = io.StringIO(text)
    stream.name = name
    return stream


@contextmanager
def _libyaml() -> Iterator[None]:
    """Meanwhile the loader of OmegaConf 2.3 has the parser of libyaml, where PyYAML has it, and all else of its own."""
    make: Callable[[], Any] | None = getattr(omegaconf._utils, "get_yaml_loader", None)
    if make is None or not yaml.__with_libyaml__:
        yield
        return
    omegaconf._utils.get_yaml_loader = lambda: _with_libyaml(make())
    try:
        yield
    finally:
        omegaconf._utils.get_yaml_loader = make


def _with_libyaml(slow: Any) -> Any:
    def begin(self: Any, stream: Any) -> None:
        yaml.cyaml.CParser.__init__(self, stream)
        yaml.constructor.SafeConstructor.__init__(self)
        yaml.resolver.Resolver.__init__(self)

    return type("FastLoader", (yaml.cyaml.CParser, slow), {"__init__": begin})


class _Dumper(getattr(yaml, "CDumper", yaml.Dumper)):  # type: ignore[misc]
    """Writes as OmegaConf does, by libyaml."""

    def ignore_aliases(self, data: Any) -> bool:
        """A list that stands twice is written twice."""
        return True


_Dumper.add_representer(str, omegaconf._utils.OmegaConfDumper.str_representer)


def yaml_text(plain: Any) -> str:
    """What `OmegaConf.to_yaml` gives for a nest of plain values, in a fifth of the time.

    >>> yaml_text({"lr": 1e-3, "name": "1e-3", "hidden": [32]})
    "lr: 0.001\\nname: '1e-3'\\nhidden:\\n- 32\\n"
    """
    if not plain or not isinstance(plain, dict):
        return _dumped(plain)
    return "".join(_text_of_entry(key, value) for key, value in plain.items())


def _text_of_entry(key: Any, value: Any) -> str:
    """The text of one name with its value: the runs of a sweep share most of theirs."""
    known = repr((key, value))
    if (text := _written.get(known)) is None:
        if len(_written) >= MOST_TEXTS:
            _written.clear()
        text = _written[known] = _dumped({key: value})
    return text


def _dumped(plain: Any) -> str:
    options: dict[str, Any] = {"default_flow_style": False, "allow_unicode": True, "sort_keys": False}
    text: str = yaml.dump(plain, Dumper=_Dumper, **options)
    return text


def read_yaml(path: Path) -> dict[str, Any]:
    """What a file of YAML holds; empty where it is not there, cannot be read, or holds no names with values."""
    try:
        found = yaml.load(read_text(path), Loader=LOADER)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}
