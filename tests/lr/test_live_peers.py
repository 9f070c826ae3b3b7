"""`compat=torch` and `compat=transformers` against the installed libraries, at every update."""

import pytest
from torch.optim import lr_scheduler as peers

from tests.lr.torch_scheduler import torch_curve
from trainer.config.resolve import plan_of
from trainer.config.settings import settings_of

transformers = pytest.importorskip("transformers.optimization")
T, W, LR = 40, 8, 0.5
WARM = ["warmup=linear", f"warmup.duration={W}"]


def ours(compose, peer, *overrides):
    cfg = compose(
        *(f"compat={peer}", f"optimizer.lr={LR}", f"trainer.duration={T}", "warmup=none", "data=synthetic"), *overrides
    )
    policy = plan_of(settings_of(cfg)).policy
    return [policy.lr(t) for t in range(T)]


def warm(then, start=0.1):
    """LinearLR from a share of the peak, then a schedule, as torch's own SequentialLR joins them."""

    def make(optimizer):
        rise = peers.LinearLR(optimizer, start, 1.0, total_iters=W)
        return peers.SequentialLR(optimizer, [rise, then(optimizer)], milestones=[W])

    return make


WARM_TORCH = [*WARM, "warmup.start=0.1"]
ONE = ["schedule=one_cycle", "schedule.rise=30%", "schedule.start=0.04", "schedule.floor=4e-6"]
CYCLIC = ["schedule.cycles=null", "schedule.period=12", "schedule.rise=0.25", "schedule.floor=0.1"]
TORCH = [
    (["schedule=constant_until", "schedule.until=5", "schedule.factor=0.25"], lambda o: peers.ConstantLR(o, 0.25, 5)),
    (["schedule=linear", "schedule.floor=0.1"], lambda o: peers.LinearLR(o, 1.0, 0.1, total_iters=T)),
    (["schedule=step", "schedule.every=12"], lambda o: peers.StepLR(o, 12)),
    (["schedule=multi_step", "schedule.milestones=[12,26]"], lambda o: peers.MultiStepLR(o, [12, 26])),
    (["schedule=exponential", "schedule.gamma=0.9"], lambda o: peers.ExponentialLR(o, 0.9)),
    (["schedule=polynomial", "schedule.power=2.0"], lambda o: peers.PolynomialLR(o, T, power=2.0)),
    (["schedule=cosine", "schedule.floor=0.05"], lambda o: peers.CosineAnnealingLR(o, T, eta_min=0.05)),
    (
        ["schedule=restarts", "schedule.first=10", "schedule.length_mult=1", "schedule.floor=0.05"],
        lambda o: peers.CosineAnnealingWarmRestarts(o, 10, 1, eta_min=0.05),
    ),
    (
        ["schedule=restarts", "schedule.first=5", "schedule.length_mult=2", "schedule.floor=0.05"],
        lambda o: peers.CosineAnnealingWarmRestarts(o, 5, 2, eta_min=0.05),
    ),
    *(
        (
            [f"schedule={mode}", *CYCLIC],
            lambda o, mode=mode: peers.CyclicLR(o, 0.05, LR, 3, 9, mode=mode, gamma=0.99994, cycle_momentum=False),
        )
        for mode in ("triangular", "triangular2", "exp_range")
    ),
    (ONE, lambda o: peers.OneCycleLR(o, LR, T, pct_start=0.3, cycle_momentum=False)),
    (
        [*ONE, "schedule.shape=linear"],
        lambda o: peers.OneCycleLR(o, LR, T, pct_start=0.3, anneal_strategy="linear", cycle_momentum=False),
    ),
    (
        [*ONE, "schedule.phases=3"],
        lambda o: peers.OneCycleLR(o, LR, T, pct_start=0.3, three_phase=True, cycle_momentum=False),
    ),
    ([*WARM_TORCH, "schedule=cosine"], warm(lambda o: peers.CosineAnnealingLR(o, T - W))),
    ([*WARM_TORCH, "schedule=step", "schedule.every=12"], warm(lambda o: peers.StepLR(o, 12))),
    ([*WARM_TORCH, "schedule=linear"], warm(lambda o: peers.LinearLR(o, 1.0, 0.0, total_iters=T - W))),
    ([*WARM_TORCH, "schedule=constant"], warm(lambda o: peers.ConstantLR(o, 1.0, 0))),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("overrides", "make"), TORCH, ids=[" ".join(overrides) for overrides, _ in TORCH])
def test_a_curve_of_torch_is_reproduced_at_every_update(compose, overrides, make):
    assert ours(compose, "torch", *overrides) == pytest.approx(torch_curve(make, T, LR), rel=1e-12, abs=1e-16)


def named(name, warmup=W, **kwargs):
    return lambda optimizer: transformers.get_scheduler(
        name, optimizer, num_warmup_steps=warmup, num_training_steps=T, scheduler_specific_kwargs=kwargs or None
    )


MIN_LR = ["compat.ramp='(t+1)/W'", "compat.last=[cosine]", "schedule=cosine", "schedule.floor=0.1"]
WSD = ["schedule=wsd", "schedule.decay=10", "schedule.floor=0.1", "warmup.start=0.1"]
TRANSFORMERS = [
    (["schedule=constant"], named("constant")),
    ([*WARM, "schedule=constant"], named("constant_with_warmup")),
    ([*WARM, "schedule=linear"], named("linear")),
    (["schedule=linear"], named("linear", warmup=0)),
    ([*WARM, "schedule=cosine"], named("cosine")),
    ([*WARM, "schedule=cosine", "schedule.cycles=1.0"], named("cosine", num_cycles=1.0)),
    ([*WARM, "schedule=hard_restarts", "schedule.cycles=2"], named("cosine_with_restarts", num_cycles=2)),
    (
        [*WARM, "schedule=polynomial", "schedule.power=2.0", "schedule.floor=0.05"],
        named("polynomial", lr_end=0.05, power=2.0),
    ),
    ([*WARM, "schedule=inverse_sqrt"], named("inverse_sqrt")),
    ([*WARM, "schedule=inverse_sqrt", "schedule.timescale=20"], named("inverse_sqrt", timescale=20)),
    ([*WARM, "schedule=cosine", "schedule.floor=0.1"], named("cosine_with_min_lr", min_lr_rate=0.1)),
    ([*WARM, *MIN_LR], named("cosine_warmup_with_min_lr", min_lr_rate=0.1)),
    *(
        (
            [f"warmup={rise}", f"warmup.duration={W}", *WSD, f"schedule.shape={fall}"],
            named("warmup_stable_decay", num_decay_steps=10, warmup_type=rise, decay_type=fall, min_lr_ratio=0.1),
        )
        for rise in ("linear", "cosine", "1-sqrt")
        for fall in ("linear", "cosine", "1-sqrt")
    ),
]


@pytest.mark.parametrize(("overrides", "make"), TRANSFORMERS, ids=[" ".join(each) for each, _ in TRANSFORMERS])
def test_a_curve_of_transformers_is_reproduced_at_every_update(compose, overrides, make):
    assert ours(compose, "transformers", *overrides) == pytest.approx(torch_curve(make, T, LR), rel=1e-12, abs=1e-16)
