"""Parts of Hydra that Cadence replaces, or uses although they are not public: all of them, each with its reason.

`tests/cli/test_hydra_internals.py` holds each of them against the Hydra that is installed. It holds for Hydra 1.3.8
with OmegaConf 2.3, and for Hydra 1.4.0rc3 with OmegaConf 2.4.
"""

import inspect
import pickle
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from copy import copy, deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra._internal.config_loader_impl
import hydra._internal.defaults_list
import hydra._internal.hydra
import hydra._internal.utils
import hydra.utils
from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.defaults_list import DefaultsList, Overrides, create_defaults_list
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser import overrides_parser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import ConfigCompositionException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf

from trainer.cli.allow import check_source
from trainer.cli.command import check_launcher
from trainer.cli.hydra_nodes import check_hydra, check_searchpath
from trainer.cli.messages import config_groups, setting_in_flags
from trainer.cli.plain_yaml import plain_yaml
from trainer.cli.run_folder import run_job_in_new_folder
from trainer.distributed.launch.starting import resume_collector
from trainer.lr import ConfigError

VERSION_BASE: dict[str, Any] = {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}
"""The argument that makes Hydra 1.3 behave as its own version. Hydra 1.4 deprecates it."""
_CHECKED: Any = getattr(hydra.utils, "UNSAFE_DISABLE_EXECUTION_CHECKS", None)
"""What tells Hydra 1.4 that the calling code has checked the targets itself; 1.3 does not ask."""
RUN_JOB = ("run_job", "_run_job")
"""The functions of Hydra that call the task: a traceback that has one of them comes from inside a job."""


@contextmanager
def hydra_raises() -> Iterator[None]:
    """Replace the parts of Hydra that print an error over several lines and exit with code 1: they raise instead.

    - `run_and_report` prints, and exits: now it marks an error that came before the job has begun, and raises it.
    - `JobReturn.return_value` prints `Error executing job with overrides`: now it raises what the job has raised.
    - `ArgumentParser.error` prints the usage and exits: now it raises a `ConfigError`.
    - `ArgumentParser.parse_known_args` takes `--experimental-rerun`, which loads a pickle or trusts a folder: refused.
      It leaves settings behind a flag that follows other settings: now they are settings, too.
    - `Plugins.instantiate_launcher` makes any launcher: now one whose jobs cannot be distributed is refused first.
    - `ConfigLoaderImpl._load_configuration_impl` gives any config: now one is refused that lets Hydra call what no
      training needs, and one that allows packages by a file. Hydra 1.4 calls `load_configuration` only for its compose
      API. `_process_config_searchpath` imports the packages that a file names; now only the command line names them.
      `OmegaConf.load` refuses files that would take minutes, and is fast: `plain_yaml` says how.
    - `Callbacks` makes the callbacks of Hydra, which are checked with the config: Hydra 1.4 warns of them.
    - `CachingConfigRepository` copies all configs that are stored in Python, 160 times for --help: now it shares them.
    - `_create_interpolation_map` of Hydra 1.3 takes a tenth of the time to compose: now only where it is needed.
    - `run_job` makes the folder of a run before the task: now it is removed again where the task is refused.
    """
    replaced = _replacements()
    before = [(owner, name, inspect.getattr_static(owner, name)) for owner, name, _ in replaced]
    for owner, name, value in replaced:
        setattr(owner, name, value)
    try:
        with plain_yaml():
            yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def _replacements() -> list[tuple[Any, str, Any]]:
    """Each part of Hydra that is replaced, as its owner and its name there, and what replaces it."""
    replaced: list[tuple[Any, str, Any]] = [
        (hydra._internal.utils, "run_and_report", _run_and_raise),
        (JobReturn, "return_value", JobReturn.return_value.getter(_return_value)),  # type: ignore[attr-defined]
        (ArgumentParser, "error", _raise_usage),
        (ArgumentParser, "parse_known_args", _checked_flags(ArgumentParser.parse_known_args)),
        (Plugins, "instantiate_launcher", _checked_launcher(Plugins.instantiate_launcher)),
        (ConfigLoaderImpl, "_load_configuration_impl", _checked_config(ConfigLoaderImpl._load_configuration_impl)),
        (
            ConfigLoaderImpl,
            "_process_config_searchpath",
            _checked_searchpath(ConfigLoaderImpl._process_config_searchpath),
        ),
        (CachingConfigRepository, "__init__", _sharing_stored),
        (Callbacks, "__init__", _checked_callbacks(Callbacks.__init__)),
        (hydra._internal.hydra, "run_job", run_job_in_new_folder(hydra._internal.hydra.run_job)),
    ]
    if make := getattr(hydra._internal.defaults_list, "_create_interpolation_map", None):
        replaced.append((hydra._internal.defaults_list, "_create_interpolation_map", _where_needed(make)))
    return replaced


