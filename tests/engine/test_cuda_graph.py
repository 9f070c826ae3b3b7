"""`trainer.cuda_graph=true` without a GPU: a tape of torch's operations stands in for the CUDA graph.

With a GPU the last tests compare a run on it with one that is not recorded.
"""

import math
import random
import struct
from contextlib import contextmanager, nullcontext

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from data.stream import MicroBatch
from tests.engine import equality
from tests.engine.tape import Tape
from trainer.checkpoint.io import checkpoint_path
from trainer.config import cuda_graph as checks
from trainer.engine import gradients
from trainer.engine.cuda_graph import WARM_UPS, CudaRecorder, GraphUpdater, RateProof, Rates
from trainer.engine.update import Backward
from trainer.lr import ConfigError, LRPolicy
from trainer.run import fit

GRAPH = "trainer.cuda_graph=true"
RUN = ("model.hidden=[8]", "trainer.duration=12", "trainer.validate=6", "data.batch_size=16", "warmup.duration=5")
CASES = {
    "AdamW, warm-up and cosine": (),
    "Adam with AMSGrad": ("optimizer=adam", "+optimizer.amsgrad=true"),
    "dropout and groups": ("model.dropout=0.3", "groups=layer_decay"),
    "Nesterov momentum": ("optimizer=nesterov", "optimizer.lr=0.1"),
    "plain SGD": ("optimizer=sgd",),
    "batch norm, an average": ("model=resnet9", "model.width=2", "average=ema", "trainer.duration=8", "~model.hidden"),
    "float64": ("trainer.precision=64-true",),
    "clipping": ("trainer.clip=0.1", "trainer.agc=0.1"),
    "a plateau": ("schedule=constant", "warmup=linear", "plateau=count", "plateau.patience=0"),
    "class weights, bf16": (
        "trainer.precision=bf16-mixed",
        "task.loss={_target_:torch.nn.CrossEntropyLoss,weight:[1,2,1,1,1,1,1,1,1,1]}",
    ),
}
REFUSED = {
    "a number": (["trainer.cuda_graph=1"], "trainer.cuda_graph=1 "),
    "accelerator": (["trainer.accelerator=cpu"], "replays updates of a CUDA GPU, and this run has none"),
    "processes": (["trainer.strategy=ddp"], "trainer.strategy=ddp wraps the net"),
    "micro-batches": (["trainer.accumulate=2"], "trainer.accumulate=2 seeds each micro-batch"),
    "its own graphs": (["trainer.compile=reduce-overhead"], "trainer.compile=reduce-overhead makes graphs of its own"),
    "profile": (["trainer.profile=true"], "trainer.profile=true looks into updates"),
    "sam": (["trainer.sam=0.05"], "trainer.sam draws or computes anew in each update"),
    "noise": (["trainer.gradient_noise=0.1"], "trainer.gradient_noise draws or computes anew"),
    "optimizer": (["optimizer=radam"], "RAdam waits for the check of each update"),
    "an optimizer of parts": (["optimizer=muon"], "Composite waits for the check"),
    "not fused": (["optimizer.fused=false"], "AdamW with optimizer.fused=false waits"),
    "guard": (["guard=skip"], "guard=skip judges each update before its step"),
    "settings": (["hyper_schedule=weight_decay_tied"], "hyper_schedule.weight_decay changes a number of each update"),
    "a growing batch": (
        ["schedule=step", "batch_schedule=grow", "batch_schedule.max_batch_size=64"],
        "batch_schedule changes the size of the batch",
    ),
    "measure": (["measure=norms"], "measure reads each update"),
    "a step of one's own": (
        [
            f"+task.step={{_target_:{__name__}.own_step,_partial_:true}}",
            "~task.loss",
            f"allow=[{__name__.partition('.')[0]}]",
        ],
        "a step of your own may change with the update",
    ),
}


class Waiting(nn.CrossEntropyLoss):
    """A loss that waits for the device once all is recorded."""

    calls = 0

    def forward(self, outputs, targets):
        loss = super().forward(outputs, targets)
        Waiting.calls += 1
        return loss if Waiting.calls <= WARM_UPS or loss.item() > 0 else -loss


class Drawing(nn.CrossEntropyLoss):
    """A loss with a factor that is drawn on the CPU."""

    def forward(self, outputs, targets):
        return super().forward(outputs, targets) * (1 + random.random())


