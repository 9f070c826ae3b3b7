"""The commands of the README as a user types them: real processes, real data, the files they leave."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.distributed import worlds
from trainer.checkpoint.io import BEST, checkpoints_in, read

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "pytorch_lightning", "lightning_fabric", "torchmetrics", "matplotlib.pyplot")


@pytest.fixture
def command(python, tmp_path):
    """Run a command of the project in a folder of its own, and say how it went."""

    def run(*words, code=0, **environment):
        env = os.environ | {"CADENCE_RUN_ID": ""} | environment
        script, *rest = words
        words = [python, str(ROOT / script), *rest]
        done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == code, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        return done

    return run


@pytest.fixture
def quick(tmp_path):
    """The same for train.py, forked from a process that has imported everything: what a fresh start adds is time."""

    def run(script, *words, code=0):
        process = worlds.Script(ROOT / script, words, tmp_path, os.environ | {"CADENCE_RUN_ID": ""})
        out, err = process.communicate(timeout=300)
        assert process.returncode == code, f"{out[-2000:]}\n{err[-3000:]}"
        return subprocess.CompletedProcess(words, code, out, err)

    return run


def result(folder):
    return json.loads((folder / "result.json").read_text())


def scalars(folder):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    return events


@pytest.mark.slow
def test_the_default_run_learns_the_digits_and_leaves_everything_in_its_folder(command, tmp_path):
    done = command("train.py", "name=first")
    folder = tmp_path / "outputs" / "first"
    outcome = result(folder)
    assert outcome["status"] == "completed"
    assert outcome["test"]["accuracy"] >= 0.97
    assert outcome["updates"] == outcome["total_updates"] == 780
    assert {"config.yaml", "overrides.yaml", "plan.json", "result.json", "checkpoints"} <= {
        path.name for path in folder.iterdir()
    }
    assert "global batch   32\n" in done.stdout
    assert not [line for line in done.stdout.splitlines() if line != line.rstrip()]
    assert str(folder) in done.stdout
    assert read(folder / "checkpoints" / BEST)["cadence"]["updates"] == outcome["best"]["update"]
    events = scalars(folder)
    tags = events.Tags()["scalars"]
    for tag in ("train/loss", "train/grad_norm", "lr/decay", "x_lr_factors/no_decay/warmup"):
        assert [point.step for point in events.Scalars(tag)] == list(range(780)), tag
    assert {"val/loss", "val/accuracy", "train/samples_per_second"} <= set(tags)
    assert all(len(events.Scalars(tag)) > 1 for tag in tags)
    assert not [tag for tag in tags if tag.endswith("/plateau")]
    assert list(dict.fromkeys(tag.partition("/")[0] for tag in sorted(tags))) == ["lr", "train", "val", "x_lr_factors"]
    assert {"run", "scores"} <= {tag.partition("/")[0] for tag in events.Tags()["tensors"]}


@pytest.mark.slow
def test_a_scaled_run_applies_the_rate_of_its_plan(command, quick, tmp_path):
    chosen = (
        *("optimizer=sgd", "schedule=cosine", "warmup=linear", "warmup.duration=10%", "scaling=linear"),
        *("data.batch_size=256", "scaling.base_batch_size=64", "optimizer.lr=0.05"),
    )
    command("scripts/plan.py", *chosen, "--out", str(tmp_path / "plan"))
    done = quick("train.py", "name=scaled", *chosen)
    planned = json.loads((tmp_path / "plan.json").read_text())
    facts = json.loads((tmp_path / "outputs/scaled/plan.json").read_text())
    assert (facts["kappa"], facts["scale"], facts["peak_lr"], facts["global_batch"]) == (4.0, 4.0, 0.2, 256)
    assert "linear, κ = 4, scale 4" in done.stdout
    points = [point.value for point in scalars(tmp_path / "outputs/scaled").Scalars("lr/decay")]
    assert points == [float(np.float32(lr)) for lr in planned["lr"]]
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "words",
    [
        ("train.py", "--cfg", "job"),
        ("train.py", "--help"),
        ("scripts/plan.py", "optimizer=sgd"),
        ("-m", "cadence", "train", "--help"),
        ("-m", "cadence", "plan", "optimizer=sgd"),
    ],
    ids=" ".join,
)
def test_composing_helping_and_planning_import_neither_torch_nor_lightning(python, tmp_path, words):
    script, *rest = words
    done = subprocess.run(
        [python, "-X", "importtime", script if script == "-m" else str(ROOT / script), *rest],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    imported = set(re.findall(r"\| +([\w.]+)$", done.stderr, flags=re.MULTILINE))
    assert "hydra" in imported
    assert not imported & set(HEAVY)


def test_help_shows_groups_options_and_examples(command):
    text = command("train.py", "--help").stdout
    for part in ("schedule: chebyshev, constant", "optimizer: adabound, adadelta", "cadence train -m"):
        assert part in text
    assert "example" in command("scripts/plan.py", "--help").stdout.lower()


def test_the_shell_completes_groups_and_options_as_hydra_gives_it(python, tmp_path):
    line = "train.py schedule=cos"
    done = subprocess.run(
        [python, str(ROOT / "train.py"), "-sc", "query=bash"],
        env=os.environ | {"COMP_LINE": line, "COMP_POINT": str(len(line))},
        cwd=tmp_path, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert set(done.stdout.split()) == {f"schedule={name}" for name in ("cosine", "cosine_cyclic", "cosine_warmup")}


def test_planning_text_counts_its_windows_without_torch(command, real_data, tmp_path):
    path = real_data / "tinyshakespeare" / "input.txt"
    done = command("scripts/plan.py", "experiment=shakespeare_char", f"data.path={path}", "trainer.duration=1e6 tokens")
    assert "T = 1302 updates of 12 samples, 1307 an epoch; warm-up W = 100" in done.stdout


@pytest.mark.slow
def test_a_grid_gives_each_job_its_own_process_folder_and_result(command, tmp_path):
    grid = ("optimizer.lr=0.01,0.03", "schedule=cosine,linear", "hydra.launcher.fork=true")
    done = command("train.py", "-m", "name=grid", "trainer=debug", *grid)
    folders = sorted((tmp_path / "outputs/grid").glob("[0-9]"))
    assert len(folders) == 4
    overrides = {(folder / "overrides.yaml").read_text() for folder in folders}
    assert len(overrides) == 4
    assert {result(folder)["status"] for folder in folders} == {"completed"}
    facts = [json.loads((folder / "plan.json").read_text()) for folder in folders]
    assert [fact["base_lr"] for fact in facts] == [0.01, 0.01, 0.03, 0.03]
    assert len(json.loads((tmp_path / "outputs/grid/sweep.json").read_text())["jobs"]) == 4
    assert "completed" in done.stdout


@pytest.mark.sample(0)
@pytest.mark.slow
def test_two_processes_train_as_one_does_that_accumulates(command, quick, tmp_path):
    common = ("trainer.accelerator=cpu", "trainer.duration=2ep", "optimizer=sgd", "trainer.threads=1")
    command("train.py", "name=two", "trainer=ddp", "trainer.devices=2", *common)
    quick("train.py", "name=one", "trainer.accumulate=2", *common)
    two, one = (tmp_path / "outputs" / name for name in ("two", "one"))
    assert sorted(path.name for path in (tmp_path / "outputs").iterdir()) == ["one", "two"]
    for tag in ("lr/decay", "lr/no_decay"):
        rates = [[(p.step, p.value) for p in scalars(folder).Scalars(tag)] for folder in (two, one)]
        assert rates[0] == rates[1]
        assert len(rates[0]) == 38
    losses = [[point.value for point in scalars(folder).Scalars("train/loss")] for folder in (two, one)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    weights = [read(folder / "checkpoints" / BEST)["state_dict"] for folder in (two, one)]
    for name in weights[0]:
        assert torch.allclose(weights[0][name].float(), weights[1][name].float(), rtol=1e-3, atol=1e-5), name
    assert result(two)["metrics"]["val/loss"] == pytest.approx(result(one)["metrics"]["val/loss"], rel=1e-4)


@pytest.mark.sample(0)
@pytest.mark.slow
@pytest.mark.data
def test_a_resnet_learns_real_photographs(quick, real_data, tmp_path):
    quick(
        *("train.py", "experiment=cifar10_resnet", f"data.path={real_data / 'cifar10'}", "name=photos"),
        *("model.width=8", "data.train_limit=6000", "data.samples=6000", "data.batch_size=100", "optimizer.lr=0.2"),
        *("trainer.duration=2ep", "trainer.accelerator=cpu"),
    )
    outcome = result(tmp_path / "outputs/photos")
    assert outcome["updates"] == 120
    assert outcome["test"]["accuracy"] > 0.3


@pytest.mark.sample(0)
@pytest.mark.slow
@pytest.mark.data
def test_a_small_gpt_learns_more_of_shakespeare_than_the_frequency_of_letters(quick, real_data, tmp_path):
    path = real_data / "tinyshakespeare" / "input.txt"
    quick(
        *("train.py", "experiment=shakespeare_char", f"data.path={path}", "name=play", "trainer.accelerator=cpu"),
        *("trainer.duration=300", "model.layers=2", "model.width=64", "warmup.duration=20", "optimizer.lr=3e-3"),
    )
    outcome = result(tmp_path / "outputs/play")
    assert outcome["metrics"]["val/loss"] < 2.6
    assert outcome["metrics"]["val/perplexity"] == pytest.approx(np.exp(outcome["metrics"]["val/loss"]), rel=1e-3)
    assert outcome["test"] == {}


@pytest.mark.slow
def test_regression_learns_and_reports_its_errors(quick, tmp_path):
    quick(
        *("train.py", "data=synthetic_regression", "task=regression", "trainer.duration=5ep", "name=numbers"),
        *("trainer.accelerator=cpu",),
    )
    outcome = result(tmp_path / "outputs/numbers")
    assert set(outcome["test"]) == {"loss", "mse", "mae"}
    first = scalars(tmp_path / "outputs/numbers").Scalars("train/loss")[0].value
    assert outcome["test"]["mse"] < first / 3


@pytest.mark.slow
def test_a_run_goes_on_where_it_stopped_and_a_finished_one_is_left_alone(quick, tmp_path):
    folder = tmp_path / "outputs" / "mine"
    common = ("name=mine", "trainer.accelerator=cpu", "trainer.threads=1", "trainer.checkpoint=10")
    quick("train.py", *common, "trainer.duration=2ep")
    before = (folder / "result.json").read_bytes()
    refused = quick("train.py", *common, "trainer.duration=2ep", code=2)
    assert "resume=auto" in refused.stderr
    assert (folder / "result.json").read_bytes() == before
    unsaid = quick("train.py", *common, "trainer.duration=3ep", "resume=auto", code=2)
    assert "another curve (updates 78 → 117): resume.policy=continue" in unsaid.stderr
    done = quick("train.py", *common, "trainer.duration=3ep", "resume=auto", "resume.policy=stretch")
    assert "trainer.duration: 2ep → 3ep" in done.stderr
    assert result(folder)["updates"] == 117
    assert [point.step for point in scalars(folder).Scalars("lr/decay")] == list(range(117))


@pytest.mark.sample(0)
@pytest.mark.slow
def test_each_job_of_a_sweep_can_itself_be_two_processes(command, tmp_path):
    command(
        *("train.py", "-m", "name=grid", "seed=0,1", "trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"),
        *("trainer.duration=20", "trainer.threads=1", "warmup=none", "model=resnet9", "model.width=4"),
        "hydra.launcher.fork=true",
    )
    folders = [tmp_path / "outputs/grid" / number for number in "01"]
    assert [result(folder)["updates"] for folder in folders] == [20, 20]
    assert len({result(folder)["metrics"]["test/loss"] for folder in folders}) == 2
    assert {path.name for path in (tmp_path / "outputs/grid").iterdir()} == {"0", "1", "multirun.yaml", "sweep.json"}


@pytest.mark.slow
def test_sigterm_keeps_what_was_trained_and_the_run_goes_on_from_there(tmp_path):
    words = ["name=long", "trainer.accelerator=cpu", "trainer.threads=1"]
    words += ["trainer.duration=30000", "trainer.validate=30000", "resume=auto"]
    process = worlds.Script(ROOT / "train.py", words, tmp_path, os.environ | {"CADENCE_RUN_ID": ""})
    events = tmp_path / "outputs/long"
    for _ in range(600):
        time.sleep(0.1)
        if [path for path in events.glob("events*") if path.stat().st_size > 10_000]:
            break
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 143, err
    (saved,) = checkpoints_in(events / "checkpoints")
    assert 0 < read(saved)["cadence"]["updates"] == result(events)["updates"] < 30000
