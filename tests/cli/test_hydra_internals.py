"""Each part of Hydra that Cadence replaces is where it was, does what it shall, and is given back."""

import inspect
import sys
import warnings
from argparse import ArgumentParser
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import hydra
import hydra._internal.defaults_list
import hydra._internal.hydra
import hydra._internal.utils
import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository
from hydra._internal.utils import create_config_search_path
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser import overrides_parser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import OmegaConf

from trainer.cli.compose import CONF
from trainer.cli.hydra_internals import (
    RUN_JOB,
    VERSION_BASE,
    add_override_functions,
    failed_key,
    given_flags,
    hydra_raises,
    initialized,
    instantiate_checked,
    register_resolver,
    store_option,
)
from trainer.lr import ConfigError

PARTS = (
    (hydra._internal.utils, "run_and_report"),
    (JobReturn, "return_value"),
    (ArgumentParser, "error"),
    (ArgumentParser, "parse_known_args"),
    (Plugins, "instantiate_launcher"),
    (ConfigLoaderImpl, "_load_configuration_impl"),
    (ConfigLoaderImpl, "_process_config_searchpath"),
    (OmegaConf, "load"),
    (Callbacks, "__init__"),
    (CachingConfigRepository, "__init__"),
    (hydra._internal.hydra, "run_job"),
    *([(hydra._internal.defaults_list, "_create_interpolation_map")] if hydra.__version__.startswith("1.3.") else []),
)


def parts() -> list[object]:
    return [inspect.getattr_static(owner, name) for owner, name in PARTS]


def test_all_are_replaced_for_a_time_and_given_back_also_after_an_error() -> None:
    before = parts()
    with suppress(KeyError), hydra_raises():
        assert all(now is not then for now, then in zip(parts(), before))
        raise KeyError
    assert all(now is then for now, then in zip(parts(), before))


def test_hydra_runs_its_parts_through_the_function_that_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def run_and_report(func):
        seen.append(func)
        return func()

    monkeypatch.setattr(hydra._internal.utils, "run_and_report", run_and_report)
    monkeypatch.setattr(sys, "argv", ["train.py", "--cfg", "job", "hydra.run.dir=nowhere"])
    hydra.main(**VERSION_BASE, config_path=str(CONF), config_name="train")(lambda cfg: None)()
    assert len(seen) >= 2  # where configs lie, the config


def test_a_job_that_failed_raises_what_it_raised_with_the_folder_of_its_run() -> None:
    cfg = OmegaConf.create({"hydra": {"runtime": {"output_dir": "there"}}})
    failed = JobReturn([], cfg=cfg, hydra_cfg=cfg, status=JobStatus.FAILED, _return_value=RuntimeError("why"))
    done = JobReturn([], status=JobStatus.COMPLETED, _return_value=3)
    with hydra_raises():
        assert done.return_value == 3
        with pytest.raises(RuntimeError, match="why") as raised:
            _ = failed.return_value
    assert raised.value.run_folder == "there"  # type: ignore[attr-defined]


def test_a_flag_that_is_not_known_is_a_config_error() -> None:
    with hydra_raises(), pytest.raises(ConfigError, match=r"--no-such.*: --help shows the flags"):
        ArgumentParser().parse_args(["--no-such"])


def test_settings_behind_a_flag_that_follows_settings_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "a=1", "--config-dir", "mine", "b=2", "-m", "c=3", "~d"])
    with hydra_raises():
        flags = given_flags()
    assert (flags.config_dir, flags.multirun, flags.overrides) == ("mine", True, ["a=1", "b=2", "c=3", "~d"])


def test_a_launcher_of_jobs_inside_processes_is_refused_before_it_is_made() -> None:
    config = OmegaConf.create({"hydra": {"launcher": {"_target_": "hydra_plugins.other.Other"}}})
    with hydra_raises(), pytest.raises(ConfigError, match="hydra/launcher: Other runs jobs inside"):
        Plugins.instance().instantiate_launcher(hydra_context=None, task_function=None, config=config)


