"""One step and 33 of an optimizer, at a rate that changes, are those of its formula, written in NumPy in float64."""

import itertools
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import pytorch_optimizer
import torch
import yaml
from torch import nn

from tests.optim.adaptive_formulas import ADAPTIVE, DECAY, each, muon, size
from trainer.config.instantiate import instantiate
from trainer.config.settings import settings_of
from trainer.lr import ConfigError
from trainer.optim.adam import ADOPT
from trainer.optim.sgd import DoG

SHAPES = ((3, 4), (4,))
STEPS = 33
"""Past three eigenbases of SOAP and five returns of the lookahead."""
RATES = [0.05 * (1 + t % 3) for t in range(STEPS)]
BETAS = (0.9, 0.999)


def start():
    draw = np.random.default_rng(0)
    return [draw.normal(size=shape) for shape in SHAPES]


def gradients(steps):
    """Noise about a slope, which an estimate of the distance grows by."""
    draw = np.random.default_rng(1)
    return [[draw.normal(0.3, size=shape) for shape in SHAPES] for _ in range(steps)]


def descent(keep=0.0, nesterov=False):
    def formula(x, gs, rates):
        v = 0.0
        for g, lr in zip(gs, rates):
            g = g + DECAY * x
            v = keep * v + g
            x = x - lr * (g + keep * v if nesterov else v)
        return x

    return each(formula)


def adam(first=0.9, second=0.999, eps=1e-8, decay=0.0, coupled=0.0, cautious=False):
    def formula(x, gs, rates):
        m = v = 0.0
        for t, (g, lr) in enumerate(zip(gs, rates), start=1):
            g = g + coupled * x
            m, v = first * m + (1 - first) * g, second * v + (1 - second) * g * g
            u = (m / (1 - first**t)) / (np.sqrt(v / (1 - second**t)) + eps)
            if cautious:
                agree = (u * g > 0).astype(float)
                u = u * agree * agree.size / (agree.sum() + 1)
            x = x - lr * decay * x - lr * u
        return x

    return each(formula)


def adamax(x, gs, rates):
    m, u = 0.0, np.zeros_like(x)
    for t, (g, lr) in enumerate(zip(gs, rates), start=1):
        g = g + DECAY * x
        m, u = 0.9 * m + 0.1 * g, np.maximum(0.999 * u, np.abs(g) + 1e-8)
        x = x - lr / (1 - 0.9**t) * m / u
    return x


def adagrad(x, gs, rates):
    total = 0.0
    for g, lr in zip(gs, rates):
        g = g + DECAY * x
        total = total + g * g
        x = x - lr * g / (np.sqrt(total) + 1e-10)
    return x


def adadelta(x, gs, rates):
    seen = moved = np.zeros_like(x)
    for g, lr in zip(gs, rates):
        g = g + DECAY * x
        seen = 0.9 * seen + 0.1 * g * g
        step = np.sqrt(moved + 1e-6) / np.sqrt(seen + 1e-6) * g
        moved = 0.9 * moved + 0.1 * step * step
        x = x - lr * step
    return x


def rmsprop(x, gs, rates):
    v = 0.0
    for g, lr in zip(gs, rates):
        g = g + DECAY * x
        v = 0.99 * v + 0.01 * g * g
        x = x - lr * g / (np.sqrt(v) + 1e-8)
    return x


def rmsprop_tf(centered):
    def formula(x, gs, rates):
        v, mean, b = np.ones_like(x), 0.0, 0.0
        for g, lr in zip(gs, rates):
            g = g + DECAY * x
            v, mean = 0.9 * v + 0.1 * g * g, 0.9 * mean + 0.1 * g
            b = 0.9 * b + lr * g / np.sqrt(v - (mean * mean if centered else 0.0) + 1e-3)
            x = x - b
        return x

    return each(formula)


def lion(x, gs, rates):
    m = 0.0
    for g, lr in zip(gs, rates):
        x = x - lr * DECAY * x - lr * np.sign(0.9 * m + 0.1 * g)
        m = 0.99 * m + 0.01 * g
    return x


def lars(x, gs, rates):
    v = 0.0
    for g, lr in zip(gs, rates):
        if x.ndim > 1:
            size = np.linalg.norm(x)
            g = 1e-3 * size / (np.linalg.norm(g) + DECAY * size) * (g + DECAY * x)
        v = 0.9 * v + g
        x = x - lr * v
    return x


