"""Curves under `compat` at random lengths, shares and factors are those of the peers.

Torch and transformers run beside ours; the published formulas of timm, Keras, optax and Megatron are written here.
"""

import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.optim import lr_scheduler as peers

import trainer.lr
from tests.lr.torch_scheduler import torch_curve as torch_rates
from trainer.config.compat import Compat
from trainer.lr import Horizon, compose, linear_warmup, no_warmup

transformers = pytest.importorskip("transformers.optimization")
CONF = Path(__file__).parents[2] / "conf" / "compat"
LR = 0.5
TOTAL, TENTHS, FLOOR = st.integers(12, 400), st.integers(1, 999), st.floats(0.0, 0.4)
LENGTHS = st.decimals("2", "60", places=1).map(float)


torch_curve = partial(torch_rates, lr=LR)


def ours(peer, total, schedule, width=None, warm_from=0.0, read=(), **made):
    """The rates of a run of `total` updates under the conventions of `peer`, changed by `read`."""
    compat = Compat(schedule=schedule, **{**yaml.safe_load((CONF / f"{peer}.yaml").read_text()), **dict(read)})
    run = compat.horizon(Horizon(total, 1))
    settings = compat.relative({"_target_": schedule, **made}, LR)
    del settings["_target_"]
    warm_from = warm_from / LR if compat.start == "lr" else warm_from
    rise = no_warmup if width is None else partial(linear_warmup, duration=width, start=warm_from)
    mode = compat.warmup_mode("prefix")
    warmup, fall = compose(run, rise, partial(getattr(trainer.lr, schedule), **settings), mode)
    return [LR * warmup.factor(t) * fall(t) for t in range(total)]


def same(found, right, near=()):
    """Equal to 1e-12 of the peak, except at the updates in `near`, where the peer's own rounding decides."""
    for t, (one, other) in enumerate(zip(found, right, strict=True)):
        assert t in near or abs(one - other) <= 1e-12 * LR, (t, one, other)


@given(TOTAL, TENTHS, st.sampled_from(["cosine", "linear"]), st.booleans(), st.floats(1.5, 40), st.floats(1, 1e4))
def test_one_cycle_is_torchs_with_its_peak_between_two_updates(total, tenths, shape, three, div, final):
    assume(tenths / 1000 * total > 1.01 and (2 if three else 1) * (tenths / 1000 * total - 1) < total - 1.01)
    right = torch_curve(
        lambda o: peers.OneCycleLR(
            *(o, LR, total),
            pct_start=tenths / 1000,
            anneal_strategy=shape[:3] if shape == "cosine" else shape,
            div_factor=div,
            final_div_factor=final,
            three_phase=three,
            cycle_momentum=False,
        ),
        total,
        steps=total - 1,
    )
    made = {"shape": shape, "phases": 3 if three else 2, "start": 1 / div, "floor": 1 / div / final}
    same(ours("torch", total, "one_cycle", rise=f"{tenths / 10}%", **made), right)


@pytest.mark.parametrize(("total", "percent"), [(10, 35), (1173, 30), (1955, 30), (313, 30)])
def test_one_cycle_is_torchs_at_lengths_that_were_once_wrong(total, percent):
    right = torch_curve(
        lambda o: peers.OneCycleLR(o, LR, total, pct_start=percent / 100, cycle_momentum=False), total, steps=total - 1
    )
    same(ours("torch", total, "one_cycle", rise=f"{percent}%"), right)


@given(TOTAL, LENGTHS, LENGTHS, st.sampled_from(["triangular", "triangular2", "exp_range"]), FLOOR)
def test_a_cyclic_schedule_is_torchs_with_any_two_lengths(total, up, down, mode, floor):
    right = torch_curve(
        lambda o: peers.CyclicLR(o, floor * LR, LR, up, down, mode=mode, gamma=0.99, cycle_momentum=False), total
    )
    made = {"period": f"{round(up + down, 1)}", "cycles": None, "rise": up / round(up + down, 1)}
    same(ours("torch", total, "cyclic", mode=mode, gamma=0.99, floor=floor, **made), right)


