"""A config calls what its group allows and nothing else; who allows more is the command line or the shell."""

import os
import re
import sys

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from hydra_plugins.slurm_launcher import SlurmLauncher
from tests.config.hostile import ALL, BYPASSES, LISTED, OWN, executed, preloaded, ran
from trainer.cli.allow import allowed_by_environment, check_names, check_source
from trainer.cli.compose import CONF
from trainer.cli.hydra_internals import check_composed
from trainer.config.instantiate import instantiate
from trainer.config.settings import GROUPS as CONFIG_GROUPS
from trainer.config.settings import settings_of
from trainer.config.targets import GROUPS, check_text
from trainer.lr import ConfigError

SAMPLE = [LISTED[0], BYPASSES[1], BYPASSES[2], OWN[57]]
STDLIB = (
    "os subprocess builtins pickle shutil importlib runpy ctypes socket sys code pty webbrowser multiprocessing".split()
)


@pytest.fixture(scope="module")
def imported():
    """What all forks need."""
    preloaded()


@pytest.mark.slow
@pytest.mark.usefixtures("imported")
@pytest.mark.parametrize("attack", SAMPLE, ids=range(len(SAMPLE)))
def test_a_hostile_config_is_refused_by_the_command(attack, tmp_path):
    has_run, said = executed(attack, tmp_path / "here")
    assert not has_run, said
    assert said.startswith("2 "), said


def test_no_listed_target_is_called_or_imported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nodes = [
        attack.words[0] for attack in ALL if len(attack.words) == 1 and attack.words[0].startswith("+callbacks.x={")
    ]
    assert len(nodes) > 40
    for word in nodes:
        text = word.partition("=")[2].replace("@/", f"{tmp_path}/")
        target = text.partition("_target_:")[2].partition(",")[0].rstrip("}")
        if target.endswith(".LambdaCallback"):
            continue  # refused for the functions that it would call
        before = set(sys.modules)
        with pytest.raises(ConfigError) as refused:
            instantiate({"_target_": target}, "callbacks.x", [])
        ours = target.startswith(("trainer.", "pytorch_lightning.callbacks."))
        assert ours or set(sys.modules) == before, target
        if target.partition(".")[0] in STDLIB:
            assert "allow=[" not in str(refused.value)
    assert not ran(tmp_path) or not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("key", "target", "says"),
    [
        ("callbacks.x", "models.mlp.MLP", "callbacks takes those of trainer, pytorch_lightning.callbacks"),
        ("callbacks.x", "trainer.engine.task.Task", "is a class that no config may call there: name a Callback"),
        ("callbacks.x", "trainer.cli.command.run_program", "is a function that no config may call there"),
        ("callbacks.x", "tests.config.test_targets.STDLIB", "cannot be called"),
        (
            "callbacks.x",
            "tests.config.test_targets.test_names_that_run_code_are_never_allowed",
            "is a function, but a Ca",
        ),
        ("optimizer", "torch.optim.lr_scheduler.StepLR", "name a Optimizer"),
        ("optimizer", "tests.config.hostile.Attack", "makes a Attack, but a Optimizer is needed"),
        ("model", "trainer.lr.cosine", "model takes those of models, torch.nn"),
        ("model", "torch.nn.functional.torch.load", "torch is a module that functional has imported"),
        ("model", "models.mlp._checked", "_checked is private"),
        ("data", "data.cifar10.load", "is a function that no config may call there"),
        ("schedule", "trainer.cli.run_cli.run_cli", "schedule takes those of trainer.lr"),
    ],
)
def test_a_group_takes_its_own_kind(key, target, says):
    with pytest.raises(ConfigError, match=says):
        instantiate({"_target_": target}, key, ["tests"])


def test_names_that_run_code_are_never_allowed(monkeypatch):
    for name in [
        *STDLIB,
        "joblib",
        "joblib.numpy_pickle",
        "torch",
        "torch.hub",
        "numpy",
        "pandas",
        "trainer",
        "hydra",
        "a b",
    ]:
        with pytest.raises(ConfigError, match="allow="):
            check_names([name], "allow")
    check_names(["__main__", "tests", "transformers", "torch.utils.data", "numpy.random"], "allow")
    monkeypatch.setenv("CADENCE_ALLOW", "waves, steps")
    assert allowed_by_environment() == ["waves", "steps"]
    monkeypatch.setenv("CADENCE_ALLOW", "os")
    with pytest.raises(ConfigError, match="CADENCE_ALLOW=os"):
        allowed_by_environment()