def lamb(largest):
    def formula(x, gs, rates):
        m = v = 0.0
        for t, (g, lr) in enumerate(zip(gs, rates), start=1):
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            u = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-6) + DECAY * x
            ratio = min(np.linalg.norm(x), largest) / np.linalg.norm(u) if x.ndim > 1 else 1.0
            x = x - lr * ratio * u
        return x

    return each(formula)


def adabound(x, gs, rates):
    m = v = 0.0
    for t, (g, lr) in enumerate(zip(gs, rates), start=1):
        x = x - lr * DECAY * x
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        last = 0.1 * lr / 1e-3
        low, high = last * (1 - 1 / (1e-3 * t + 1)), last * (1 + 1 / (1e-3 * t))
        rate = lr * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) / (np.sqrt(v) + 1e-8)
        x = x - np.clip(rate, low, high) * m
    return x


def ademamix(x, gs, rates):
    m = v = slow = 0.0
    for t, (g, lr) in enumerate(zip(gs, rates), start=1):
        m, v, slow = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g, 0.9999 * slow + 0.0001 * g
        u = (m / (1 - 0.9**t) + 5.0 * slow) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        x = x - lr * DECAY * x - lr * u
    return x


def ranger(x, gs, rates):
    m = v = 0.0
    slow = x
    longest = 2 / (1 - 0.999) - 1
    for t, (g, lr) in enumerate(zip(gs, rates), start=1):
        if x.ndim > 1:
            g = g - g.mean(axis=1, keepdims=True)
        x = x - lr * DECAY * x
        m, v = 0.95 * m + 0.05 * g, 0.999 * v + 0.001 * g * g
        length = longest - 2 * t * 0.999**t / (1 - 0.999**t)
        step = m / (1 - 0.95**t)
        if length >= 5:
            ratio = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
            step = np.sqrt(ratio * (1 - 0.999**t)) * step / (np.sqrt(v) + 1e-5)
        x = x - lr * step
        if t % 6 == 0:
            x = slow = slow + 0.5 * (x - slow)
    return x


def schedule_free_sgd(x, gs, rates):
    """The weights while training are y, between the average x and the last z."""
    y = average = z = x
    total = largest = 0.0
    for g, lr in zip(gs, rates):
        g = g + DECAY * y
        largest = max(largest, lr)
        total += largest**2
        z = z - lr * g
        average = average + largest**2 / total * (z - average)
        y = 0.1 * z + 0.9 * average
    return y


def dog(weighted=False, layerwise=False):
    def together(xs, updates, rates):
        begin = xs
        far, seen = 1e-6 * (1 + size(xs)), 0.0
        for gs, lr in zip(updates, rates):
            far = max(far, size([x - x0 for x, x0 in zip(xs, begin)]))
            seen += size(gs) ** 2 * (far**2 if weighted else 1.0)
            rate = lr * (far**2 if weighted else far) / np.sqrt(seen + 1e-8 * (far**2 if weighted else 1.0))
            xs = [x - rate * DECAY * x - rate * g for x, g in zip(xs, gs)]
        return xs

    return together if not layerwise else each(lambda x, gs, rates: together([x], [[g] for g in gs], rates)[0])