@given(TOTAL, st.data())
def test_other_schedules_are_torchs_behind_any_warm_up(total, data):
    width, gamma = data.draw(st.integers(1, total - 3)), data.draw(st.floats(0.05, 1.0))
    left = total - width
    every = data.draw(st.integers(1, left))
    stones = sorted(data.draw(st.sets(st.integers(1, left), min_size=1, max_size=4)))
    first, mult, floor = data.draw(st.integers(1, left)), data.draw(st.integers(1, 3)), data.draw(FLOOR)
    kinds = [
        (("step", {"every": every, "gamma": gamma}), lambda o: peers.StepLR(o, every, gamma)),
        (("multi_step", {"milestones": stones, "gamma": gamma}), lambda o: peers.MultiStepLR(o, stones, gamma)),
        (("exponential", {"gamma": gamma}), lambda o: peers.ExponentialLR(o, gamma)),
        (("polynomial", {"decay": every, "power": 2.0}), lambda o: peers.PolynomialLR(o, every, power=2.0)),
        (("cosine", {"floor": floor * LR}), lambda o: peers.CosineAnnealingLR(o, left, eta_min=floor * LR)),
        (
            ("restarts", {"first": first, "length_mult": float(mult), "floor": floor * LR}),
            lambda o: peers.CosineAnnealingWarmRestarts(o, first, mult, eta_min=floor * LR),
        ),
    ]
    (schedule, made), make = data.draw(st.sampled_from(kinds))

    def joined(optimizer):
        rise = peers.LinearLR(optimizer, 0.1, 1.0, total_iters=width)
        return peers.SequentialLR(optimizer, [rise, make(optimizer)], milestones=[width])

    same(ours("torch", total, schedule, width, 0.1, **made), torch_curve(joined, total))


