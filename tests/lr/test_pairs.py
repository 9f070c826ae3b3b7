"""Laws for all of them together: every schedule with every warm-up and every cooldown of the control panel."""

import functools
import itertools
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

import trainer.lr
from trainer.config.nested_schedules import expanded
from trainer.lr import Horizon, LRPolicy, annotations, compose

CONF = Path(__file__).parents[2] / "conf"
OWN_WARMUP = {"noam", "noam_hold", "tri_stage", "one_cycle", "one_cycle_stairs", "one_cycle_three_phase"}


def factory(node):
    """What a plain config with a `_target_` calls, its parts too."""
    if isinstance(node, dict) and "_target_" in node:
        given = {name: factory(value) for name, value in node.items() if name[0] != "_"}
        if "beta2" in given:
            given["beta2"] = 0.95
        if given.get("duration") == "auto":
            given |= {"duration": "10%", "start": 0.25}
        return functools.partial(getattr(trainer.lr, node["_target_"].rpartition(".")[2]), **given)
    if isinstance(node, dict):
        return {name: factory(value) for name, value in node.items()}
    return [factory(item) for item in node] if isinstance(node, list) else node


def options(group):
    """Each option of a group by name, as a call; recipes of two groups, and those that need a file, are left out."""
    made = {}
    for path in sorted((CONF / group).glob("*.yaml")):
        node = OmegaConf.to_container(OmegaConf.load(path))
        if "defaults" not in node and "???" not in str(node):
            made[path.stem] = factory(expanded(node, group))
    return made


SCHEDULES, WARMUPS, COOLDOWNS = options("schedule"), options("warmup"), options("cooldown")
SHAPED = [name for name in COOLDOWNS if name != "none"]


def curve(schedule, warmup, cool, total, warmup_mode="prefix"):
    rise, fall = compose(
        Horizon(total, 1, updates_per_epoch=10), WARMUPS[warmup], SCHEDULES[schedule], warmup_mode, COOLDOWNS[cool]
    )
    return LRPolicy(1.0, 1.0, rise, fall)


def test_every_schedule_warmup_and_cooldown_is_here():
    assert (len(SCHEDULES) >= 44, len(WARMUPS) >= 14, len(COOLDOWNS) >= 7) == (True, True, True)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_with_any_warmup_and_cooldown_a_curve_stays_in_bounds_and_holds_its_last_value(schedule):
    for warmup, cool in itertools.product(WARMUPS, COOLDOWNS):
        policy = curve(schedule, warmup, cool, 200)
        rates = [policy.lr(t) for t in range(260)]
        assert all(0.0 <= rate <= 2.0 and math.isfinite(rate) for rate in rates), (warmup, cool)
        assert max(rates[:200]) <= 1.0 + 1e-12 or schedule == "noisy", (warmup, cool)
        endless = policy.warmup.updates == 0 and warmup != "none"
        held = rates[201:]
        assert max(held) - min(held) <= (0.05 if endless else 1e-12), (warmup, cool)
        assert 0.0 <= policy.lr(10**9) <= (1.0 if endless else max(rates)) + 1e-12


