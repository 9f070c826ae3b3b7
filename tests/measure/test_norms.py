"""What is observed is what a direct computation gives, reaches the log, and leaves no trace in the run."""

import math
from typing import NamedTuple

import pytest
import torch
from pytorch_lightning.loggers.logger import DummyLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.engine.clock import Clock
from trainer.engine.gradient_treatment import GradientTreatment
from trainer.engine.lr_control import LRControl
from trainer.engine.step import PairStep
from trainer.engine.update import Backward, Updater
from trainer.log.metric_buffer import MetricBuffer
from trainer.lr import ConfigError, Horizon, LRPolicy, compose, linear, linear_warmup
from trainer.measure.norms import Measurement, NormObserver, sharpness
from trainer.run import fit

T = 20
POLICY = LRPolicy(
    0.1, 1.0, *compose(Horizon(T, 1), lambda h: linear_warmup(h, duration=4), linear), groups={"w": 1, "b": 3}
)
SMALL = (
    *("data=digits", "data.batch_size=32", "model.hidden=[8]", "model.dropout=0.2", "trainer.duration=20"),
    *("trainer.validate=10", "trainer.steps_per_execution=5", "warmup.duration=5"),
)
MSE = PairStep(nn.MSELoss())
OPTIONS = ("every", "sharpness", "iterations", "noise")
NAMES = ("grad_norm", "weight_norm", "update_norm", "update_ratio", "trust_ratio", "effective_lr", "coupled_lr")


class Micro(NamedTuple):
    batch: tuple[torch.Tensor, torch.Tensor]
    seed: int

    inputs = property(lambda micro: micro.batch[0])
    targets = property(lambda micro: micro.batch[1])


class Plain(nn.Sequential):
    """A net with what an observation could disturb: dropout, and the statistics of a batch norm."""

    def __init__(self, seed=0):
        torch.manual_seed(seed)
        super().__init__(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 2))
        self.double()


def smooth(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()


def batches(count, size=6):
    generator = torch.Generator().manual_seed(3)
    draw = lambda n: torch.randn(size, n, generator=generator, dtype=torch.float64)  # noqa: E731
    return [Micro((draw(4), draw(2)), seed=i) for i in range(count)]


def updater(net, kind=torch.optim.SGD, measurement=None, clip=None, noise=None, **numbers):
    weights = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim < 2]
    optimizer = kind([{"params": weights, "name": "w"}, {"params": others, "name": "b"}], lr=1.0, **numbers)
    control = LRControl(POLICY)
    control.attach(optimizer)
    step, backward = PairStep(nn.MSELoss()), Backward(torch.device("cpu"))
    observer = measurement and NormObserver(measurement, net, step, optimizer)
    treatment = GradientTreatment(clip=clip, gradient_noise=noise, seed=1)
    return Updater(net, step, optimizer, control, Clock(), MetricBuffer(), backward, treatment, observer=observer)


def seen(update):
    """The observed values of each update so far, by tag."""
    columns = update.metric_buffer.columns(POLICY, lambda own: own)
    tags = [tag for tag in columns if tag.startswith("measure/")]
    return [
        {tag: columns[tag][t] for tag in tags if columns[tag][t] is not None} for t in range(len(update.metric_buffer))
    ]


def norm(tensors):
    return math.sqrt(sum(tensor.square().sum().item() for tensor in tensors))


@pytest.mark.parametrize(
    ("kind", "numbers", "momentum"),
    [
        (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}, 0.9),
        (torch.optim.SGD, {}, 0.0),
        (torch.optim.AdamW, {"betas": (0.8, 0.99), "weight_decay": 0.1}, 0.8),
    ],
)
def test_the_values_of_each_group_are_those_of_a_direct_computation(kind, numbers, momentum):
    net = Plain()
    update = updater(net, kind, Measurement(), clip=0.5, noise=0.1, **numbers)
    gradients, before = {}, {}
    update.optimizer.register_step_pre_hook(lambda *_: gradients.update((p, p.grad.clone()) for p in net.parameters()))
    for t, batch in enumerate(batches(5)):
        before = {p: p.detach().clone() for p in net.parameters()}
        update([batch])
        for name, lr, group in zip("wb", POLICY.lrs(t), update.optimizer.param_groups):
            g, w = norm(gradients[p] for p in group["params"]), norm(before[p] for p in group["params"])
            u = norm(p.detach() - before[p] for p in group["params"])
            expected = dict(zip(NAMES, (g, w, u, u / w, w / g, lr / w**2, lr / (1 - momentum))))
            found = {key: seen(update)[t][f"measure/{name}/{key}"] for key in NAMES}
            assert found == pytest.approx(expected, rel=1e-12)
        assert len(seen(update)[t]) == 2 * len(NAMES)