class Damage(pl.Callback):
    """A weight turns NaN before update 8, once."""

    def __init__(self):
        self.done = False

    def on_train_batch_end(self, trainer, pl_module, *batch):
        if pl_module.clock.t == 8 and not self.done:
            self.done = True
            next(pl_module.net.parameters()).data[0, 0] = torch.nan


def own_step(net, batch, *, t):
    """A step that changes with the update."""
    raise AssertionError("it is refused before it is called")


def single(value):
    """A number as float32 rounds it."""
    return struct.unpack("f", struct.pack("f", value))[0]


@pytest.fixture
def tapes(monkeypatch):
    """Runs record on tapes, which are listed; the rates of all runs are float32, as the kernels read them."""
    made, lrs = [], LRPolicy.lrs
    monkeypatch.setattr(GraphUpdater, "make_recorder", lambda self: made.append(Tape()) or made[-1])
    monkeypatch.setattr(checks, "_on_cuda", lambda run: True)
    monkeypatch.setattr(LRPolicy, "lrs", lambda self, *at: [single(rate) for rate in lrs(self, *at)])
    monkeypatch.setattr(gradients, "_clip", _clip_as_on_a_gpu)
    return made


def _clip_as_on_a_gpu(own, norm, limit):
    torch._foreach_mul_(list(own), torch.clamp(limit / (norm + 1e-6), max=1.0))


def trained(run, folder):
    """A run after its fit: the weights, and all that its log holds."""
    fit(run)
    for logger in run.trainer.loggers:
        logger.close()
    return equality.weights(run.module.net), equality.logged(folder)


@pytest.mark.sample(2)
@pytest.mark.parametrize("words", CASES.values(), ids=CASES)
def test_a_replayed_run_has_the_bits_of_one_that_is_not(assembled, tapes, tmp_path, words):
    given = {word.partition("=")[0]: word for word in (*RUN, *words) if word[0] != "~"}
    given = [word for key, word in given.items() if f"~{key}" not in words]
    plain = trained(assembled(*given, folder="plain"), tmp_path / "plain")
    weights, log = trained(assembled(*given, GRAPH, folder="graph"), tmp_path / "graph")
    (tape,) = tapes
    assert (tape.runs, tape.replays + WARM_UPS) == (WARM_UPS, 8 if "trainer.duration=8" in words else 12)
    assert torch.equal(weights, plain[0])
    assert {tag: values for tag, values in log.items() if "second" not in tag} == {
        tag: values for tag, values in plain[1].items() if "second" not in tag
    }


def test_a_resumed_run_has_the_bits_of_one_that_was_not_stopped(assembled, tapes, tmp_path):
    """Also where it goes on from a run that was not recorded, and the other way round; checkpoints hold plain rates."""
    whole = trained(assembled(*RUN, GRAPH, folder="whole"), tmp_path / "whole")[0]
    fit(assembled(*RUN, folder="plain"))
    for name, more in (("whole", GRAPH), ("plain", GRAPH), ("whole", "trainer.cuda_graph=false")):
        point = checkpoint_path(tmp_path / name / "checkpoints", 6)
        run = assembled(*RUN, more, folder=f"{name}-{more[-1]}", resumed=point)
        assert torch.equal(trained(run, tmp_path / f"{name}-{more[-1]}")[0], whole)
    groups = run.trainer.optimizers[0].state_dict()["param_groups"]
    assert all(type(group["lr"]) is float and group["capturable"] is False for group in groups)