def test_a_file_allows_nothing(monkeypatch):
    check_source(["waves", "steps"], ["allow=[waves,steps]", "seed=1"])
    check_source(["waves"], ["++allow=[waves]"])
    for words in ([], ["seed=1"], ["name=waves"], ["allow=[wave]"]):
        with pytest.raises(ConfigError, match=r"allow=\[waves\] stands in a file .* CADENCE_ALLOW=waves"):
            check_source(["waves"], words)
    with pytest.raises(ConfigError, match="stands in a file"):
        check_composed(OmegaConf.create({"allow": ["waves"]}), [])
    monkeypatch.setenv("CADENCE_ALLOW", "waves")
    check_source(["waves"], [])


def test_the_shell_allows_a_package_in_every_command(compose, monkeypatch):
    monkeypatch.setenv("CADENCE_ALLOW", "tests")
    settings = settings_of(compose("allow=[monai]"))
    assert settings.allow == ["monai", "tests"] == settings.curve.allow
    assert os.environ["CADENCE_ALLOW"] == "tests"


@pytest.mark.parametrize(
    ("hydra", "says"),
    [
        ({"callbacks": {"x": {"_target_": "joblib.load"}}}, "hydra.callbacks.x._target_=joblib.load is not called"),
        ({"callbacks": {"x": "${deep}"}}, "hydra.callbacks.x._target_=joblib.load is not called"),
        ({"launcher": {"_target_": "joblib.load"}}, "hydra.launcher._target_=joblib.load"),
        ({"launcher": {"jobs": {"_target_": "joblib.load"}}}, "hydra.launcher.jobs._target_=joblib.load"),
        ({"job": {"env_set": {"LD_PRELOAD": "x"}}}, "LD_PRELOAD may decide which code is loaded"),
        ({"job": {"env_set": {"MPLBACKEND": "module://planted"}}}, "MPLBACKEND may decide which code is loaded"),
        ({"job_logging": "${late.${hydra:runtime.output_dir}}"}, "hydra.job_logging is not known before the run"),
        ({"job_logging": {"handlers": {"x": "${late.${.dir}}", "dir": "???"}}}, "handlers.x is not known before"),
        ({"job_logging": {"handlers": {"x": "${oc.select:late,null}"}}}, "handlers.x is not known before the run"),
        (
            {"job_logging": {"handlers": {"x": {"stream": "${oc.select:late,ext://sys.stdout}"}}}},
            "x.stream is not known",
        ),
        ({"callbacks": {"x": "${late.${hydra:runtime.output_dir}}"}}, "hydra.callbacks.x is not known before the run"),
        ({"job_logging": {"handlers": {"x": {"()": "os.system"}}}}, "()=os.system is not called"),
        ({"job_logging": {"handlers": {"x": {"filename": "/etc/x.log"}}}}, "name a file of the run"),
        ({"callbacks": {"x": {"_target_": "${hydra:job.name}"}}}, "is not known before the run starts"),
        ({"sweeper": {"params": {"+allow": "[os]"}}}, "hydra.sweeper.params.allow is not read"),
    ],
)
def test_hydra_calls_no_more_than_its_plugins(hydra, says, monkeypatch):
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)  # an earlier test may have set it
    config = OmegaConf.create({"hydra": hydra, "deep": {"_target_": "joblib.load"}})
    with pytest.raises(ConfigError) as refused:
        check_composed(config, [])
    assert says in str(refused.value)


def test_each_group_takes_what_its_shipped_options_name():
    for path in sorted(CONF.glob("*/*.yaml")):
        found = re.findall(r"^( *)(?:- )?_target_: ([\w.]+)", path.read_text(), re.MULTILINE)
        for _, target in found:
            check_text(path.parent.name if path.parent.name != "experiment" else "task", target, [])
    assert set(GROUPS) <= {*CONFIG_GROUPS, "group_schedule"}


def test_lines_of_shell_for_slurm_come_from_the_command_line(monkeypatch):
    made = SlurmLauncher(setup=["touch mark"])
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "hydra/launcher=submitit_slurm", "seed=0,1"])
    with pytest.raises(ConfigError, match=r"hydra\.launcher\.setup, lines of shell, stands in a file"):
        made.setup(hydra_context=None, task_function=None, config=None)
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "hydra.launcher.setup=['module load cuda']"])
    with pytest.raises(AttributeError):  # the check is passed, and there is no config
        made.setup(hydra_context=None, task_function=None, config=None)
    with pytest.raises(ConfigError, match="account has more than one line"):
        SlurmLauncher(options={"account": "mine\ntouch mark"})


def test_what_the_environment_holds_may_be_copied_into_the_config(monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "x")
    check_composed(OmegaConf.create({"hydra": {"job": {"env_set": {"MY_TOKEN": "x", "OMP_NUM_THREADS": "2"}}}}), [])
    with pytest.raises(ConfigError, match="MY_TOKEN may decide"):
        check_composed(OmegaConf.create({"hydra": {"job": {"env_set": {"MY_TOKEN": "y"}}}}), [])