def _run_and_raise(func: Callable[[], Any]) -> Any:
    """Run a part of Hydra; an error before the job has begun gets the config groups as `groups`."""
    try:
        return func()
    except (ConfigCompositionException, ValueError, TypeError, OSError) as error:
        if not hasattr(error, "run_folder") and isinstance(GlobalHydra.instance().hydra, Hydra):
            error.groups = config_groups()  # type: ignore[union-attr]
        raise


def _return_value(job: JobReturn) -> Any:
    if job.status is JobStatus.COMPLETED:
        return job._return_value
    if job.hydra_cfg is not None:
        job._return_value.run_folder = job.hydra_cfg.hydra.runtime.output_dir
    raise job._return_value


def _raise_usage(parser: ArgumentParser, message: str) -> None:
    hint = setting_in_flags(message) or "--help shows the flags; a setting is KEY=VALUE."
    raise ConfigError(f"{message}: {hint}")


def _sharing_stored(repository: CachingConfigRepository, delegate: Any) -> None:
    """Hydra replaces the list of sources in its copy; `ConfigStore.load` copies each config that it gives."""
    repository.delegate, repository.cache = copy(delegate), {}


def _where_needed(make: Callable[..., Any]) -> Callable[..., Any]:
    """A config of all choices only for a list of defaults with an interpolation, as in Hydra 1.4; else an empty one."""

    def made(overrides: Any, defaults_list: list[Any], self_added: bool) -> DictConfig:
        needed = any(default.is_interpolation() for default in defaults_list)
        return make(overrides, defaults_list, self_added) if needed else OmegaConf.create()

    return made


def _checked_flags(parse: Callable[..., Any]) -> Callable[..., Any]:
    def checked(parser: ArgumentParser, *args: Any, **kwargs: Any) -> Any:
        given, rest = parse(parser, *args, **kwargs)
        if (file := getattr(given, "experimental_rerun", None)) is not None:
            raise ConfigError(
                f"--experimental-rerun {file}: a run is not made again from a stored job, which may call any code: "
                "give the words of its overrides.yaml, or go on with resume.path."
            )
        if hasattr(given, "overrides") and not any(word.startswith("-") for word in rest):
            given.overrides, rest = [*given.overrides, *rest], []
        return given, rest

    return checked


def _checked_launcher(instantiate: Callable[..., Launcher]) -> Callable[..., Launcher]:
    def checked(plugins: Plugins, hydra_context: HydraContext, task_function: Any, config: DictConfig) -> Launcher:
        check_launcher(config.hydra.launcher)
        return instantiate(plugins, hydra_context, task_function, config)

    return checked


def _checked_config(load: Callable[..., Any]) -> Callable[..., Any]:
    def checked(
        loader: ConfigLoaderImpl, config_name: str | None, overrides: list[str], *args: Any, **more: Any
    ) -> Any:
        config = check_composed(load(loader, config_name, overrides, *args, **more), overrides)
        resume_collector()
        return config

    return checked


def check_composed(config: DictConfig, words: Sequence[str]) -> DictConfig:
    """A composed config, checked: what it lets Hydra call, and that the words allow what it allows.

    Raises:
        ConfigError: Hydra would call what no training needs, or a file of the config allows packages.
    """
    allow = config.get("allow")
    names = list(allow) if isinstance(allow, ListConfig) else []
    check_source(names, words)
    check_hydra(config, names)
    return config


def _checked_searchpath(process: Callable[..., Any]) -> Callable[..., Any]:
    def checked(loader: ConfigLoaderImpl, config_name: str | None, parsed_overrides: list[Any], repo: Any) -> Any:
        loaded = None if config_name is None else repo.load_config(config_path=config_name)
        if loaded is not None and not any(one.get_key_element() == "hydra.searchpath" for one in parsed_overrides):
            check_searchpath(OmegaConf.select(loaded.config, "hydra.searchpath"))
        return process(loader, config_name, parsed_overrides, repo)

    return checked


def _checked_callbacks(make: Callable[..., None]) -> Callable[..., None]:
    allowing: Any = getattr(hydra.utils, "execution_whitelist", nullcontext)

    def checked(callbacks: Callbacks, config: DictConfig | None = None) -> None:
        with allowing(_CHECKED):
            make(callbacks, config)

    return checked


@contextmanager
def initialized(conf: Path, config_dir: Path | None = None) -> Iterator[None]:
    """As `hydra.initialize_config_dir`, with the folder `config_dir` searched where `--config-dir` would be.

    Only Hydra's own command line knows `--config-dir`; its compose API has no such argument.
    """
    with plain_yaml(), initialize_config_dir(str(conf), **VERSION_BASE):
        if config_dir is not None:
            search_path = create_config_search_path(str(conf))
            schema = SearchPathQuery(provider="schema")
            search_path.prepend(provider="command-line", path=f"file://{config_dir.resolve()}", anchor=schema)
            GlobalHydra.instance().clear()
            Hydra.create_main_hydra2(task_name="app", config_search_path=search_path)
        yield