def test_the_logged_rate_is_what_the_kernel_reads(assembled, tapes, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(GraphUpdater, "make_recorder", lambda self: Tape())
    monkeypatch.setattr(checks, "_on_cuda", lambda run: True)
    run = assembled(*RUN, GRAPH, "logger=none")
    seen, add = [], run.module.metric_buffer.add
    monkeypatch.setattr(
        run.module.metric_buffer,
        "add",
        lambda t, *row: seen.append((list(row[2].applied), row[3].numbers)) or add(t, *row),
    )
    fit(run)
    policy = run.module.spec.policy
    assert [rates for rates, _ in seen] == [[single(rate) for rate in policy.lrs(t)] for t in range(12)]
    assert [rates for rates, _ in seen] == [read.tolist() for _, read in seen]
    assert [rates for rates, _ in seen] != [policy.lrs(t) for t in range(12)]


def test_another_rate_on_the_device_stops_the_run(assembled, tapes, monkeypatch):
    write = Rates.write

    def wrong(self, rates):
        given = write(self, rates)
        self.each[0].mul_(1.0000002)
        return given

    monkeypatch.setattr(Rates, "write", wrong)
    with pytest.raises(RuntimeError, match=r"update 0: group \w+ has lr=.* where the policy says"):
        fit(assembled(*RUN, GRAPH))


def test_another_rate_in_the_groups_stops_the_run(assembled, tapes):
    run = assembled(*RUN, GRAPH)
    configure = run.module.configure_optimizers

    def planted():
        optimizer = configure()
        optimizer.register_step_pre_hook(lambda own, *_: own.param_groups[0].update(lr=0.5))
        return optimizer

    run.module.configure_optimizers = planted
    with pytest.raises(RuntimeError, match="has lr=0.5 where the policy says"):
        fit(run)


@pytest.mark.sample(0)
def test_a_rate_that_is_no_tensor_would_be_found(assembled, tapes, monkeypatch, tmp_path):
    """The tape keeps numbers as a graph does: with the rate of the recording in each update the weights are others."""
    right = trained(assembled(*RUN, GRAPH, folder="right"), tmp_path / "right")[0]
    monkeypatch.setattr("trainer.engine.cuda_graph._tensor_rates", lambda *_: nullcontext())
    assert not torch.equal(trained(assembled(*RUN, GRAPH, folder="wrong"), tmp_path / "wrong")[0], right)


def updater_of(run):
    """The updater of a run that is not fitted."""
    optimizer = run.module.configure_optimizers()
    run.module.control.attach(optimizer)
    run.module.observers.begin(run.module.net, run.module.step, optimizer, None)
    return run.module.make_updater(optimizer, Backward(torch.device("cpu")))


def batch(seed, size=16, scale=1.0):
    source = torch.Generator().manual_seed(seed)
    inputs = torch.randn(size, 1, 8, 8, generator=source) * scale
    return [MicroBatch((inputs, torch.randint(10, (size,), generator=source)), seed)]


def test_batches_of_other_sizes_are_computed_without_the_recording(assembled, tapes):
    sizes = (16, 5, 16, 16, 16, 16, 5, 16, 7, 16)
    runs = [assembled(*RUN, "model.dropout=0.2", *more, folder=f"run{len(more)}") for more in ((), (GRAPH,))]
    for updater in map(updater_of, runs):
        for i, size in enumerate(sizes):
            assert updater(batch(i, size))
    assert torch.equal(*(equality.weights(run.module.net) for run in runs))
    columns = [run.module.metric_buffer.columns(run.module.spec.policy, lambda own: own) for run in runs]
    assert columns[0] == columns[1]
    assert (tapes[0].runs, tapes[0].replays) == (WARM_UPS + 3, len(sizes) - WARM_UPS - 3)


def test_an_update_that_is_not_finite_is_not_applied_and_told_at_the_flush(assembled, tapes):
    run = assembled(*RUN, GRAPH)
    updater = updater_of(run)
    for i in range(6):
        updater(batch(i))
    before = equality.weights(run.module.net)
    steps = [float(state["step"]) for state in updater.optimizer.state.values()]
    updater(batch(6, scale=float("inf")))
    assert torch.equal(equality.weights(run.module.net), before)
    assert [float(state["step"]) for state in updater.optimizer.state.values()] == steps
    updater(batch(7))
    assert not torch.equal(equality.weights(run.module.net), before)
    norms = run.module.metric_buffer.columns(run.module.spec.policy, lambda own: own)["train/grad_norm"]
    assert [t for t, norm in enumerate(norms) if not math.isfinite(norm)] == [6]


@pytest.mark.sample(0)
def test_a_rollback_loads_the_checkpoint_and_records_anew(assembled, tapes):
    """As without a graph; the graph of the first fit is gone with its updater."""
    found = []
    for more in ((), (GRAPH,)):
        words = (
            *RUN,
            *more,
            "logger=none",
            "guard.leave_out=false",
            "trainer.steps_per_execution=1",
            "trainer.log_every=1",
            "guard=rollback",
        )
        run = assembled(*words, folder=f"run{len(more)}")
        run.trainer.callbacks.append(Damage())
        fit(run)
        found.append(equality.weights(run.module.net))
        assert len(run.module.control.rollbacks) == 1
    assert torch.equal(*found)
    assert len(tapes) == 2


def test_tools_that_measure_or_change_single_updates_are_told_to_do_without(assembled, tapes):
    run = assembled(*RUN, GRAPH)
    scheduled = assembled(*RUN, "hyper_schedule=weight_decay_tied").module.spec.policy
    run.module.observers = run.module.observers.with_probe(lambda *_: RateProof(run.module.control))
    with pytest.raises(ConfigError, match="a tool measures or changes single updates"):
        updater_of(run)
    run.module.observers = run.module.observers.with_probe(None)
    run.module.control.policy = scheduled
    with pytest.raises(ConfigError, match="a tool measures or changes single updates"):
        updater_of(run)


@pytest.mark.parametrize(
    ("loss", "says"), [("Waiting", "cannot be recorded"), ("Drawing", "draws random numbers on the CPU")]
)
def test_what_cannot_be_recorded_is_refused_in_one_line(assembled, tapes, loss, says):
    Waiting.calls = 0
    run = assembled(*RUN, GRAPH, f"task.loss={{_target_:{__name__}.{loss}}}", f"allow=[{__name__.partition('.')[0]}]")
    updater = updater_of(run)
    for i in range(WARM_UPS):
        updater(batch(i))
    with pytest.raises(ConfigError, match=says) as refusal:
        updater(batch(WARM_UPS))
    assert "\n" not in str(refusal.value)
    assert run.module.clock.t == WARM_UPS


@pytest.mark.sample(4)
@pytest.mark.parametrize(("words", "says"), REFUSED.values(), ids=REFUSED)
def test_what_a_graph_does_not_hold_is_refused_at_the_start(assembled, monkeypatch, words, says):
    monkeypatch.setattr(nn.Module, "compile", lambda net, mode: None)  # it imports the compiler
    if words != ["trainer.accelerator=cpu"]:
        monkeypatch.setattr(checks, "_on_cuda", lambda run: True)
    given = [*RUN, GRAPH]
    if "schedule=step" in words:
        given.remove("warmup.duration=5")
    with pytest.raises(ConfigError) as refusal:
        assembled(*given, *words)
    assert says in str(refusal.value)
    assert "cuda_graph=1" in words[0] or "trainer.cuda_graph=false" in str(refusal.value)


def test_the_graph_is_recorded_on_the_stream_of_the_warm_up(monkeypatch):
    """The calls of `CudaRecorder`, which need a GPU, in their order."""
    calls = []

    class Stream:
        def __init__(self, name):
            self.name = name

        def wait_stream(self, other):
            calls.append(f"{self.name} waits for {other.name}")

    class Graph:
        def replay(self):
            calls.append("replay")

    @contextmanager
    def entered(what, **options):
        calls.append(f"enter {getattr(what, 'name', 'graph')}, {options['stream'].name if options else 'alone'}")
        yield
        calls.append("leave")

    present = Stream("present")
    fakes = {"Stream": lambda _: Stream("own"), "current_stream": lambda _: present, "CUDAGraph": Graph}
    for name, fake in {**fakes, "stream": entered, "graph": entered}.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    recorder = CudaRecorder(torch.device("cuda"))
    assert recorder.run(lambda: calls.append("work") or 1) == 1
    replay = recorder.record(lambda: calls.append("work") or 2)
    assert (replay(), replay()) == (2, 2)
    around = ["own waits for present", "enter own, alone", "work", "leave", "present waits for own"]
    assert calls == [*around, "enter graph, own", "work", "leave", "replay", "replay"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("words", CASES.values(), ids=CASES)
def test_on_a_gpu_a_replayed_run_has_the_bits_of_one_that_is_not(assembled, monkeypatch, tmp_path, words):
    lrs = LRPolicy.lrs
    monkeypatch.setattr(LRPolicy, "lrs", lambda self, *at: [single(rate) for rate in lrs(self, *at)])
    given = {
        word.partition("=")[0]: word
        for word in (*RUN, "trainer.accelerator=gpu", "trainer.deterministic=true", *words)
        if word[0] != "~"
    }
    given = [word for key, word in given.items() if f"~{key}" not in words]
    plain = trained(assembled(*given, folder="plain"), tmp_path / "plain")
    weights, _ = trained(assembled(*given, GRAPH, folder="graph"), tmp_path / "graph")
    assert torch.equal(weights, plain[0])
