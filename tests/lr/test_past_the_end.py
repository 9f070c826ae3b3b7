"""Past the end of the run, behind a warm-up or none, every schedule holds the value that it had reached."""

import itertools
import json
from functools import partial

import trainer.lr
from tests.lr.test_pairs import SCHEDULES
from trainer.lr import ConfigError, Horizon, compose, linear_warmup, no_warmup
from trainer.lr.schedule import values

T, W = 60, 13
STEEP = [{"of": trainer.lr.constant, "duration": 9}, {"of": partial(trainer.lr.exponential, gamma=0.9)}]
STAIRS = {"every": 3, "rate": 0.9, "staircase": True}
MORE = {
    "exponential_decay": STAIRS,
    "inverse_time": STAIRS,
    "step": {"every": 3, "gamma": 0.9},
    "multi_step": {"milestones": list(range(1, 2 * T, 4)), "gamma": 0.9},
    "piecewise": {"points": [[4 * i, 0.9**i] for i in range(T)], "interpolation": "constant"},
    "piecewise of lines": {"points": [[4 * i, 0.9**i] for i in range(T)]},
    "function": {"of": lambda t: 0.9**t},
    "polynomial": {"decay": 4 * T},
    "polynomial again": {"decay": 7, "cycle": True},
    "restarts": {"first": 9, "peak_mult": 0.8},
    "restarts from a ramp": {"first": 20, "warmup": 5},
    "cyclic": {"period": 11, "cycles": None, "mode": "exp_range", "gamma": 0.99},
    "cyclic by number": {"cycles": 3, "mode": "triangular2"},
    "constant_until": {"until": T - 5, "factor": 0.5},
    "exponential": {"gamma": 0.9},
    "natural_exponential": {"rate": 0.1},
    "linear_rate": {"rate": 0.5},
    "cosine": {"cycles": 1.2},
    "inverse_sqrt": {"shift": 7},
    "inverse_sqrt above a floor": {"clip": True, "floor": 0.01},
    "wsd_s": {"periods": [20, 90]},
    "sequence": {"parts": STEEP},
    "restarts by number": {"cycles": 3},
    "repeat": {"of": partial(trainer.lr.exponential, gamma=0.9), "cycles": 3},
    "hard_restarts": {"cycles": 3, "floor": 0.1},
    "one_cycle": {"rise": 10, "floor": 0.1},
    "one_cycle of three": {"rise": 10, "phases": 3},
    "one_cycle_stairs": {"rise": 10},
    "flat_cosine": {"flat": 10},
    "wsd": {"decay": 20},
    "wsd_s by number": {"periods": 3},
    "tri_stage": {"warmup": 5, "hold": 10},
    "noam_hold": {"warmup": 5, "hold": 10},
    "noisy": {"of": trainer.lr.constant, "start": 3},
    "chebyshev": {"steps": 8},
}
"""Settings with which a schedule could go on changing after the end, or take the warm-up for a part of itself."""


def factories(folder):
    points = folder / "points.json"
    points.write_text(json.dumps([[4 * i, 0.9**i] for i in range(T)]))
    tables = {way: partial(trainer.lr.table, path=str(points), interpolation=way) for way in ("constant", "linear")}
    steep = {name: partial(getattr(trainer.lr, name.split()[0]), **given) for name, given in MORE.items()}
    return {**{f"{name}.yaml": made for name, made in SCHEDULES.items()}, **steep, **tables}


def test_a_schedule_holds_its_last_value_behind_a_warm_up_too(tmp_path):
    for name, schedule in factories(tmp_path).items():
        for rise in (no_warmup, partial(linear_warmup, duration=W)):
            _, fall = compose(Horizon(T, 1, updates_per_epoch=10), rise, schedule)
            after = [fall(t) for t in range(T, 3 * T)]
            assert len({*after, fall(10**9)}) == 1, name
            assert after[0] == fall(T - 1) or name not in JUMPS, name


def test_a_schedule_behind_a_warm_up_is_that_of_a_run_without_it_that_is_so_much_shorter(tmp_path):
    """With durations that are no shares of the run: at every update, and past the end."""
    for name, schedule in factories(tmp_path).items():
        if name.startswith("inverse_sqrt") or name.endswith(".yaml"):
            continue
        _, late = compose(Horizon(T, 1), partial(linear_warmup, duration=W), schedule)
        _, alone = compose(Horizon(T - W, 1), no_warmup, schedule)
        assert [late(t + W) for t in range(2 * T)] == [alone(t) for t in range(2 * T)], name


def test_a_range_of_a_curve_has_the_bits_of_its_updates_one_by_one(tmp_path):
    cools = [None, partial(trainer.lr.cooldown, duration=11), partial(trainer.lr.cooldown, duration=20, floor=1e-6)]
    rises = [no_warmup, partial(linear_warmup, duration=W), partial(trainer.lr.hold_warmup, duration=W)]
    floored = {"cosine.yaml": partial(trainer.lr.cosine, floor=0.1), "linear": partial(trainer.lr.linear, floor=0.3)}
    ranges = [range(0, T), range(W, W + 3), range(W - 1, T - 5), range(T - 15, T + 9), range(T, T + 4), range(30, 30)]
    for name, schedule in {**factories(tmp_path), **floored}.items():
        for rise, cool in itertools.product(rises, cools):
            try:
                warmup, fall = compose(Horizon(T, 1, updates_per_epoch=10), rise, schedule, cooldown=cool)
            except ConfigError:
                continue  # the schedule is at 0, or below the floor, where the cooldown begins
            for made, ts in itertools.product((warmup.factor, fall), ranges):
                assert values(made, ts) == [made(t) for t in ts], (name, ts)


JUMPS = ("exponential_decay", "inverse_time", "step", "multi_step", "piecewise", "constant", "function")
"""Nothing changes from the last update on: the value past the end is that of T - 1, of the others that of T."""