def test_the_flags_of_the_command_line_are_read_as_hydra_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "--config-dir", "mine", "a=1", "--config-name", "other"])
    flags = given_flags()
    assert (flags.config_dir, flags.config_name, flags.config_path, flags.overrides) == ("mine", "other", None, ["a=1"])


def test_a_function_of_hydra_that_calls_the_task_has_a_known_name() -> None:
    import hydra.core.utils

    assert any(hasattr(hydra.core.utils, name) for name in RUN_JOB)


def test_more_configs_join_the_shipped_ones_and_do_not_replace_them(tmp_path: Path) -> None:
    (tmp_path / "warmup").mkdir()
    for name in ("mine", "linear"):
        (tmp_path / "warmup" / f"{name}.yaml").write_text("mine: true\n")
    with initialized(CONF, tmp_path):
        assert hydra.compose("train", ["warmup=mine"]).warmup == {"mine": True}
        assert "mine" not in hydra.compose("train", ["warmup=linear"]).warmup
    with initialized(CONF), pytest.raises(hydra.errors.MissingConfigException):
        hydra.compose("train", ["warmup=mine"])


def test_a_resolver_is_registered_again_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register_resolver("test_of_resolvers", lambda: 1)
        register_resolver("test_of_resolvers", lambda: 2, use_cache=True)
        cfg = OmegaConf.create({"two": "${test_of_resolvers:}"})
        assert cfg.two == 2
    OmegaConf.clear_resolver("test_of_resolvers")


def test_an_object_that_cannot_be_made_is_known_by_its_key() -> None:
    def failed(node: dict) -> str | None:
        with pytest.raises(Exception, match="invalid literal") as raised:
            instantiate_checked(node)
        return failed_key(raised.value)

    bad = {"_target_": "builtins.int", "_args_": ["x"]}
    assert failed({"_target_": "builtins.dict", "deep": {"first": 1, "second": bad}}) == "deep.second"
    assert failed(bad) is None


class Foreign:
    """What a function of one package returns, of a class of another, and can be called."""

    __module__ = "some_package.nets"

    def __call__(self) -> int:
        return 7


def made() -> Foreign:
    return Foreign()


