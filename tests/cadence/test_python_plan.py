"""`cadence.plan` gives the curve of a run from Python, and what applies it in other loops."""

import subprocess
import sys

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

import cadence
from trainer.config.resolve import plan_of
from trainer.config.settings import settings_of
from trainer.lr import ConfigError

WORDS = ("optimizer=adamw", "schedule=cosine_warmup")


def test_the_plan_is_that_of_the_command(compose):
    expected = plan_of(settings_of(compose(*WORDS, "trainer.duration=200")))
    for made in (
        cadence.plan(*WORDS, updates=200),
        cadence.plan([*WORDS, "trainer.duration=200"]),
        cadence.plan(compose(*WORDS, "trainer.duration=200")),
        cadence.plan(compose(*WORDS), updates=200),
    ):
        assert made.curves == expected.curves
        assert made.summary() == expected.summary()


def test_a_scheduler_of_it_drives_an_optimizer_without_groups():
    plan = cadence.plan(*WORDS, updates=30)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))])
    scheduler, seen = plan.scheduler(optimizer), []
    for _ in range(30):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert seen == plan.curve.tolist()


def test_an_active_hydra_is_left_as_it_was(compose):
    from hydra import initialize_config_dir

    from tests.conftest import ROOT
    from trainer.cli.hydra_internals import VERSION_BASE

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), **VERSION_BASE):
        active = GlobalHydra.instance().hydra
        cadence.plan(*WORDS, updates=10)
        assert GlobalHydra.instance().hydra is active


def test_options_of_a_users_folder_are_found(tmp_path):
    (tmp_path / "schedule").mkdir()
    (tmp_path / "schedule" / "mine.yaml").write_text("_target_: trainer.lr.linear\n_partial_: true\nfloor: 0.5\n")
    made = cadence.plan("schedule=mine", "warmup=none", "lint.ignore=[last-lr]", updates=10, config_dir=tmp_path)
    assert made.curve[-1] == made.policy.peak_lr * 0.55
    of = ("schedule=stretch", "schedule.of=mine", "schedule.ratio=1", "warmup=none", "lint.ignore=[last-lr]")
    assert cadence.plan(*of, updates=10, config_dir=tmp_path).curve == made.curve
    grouped = cadence.plan("+group_schedule.no_decay=mine", *of[3:], updates=10, config_dir=tmp_path)
    assert grouped.curves["no_decay"] == made.curve
    with pytest.raises(ConfigError, match="there is no schedule mine"):
        cadence.plan(*of, updates=10)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["schedule=cosin"], "did you mean cosine"),
        (["optimizer.lrr=1"], "there is no key optimizer.lrr"),
        (["task.metrics={top: 1}"], "there is no key task.metrics.top: add it as .task.metrics.top=VALUE; keys of"),
        (["optimizer.lr=-1"], "optimizer.lr=-1"),
        (["trainer.duration=0"], "duration"),
        ([OmegaConf.create({}), "optimizer=sgd"], "beside overrides"),
    ],
)
def test_a_mistake_is_one_line(words, says):
    with pytest.raises(ConfigError, match=says) as refusal:
        cadence.plan(*words)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("part", ["plateau=count", "scaling=adascale"])
def test_a_rate_that_follows_from_the_run_gives_no_scheduler_and_no_callback(part):
    base = ["scaling.base_batch_size=16", "trainer.accumulate=2"] if "adascale" in part else []
    made = cadence.plan("optimizer=sgd", "schedule=constant", "warmup=none", part, *base, updates=50)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    for ask in (lambda: made.scheduler(optimizer), made.callback):
        with pytest.raises(ConfigError, match=part.partition("=")[0]):
            ask()


def test_a_finding_of_the_lint_is_a_warning():
    with pytest.warns(UserWarning, match="last-lr"):
        cadence.plan("schedule=linear", "schedule.floor=0.5", "warmup=none", updates=50)


def test_importing_and_planning_load_neither_torch_nor_lightning():
    code = f"import sys, cadence; cadence.plan(*{WORDS}, updates=200); print(sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "'hydra'" in modules
    assert "'torch'" not in modules
    assert "'pytorch_lightning'" not in modules
    bare = subprocess.run(
        [sys.executable, "-c", "import sys, cadence; dir(cadence); print('hydra' in sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert bare.stdout == "False\n"


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        cadence.fitt  # noqa: B018
