"""A run resolves its config once and reads each checkpoint once; the config itself goes nowhere else."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.config.resolve import horizon_of, plan_of, resolve
from trainer.config.settings import settings_of
from trainer.resume.curve_history import first_segment

ROOT = Path(__file__).parents[2]
SMALL = (
    *("data=synthetic", "data.samples=64", "data.batch_size=8", "data.val_samples=8", "model.hidden=[4]", "name=x"),
    *("callbacks=none", "trainer.accelerator=cpu", "trainer.threads=1", "trainer.duration=8", "trainer.validate=4"),
    *("trainer.checkpoint=2", "trainer.keep=0", "scaling=adam_sde", "scaling.base_batch_size=4", "warmup=linear"),
    *("warmup.duration=2", "hyper_schedule=weight_decay_tied"),
)
ONCE = {
    "settings_of": 1, "tuned_hyperparameters": 1, "scaled_numbers": 1, "lr_policy": 1, "_plan": 1,
    "Plan.__post_init__": 1,
}  # fmt: skip
"""Calls of a run, whether it is a new one or a resumed one."""
ROOMS = ("trainer/config", "trainer/run.py", "trainer/cli", "trainer/sweep/launcher.py", "hydra_plugins", "cadence")
"""Where a function may take the config: the launcher of sweeps is a plugin of Hydra."""


def counted(folder, *words):
    """How often a real run has called what is counted, and the files on its way to the learning rate."""
    out = folder.with_suffix(".json")
    command = [sys.executable, str(ROOT / "tests/config/counted.py"), str(out), *SMALL, f"hydra.run.dir={folder}"]
    done = subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    return found["calls"], found["way"]


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    """The folder of a new run with a checkpoint at every second update, its calls, and its way."""
    folder = tmp_path_factory.mktemp("runs") / "new"
    return folder, *counted(folder)


def reads(*files):
    """The counts where each of these files, as RUN/NAME, is read once and no other."""
    return {f"{name} {file}": 1 for name in ("read", "load") for file in files}


def test_numbers_curve_and_plan_are_made_once_and_each_checkpoint_is_read_once(new, tmp_path):
    folder, calls, _ = new
    assert calls == ONCE | reads("new/best.ckpt")
    middle = folder / "checkpoints" / "update-00000006.ckpt"
    resumed, _ = counted(tmp_path / "resumed", f"resume.path={middle}")
    better = ["resumed/best.ckpt"] if "read resumed/best.ckpt" in resumed else []
    assert resumed == ONCE | reads(f"new/{middle.name}", "new/best.ckpt", *better)


@pytest.mark.sample(0)
def test_a_best_from_before_the_resume_is_read_once(tmp_path):
    worse = ("optimizer.lr=30", "schedule=constant", "optimizer.weight_decay=1e-9")
    counted(tmp_path / "new", *worse)
    newest = tmp_path / "new" / "checkpoints" / "update-00000008.ckpt"
    resumed, _ = counted(tmp_path / "resumed", *worse, f"resume.path={newest}")
    assert resumed == ONCE | reads(f"new/{newest.name}", "new/best.ckpt")


def test_the_files_on_the_way_to_the_rate_are_those_that_the_page_names(new):
    page = (ROOT / "docs" / "house.md").read_text(encoding="utf-8")
    section = page.partition("## From the command to the rate")[2].partition("## ")[0]
    steps, _, wrappers = section.partition("Each of them imports the next.")
    listed = [line.split("`")[1] for line in steps.splitlines() if line[:1].isdigit()]
    outside = [name for name in wrappers.split("`")[1::2] if name.endswith(".py")]
    assert sorted(new[-1]) == sorted([*listed, *outside])
    assert [name for name in new[-1] if name in listed] == listed


def test_training_and_the_plan_command_have_the_same_plan(compose):
    settings = settings_of(compose(*SMALL))
    trained, planned = resolve(settings).plan, plan_of(settings)
    assert list(planned.curves) == list(trained.curves)
    assert all(planned.curves[name].tolist() == trained.curves[name].tolist() for name in trained.curves)
    assert planned.settings == trained.settings


def test_the_plan_of_a_run_that_was_resumed_follows_the_history_of_its_curve(compose):
    before, now = (settings_of(compose(*SMALL, *more)) for more in ([], ["optimizer.lr=0.1", "trainer.duration=12"]))
    first, second = (first_segment(one.record, horizon_of(one)) for one in (before, now))
    history = [first, {**second, "rule": "override", "samples": 4 * 8}]
    old, new, joined = plan_of(before), plan_of(now), plan_of(now, history=history)
    for name, values in joined.curves.items():
        assert values.tolist() == [*old.curves[name][:4], *new.curves[name][4:]]


def test_what_was_resolved_cannot_be_changed(compose):
    resolved = resolve(settings_of(compose(*SMALL)))
    for value, name in ((resolved, "plan"), (resolved.settings, "seed"), (resolved.numbers, "scale")):
        with pytest.raises(AttributeError, match="cannot assign"):
            setattr(value, name, None)


def test_few_functions_take_the_config_and_all_where_it_is_resolved():
    taking = {}
    for path in (path for room in (*ROOMS, "trainer", "scripts") for path in files(ROOT / room)):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and takes_config(node):
                taking[f"{path.relative_to(ROOT)}:{node.name}"] = path
    assert len(taking) <= 15, sorted(taking)
    assert [name for name in taking if not name.startswith(ROOMS)] == []


def files(place):
    return [place] if place.is_file() else sorted(place.rglob("*.py"))


def takes_config(node):
    """Whether an argument of a function is annotated as a config, or has its name."""
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    kinds = [ast.unparse(one.annotation) if one.annotation else "" for one in arguments]
    return any("DictConfig" in kind or one.arg == "cfg" for one, kind in zip(arguments, kinds))


def test_a_function_that_takes_a_config_is_found():
    for arguments in ("a, config: list[DictConfig]", "cfg: Any", "*, cfg"):
        (function,) = ast.parse(f"def f({arguments}): ...").body
        assert takes_config(function)
    (function,) = ast.parse("def f(a) -> DictConfig: ...").body
    assert not takes_config(function)