@pytest.mark.parametrize("partial", [False, True])
def test_what_a_checked_function_returns_may_be_of_any_class(partial: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = instantiate_checked({"_target_": f"{__name__}.made", "_partial_": partial})
        assert (found() if partial else found)() == 7


class Noted(Callback):
    """A callback of Hydra."""


def test_callbacks_of_hydra_are_made_without_a_warning() -> None:
    config = OmegaConf.create({"hydra": {"callbacks": {"one": {"_target_": f"{__name__}.Noted"}}}})
    with hydra_raises(), warnings.catch_warnings():
        warnings.simplefilter("error")
        (made,) = Callbacks(config).callbacks
    assert type(made).__name__ == "Noted"


@dataclass
class Option:
    number: int = 1


@dataclass
class Other:
    number: int = 2


def test_an_option_of_another_package_is_replaced_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store_option("hydra/test_of_options", "one", Option)
        store_option("hydra/test_of_options", "one", Other)
    assert ConfigStore.instance().load("hydra/test_of_options/one.yaml").node.number == 2
    del ConfigStore.instance().repo["hydra"]["test_of_options"]


def test_hydra_composes_by_the_functions_that_are_replaced(tmp_path):
    loader = inspect.signature(ConfigLoaderImpl._load_configuration_impl).parameters
    assert list(loader)[:3] == ["self", "config_name", "overrides"]
    places = inspect.signature(ConfigLoaderImpl._process_config_searchpath).parameters
    assert list(places) == ["self", "config_name", "parsed_overrides", "repo"]
    (tmp_path / "train.yaml").write_text("hydra: {searchpath: ['pkg://antigravity']}\n")
    with pytest.raises(ConfigError, match="pkg://antigravity imports a package"), hydra_raises():  # noqa: SIM117
        with initialize_config_dir(str(tmp_path), **VERSION_BASE):
            compose("train")
    assert "antigravity" not in sys.modules
    (tmp_path / "train.yaml").write_text("hydra: {callbacks: {x: {_target_: joblib.load}}}\nallow: []\n")
    with pytest.raises(ConfigError, match=r"hydra\.callbacks\.x\._target_=joblib\.load is not called"), hydra_raises():  # noqa: SIM117
        with initialize_config_dir(str(tmp_path), **VERSION_BASE):
            compose("train", return_hydra_config=True)


@pytest.mark.parametrize("flags", [[], ["-m"]])
def test_a_config_is_checked_on_its_way_from_the_command_line_too(tmp_path, monkeypatch, flags):
    (tmp_path / "train.yaml").write_text("hydra: {callbacks: {x: {_target_: joblib.load}}}\nallow: []\n")
    monkeypatch.setattr(sys, "argv", ["train.py", *flags, f"hydra.run.dir={tmp_path}", f"hydra.sweep.dir={tmp_path}"])
    with pytest.raises(ConfigError, match=r"hydra\.callbacks\.x\._target_=joblib\.load is not called"), hydra_raises():
        hydra.main(**VERSION_BASE, config_path=str(tmp_path), config_name="train")(lambda cfg: None)()


def test_omegaconf_reads_a_file_through_its_load_while_hydra_is_active(tmp_path):
    (tmp_path / "train.yaml").write_text("a: &a [" + "x," * 80 + "]\nb: &b [" + "*a," * 80 + "]\n")
    with pytest.raises(ConfigError, match="aliases included"), hydra_raises():  # noqa: SIM117
        with initialize_config_dir(str(tmp_path), **VERSION_BASE):
            compose("train")


def test_the_choices_are_known_to_an_interpolation_in_a_list_of_defaults(tmp_path):
    for group, option in (("warmup", "linear"), ("schedule", "linear"), ("schedule", "flat")):
        (tmp_path / group).mkdir(exist_ok=True)
        (tmp_path / group / f"{option}.yaml").write_text(f"name: {option}\n")
    (tmp_path / "train.yaml").write_text("defaults: [warmup: linear, schedule: '${warmup}', _self_]\nallow: []\n")
    with hydra_raises(), initialize_config_dir(str(tmp_path), **VERSION_BASE):
        assert compose("train").schedule.name == "linear"
        assert compose("train", ["schedule=flat"]).schedule.name == "flat"


def test_a_copy_of_the_repository_shares_what_is_stored_and_may_have_other_sources(tmp_path):
    store_option("hydra/test_of_options", "one", Option)
    repository = ConfigRepository(create_config_search_path(str(CONF)))
    before = repository.sources
    with hydra_raises():
        other = CachingConfigRepository(repository)
        assert other.get_sources() is before
        given = other.load_config("hydra/test_of_options/one")
        given.config.number = 7
        assert repository.load_config("hydra/test_of_options/one").config.number == 1
        other.initialize_sources(create_config_search_path(str(tmp_path)))
    assert repository.sources is before
    assert other.get_sources() is not before
    del ConfigStore.instance().repo["hydra"]["test_of_options"]


def test_a_function_is_added_to_those_of_overrides_also_again(monkeypatch):
    monkeypatch.setattr(overrides_parser, "create_functions", overrides_parser.create_functions)
    for factor in (2, 3):

        def times(number: int, factor: int = factor) -> int:
            return factor * number

        add_override_functions({"times": times})
    parsed = overrides_parser.OverridesParser.create().parse_overrides(["a=times(7)", "b=choice(1,2)"])
    assert parsed[0].value() == 21
    assert parsed[1].is_choice_sweep()
