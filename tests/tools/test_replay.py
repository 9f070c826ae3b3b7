"""A run that takes its updates from a stack leaves the folder of its lone run: scores, checkpoints, log, result."""

import json
import math
import time

import pytest
import torch

from trainer.checkpoint.io import read
from trainer.config.components import build
from trainer.config.resolve import resolve
from trainer.config.settings import settings_of
from trainer.distributed.launch.time_limit import TimeLimit
from trainer.run import Start, begin, holding, run_in, train
from trainer.tools.stacked import Stack, why_alone
from trainer.tools.worker.replay import replay, updates_to_keep

QUIET = ("trainer.accelerator=cpu", "trainer.threads=1", "model.hidden=[16]", "callbacks=none", "trainer.quiet=true")
LENGTH = ("trainer.duration=60", "trainer.validate=20", "trainer.checkpoint=15", "trainer.snapshots=[25]")
LENGTH += ("trainer.keep=0", "trainer.steps_per_execution=7")
RATES = ((1e-2, 0), (3e-2, 1), (0.1, 1))


@pytest.fixture
def starts(compose, tmp_path):
    """Runs with these rates and seeds that are to start in the folder `name`."""

    def make(name, *words):
        made = []
        for i, (rate, seed) in enumerate(RATES):
            given = [*QUIET, *LENGTH, *words, f"optimizer.lr={rate}", f"seed={seed}", f"name={name}{i}"]
            (tmp_path / f"{name}{i}").mkdir()
            made.append(Start(tmp_path / f"{name}{i}", settings_of(compose(*given)), given, ["train.py"]))
        return made

    return make


def run_lone(start):
    """Train a run alone."""
    run_in(start.folder, start.settings, start.overrides, start.program)


def trained_together(starts):
    """The folders of runs that have trained as one."""
    parts = [build(resolve(one.settings), one.folder) for one in starts]
    assert why_alone(parts) == ""
    stack = Stack(parts)
    stack.train(updates_to_keep(parts[0]))
    assert not any(stack.broke())
    for i, (start, one) in enumerate(zip(starts, parts)):
        replay(stack, i)
        with holding(start) as monitor:
            begin(one, start.overrides, start.program, TimeLimit())
            train(one, monitor, time.monotonic())
    return [start.folder for start in starts]


def files(folder):
    """The names of all files, without the time in that of the log."""
    return sorted(path.name.partition("tfevents")[0] for path in folder.rglob("*"))


def tensors(tree, prefix=""):
    """All numbers and tensors of a checkpoint by their path."""
    if isinstance(tree, dict):
        found = [tensors(value, f"{prefix}/{key}") for key, value in tree.items()]
        return {key: value for one in found for key, value in one.items()}
    if isinstance(tree, list | tuple):
        return tensors(dict(enumerate(tree)), prefix)
    return {prefix: tree} if isinstance(tree, torch.Tensor | float | int) else {}


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    "words",
    [
        ("optimizer=adamw", "schedule=cosine_warmup"),
        ("optimizer=sgd", "trainer.precision=64-true"),
        ("optimizer=nesterov", "optimizer.weight_decay=0.01", "trainer.clip=0.5", "trainer.precision=64-true"),
        ("optimizer=adam", "optimizer.weight_decay=0.01", "schedule=wsd", "trainer.precision=64-true"),
    ],
)
def test_the_folder_is_that_of_the_lone_run(starts, words):
    alone, close = starts("alone", *words), 1e-9 if "trainer.precision=64-true" in words else 1e-4
    for start in alone:
        run_lone(start)
    for folder, lone in zip(trained_together(starts("stack", *words)), alone, strict=True):
        assert files(folder) == files(lone.folder)
        one, other = (json.loads((path / "result.json").read_text()) for path in (folder, lone.folder))
        assert one["metrics"].keys() == other["metrics"].keys()
        assert one["best"]["update"] == other["best"]["update"]
        assert abs(one["metrics"]["val/loss"] - other["metrics"]["val/loss"]) < 1e-6
        assert abs(one["metrics"]["test/loss"] - other["metrics"]["test/loss"]) < 1e-6
        assert {k: v for k, v in one["recent"].items() if k == "lr"} == {"lr": other["recent"]["lr"]}
        for path in lone.folder.rglob("*.ckpt"):
            saved, own = (tensors(read(at)) for at in (folder / path.relative_to(lone.folder), path))
            assert saved.keys() == own.keys()
            for key, value in own.items():
                if isinstance(value, torch.Tensor):
                    assert saved[key].dtype == value.dtype, key
                    assert torch.allclose(saved[key], value, rtol=close, atol=close), key
                elif "/seconds" not in key and "time" not in key:
                    assert math.isclose(saved[key], value, rel_tol=close, abs_tol=close), key


def test_a_run_goes_on_from_a_checkpoint_of_a_stack(starts, compose):
    words = ("optimizer=adamw", "schedule=constant")
    (folder, *_), (alone, *_) = trained_together(starts("stack", *words)), starts("alone", *words)
    run_lone(alone)
    results = []
    for path in (folder, alone.folder):
        for late in ("update-00000045.ckpt", "update-00000060.ckpt", "best.ckpt"):
            (path / "checkpoints" / late).unlink()
        (path / "result.json").unlink()
        given = [*QUIET, *LENGTH, *words, "optimizer.lr=0.01", "seed=0", f"name={path.name}", "resume=auto"]
        run_in(path, settings_of(compose(*given)), given, ["train.py"])
        results.append(json.loads((path / "result.json").read_text()))
    assert abs(results[0]["metrics"]["val/loss"] - results[1]["metrics"]["val/loss"]) < 1e-6


def test_a_run_that_stops_early_stops_at_the_same_update(starts):
    words = ("callbacks=early_stopping", "~callbacks.progress", "~callbacks.doctor")
    words += ("callbacks.early_stopping.patience=1", "callbacks.early_stopping.min_delta=10")
    alone = starts("alone", *words)
    for start in alone:
        run_lone(start)
    for folder, lone in zip(trained_together(starts("stack", *words)), alone, strict=True):
        one, other = (json.loads((path / "result.json").read_text()) for path in (folder, lone.folder))
        assert one["updates"] == other["updates"] < 60
        assert one["stopped_early"] == other["stopped_early"]