def test_the_update_of_plain_gradient_descent_is_the_rate_times_the_gradient():
    update = updater(smooth(), measurement=Measurement())
    for batch in batches(5):
        update([batch])
    for t, row in enumerate(seen(update)):
        for name, lr in zip("wb", POLICY.lrs(t)):
            update_norm, gradient_norm = row[f"measure/{name}/update_norm"], row[f"measure/{name}/grad_norm"]
            assert update_norm == pytest.approx(lr * gradient_norm, rel=1e-9)


def test_an_optimizer_without_momentum_has_no_coupled_rate():
    update = updater(smooth(), torch.optim.Adagrad, Measurement())
    update(batches(1))
    assert {tag.rpartition("/")[2] for tag in seen(update)[0]} == {*NAMES} - {"coupled_lr"}


def test_a_weight_without_gradient_counts_as_one_of_zero():
    net = smooth()
    net.register_parameter("spare", nn.Parameter(torch.ones(2, 2, dtype=torch.float64)))
    update = updater(net, measurement=Measurement())
    update(batches(1))
    bare = updater(smooth(), measurement=Measurement())
    bare(batches(1))
    (row,), (without,) = seen(update), seen(bare)
    assert row["measure/w/grad_norm"] == without["measure/w/grad_norm"]
    assert row["measure/w/weight_norm"] ** 2 == pytest.approx(4 + without["measure/w/weight_norm"] ** 2)


def test_weights_that_are_zero_have_no_ratio():
    net = smooth()
    nn.init.zeros_(net[0].bias)
    nn.init.zeros_(net[2].bias)
    update = updater(net, measurement=Measurement())
    update(batches(1))
    (row,) = seen(update)
    assert row["measure/b/update_ratio"] == row["measure/b/effective_lr"] == math.inf
    assert row["measure/b/trust_ratio"] == 0.0


def test_half_precision_weights_are_measured_in_single():
    net = smooth().to(torch.bfloat16)
    update = updater(net, measurement=Measurement(sharpness=1))
    weights = norm(p.detach().double() for p in net.parameters() if p.ndim > 1)
    update([Micro((batch.inputs.bfloat16(), batch.targets.bfloat16()), 0) for batch in batches(1)])
    assert seen(update)[0]["measure/w/weight_norm"] == pytest.approx(weights, rel=1e-6)
    assert update.metric_buffer.seen[0].numbers.dtype == torch.float32


def hessian(net, loss, micro):
    """All eigenvalues of the Hessian, by torch's own function."""
    names, weights = zip(*((name, p.detach()) for name, p in net.named_parameters()))

    def of(flat):
        pieces = flat.split([p.numel() for p in weights])
        named = {name: piece.view_as(p) for name, piece, p in zip(names, pieces, weights)}
        return loss(torch.func.functional_call(net, named, micro.inputs), micro.targets)

    flat = torch.cat([p.reshape(-1) for p in weights])
    return torch.linalg.eigvalsh(torch.autograd.functional.hessian(of, flat))


@pytest.mark.parametrize("seed", range(3))
def test_the_sharpness_is_the_largest_eigenvalue_of_the_hessian(seed):
    net, (micro,) = smooth(seed), batches(1)
    *_, largest = hessian(net, nn.functional.mse_loss, micro).tolist()
    found = [sharpness(net, MSE, micro, n, seed).item() for n in (10, 1000)]
    assert found[1] == pytest.approx(largest, rel=1e-9)
    assert 0.8 * largest < found[0] <= largest


def test_where_the_most_negative_curvature_is_larger_the_sharpness_is_that():
    net, (micro,) = smooth(), batches(1)
    upside_down = lambda outputs, targets: -nn.functional.mse_loss(outputs, targets)  # noqa: E731
    smallest, *_ = hessian(net, upside_down, micro).tolist()
    assert sharpness(net, PairStep(upside_down), micro, 1000, 0).item() == pytest.approx(smallest, rel=1e-9)


