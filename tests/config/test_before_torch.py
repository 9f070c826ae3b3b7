"""What the config alone decides is refused before torch is imported, with the line of the run itself."""

import subprocess
import sys

import pytest

from trainer.config import before_torch
from trainer.config.before_torch import checked
from trainer.config.settings import settings_of
from trainer.lr import ConfigError

WITHOUT_TORCH = """
import sys
from hydra.core.global_hydra import GlobalHydra
from cadence.train import main
from trainer.cli.run_cli import run_cli

for words in sys.stdin.read().splitlines():
    sys.argv[1:] = words.split()
    GlobalHydra.instance().clear()
    code = run_cli(main, trains=True)
    print(code, sorted({"torch", "pytorch_lightning", "numpy"} & set(sys.modules)))
"""
REFUSED = (
    ("optimizer.lr=abc", "optimizer.lr='abc' is not a finite number"),
    ("optimizer.lr=-1", "optimizer.lr=-1 must be above zero"),
    ("optimzer.lr=1", "there is no key optimzer.lr, did you mean optimizer.lr?"),
    ("model=own model._target_=mine.Net model.width=3", "no key model.width in the config: add it as +model.width=3."),
    ("data=lightning data.module._target_=mine.Data", "add it as +data.module._target_=mine.Data."),
    ("data=dataset data.shape.classes=3", "add it as +data.shape.classes=3."),
    (
        "task.step=mine.step",
        "a step is a node: write ~task.loss +task.step._target_=mine.step +task.step._partial_=true.",
    ),
    ("seed=0 seed=1", "set the same key"),
    ("model._target_=os.system", "model._target_=os.system"),
    ("callbacks.progress._target_=os.system", "callbacks.progress._target_=os.system"),
    ("warmup.duration=2000 trainer.duration=100", "leaves none of the run of 100"),
    ("schedule.floor=2", "schedule"),
    ("trainer.duration=inf", "trainer.duration="),
    ("data.batch_size=100000", "larger than the 1257 training samples"),
    ("trainer.clip=-1", "trainer.clip=-1"),
)


def test_what_the_config_decides_alone_is_refused_before_torch_is_imported(tmp_path):
    lines = "\n".join(words for words, _ in REFUSED)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], input=lines, capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout.splitlines() == ["2 []"] * len(REFUSED)
    for said, (words, expected) in zip(done.stderr.splitlines(), REFUSED, strict=True):
        assert expected in said, words
    assert list(tmp_path.rglob("*.yaml")) == []


def test_the_settings_are_those_that_are_not_checked_further(compose):
    assert checked(settings_of(compose())) == settings_of(compose())


@pytest.mark.parametrize("words", [("resume.path=auto",), ("groups=muon",), ("freeze=[net.0.*]",), ("adapter=lora",)])
def test_a_curve_that_follows_from_more_than_the_config_is_left_to_the_run(compose, monkeypatch, words):
    monkeypatch.setattr(before_torch, "planned", lambda settings: pytest.fail("planned"))
    checked(settings_of(compose("optimizer.lr=0.1", *words)))


def test_an_error_in_code_is_left_to_the_run_which_keeps_its_traceback(compose, monkeypatch):
    def broken(settings):
        raise KeyError("bug")

    monkeypatch.setattr(before_torch, "planned", broken)
    assert checked(settings_of(compose())).name == "test"


def test_a_long_plan_is_made_once(compose, monkeypatch):
    monkeypatch.setattr(before_torch, "planned", lambda settings: pytest.fail("planned"))
    checked(settings_of(compose("trainer.duration=100001")))
    with pytest.raises(ConfigError, match="more than 100000000"):
        checked(settings_of(compose("trainer.duration=999999999")))
