"""What the settings of Hydra may call: `hydra.callbacks`, launcher, sweeper and the settings of its logs.

Hydra imports and calls what these name, before the run begins. They are checked before that.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.experimental.callback import Callback
from hydra.utils import get_class
from omegaconf import AnyNode, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trainer.cli.allow import allowed_by_environment, check_names
from trainer.lr import ConfigError

PLUGINS = {
    "hydra.launcher": ("hydra_plugins.", "hydra._internal.core_plugins."),
    "hydra.sweeper": ("hydra_plugins.", "hydra._internal.core_plugins."),
}
"""Where a plugin of Hydra may be named, and the packages that it must lie in; Hydra calls no other."""
CALLBACKS = ("hydra.experimental.callbacks.LogJobReturnCallback",)
LOGS = ("hydra.job_logging", "hydra.hydra_logging")
HANDLERS = ("logging.StreamHandler", "logging.NullHandler", "logging.FileHandler", "rich.logging.RichHandler")
FACTORIES = ("colorlog.ColoredFormatter", "logging.Formatter")
CALLED = ("hydra.callbacks.", "hydra.launcher.", "hydra.sweeper.")
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
HARMLESS = re.compile(
    "(OMP|MKL|OPENBLAS|NUMEXPR|VECLIB_MAXIMUM)_(NUM_)?THREADS|(OMP|KMP)_(PROC_BIND|PLACES|WAIT_POLICY|AFFINITY|BLOCKTIME)"
    "|CUDA_(VISIBLE_DEVICES|DEVICE_ORDER|LAUNCH_BLOCKING|DEVICE_MAX_CONNECTIONS)|CUBLAS_WORKSPACE_CONFIG"
    "|PYTORCH_(CUDA_)?ALLOC_CONF|NCCL_(DEBUG|ALGO|PROTO|SOCKET_IFNAME|P2P_DISABLE|SHM_DISABLE|IB_DISABLE|IB_HCA)"
    "|GLOO_SOCKET_IFNAME|TOKENIZERS_PARALLELISM|(HF_HUB|HF_DATASETS|TRANSFORMERS)_OFFLINE|WANDB_MODE|TZ|LANG|LC_ALL"
)
"""Variables of the environment that load no code and start no program, as MPLBACKEND, CXX or GCONV_PATH do."""


def check_hydra(config: Any, allow: Sequence[str] = ()) -> None:
    """Refuse settings of Hydra that name a class or function which no training needs.

    Args:
        config: a composed config with its part `hydra`.
        allow: packages that the command line allows: callbacks may be classes of theirs.
    """
    hydra = config.get("hydra")
    if not isinstance(hydra, DictConfig):
        return
    for logs in LOGS:
        if OmegaConf.is_interpolation(hydra, logs.removeprefix("hydra.")):
            raise _unknown(logs)
    for key, node in _nodes(hydra, "hydra"):
        if any(key == logs or key.startswith(f"{logs}.") for logs in LOGS):
            _check_logs(key, node)
        elif _has(node, "_target_"):
            _check_target(key, _text(node, "_target_", key), [*allow, *allowed_by_environment()])
    for name, value in ((hydra.get("job") or {}).get("env_set") or {}).items():
        copied = os.environ.get(str(name)) == str(value)  # by hydra.job.env_copy
        if not copied and not HARMLESS.fullmatch(str(name)):
            raise ConfigError(f"hydra.job.env_set.{name} may decide which code is loaded: set it in your shell.")
    for key, params in _sweeps(hydra):
        if "allow" in (str(name).lstrip("+~") for name in params):
            raise ConfigError(f"{key}.allow is not read: give allow=[…] on the command line.")


def _sweeps(hydra: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    sweeper = hydra.get("sweeper") or {}
    yield "hydra.sweeper.params", sweeper.get("params") or {}
    for name, more in (sweeper.get("when") or {}).items():
        yield f"hydra.sweeper.when.{name}", more or {}


def check_searchpath(places: Any) -> None:
    """Refuse packages in the search path that a file of the config gives: Hydra imports them.

    Raises:
        ConfigError: one of them is no package of Hydra's or ours.
    """
    for place in places or ():
        if str(place).startswith("pkg://") and not re.match(r"pkg://(hydra|cadence)\b", str(place)):
            raise ConfigError(f"hydra.searchpath={place} imports a package: give it on the command line, or a folder.")


def _check_target(key: str, target: str, allow: Sequence[str]) -> None:
    if key in PLUGINS and target.startswith(PLUGINS[key]):
        return
    if key.startswith("hydra.callbacks.") and key.count(".") == 2:
        if target in CALLBACKS:
            return
        if any(target.startswith(f"{name}.") for name in allow):
            check_names([target], f"{key}._target_")
            if issubclass(get_class(target), Callback):
                return
    known = ", ".join(CALLBACKS) if key.startswith("hydra.callbacks") else "a plugin as hydra.launcher or hydra.sweeper"
    raise ConfigError(f"{key}._target_={target} is not called: Hydra may call {known}.")


def _check_logs(key: str, node: Mapping[Any, Any]) -> None:
    for name, known in (("class", HANDLERS), ("()", FACTORIES), ("_target_", ()), (".", ()), ("queue", ())):
        if _has(node, name) and (found := _text(node, name, key)) not in known:
            raise ConfigError(f"{key}.{name}={found} is not called: logs may name {', '.join(HANDLERS + FACTORIES)}.")
    written: Any = OmegaConf.to_container(node, resolve=False)
    if "filename" in written and not _is_log(str(written["filename"])):
        raise ConfigError(f"{key}.filename is not written: name a file of the run, NAME.log in its folder.")
    for entry, value in written.items():
        for text in _texts(value):
            if entry != "filename" and "${" in text:
                raise _unknown(f"{key}.{entry!s}")  # Hydra resolves it when the folder of the run is known
            if text.startswith(("ext://", "cfg://")) and text not in STREAMS:
                raise ConfigError(f"{key}.{entry!s}={text} is not read: a log goes to {' or '.join(STREAMS)}.")


def _texts(value: Any) -> Iterator[str]:
    """A value that is a text, or those in a list."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)