@pytest.mark.parametrize(("edge", "stable"), [(0.98, True), (1.02, False)])
def test_gradient_descent_is_stable_where_the_edge_is_below_one(edge, stable):
    net, (micro,) = nn.Linear(4, 2).double(), batches(1, size=20)
    value = sharpness(net, MSE, micro, 1000, 0).item()
    optimizer = torch.optim.SGD(net.parameters(), lr=2 * edge / value)
    losses = []
    for _ in range(2000):
        loss = nn.functional.mse_loss(net(micro.inputs), micro.targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert (losses[-1] <= min(losses) * (1 + 1e-9)) if stable else losses[-1] > 1e6 * losses[0]


def test_the_edge_is_half_the_sharpness_times_the_largest_rate():
    net, steps = smooth(), batches(7)
    update = updater(net, measurement=Measurement(every=100, sharpness=3, iterations=5))
    for t, micro in enumerate(steps):
        value = sharpness(net, MSE, micro, 5, t)
        update([micro, micro])
        norms = {} if t else {tag: values for tag, values in seen(update)[0].items() if tag.count("/") == 2}
        edge = pytest.approx(max(POLICY.lrs(t)) * value.item() / 2)
        both = {} if t % 3 else {"measure/sharpness": value.item(), "measure/edge": edge}
        assert seen(update)[t] == {**norms, **both}


def test_the_sharpness_is_that_of_the_net_with_the_dropout_of_the_update():
    net, (micro,) = Plain(), batches(1)
    first = sharpness(net, MSE, micro, 5, 0)
    torch.rand(7)
    assert sharpness(net, MSE, micro, 5, 0) == first
    assert sharpness(net, MSE, micro._replace(seed=1), 5, 0) != first


def test_attention_and_a_compiled_net_can_be_differentiated_twice():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.project = nn.Linear(4, 12)

        def forward(self, inputs):
            query, key, value = self.project(inputs)[None, None].chunk(3, dim=-1)
            return nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)[0, 0, :, :2]

    torch.manual_seed(0)
    net, (micro,) = Attention(), batches(1)
    micro = Micro((micro.inputs.float(), micro.targets.float()), 0)
    plain = sharpness(net, MSE, micro, 5, 0)
    net.compile(backend="aot_eager")
    net(micro.inputs)
    assert sharpness(net, MSE, micro, 5, 0) == plain > 0
    net(micro.inputs).sum().backward()


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_an_observed_run_is_the_same_to_the_last_bit(kind):
    def trained(observe):
        net = Plain()
        update = updater(net, kind, observe, clip=0.5)
        for pair in zip(*[iter(batches(2 * T))] * 2):
            update(pair)
        states = [value for state in update.optimizer.state.values() for value in state.values()]
        return [*net.state_dict().values(), *states, torch.get_rng_state(), torch.stack(update.metric_buffer.measures)]

    plain = trained(None)
    for observe in (
        Measurement(),
        Measurement(every=3),
        Measurement(sharpness=1),
        Measurement(every=7, sharpness=2, iterations=3),
    ):
        watched = trained(observe)
        assert len(watched) == len(plain)
        assert all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(plain, watched))


class Unhurried(TorchDispatchMode):
    """Fails where a number is read from the device."""

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        assert "_local_scalar_dense" not in str(function), "a value was read before the metrics were flushed"
        return function(*arguments, **(options or {}))


def test_nothing_is_read_from_the_device_before_the_metrics_are_flushed():
    net = Plain()
    optimizer = torch.optim.AdamW([{"params": net.parameters(), "name": "all"}])
    observer = NormObserver(Measurement(sharpness=2), net, MSE, optimizer)
    for t, micro in enumerate(batches(4)):
        nn.functional.mse_loss(net(micro.inputs), micro.targets).backward()
        with Unhurried():
            observer.before(t, [micro])
        optimizer.step()
        with Unhurried():
            assert observer.after(t)
    with pytest.raises(AssertionError, match="was read"), Unhurried():
        torch.ones(()).item()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_no_update_waits_for_the_gpu():
    net = Plain().cuda()
    optimizer = torch.optim.AdamW([{"params": net.parameters(), "name": "all"}], fused=True)
    observer = NormObserver(Measurement(sharpness=1), net, MSE, optimizer)
    for t, micro in enumerate(batches(3)):
        micro = Micro((micro.inputs.cuda(), micro.targets.cuda()), micro.seed)
        nn.functional.mse_loss(net(micro.inputs), micro.targets).backward()
        torch.cuda.set_sync_debug_mode("error")
        try:
            observer.before(t, [micro])
            optimizer.step()
            observer.after(t)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def logged(assembly):
    fit(assembly)
    for logger in assembly.trainer.loggers:
        logger.save()
    return EventAccumulator(str(assembly.folder), size_guidance={"scalars": 0}).Reload()