@given(TOTAL, st.data())
def test_a_schedule_is_that_of_transformers_at_any_length_and_share(total, data):
    width = data.draw(st.integers(0, total - 2))
    decay = data.draw(st.integers(1, total - width))
    floor, cycles = data.draw(FLOOR), data.draw(st.integers(1, max(1, (total - width) // 2)))
    wave = data.draw(st.floats(0.1, 1.0))
    shape = data.draw(st.sampled_from(["linear", "cosine", "1-sqrt"]))
    wsd = {"num_decay_steps": decay, "decay_type": shape, "min_lr_ratio": floor}
    kinds = [
        ("linear", {}, "linear", {}),
        ("cosine", {"num_cycles": wave}, "cosine", {"cycles": wave}),
        ("cosine_with_restarts", {"num_cycles": cycles}, "hard_restarts", {"cycles": cycles}),
        ("polynomial", {"lr_end": 0.05, "power": 2.0}, "polynomial", {"floor": 0.05, "power": 2.0}),
        ("inverse_sqrt", {}, "inverse_sqrt", {} if width else {"timescale": 10_000}),
        ("cosine_with_min_lr", {"min_lr_rate": floor}, "cosine", {"floor": floor}),
        ("warmup_stable_decay", wsd, "wsd", {"decay": decay, "shape": shape, "floor": floor, "start": floor}),
    ]
    name, theirs, schedule, made = data.draw(st.sampled_from(kinds))
    start = made.pop("start", 0.0)
    right = torch_curve(lambda o: named(name, o, width, total, **theirs), total)
    restarts = [t for t in range(width + 1, total) if (t - width) * cycles % (total - width) == 0]
    near = restarts if schedule == "hard_restarts" else ()
    same(ours("transformers", total, schedule, width, start, **made), right, near)


def test_a_restart_between_two_updates_of_transformers_is_missed_by_its_rounding_alone():
    right = torch_curve(lambda o: named("cosine_with_restarts", o, 0, 154, num_cycles=55), 154)
    found = ours("transformers", 154, "hard_restarts", 0, cycles=55)
    assert [t for t in range(154) if abs(found[t] - right[t]) > 1e-12] == [42, 84]
    assert (found[42], right[42]) == (LR, 0.0)


@given(TOTAL, st.data())
def test_the_cosine_that_ends_on_the_last_update_is_that_of_transformers_behind_no_warm_up_and_the_longest(total, data):
    width = data.draw(st.sampled_from([0, 1, 2, total - 2, total - 1]) | st.integers(0, total - 1))
    floor = data.draw(FLOOR)
    right = torch_curve(lambda o: named("cosine_warmup_with_min_lr", o, width, total, min_lr_rate=floor), total)
    same(ours("transformers", total, "cosine", width, read={"ramp": "(t+1)/W", "last": ["cosine"]}, floor=floor), right)
    if width >= 2:
        theirs = {"min_lr_rate": floor, "warmup_lr_rate": 0.2}
        right = torch_curve(lambda o: named("cosine_warmup_with_min_lr", o, width, total, **theirs), total)
        same(ours("transformers", total, "cosine", width - 1, 0.2, read={"last": ["cosine"]}, floor=floor), right)


@given(TOTAL, st.integers(1, 900))
def test_a_share_of_the_run_is_as_long_a_warm_up_as_transformers_makes_of_it(total, tenths):
    from transformers.training_args import TrainingArguments

    width = TrainingArguments.get_warmup_steps(SimpleNamespace(warmup_steps=tenths / 1000), total)
    assume(width < total)
    right = torch_curve(lambda o: named("linear", o, width, total), total)
    same(ours("transformers", total, "linear", f"{tenths / 10}%"), right)


def named(name, optimizer, width, total, **kwargs):
    return transformers.get_scheduler(
        name, optimizer, num_warmup_steps=width, num_training_steps=total, scheduler_specific_kwargs=kwargs or None
    )


def cycle_of(t, first, mult):
    """Cycle, its length and the place in it; None at a bound, where the rounding of the peers' logarithms decides."""
    if mult == 1.0:
        i, length, done = t // first, first, t % first
    else:
        i = math.floor(math.log(1 - t / first * (1 - mult), mult))
        length, done = mult**i * first, t - (1 - mult**i) / (1 - mult) * first
    return (i, length, done) if t == 0 or 1e-9 < done / length < 1 - 1e-9 else None


def keras_restarts(t, first, mult, shrink, alpha):
    """`CosineDecayRestarts` of Keras 3."""
    place = cycle_of(t, first, mult)
    return place and LR * (
        (1 - alpha) * 0.5 * shrink ** place[0] * (1 + math.cos(math.pi * place[2] / place[1])) + alpha
    )


def timm_cosine(t, first, mult, shrink, low, k=1.0):
    """`CosineLRScheduler` of timm 1.0."""
    place = cycle_of(t, first, mult)
    top = place and LR * shrink ** place[0]
    return place and low + 0.5 * (top - low) * (1 + math.cos(math.pi * place[2] ** k / place[1] ** k))


MULTS = st.sampled_from([1.0, 1.1, 1.3, 1.5, 2.0, 3.0]) | st.floats(1.05, 3.0)


def agree(found, formula):
    right = [formula(t) for t in range(len(found))]
    near = {t for t, value in enumerate(right) if value is None}
    same(found, [0.0 if value is None else value for value in right], near)
    return near


@given(TOTAL, LENGTHS, MULTS, st.floats(0.3, 1.0), FLOOR)
def test_restarts_are_those_of_keras_with_any_first_cycle_and_factor(total, first, mult, shrink, alpha):
    made = {"first": f"{first}", "length_mult": mult, "peak_mult": shrink, "floor": alpha}
    found = ours("keras", total, "restarts", **made)
    near = agree(found, lambda t: keras_restarts(t, first, mult, shrink, alpha))
    assert len(near) < 12 or mult == 1.0


@pytest.mark.parametrize(("first", "mult"), [(7, 1.5), (100, 1.3), (333, 1.1), (10, 1.1), (5, 1.5)])
def test_restarts_are_those_of_keras_and_timm_where_they_were_once_wrong(first, mult):
    made = {"first": first, "length_mult": mult}
    agree(ours("keras", 1000, "restarts", **made), lambda t: keras_restarts(t, first, mult, 1.0, 0.0))
    read = {"every": "update"}
    found = ours("timm", 1000, "restarts", read=read, scales="peak", peak_mult=0.9, floor=0.001, **made)
    agree(found, lambda t: timm_cosine(t, first, mult, 0.9, 0.001))


def test_a_cycle_that_ends_on_a_whole_update_starts_anew_there():
    for peer, more in (("keras", {}), ("timm", {"every": "update"})):
        found = ours(peer, 60, "restarts", read=more, first=10, length_mult=1.1)
        assert [found[t] for t in (0, 10, 21)] == [LR] * 3
        assert found[33] < 0.01 * LR < LR * 0.98 < found[34]


@given(TOTAL, LENGTHS, st.floats(0.1, 0.99), st.booleans(), FLOOR, st.data())
def test_decays_are_those_of_keras_with_any_length(total, steps, rate, stairs, floor, data):
    step = (lambda t: math.floor(t / steps)) if stairs else (lambda t: t / steps)
    made = {"every": f"{steps}", "rate": rate, "staircase": stairs}
    near = {t for t in range(total) if stairs and abs(t / steps - round(t / steps)) < 1e-9 and steps % 1}
    same(ours("keras", total, "exponential_decay", **made), [LR * rate ** step(t) for t in range(total)], near)
    same(ours("keras", total, "inverse_time", **made), [LR / (1 + rate * step(t)) for t in range(total)], near)
    cycle, power = data.draw(st.booleans()), data.draw(st.floats(0.3, 3.0))
    low = floor * LR

    def polynomial(t):
        length = steps * max(1, math.ceil(t / steps)) if cycle else steps
        return (LR - low) * (1 - (t if cycle else min(t, steps)) / length) ** power + low

    found = ours("keras", total, "polynomial", decay=f"{steps}", power=power, floor=low, cycle=cycle)
    near = {t for t in range(total) if cycle and t and abs(t / steps - round(t / steps)) < 1e-9}
    same(found, [polynomial(t) for t in range(total)], near)


@given(TOTAL, st.sets(LENGTHS, min_size=1, max_size=4))
def test_stairs_are_those_of_keras_and_timm_at_any_boundaries(total, places):
    places = sorted(places)
    values = [0.5**i for i in range(len(places) + 1)]

    def keras(t):
        return LR * next((value for value, place in zip(values, places) if t <= place), values[-1])

    points = [[0, 1.0], *([f"{place}", value] for place, value in zip(places, values[1:]))]
    same(ours("keras", total, "piecewise", points=points, interpolation="constant"), list(map(keras, range(total))))
    right = [LR * 0.5 ** sum(place <= t + 1 for place in places) for t in range(total)]
    made = {"milestones": [f"{place}" for place in places], "gamma": 0.5, "read": {"every": "update"}}
    same(ours("timm", total, "multi_step", **made), right)
    right = [LR * 0.5 ** (t // places[0]) for t in range(total)]
    near = {t for t in range(total) if abs(t / places[0] - round(t / places[0])) < 1e-9 and places[0] % 1}
    same(ours("timm", total, "step", every=f"{places[0]}", gamma=0.5, read={"every": "update"}), right, near)


@given(st.integers(30, 400), st.decimals("1", "25", places=1).map(float), st.booleans(), st.data())
def test_curves_are_those_of_timm_behind_a_warm_up_that_ends_between_two_updates(total, width, prefix, data):
    first, mult, shrink = data.draw(LENGTHS), data.draw(MULTS), data.draw(st.floats(0.97, 1.0))
    power, low, begin, k = data.draw(st.floats(0.3, 3.0)), 0.001, 0.002, data.draw(st.floats(0.7, 1.5))
    span = total - width if prefix else total
    decay = data.draw(st.integers(2, int(span)))
    kinds = [
        ("restarts", {"first": f"{first}", "length_mult": mult, "peak_mult": shrink, "scales": "peak", "floor": low}),
        ("cosine", {"k": k, "floor": low}),
        ("polynomial", {"power": power, "floor": low}),
        ("wsd", {"decay": decay, "shape": "1-sqrt", "floor": low}),
        ("multi_step", {"milestones": [f"{first}", f"{first + 7}"], "gamma": 0.5}),
    ]
    formulas = {
        "restarts": lambda t: timm_cosine(t, first, mult, shrink, low),
        "cosine": lambda t: timm_cosine(t, span, 1.0, 1.0, low, k),
        "polynomial": lambda t: low + (LR - low) * (1 - t / span) ** power,
        "multi_step": lambda t: LR * 0.5 ** ((first <= t + 1 + 1e-9) + (first + 7 <= t + 1 + 1e-9)),
        "wsd": lambda t: low + (LR - low) * (1 - math.sqrt(max(0, t - (span - decay)) / decay)),
    }
    schedule, made = data.draw(st.sampled_from(kinds))

    def timm(t):
        if t < width:
            return begin + t * (LR - begin) / width
        return formulas[schedule](t - width if prefix else t)

    read = {"every": "update", **({"from_start": []} if prefix else {})}
    agree(ours("timm", total, schedule, f"{width}", begin, read, **made), timm)


@given(TOTAL, TENTHS, st.floats(1.5, 40), st.floats(1, 1e4))
def test_one_cycle_is_that_of_optax_which_cuts_its_peak_to_a_whole_update(total, tenths, div, final):
    peak = int(tenths / 1000 * total)
    assume(1 <= peak < total)

    def half_wave(t, begin, end, one, other):
        return one + (other - one) * 0.5 * (1 - math.cos(math.pi * (t - begin) / (end - begin)))

    right = [
        half_wave(t, 0, peak, LR / div, LR) if t < peak else half_wave(t, peak, total, LR, LR / div / final)
        for t in range(total)
    ]
    same(ours("optax", total, "one_cycle", rise=f"{tenths / 10}%", start=1 / div, floor=1 / div / final), right)


@given(TOTAL, st.data())
def test_a_cosine_is_that_of_optax_and_a_decay_too(total, data):
    width, begin, low = (
        data.draw(st.integers(1, total - 3)),
        data.draw(st.floats(0.0, 0.4)),
        data.draw(st.floats(0, 0.4)),
    )
    power, steps = data.draw(st.floats(0.5, 3.0)), data.draw(st.integers(1, 50))
    alpha, span = low / LR, total - width

    def warm(fall):
        return [begin + (LR - begin) * t / width if t < width else fall(t - width) for t in range(total)]

    wave = warm(lambda t: LR * ((1 - alpha) * (0.5 * (1 + math.cos(math.pi * t / span))) ** power + alpha))
    same(ours("optax", total, "cosine", width, begin, floor=low, exponent=power), wave)
    fall = warm(lambda t: max(low, LR * 0.5 ** (t / steps)))
    same(ours("optax", total, "exponential_decay", width, begin, every=steps, rate=0.5, floor=low), fall)


@given(TOTAL, st.integers(5, 900), st.sampled_from(["linear", "cosine"]), FLOOR)
def test_curves_are_those_of_megatron_behind_a_share_of_the_run(total, tenths, shape, floor):
    """Its lr_warmup_fraction · lr_decay_steps is not rounded."""
    width, low = tenths / 1000 * total, floor * LR
    assume(width >= 1 and math.ceil(width) < total)

    def megatron(t):
        if t <= width:
            return LR * t / width
        x = (t - width) / (total - width)
        return low + (LR - low) * (1 - x if shape == "linear" else 0.5 * (math.cos(math.pi * x) + 1))

    same(ours("megatron", total, shape, f"{tenths / 10}%", floor=low), list(map(megatron, range(total))))
