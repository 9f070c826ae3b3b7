"""A dry run checks what a training checks before its first update, and leaves nothing."""

import os
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.distributed import worlds
from trainer.checkpoint.io import checkpoints_in
from trainer.log.scalars import scalars
from trainer.run import fit
from trainer.tools.dry_run import examined, format_found

ROOT = Path(__file__).parents[2]
SMALL = ("trainer.accelerator=cpu", "trainer.threads=1", "trainer.duration=2ep", "model.hidden=[8]")
TINY = (*SMALL, "data=synthetic", "data.samples=64", "data.batch_size=8", "data.val_samples=8")


@pytest.fixture
def dry(tmp_path):
    """What `train.py --dry-run WORDS` prints, and its exit code."""

    def run(*words, code=0):
        environment = os.environ | {"CADENCE_RUN_ID": "", "PYTHONPATH": str(ROOT)}
        process = worlds.Script(ROOT / "train.py", [*words, "--dry-run"], tmp_path, environment)
        out, err = process.communicate(timeout=300)
        assert process.returncode == code, f"{out[-2000:]}\n{err[-3000:]}"
        return out, err

    return run


def test_it_shows_table_curve_layers_loss_and_memory_and_leaves_no_folder(dry, tmp_path):
    out, err = dry(*SMALL[:3], "model.hidden=[8,4]")
    for text in ("model          MLP", "warm-up ends", "│", "loss        2.", "nothing was trained"):
        assert text in re.sub(" +$", "", out, flags=re.MULTILINE), text
    assert re.search(r"^net +MLP +32 × 10 +606$", out, re.MULTILINE)
    assert out.splitlines()[-1].startswith("ready: 78 updates of 32 samples, peak 0.003, about ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_the_first_batch_has_the_precision_of_the_run(assembled, precision):
    found = examined(assembled(*TINY, f"trainer.precision={precision}"))
    assert found.loss > 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["optimizer.lr=-1"], "optimizer.lr=-1 must be above zero"),
        (["model=resnet9", "data=synthetic"], "model"),
        (["lint.ignore=[]", "optimizer.lr=5000"], "lint huge-lr"),
        (["task.monitor=nothing"], "task.monitor"),
        (["schedul=cosine"], "schedul"),
    ],
)
def test_it_refuses_as_the_training_does_and_leaves_no_folder(dry, tmp_path, words, line):
    _, err = dry(*SMALL, *words, code=2)
    assert err.splitlines()[-1].startswith(line), err
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_there_stays_as_it_was(dry, tmp_path):
    words = [*(word for word in TINY if "duration" not in word), "name=first"]
    process = worlds.Script(
        ROOT / "train.py", [*words, "trainer.duration=2ep"], tmp_path, os.environ | {"CADENCE_RUN_ID": ""}
    )
    process.communicate(timeout=300)
    assert process.returncode == 0
    folder = tmp_path / "outputs/first"

    def files():
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}

    before = files()
    longer = [*words, "trainer.duration=3ep", "resume=auto", "resume.policy=stretch", "guard=rollback"]
    out, _ = dry(*longer)
    assert "resumed" in out
    assert files() == before
    assert "resume=auto" in dry(*words, "trainer.duration=2ep", code=2)[1]
    assert files() == before


def test_each_job_of_a_sweep_is_checked_and_no_folder_is_made(dry, tmp_path):
    out, err = dry("-m", *TINY, "optimizer.lr=0.01,-1,0.1", "hydra.launcher.fork=true", code=1)
    lines = out.splitlines()
    assert lines[0].startswith("job 0 optimizer.lr=0.01: ready: 16 updates of 8 samples, peak 0.01, about ")
    assert lines[1].startswith("job 2 optimizer.lr=0.1: ready: ")
    assert "job 1 optimizer.lr=-1: refused: optimizer.lr=-1 must be above zero" in err
    assert err.splitlines()[-1] == "1 of 3 jobs would be refused: job 1 optimizer.lr=-1"
    assert list(tmp_path.iterdir()) == []


