"""The update of a GPU never waits for the device: it runs on the device `meta`, which has no values to wait for.

There each hidden synchronisation raises: `.item()`, `bool(tensor)`, a copy to the host, an operation on two devices.
"""

import pytest
import torch
from torch import nn

from data.stream import MicroBatch
from tests.engine.tape import Tape
from trainer.config import cuda_graph as checks
from trainer.engine.cuda_graph import GraphUpdater
from trainer.engine.guard import Diverged
from trainer.engine.update import Backward

META = torch.device("meta")
ALL = ("trainer.clip=1", "trainer.agc=0.1", "average=ema", "measure=norms")
CASES = {
    "the default": (),
    "all treatments, an average, norms": ALL,
    "two micro-batches with class weights": (
        "trainer.accumulate=2",
        "task.loss={_target_:torch.nn.CrossEntropyLoss,weight:[1,2,1,1,1,1,1,1,1,1]}",
    ),
    "the noise scale": ("trainer.accumulate=2", "measure=noise"),
    "an ascent": ("trainer.sam=0.05",),
    "scheduled settings": (
        "model.dropout=0.1",
        "hyper_schedule=[dropout_linear,weight_decay_tied,label_smoothing_linear]",
    ),
    "batch norm": ("model=resnet9", "model.width=2"),
}


RECORDED = {
    "the default": (),
    "clipping, an average": ("trainer.clip=1", "trainer.agc=0.1", "average=ema"),
    "class weights": CASES["two micro-batches with class weights"][1:],
    "batch norm": CASES["batch norm"],
}


class Waiting(nn.Module):
    """A loss that waits for the device."""

    def __init__(self, **settings):
        super().__init__()

    def forward(self, outputs, targets):
        loss = nn.functional.cross_entropy(outputs, targets)
        return loss if loss.item() > 0 else -loss


@pytest.fixture
def on_meta(assembled, monkeypatch):
    """The updater of a run, and its module, on the device `meta`, where nothing waits for the check of each update."""
    from torch.optim import optimizer

    known = optimizer._get_fused_kernels_supported_devices()
    monkeypatch.setattr(optimizer, "_get_fused_kernels_supported_devices", lambda: [*known, "meta"])

    def make(*words):
        module = assembled("optimizer=adamw", "optimizer.fused=true", *words).module
        torch.__future__.set_swap_module_params_on_conversion(True)  # the groups hold the parameters
        module.to(META)
        torch.__future__.set_swap_module_params_on_conversion(False)
        made = module.configure_optimizers()
        module.control.attach(made)
        module.observers.begin(module.net, module.step, made, None)
        module.averaging.begin(made)
        return module, module.make_updater(made, Backward(META))

    return make


def batch(seed, size=4):
    return MicroBatch(
        (torch.empty(size, 1, 8, 8, device=META), torch.empty(size, dtype=torch.int64, device=META)), seed
    )


@pytest.mark.parametrize("words", CASES.values(), ids=CASES)
def test_an_update_makes_no_synchronisation(on_meta, words):
    module, updater = on_meta(*words)
    assert not updater.checks_each
    for t in range(4):
        assert updater([batch(2 * t + i) for i in range(module.spec.micro_batches(t))])
    assert module.clock.t == len(module.metric_buffer) == 4
    with pytest.raises((RuntimeError, NotImplementedError), match="[Mm]eta"):
        module.metric_buffer.columns(module.spec.policy, lambda own: own)  # the flush, which waits once for all


def test_scoring_makes_no_synchronisation(on_meta):
    module, _ = on_meta()
    scores = module.scores["val"]
    for i in range(3):
        scores.update(module.run_step(batch(i).batch), batch(i).batch)
    with pytest.raises((RuntimeError, NotImplementedError), match="[Mm]eta"):
        scores.compute()


def test_a_step_that_waits_is_caught(on_meta):
    _, updater = on_meta(f"task.loss={{_target_:{__name__}.Waiting}}", f"allow=[{__name__.partition('.')[0]}]")
    with pytest.raises((RuntimeError, NotImplementedError), match="[Mm]eta"):
        updater([batch(0)])


@pytest.fixture
def on_tape(monkeypatch, on_meta):
    """The same for updates that are recorded and replayed."""
    monkeypatch.setattr(GraphUpdater, "make_recorder", lambda self: Tape())
    monkeypatch.setattr(checks, "_on_cuda", lambda run: True)
    with torch.library._scoped_library("aten", "IMPL", "Meta") as library:
        library.impl("_fused_adamw_.tensor_lr", lambda *args, **settings: None)  # `meta` has the one for numbers only
        yield lambda *words: on_meta("trainer.cuda_graph=true", *words)


@pytest.mark.sample(2)
@pytest.mark.parametrize("words", RECORDED.values(), ids=RECORDED)
def test_a_recorded_update_makes_no_synchronisation(on_tape, words):
    """Neither in warm-ups and the recording, nor for a smaller batch, nor in what surrounds a replay."""
    module, updater = on_tape(*words)
    for t in range(6):
        assert updater([batch(t, size=2 if t == 1 else 4)])
    assert updater.recorder.replays == 2
    with pytest.raises((RuntimeError, NotImplementedError), match="[Mm]eta"):
        module.metric_buffer.columns(module.spec.policy, lambda own: own)


def test_a_recorded_step_that_waits_is_caught(on_tape):
    _, updater = on_tape(f"task.loss={{_target_:{__name__}.Waiting}}", f"allow=[{__name__.partition('.')[0]}]")
    with pytest.raises((RuntimeError, NotImplementedError), match="[Mm]eta"):
        updater([batch(0)])


def test_where_each_update_is_checked_it_waits(on_meta):
    """An optimizer that is not fused, and a guard that skips, must know that an update is finite before its step."""
    for words in (("optimizer.fused=false",), ("guard=skip",)):
        _, updater = on_meta(*words)
        with pytest.raises((RuntimeError, NotImplementedError, Diverged), match="[Mm]eta"):
            updater([batch(0)])
