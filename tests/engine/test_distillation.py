"""A net learns from a teacher, which is not trained, follows the device and the precision, and is saved by choice."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.distributed import worlds
from tests.engine import equality
from tests.pages import section
from trainer.checkpoint.io import checkpoint_path, read
from trainer.engine.distillation import Distillation
from trainer.engine.frozen import Frozen
from trainer.engine.task import TokenCrossEntropy
from trainer.log.validations import read_validations
from trainer.lr import ConfigError
from trainer.run import fit

SMALL = (
    *("data.batch_size=32", "trainer.duration=12", "trainer.validate=6", "callbacks=none", "logger=none"),
    *("trainer.keep=0", "optimizer.lr=1e-2"),
)
BIG = ("model.hidden=[24]", "model.norm=batch")
TEACHER = (
    *("task=distillation", "+task.step.teacher._target_=models.mlp.MLP", "+task.step.teacher.hidden=[24]"),
    *("+task.step.teacher.norm=batch", "model.hidden=[8]"),
)


@pytest.fixture
def taught(assembled):
    """The path of a trained teacher, and its net."""
    run = assembled(*SMALL, *BIG, folder="teacher")
    fit(run)
    return run.checkpointing.folder / "best.ckpt", run.module.net


def test_a_net_learns_from_its_teacher_which_stays_as_it_is(assembled, taught):
    path, _ = taught
    run = assembled(*SMALL, *TEACHER, f"task.step.path='{path.parents[1]}'", "trainer.accumulate=2")  # its folder
    teacher, modes = run.module.step.teacher.net, []
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    assert all(torch.equal(value, read(path)["state_dict"][f"net.{name}"]) for name, value in before.items())
    teacher.register_forward_hook(lambda net, *_: modes.append((net.training, torch.is_grad_enabled())))
    fit(run)
    assert set(modes) == {(False, False)}
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    first, last = read_validations(run.folder)
    assert last["val/soft"] < first["val/soft"]
    net, source = run.module.net.eval(), run.data.splits.val
    with torch.no_grad():
        given, right = (one(source.inputs) / 4.0 for one in (net, teacher))
    soft = 16 * functional.kl_div(given.log_softmax(1), right.softmax(1), reduction="batchmean").item()
    hard = functional.cross_entropy(given * 4.0, source.targets).item()
    assert last["val/soft"] == pytest.approx(soft, rel=1e-5)
    assert last["val/loss"] == pytest.approx(0.9 * soft + 0.1 * hard, rel=1e-5)
    names = read(checkpoint_path(run.checkpointing.folder, 12))["state_dict"]
    assert not [name for name in names if "teacher" in name]


@pytest.mark.parametrize("saved", ["true", "false"])
def test_a_resumed_run_ends_with_the_same_bits(assembled, taught, saved):
    words = (*SMALL, *TEACHER, f"task.step.path='{taught[0]}'", f"task.step.save_teacher={saved}", "model.dropout=0.1")
    whole = assembled(*words, folder="whole")
    fit(whole)
    resumed = assembled(*words, folder="on", resumed=checkpoint_path(whole.checkpointing.folder, 6))
    fit(resumed)
    ends = [read(checkpoint_path(run.checkpointing.folder, 12))["state_dict"] for run in (whole, resumed)]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    assert any("step.teacher.net" in name for name in ends[0]) == (saved == "true")
    other = "false" if saved == "true" else "true"
    told = f"(lacks|has also) .* tensors of task.step, such as step.teacher.net.* task.step.save_teacher={saved}"
    with pytest.raises(ConfigError, match=told):
        fit(
            assembled(
                *words,
                f"task.step.save_teacher={other}",
                folder="no",
                resumed=checkpoint_path(whole.checkpointing.folder, 6),
            )
        )


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "bf16-mixed"])
def test_the_teacher_has_the_precision_of_the_run(assembled, precision):
    run = assembled(*SMALL, *TEACHER, f"trainer.precision={precision}")
    fit(run)
    dtype = {"64-true": torch.float64, "bf16-true": torch.bfloat16}.get(precision, torch.float32)
    assert {parameter.dtype for parameter in run.module.step.teacher.net.parameters()} == {dtype}
    assert read_validations(run.folder)[-1]["val/soft"] > 0


def train_two(rank, world, folder):
    path = torch.load(folder / "path.pt", weights_only=False)
    for saved in ("true", "false"):
        words = (*TEACHER[:-1], "model.hidden=[8]", f"task.step.path='{path}'", f"task.step.save_teacher={saved}")
        torch.save(
            equality.train(folder / f"two{saved}", world, 1, *words, "logger=none"), folder / f"{saved}.{rank}.pt"
        )


@pytest.mark.slow
def test_two_processes_train_the_weights_of_two_micro_batches(tmp_path, taught):
    torch.save(str(taught[0]), tmp_path / "path.pt")
    assert worlds.run(2, train_two, 2, tmp_path) == [0, 0]
    words = (*TEACHER[:-1], "model.hidden=[8]", f"task.step.path='{taught[0]}'")
    cut = equality.train(tmp_path / "cut", 1, 2, *words)
    for saved in ("true", "false"):
        for rank in (0, 1):
            other = torch.load(tmp_path / f"{saved}.{rank}.pt")
            assert (other["weights"] - cut["weights"]).abs().max() <= 1e-12


def test_both_losses_are_means_over_the_targets_that_count():
    torch.manual_seed(0)
    step = Distillation(nn.Embedding(7, 7), TokenCrossEntropy(ignore_index=-100), temperature=2.0)
    net, tokens = nn.Embedding(7, 7), torch.randint(7, (4, 5))
    targets = tokens.where(torch.rand(4, 5) < 0.6, -100)
    output = step(net, (tokens, targets), t=0)
    kept = tokens[targets != -100]
    given, right = net(kept), step.teacher(kept)
    soft = 4 * functional.kl_div((given / 2).log_softmax(1), (right / 2).softmax(1), reduction="batchmean")
    expected = torch.stack([soft, functional.cross_entropy(given, kept)])
    assert torch.allclose(output.parts, expected)
    assert output.weight.tolist() == [len(kept)] * 2
    assert output.loss.item() == pytest.approx((expected[0] * 0.9 + expected[1] * 0.1).item())
    output.loss.backward()
    assert step.teacher.net.weight.grad is None


def test_the_command_of_the_page_trains(assembled, taught):
    (line,) = re.findall(r"```sh\n(.*?)```", section("steps.md", "Teachers"), re.DOTALL)
    words = line.replace("\\\n", "").replace("outputs/teacher", str(taught[0].parents[1])).split()
    assert words[:2] == ["cadence", "train"]
    run = assembled(*SMALL, *words[2:], "+task.step.teacher.norm=batch")
    fit(run)
    assert next(run.module.step.teacher.net.parameters()).shape == (24, 64)
    assert run.module.step.temperature == 2


class Holder:
    def __init__(self, net):
        self.net = net

    def __call__(self, net, batch, *, t):
        return self.net(batch)


class Trainable(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("task=distillation",), "task.step.teacher is not set"),
        ((*TEACHER, "task.step.path=nothing.ckpt"), "task.step.path=nothing.ckpt cannot be read"),
        ((*TEACHER, "task.step.path=PATH", "task.step.teacher.hidden=[9]"), "has the shape .* and MLP needs"),
        (
            (*TEACHER, "task.step.path=PATH", "task.step.teacher.norm=none"),
            "lacks 2 tensors of MLP, such as layers.4.bias, layers.4.weight: give its net",
        ),
        ((*TEACHER, "task.step.temperature=0"), "task.step.temperature=0"),
        ((*TEACHER, "task.step.loss_weights.soft=-1"), "task.step.loss_weights.soft=-1"),
    ],
)
def test_a_bad_teacher_is_refused_in_one_line(assembled, taught, words, told):
    with pytest.raises(ConfigError, match=told):
        assembled(*SMALL, *(word.replace("PATH", f"'{taught[0]}'") for word in words))


def test_modules_that_nothing_trains_or_moves_are_refused(assembled):
    from trainer.engine.task import Task

    with pytest.raises(ConfigError, match="Trainable has the parameter net.weight, which no optimizer trains"):
        Task(step=Trainable(nn.Linear(2, 2))).make_step()
    with pytest.raises(ConfigError, match="net of Holder is a module with tensors, which stay on the CPU"):
        Task(step=Holder(nn.Linear(2, 2))).make_step()
    assert Task(step=Trainable(Frozen(nn.Linear(2, 2)))).make_step()
