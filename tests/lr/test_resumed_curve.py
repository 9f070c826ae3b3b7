"""What becomes of a curve when its run is resumed: joined to another, or read on another clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.lr import (
    Horizon,
    HyperSchedule,
    LRPolicy,
    annotations,
    compose,
    cosine,
    linear,
    linear_warmup,
    scheduled,
    step,
)
from trainer.lr.resumed_curve import joined, reclocked


def policy(total, schedule=linear, base_lr=0.3, batch=4, **more):
    warmup, fall = compose(Horizon(total, batch), lambda h: linear_warmup(h, duration="20%"), schedule)
    return LRPolicy(base_lr, 2.0, warmup, fall, {"body": 1.0, "head": 0.1}, **more)


def test_a_joined_policy_is_the_old_one_before_and_the_new_one_from_then_on():
    old, new = policy(20), policy(40, cosine, base_lr=0.1)
    both = joined(old, new, begin=9)
    assert [both.lrs(t) for t in range(9, 60)] == [new.lrs(t) for t in range(9, 60)]
    for t in range(9):
        assert both.lrs(t) == pytest.approx(old.lrs(t), rel=1e-12)
    assert 9 in annotations(both.schedule)["jumps"]


def test_a_shifted_policy_begins_at_its_own_first_update():
    old, new = policy(20), policy(11)
    both = joined(old, new, begin=9, shift=9)
    assert [both.lrs(t) for t in range(9, 30)] == [new.lrs(t) for t in range(21)]
    assert both.warmup.updates == old.warmup.updates


def test_a_group_with_its_own_schedule_on_either_side_keeps_it_there():
    old = policy(20, own={"head": cosine(Horizon(20, 4))})
    both = joined(old, policy(20), begin=9)
    assert both.lr(4, "head") == pytest.approx(old.lr(4, "head"), rel=1e-12)
    assert both.lr(12, "head") == policy(20).lr(12, "head")


def test_other_hyperparameters_are_joined_too():
    run = Horizon(20, 4)
    old = policy(20, hyper_schedules={"weight_decay": HyperSchedule(scheduled(run, of=linear), (0.1, 0.1))})
    new = policy(20, hyper_schedules={"weight_decay": HyperSchedule(scheduled(run, of=cosine), (0.1, 0.1))})
    both = joined(old, new, begin=9)
    assert both.values(3) == old.values(3)
    assert both.values(15) == new.values(15)


@given(times=st.integers(1, 8), t=st.integers(0, 200))
def test_with_a_batch_k_times_as_large_an_update_reads_the_curve_k_times_as_far_on(times, t):
    small = policy(160)
    assert reclocked(small, 4, 4 * times).lrs(t) == small.lrs(t * times)


def test_with_a_smaller_batch_the_curve_is_the_same_at_each_sample():
    large, run = policy(20, lambda h: step(h, every=5), batch=8), range(60)
    small = reclocked(large, 8, 4)
    assert [small.lrs(t) for t in run] == [large.lrs(t // 2) for t in run]
    assert small.warmup.updates == 8