def lookahead(x, gs, rates):
    """Zhang et al. 2019, arXiv:1907.08610: after five steps of AdamW, half of the way from where they began."""
    m = v = 0.0
    slow = x
    for t, (g, lr) in enumerate(zip(gs, rates), start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        x = x - lr * DECAY * x - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        if t % 5 == 0:
            x = slow = slow + 0.5 * (x - slow)
    return x


CASES = {
    **ADAPTIVE,
    "gd data.batch_size=419": descent(),
    "sgd": descent(),
    "sgd_noise": descent(),
    "lookahead": each(lookahead),
    "momentum": descent(0.9),
    "nesterov": descent(0.9, nesterov=True),
    "adagrad": each(adagrad),
    "adadelta": each(adadelta),
    "rmsprop": each(rmsprop),
    "rmsprop_tf": rmsprop_tf(False),
    "rmsprop_tf optimizer.centered=true": rmsprop_tf(True),
    "adam": adam(coupled=DECAY),
    "adamw": adam(decay=DECAY),
    "corrected_adamw": adam(decay=DECAY),
    "adamax": each(adamax),
    "cautious_adamw": adam(decay=DECAY, cautious=True),
    "lion": each(lion),
    "lars": each(lars),
    "lamb": lamb(10.0),
    "lamb optimizer.largest=0.5": lamb(0.5),
    "adabound": each(adabound),
    "ademamix": each(ademamix),
    "ranger": each(ranger),
    "schedule_free_sgd": each(schedule_free_sgd),
    "dog": dog(),
    "dog optimizer.layerwise=true": dog(layerwise=True),
    "dowg": dog(weighted=True),
    "dowg optimizer.layerwise=true": dog(weighted=True, layerwise=True),
}
TIGHT = 1e-12
LOOSE = {
    **dict.fromkeys(["adabound", "ademamix", "schedule_free_adamw"], 1e-8),  # adds 1e-15 under its roots
    **dict.fromkeys(["prodigy", "dadapt_adam", "dadapt_sgd"], 3e-6),  # adds up its inner products in float32
    "soap": 3e-6,  # renews its eigenbases in float32
    "nadam": 1e-6,  # torch has the product of its momenta in float32
}
"""Where the library is less exact than float64, and why."""


USUAL = dict.fromkeys(["prodigy", "dadapt_adam", "dadapt_sgd"], 10.0)
"""At rates about 1 an estimate of the distance grows by orders of magnitude."""
WAITS = {"adopt", "soap", "schedule_free_radam"}
"""The first update moves no weight."""


def walked(make, steps):
    """The parameters after so many steps."""
    return stepped(make, start(), gradients(steps))


def stepped(make, begin, updates, rates=RATES, parted=False):
    params = [nn.Parameter(torch.from_numpy(x.copy())) for x in begin]
    optimizer = make([{"params": [p]} for p in params] if parted else [{"params": params}])
    for gs, lr in zip(updates, rates):
        for group in optimizer.param_groups:
            group["lr"] = lr
        for parameter, g in zip(params, gs):
            parameter.grad = torch.from_numpy(g)
        optimizer.step()
    return [parameter.detach().numpy() for parameter in params]


@pytest.mark.parametrize("case", CASES)
def test_a_step_is_that_of_the_formula(compose, case):
    name, *more = case.split()
    node = settings_of(compose(f"optimizer={name}", f"optimizer.weight_decay={DECAY}", *more)).curve.optimizer
    for steps, parted in itertools.product((1, STEPS), (False, True)):
        rates = [lr * USUAL.get(name, 1.0) for lr in RATES]
        found = stepped(instantiate(node, "optimizer", []), start(), gradients(steps), rates, parted)
        for one, right, begin in zip(found, CASES[case](start(), gradients(steps), rates), start()):
            assert (np.abs(right - begin).max() < 1e-15) == (name in WAITS and steps == 1)
            np.testing.assert_allclose(one - begin, right - begin, rtol=LOOSE.get(name, TIGHT), atol=1e-13)


def test_every_optimizer_by_name_has_a_formula():
    names = {file.stem for file in (Path(__file__).parents[2] / "conf" / "optimizer").glob("*.yaml")}
    assert names - {"own", "module"} == {case.split()[0] for case in CASES} | {"muon"}


@pytest.mark.parametrize("halved", [True, False])
def test_muon_is_a_polynomial_of_the_singular_values(compose, monkeypatch, halved):
    """Up to the rounding of bfloat16, in which torch iterates: exactly where it is kept from that."""
    if not halved:
        monkeypatch.setattr(torch.Tensor, "bfloat16", lambda tensor: tensor.clone())
    cfg = compose("optimizer=muon", f"optimizer.weight_decay={DECAY}")
    make = instantiate(settings_of(cfg).curve.optimizer, "optimizer", [])
    for shape in ((3, 5), (6, 2)):
        draw = np.random.default_rng(0)
        begin, gs = draw.normal(size=shape), list(draw.normal(0.3, size=(STEPS, *shape)))
        found, right = stepped(make, [begin], [[g] for g in gs])[0], muon(begin, gs, RATES)
        np.testing.assert_allclose(found - begin, right - begin, rtol=0, atol=0.05 if halved else 1e-12)
        assert np.abs(right - begin).max() > 1


def test_the_adopt_of_the_library_is_another():
    """It clips each update at the bound of the next; a user's run takes the one written here."""
    make = partial(pytorch_optimizer.ADOPT, lr=1.0, weight_decay=DECAY, weight_decouple=True)
    found, right = walked(make, STEPS), CASES["adopt"](start(), gradients(STEPS), RATES)
    assert max(np.abs(one - other).max() for one, other in zip(found, right)) > 1e-2


def test_adopt_adds_the_decay_to_the_gradient_where_it_is_not_decoupled(compose):
    """With no weights' decay of its own, the gradients are those of a loss with λ/2 ‖x‖² more."""
    params, plain = ([nn.Parameter(torch.from_numpy(x)) for x in start()] for _ in range(2))
    one, other = ADOPT(params, 0.1, weight_decay=DECAY, weight_decouple=False), ADOPT(plain, 0.1)
    for gs in gradients(STEPS):
        for parameter, twin, g in zip(params, plain, gs):
            parameter.grad = torch.from_numpy(g)
            twin.grad = torch.from_numpy(g) + DECAY * twin.detach()
        one.step()
        other.step()
    torch.testing.assert_close(params, plain, rtol=1e-12, atol=1e-13)


def test_a_planted_fault_of_rmsprop_is_seen(compose):
    """torch's form is another: ε outside the root, the rate outside the momentum, no start at one."""
    cfg = compose("optimizer=rmsprop", "optimizer.momentum=0.9", "optimizer.alpha=0.9", "optimizer.eps=1e-3")
    found = walked(instantiate(settings_of(cfg).curve.optimizer, "optimizer", []), 1)
    assert not np.allclose(found[0], rmsprop_tf(False)(start(), gradients(1), RATES)[0], rtol=1e-3)


def test_the_lamb_of_the_library_is_another():
    for more in ({}, {"adam_debias": True}):
        make = partial(pytorch_optimizer.Lamb, lr=1.0, weight_decay=DECAY, weight_decouple=False, **more)
        found, right = walked(make, 10), lamb(10.0)(start(), gradients(10), RATES)
        assert max(np.abs(one - other).max() for one, other in zip(found, right)) > 0.5


def test_a_parameter_without_a_gradient_stays(compose):
    for name in ("dog", "dowg", "lamb", "adopt", "cautious_adamw", "rmsprop_tf"):
        params = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2, 2))]
        node = settings_of(compose(f"optimizer={name}")).curve.optimizer
        optimizer = instantiate(node, "optimizer", [])([{"params": params}])
        optimizer.step()
        params[1].grad = torch.ones(2, 2)
        for _ in range(2):
            optimizer.step()
        assert torch.equal(params[0], torch.ones(2))
        assert not torch.equal(params[1], torch.ones(2, 2))