def test_by_default_nothing_is_observed(assembled):
    assembly = assembled(*SMALL)
    tags = logged(assembly).Tags()["scalars"]
    assert assembly.module.updater.observer is None
    assert "train/loss" in tags
    assert not [tag for tag in tags if tag.startswith("measure")]


def test_the_log_has_every_value_at_each_observed_update_and_no_other(assembled):
    assembly = assembled(*SMALL, "measure=all", "measure.every=4", "measure.sharpness=6", "measure.iterations=3")
    events = logged(assembly)
    tags = [tag for tag in events.Tags()["scalars"] if tag.startswith("measure")]
    values = [f"measure/{group}/{name}" for group in ("decay", "no_decay") for name in NAMES]
    assert sorted(tags) == sorted([*values, "measure/sharpness", "measure/edge"])
    for tag in tags:
        every = 6 if tag in ("measure/sharpness", "measure/edge") else 4
        assert [point.step for point in events.Scalars(tag)] == list(range(0, 20, every))
    assert [point.step for point in events.Scalars("train/loss")] == list(range(20))
    rates = assembly.module.spec.policy.lrs
    coupled = [point.value for point in events.Scalars("measure/no_decay/coupled_lr")]
    assert coupled == pytest.approx([rates(t)[1] / (1 - 0.9) for t in range(0, 20, 4)], rel=1e-6)


def test_other_loggers_get_what_there_is(assembled):
    class Recorder(DummyLogger):
        rows: dict = {}

        def log_metrics(self, metrics, step=None):
            self.rows[step] = {**self.rows.get(step, {}), **metrics}

    assembly = assembled(*SMALL, "measure=norms", "measure.every=4", "logger=none")
    assembly.trainer.loggers = [Recorder()]
    fit(assembly)
    for t in range(20):
        assert ("measure/decay/grad_norm" in Recorder.rows[t]) == (t % 4 == 0)
        assert None not in Recorder.rows[t].values()


def test_a_run_of_the_framework_is_the_same_to_the_last_bit(assembled):
    states = []
    for i, chosen in enumerate(("none", "norms", "all")):
        more = ["measure.sharpness=3"] if chosen == "all" else []
        assembly = assembled(*SMALL, "trainer.accumulate=2", f"measure={chosen}", *more, folder=f"run{i}")
        fit(assembly)
        states.append([value.clone() for value in assembly.module.state_dict().values()])
    for state in states[1:]:
        assert all(torch.equal(a, b) for a, b in zip(states[0], state, strict=True))


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["measure.every=0"], "measure.every=0 is out of range"),
        (["measure.every=often"], "measure.every='often' does not fit"),
        (["measure.every=null", "measure.sharpness=null"], "are all null"),
        (["measure.noise=0.5"], "measure.noise=0.5 is out of range"),
        (["measure.noise=0.99"], "set trainer.accumulate=2"),
        (["measure.every=1.5"], "measure.every=1.5 does not fit"),
        (["measure.sharpness=-1"], "measure.sharpness=-1 is out of range"),
        (["measure.sharpness=true"], "measure.sharpness=True does not fit"),
        (["measure.iterations=0"], "measure.iterations=0 is out of range"),
        (["+measure.evry=2"], "did you mean every"),
        (
            ["measure.noise=0.9", "measure._target_=torch.nn.Identity", *(f"~measure.{name}" for name in OPTIONS)],
            "measure takes those of trainer.measure.norms",
        ),
    ],
)
def test_a_bad_setting_is_refused_before_anything_is_trained(assembled, overrides, told):
    with pytest.raises(ConfigError, match=told):
        assembled(*SMALL, "measure=all", *overrides)
