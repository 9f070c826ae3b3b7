"""The noise scale is logged live: the values of the estimator, only where resolved, and the run stays as it was."""

import math

import pytest
import torch

from tests.measure.test_adascale import scalars
from tests.resume.test_resume import end_of, same
from trainer.config.run_summary import summary_of_run
from trainer.log.metric_buffer import Observation
from trainer.lr import ConfigError
from trainer.measure.noise_scale import NoiseScale
from trainer.measure.observers import FEWEST, CompositeObserver, NoiseObserver
from trainer.run import fit

SMALL = (
    *("data=digits", "data.batch_size=8", "trainer.accumulate=8", "model.hidden=[16]", "optimizer=momentum"),
    *("trainer.duration=30", "trainer.validate=10", "trainer.steps_per_execution=4", "trainer.log_every=7"),
)


def test_the_log_has_the_estimates_of_every_update_for_all_and_each_group(assembled):
    assembly = assembled(*SMALL, "measure=noise", "measure.noise=0.9")
    rows, module = [], assembly.module
    configure = module.configure_optimizers

    def make():
        optimizer = configure()
        optimizer.register_step_post_hook(lambda *_: rows.append(module.updater.micro_gradients.squares.clone()))
        return optimizer

    module.configure_optimizers = make
    fit(assembly)
    log, scale = scalars(assembly), NoiseScale(8, 64, decay=0.9)
    resolved = 0
    for t, row in enumerate(rows):
        scale.add(*row)
        for i, name in enumerate(("all", "decay", "no_decay")):
            points = dict(log[f"noise_scale/{name}"])
            found = scale.estimates()[i] if scale.count >= FEWEST else None
            if found is None or not found.resolved:
                assert t not in points
                continue
            resolved += 1
            ends = (dict(log[f"noise_scale/{name}/{end}"])[t] for end in ("low", "high"))
            assert (points[t], *ends) == pytest.approx((found.noise, found.low, found.high), rel=1e-6)
    assert resolved > 20


def test_a_run_that_is_measured_is_the_same_to_the_last_bit_also_beside_norms(assembled):
    plain = assembled(*SMALL, folder="plain")
    fit(plain)
    for name, more in (("noise", ["measure=noise"]), ("both", ["measure=norms", "measure.noise=0.95"])):
        watched = assembled(*SMALL, *more, folder=name)
        fit(watched)
        assert same(end_of(plain), end_of(watched))
        tags = scalars(watched)
        assert "noise_scale/all" in tags
        assert ("measure/decay/grad_norm" in tags) == (name == "both")


def test_nothing_is_told_where_the_gradient_is_lost_in_noise():
    torch.manual_seed(0)
    live = NoiseObserver(["all"], (2, 16), 0.9)
    for _ in range(40):
        noise = torch.randn(8, 50).double()
        numbers = [noise.square().sum(1).mean().item(), noise.mean(0).square().sum().item()]
        assert len(live._named(16, numbers)) in (0, 3)
    assert live._named(16, [50.0, 50.0 / 8]) == {}
    assert not live.scale.estimates()[0].resolved


def test_what_several_observers_saw_is_told_by_each():
    class One:
        def __init__(self, numbers, tag):
            self.numbers, self.tag = numbers, tag

        def before(self, t, update):
            pass

        def after(self, t):
            return self.numbers and Observation(torch.tensor(self.numbers), lambda values: {self.tag: sum(values)})

    seen = CompositeObserver([One([1.0, 2.0], "a"), One(None, "b"), One([4.0], "c"), One([0.5], "d")]).after(0)
    assert seen.named(seen.numbers.tolist()) == {"a": 3.0, "c": 4.0, "d": 0.5}
    assert CompositeObserver([One(None, "a")]).after(0) is None


@pytest.mark.parametrize("value", ["0.5", "1.0", "nan", "-1", "yes"])
def test_a_bad_decay_is_refused_in_one_line(assembled, value):
    with pytest.raises(ConfigError, match="measure.noise") as refusal:
        assembled(*SMALL, "measure=noise", f"measure.noise={value}")
    assert "\n" not in str(refusal.value)


@pytest.mark.sample(1)
@pytest.mark.parametrize(("batch", "kappa"), [(64, 4.0), (8, 0.5)])
def test_a_scaled_average_spans_the_same_samples_and_the_table_says_so(assembled, batch, kappa):
    words = ("trainer.accumulate=1", f"data.batch_size={batch}", "scaling=linear", "average=ema")
    chosen = ("average.scaled=true", "average.warmup=false", "average.decay=0.99", "scaling.base_batch_size=16")
    run = assembled(*SMALL, *words, *chosen)
    keep = run.module.averaging.average.keep
    assert keep(3) == 0.99**kappa
    assert math.log(keep(3)) / batch == pytest.approx(math.log(0.99) / 16, rel=1e-12)
    assert summary_of_run(run.resolved)["scaled"]["changed"]["average.decay"] == [0.99, 0.99**kappa]


def test_by_default_the_decay_is_kept_per_update_and_the_table_says_so(assembled):
    run = assembled(*SMALL, "average=ema", "scaling=linear", "scaling.base_batch_size=16")
    assert run.module.averaging.average.keep(10**6) == 0.999
    assert summary_of_run(run.resolved)["scaled"]["kept"]["average.decay"] == 0.999


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["scaling.base_batch_size=null"], "set scaling.base_batch_size"),
        (["scaling.base_batch_size=16", "average.every=1ep", "average.start=0"], "same samples at any batch size"),
        (["scaling.base_batch_size=16", "average.scaled=maybe"], "average.scaled"),
        (["scaling.base_batch_size=16", "average.base_batch_size=0"], "base_batch_size"),
    ],
)
def test_a_scaled_average_without_a_base_batch_is_refused_in_one_line(assembled, overrides, says):
    with pytest.raises(ConfigError, match=says) as refusal:
        assembled(*SMALL, "average=ema", "average.scaled=true", "trainer.duration=10ep", *overrides)
    assert "\n" not in str(refusal.value)