@pytest.mark.parametrize("warmup", WARMUPS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_warmup_hands_over_to_a_schedule_without_a_jump(schedule, warmup):
    policy = curve(schedule, warmup, "none", 400)
    width = policy.warmup.updates
    if width:
        before, after = (policy.warmup.factor(t) * policy.schedule(t) for t in (width - 1, width))
        assert before == pytest.approx(after, rel=0.02) or warmup == "constant"
        assert policy.warmup.factor(width) == 1.0
        assert policy.schedule(width) == policy.schedule(0), "the schedule begins where the warm-up ends"


@pytest.mark.parametrize("cool", SHAPED)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_cooldown_begins_where_the_schedule_is_never_rises_and_ends_at_its_floor(schedule, cool):
    for warmup in WARMUPS:
        policy, bare = curve(schedule, warmup, cool, 400), curve(schedule, warmup, "none", 400)
        begin = 400 - 80
        assert [policy.schedule(t) for t in (0, 100, begin)] == [bare.schedule(t) for t in (0, 100, begin)]
        tail = [policy.schedule(t) for t in range(begin, 420)]
        assert all(later <= earlier for earlier, later in itertools.pairwise(tail)), warmup
        assert tail[80:] == [0.0] * 20
        assert tail[1] > 0.8 * tail[0], "no jump at the join"


@pytest.mark.parametrize("schedule", [name for name in SCHEDULES if name not in ("noisy",)])
def test_overlaid_the_warmup_multiplies_a_schedule_that_knows_nothing_of_it(schedule):
    for warmup in WARMUPS:
        both = curve(schedule, warmup, "none", 200, "overlay")
        alone = SCHEDULES[schedule](Horizon(200, 1, updates_per_epoch=10))
        assert [both.lr(t) for t in range(200)] == [both.warmup.factor(t) * alone(t) for t in range(200)]


IN_UPDATES = {"exponential", "natural_exponential", "exp_range", "noisy", "chebyshev", "one_cycle_stairs"}
ROUNDED = {"noam", "noam_hold", "tri_stage", "piecewise_constant", "restarts", "repeat", "hard_restarts", "wsd_s"}


@settings(deadline=None, max_examples=25)
@given(times=st.integers(2, 5), t=st.integers(0, 199))
@pytest.mark.parametrize("schedule", sorted(SCHEDULES.keys() - IN_UPDATES - ROUNDED - OWN_WARMUP))
def test_a_run_k_times_as_long_has_the_same_curve_at_k_times_the_update(schedule, times, t):
    short, long = (curve(schedule, "none", "linear", total) for total in (200, 200 * times))
    assert long.lr(t * times) == pytest.approx(short.lr(t), rel=1e-9, abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(
    schedule=st.sampled_from(sorted(SCHEDULES)),
    warmup=st.sampled_from(sorted(WARMUPS)),
    cool=st.sampled_from(sorted(COOLDOWNS)),
    total=st.integers(40, 2000),
    warmup_mode=st.sampled_from(["prefix", "overlay", "replace"]),
)
def test_marks_lie_where_the_curve_does_something(schedule, warmup, cool, total, warmup_mode):
    policy = curve(schedule, warmup, cool, total, warmup_mode)
    values = [policy.schedule(t) for t in range(total)]
    jumps = set(annotations(policy.schedule).get("jumps", ()))
    for t in range(max(policy.warmup.updates, 1) + 1, total):
        if abs(values[t] - values[t - 1]) > 0.3 and schedule != "noisy" and total > 200:
            assert t in jumps, f"{schedule} leaps at {t} of {total} and does not say so"


LONG_STAIRS = {
    "exponential_decay in stairs": lambda h: trainer.lr.exponential_decay(h, every=7, rate=0.9, staircase=True),
    "inverse_time in stairs": lambda h: trainer.lr.inverse_time(h, every=7, staircase=True),
    "step of few updates": lambda h: trainer.lr.step(h, every=7, gamma=0.9),
    "function": lambda h: trainer.lr.function(h, of=lambda t: 1 / (1 + t)),
}
"""Curves that would go on changing past the end of the run, if nothing held them."""


@pytest.mark.parametrize("warmup", [1, 30, 47])
@pytest.mark.parametrize("name", [*SCHEDULES, *LONG_STAIRS])
def test_past_the_end_a_schedule_holds_also_after_a_warmup(name, warmup):
    horizon = Horizon(200, 1, updates_per_epoch=10).after(warmup)
    schedule = {**SCHEDULES, **LONG_STAIRS}[name](horizon)
    end = schedule(horizon.span)
    assert [schedule(t) for t in range(horizon.span, 3 * horizon.total)] == [end] * (2 * horizon.total + warmup)
    if name in ("exponential_decay in stairs", "inverse_time in stairs", "function"):
        assert end == schedule(horizon.span - 1), "what is no decay to a floor holds the value of the last update"


@pytest.mark.parametrize("interpolation", ["constant", "linear"])
@pytest.mark.parametrize("warmup", [1, 30, 47])
def test_past_the_end_a_table_holds_also_after_a_warmup(tmp_path, warmup, interpolation):
    path = tmp_path / "curve.csv"
    path.write_text("t,value\n" + "".join(f"{t},{1 / (1 + t)}\n" for t in range(0, 600, 3)))
    horizon = Horizon(200, 1).after(warmup)
    schedule = trainer.lr.table(horizon, path=str(path), interpolation=interpolation)
    assert {schedule(t) for t in range(horizon.span, 600)} == {schedule(horizon.span)}
    assert interpolation == "linear" or schedule(horizon.span) == schedule(horizon.span - 1)