def _has(node: Mapping[Any, Any], name: str) -> bool:
    """`name in node`, which takes OmegaConf 100 µs where the name is not there."""
    return name in node.keys() and name in node  # noqa: SIM118


def _is_log(raw: str) -> bool:
    """Whether a file name, as written, is that of a log in the folder of the run."""
    inside = raw.startswith("${hydra.runtime.output_dir}/") or not raw.startswith(("/", "~", "$"))
    return inside and raw.endswith(".log") and ".." not in raw


def _text(node: Mapping[Any, Any], name: Any, key: str) -> str:
    """The value as text; refused if it cannot be known yet."""
    try:
        return str(node[name])
    except OmegaConfBaseException as error:
        raise _unknown(f"{key}.{name}") from error


def _unknown(key: str) -> ConfigError:
    return ConfigError(f"{key} is not known before the run starts: write it without ${{}}.")


def _nodes(node: Any, key: str) -> Iterator[tuple[str, DictConfig]]:
    """Every mapping in the settings of Hydra, with its key; what a `${}` stands for is followed."""
    if isinstance(node, DictConfig):
        yield key, node
    names: Sequence[Any] = []
    if isinstance(node, DictConfig):
        names = list(node)
    elif isinstance(node, ListConfig):
        names = range(len(node))
    for name in names:
        if not _may_hold_nodes(node._get_node(name)):
            continue
        try:
            inner = None if OmegaConf.is_missing(node, name) else node[name]
        except OmegaConfBaseException as error:
            if f"{key}.{name}.".startswith(CALLED):
                raise _unknown(f"{key}.{name}") from error
            continue
        if isinstance(inner, DictConfig | ListConfig):
            yield from _nodes(inner, f"{key}.{name}")


def _may_hold_nodes(raw: Any) -> bool:
    """Whether a value, as written, is a mapping or a list, or a `${}` of any type that may stand for one."""
    return isinstance(raw, DictConfig | ListConfig) or (isinstance(raw, AnyNode) and str(raw._value()).startswith("${"))