def test_the_distance_of_dog_never_falls():
    parameter = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer, seen = DoG([parameter], first=0.1), []
    for t in range(40):
        parameter.grad = torch.full_like(parameter, -1.0 if t < 20 else 1.0)
        optimizer.step()
        seen.append(optimizer.state[parameter]["distance"].item())
    assert seen == sorted(seen)
    assert parameter.item() < seen[-1]


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        *(("dog", setting) for setting in ("lr=-1.0", "first=0.0", "eps=0.0", "weight_decay=-0.1")),
        *(("rmsprop_tf", setting) for setting in ("alpha=1.0", "momentum=1.5", "eps=0.0", "weight_decay=nan")),
        *(("lamb", setting) for setting in ("largest=0.0", "betas=[0.9,1.0]", "eps=-1.0")),
        *(("cautious_adamw", setting) for setting in ("betas=[-0.1,0.9]", "lr=0.0")),
    ],
)
def test_numbers_without_sense_are_refused_in_one_line(compose, name, setting):
    cfg = compose(f"optimizer={name}")
    make = instantiate(settings_of(cfg).curve.optimizer, "optimizer", [])
    key, _, value = setting.partition("=")
    with pytest.raises(ConfigError, match=key) as refusal:
        make([nn.Parameter(torch.ones(1))], **{key: yaml.safe_load(value.replace("nan", ".nan"))})
    assert "\n" not in str(refusal.value)