@contextmanager
def composed_once() -> Iterator[None]:
    """Compose each choice of options once, for many configs that mostly differ in values, as the jobs of a sweep do.

    Hydra would compose the options of each config anew, 90 % of the time of its `_load_configuration_impl`, before it
    sets the values. The files of configs are taken not to change meanwhile.
    """
    lists: dict[Any, DefaultsList] = {}
    configs: dict[int, Callable[[], DictConfig]] = {}
    make_list, make_config = create_defaults_list, ConfigLoaderImpl._compose_config_from_defaults_list

    def defaults_list(repo: Any, config_name: Any, overrides_list: list[Any], **more: Any) -> DefaultsList:
        overrides = Overrides(repo=repo, overrides_list=overrides_list)
        values = [id(one) for one in overrides.config_overrides]
        choices = [one.input_line for one in overrides_list if id(one) not in values]
        key = (config_name, *choices, *(source.path for source in repo.get_sources()), *sorted(more.items()))
        if key not in lists:
            lists[key] = make_list(repo=repo, config_name=config_name, overrides_list=overrides_list, **more)
        return replace(lists[key], config_overrides=overrides.config_overrides)

    def config(loader: ConfigLoaderImpl, defaults: list[Any], repo: Any) -> DictConfig:
        if id(defaults) not in configs:
            configs[id(defaults)] = _copies(make_config(loader, defaults, repo))
        return configs[id(defaults)]()

    setattr(hydra._internal.config_loader_impl, "create_defaults_list", defaults_list)  # noqa: B010
    setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", config)  # noqa: B010
    try:
        yield
    finally:
        setattr(hydra._internal.config_loader_impl, "create_defaults_list", make_list)  # noqa: B010
        setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", make_config)  # noqa: B010


def _copies(made: Any) -> Callable[[], Any]:
    """A function that copies what was made: from a pickle, in half the time, where its classes can be found again."""
    try:
        pickled = pickle.dumps(made)
        pickle.loads(pickled)
    except (pickle.PicklingError, AttributeError, TypeError, ImportError):
        return lambda: deepcopy(made)
    return lambda: pickle.loads(pickled)


def given_flags() -> Namespace:
    """The flags of the command line as Hydra reads them: `config_path`, `config_name`, `config_dir`, ..."""
    return get_args_parser().parse_args()


def register_resolver(name: str, function: Callable[..., Any], use_cache: bool = False) -> None:
    """Make `${name:...}` known to OmegaConf, again where it is known.

    OmegaConf 2.4 calls it `register_resolver`, and deprecates `register_new_resolver`; 2.3 has another function of
    the first name, which takes no `use_cache`.
    """
    register: Any = OmegaConf.register_resolver
    if "use_cache" not in inspect.signature(register).parameters:
        register = OmegaConf.register_new_resolver
    register(name, function, use_cache=use_cache, replace=True)


def instantiate_checked(node: Any, **more: Any) -> Any:
    """`hydra.utils.instantiate` for a node whose targets the caller has checked, as `trainer.config.targets` does.

    Hydra 1.4 warns of targets that the calling code does not list. With a list it also refuses what a listed function
    returns, where that can be called and its class is of another package: a net of peft that `models.lora.lora` makes.
    """
    if _CHECKED is not None:
        more["_execution_whitelist_"] = _CHECKED
    return instantiate(node, _convert_="all", **more)


def failed_key(error: BaseException) -> str | None:
    """The key, inside the node given to `instantiate`, of the part that could not be made; None: the node itself.

    Hydra 1.3 writes `full_key: ...` into the message of its `InstantiationException`. Hydra 1.4 raises what the target
    has raised, with a note that says the same.
    """
    found = re.search(r"full_key: (\S+)", "\n".join([str(error), *getattr(error, "__notes__", ())]))
    return found[1] if found else None


def store_option(group: str, name: str, node: Any) -> None:
    """Store a config in Hydra's registry, also in place of one that another package has stored.

    Hydra 1.4 takes `replace=True` for that, and warns without it; 1.3 replaces always.
    """
    store = ConfigStore.instance().store
    more: dict[str, Any] = {"replace": True} if "replace" in inspect.signature(store).parameters else {}
    store(name, node, group=group, provider="cadence", **more)


def add_override_functions(functions: Mapping[str, Callable[..., Any]]) -> None:
    """Let overrides call these, as `key=name(1,2)`; a name that is there already is replaced.

    Hydra has no way to add to its functions, such as `choice`: it makes the list for each parser.
    """
    make = overrides_parser.create_functions

    def made() -> Any:
        known = make()
        for name, function in functions.items():
            known.definitions.pop(name, None)
            known.register(name, function)
        return known

    overrides_parser.create_functions = made