def test_the_first_trial_of_a_search_is_checked_and_no_folder_is_made(dry, tmp_path):
    words = ["-m", *TINY, "hydra/sweeper=search", "optimizer.lr=interval(0.01,0.1)"]
    lines = dry(*words)[0].splitlines()
    assert re.match(r"job 0 .*optimizer.lr=0\.0\d{1,7}: ready: 16 updates of 8 samples", lines[-2])
    assert lines[-1].startswith("this was the first trial")
    assert "refused: optimizer.lr=-" in dry(*words[:-1], "optimizer.lr=interval(-2,-1)", code=1)[1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_two_ranks_are_started_and_compared(dry, tmp_path):
    out, _ = dry(*TINY, "trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "optimizer=sgd")
    assert out.splitlines()[-1].startswith("ready: 8 updates of 16 samples")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("optimizer", "copies"), [("optimizer=sgd", 0), ("optimizer=momentum", 1), ("optimizer=adamw", 2)]
)
def test_the_memory_is_that_of_weights_gradients_and_the_state_of_the_optimizer(assembled, optimizer, copies):
    run = assembled(*TINY, optimizer)
    found = examined(run).memory
    size = sum(parameter.nbytes for parameter in run.module.net.parameters())
    steps = 4 * len(list(run.module.net.parameters())) if optimizer == "optimizer=adamw" else 0
    assert (found.parameters, found.gradients, found.optimizer) == (size, size, copies * size + steps)
    assert found.total == sum(number for _, number in found.items())


class FewInTraining(nn.Module):
    """Has fewer classes in training mode, so that its error does not come again in evaluation mode."""

    def __init__(self, in_features: int, classes: int, **of_the_mlp: object) -> None:
        super().__init__()
        self.last = nn.Linear(in_features, classes)

    def forward(self, inputs):
        outputs = self.last(inputs.flatten(1))
        return outputs[:, :1] if self.training else outputs


@pytest.mark.parametrize("flag", ["--dry-run", "name=run"])
def test_an_error_that_comes_in_training_mode_only_ends_both(tmp_path, flag):
    words = [*TINY, "model._target_=tests.tools.test_dry_run.FewInTraining", "allow=[tests]", flag]
    environment = os.environ | {"CADENCE_RUN_ID": "", "PYTHONPATH": str(ROOT)}
    process = worlds.Script(ROOT / "train.py", words, tmp_path, environment)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 1
    assert re.search(r"^IndexError: Target \d is out of bounds", err.splitlines()[-1])
    assert [path.name for path in tmp_path.iterdir()] == ([] if flag == "--dry-run" else ["outputs"])


class Chain(nn.Module):
    """Keeps for the backward pass: the input of each layer, and the output of the sigmoid."""

    def __init__(self, in_features: int, classes: int, **of_the_mlp: object) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(in_features, 16), nn.Linear(16, classes)

    def forward(self, inputs):
        return self.last(torch.sigmoid(self.first(inputs)))


def test_activations_are_what_the_forward_pass_keeps(assembled):
    words = ("model._target_=tests.tools.test_dry_run.Chain", "allow=[tests]")
    run = assembled(*TINY, *words, "task.loss.label_smoothing=0")
    batch, features = 8, run.data.shape["in_features"]
    classes = run.data.shape["classes"]
    sigmoid = 4 * batch * 16  # of the sigmoid, also the input of the last layer
    loss = 4 * batch * classes + 8 * batch + 4  # log-probabilities, targets, the sum of their weights
    assert examined(run).memory.activations == 4 * batch * features + sigmoid + loss


def test_a_large_net_has_few_rows(assembled):
    run = assembled("data=digits", "model=resnet18", *SMALL[:3])
    found = examined(run)
    assert len(format_found(run, found)) < 60
    assert found.layers[0].parameters == sum(parameter.numel() for parameter in run.module.net.parameters())


def test_a_run_that_goes_on_is_examined_with_the_weights_of_its_checkpoint(assembled):
    run = assembled(*TINY, "trainer.checkpoint=4", "trainer.keep=0", "optimizer.lr=0.1")
    fit(run)
    middle = checkpoints_in(run.folder / "checkpoints")[0]
    words = (*TINY, "trainer.checkpoint=4", "trainer.keep=0", "optimizer.lr=0.1")
    again = assembled(*words, folder="again", resumed=middle)
    assert examined(again).loss == pytest.approx(dict(scalars(run.folder, ("train/loss",))["train/loss"])[4], rel=1e-6)
    assert not (again.folder / "checkpoints").exists()
