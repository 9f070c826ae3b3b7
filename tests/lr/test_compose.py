"""How warm-up, schedule and cooldown share a run, and how schedules are made of schedules: worked out by hand."""

import pytest

from trainer.lr import (
    ConfigError,
    Convention,
    Horizon,
    annotations,
    compose,
    compose_schedule,
    constant,
    cooldown,
    linear,
    linear_warmup,
    no_cooldown,
    product,
    repeat,
    sequence,
    step,
    stretch,
)

RUN = Horizon(12, batch_size=1)


def values(schedule, updates):
    return [schedule(t) for t in updates]


def near(expected):
    return pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_replaced_a_schedule_spans_the_run_and_stays_at_one_during_the_warmup():
    warmup, schedule = compose(RUN, lambda h: linear_warmup(h, duration=4), linear, "replace")
    assert values(warmup.factor, (0, 3, 4)) == near([0.25, 1, 1])
    assert values(schedule, (0, 3, 4, 11, 12)) == near([1, 1, 8 / 12, 1 / 12, 0])


def test_prefixed_marks_are_told_on_the_clock_of_the_run():
    fall = compose_schedule(RUN, 4, lambda h: step(h, every=3), "prefix")
    assert values(fall, (0, 6, 7, 9, 10)) == near([1, 1, 0.1, 0.1, 0.01])
    assert annotations(fall)["jumps"][:2] == (7, 10)


@pytest.mark.parametrize(
    ("shape", "middle"),
    [("linear", 0.5), ("cosine", 0.5), ("1-sqrt", 1 - 0.5**0.5), ("1-square", 0.75), ("square", 0.25)],
)
def test_a_cooldown_falls_from_where_the_schedule_is_to_the_floor(shape, middle):
    cooled = cooldown(RUN, lambda t: 0.8, duration=4, shape=shape, floor=0.2)
    assert values(cooled, (0, 8, 10, 12, 999)) == near([0.8, 0.8, 0.2 + 0.6 * middle, 0.2, 0.2])


def test_an_exponential_cooldown_halves_its_way_by_the_same_factor_and_ends_at_the_floor():
    cooled = cooldown(RUN, lambda t: 1.0, duration=4, shape="exponential")
    tops = [(0.01 ** (k / 4) - 0.01) / 0.99 for k in range(5)]
    assert values(cooled, range(8, 13)) == near(tops)


def test_a_cooldown_freezes_the_schedule_at_its_first_update():
    cooled = cooldown(RUN, linear(RUN), duration=6, shape="linear")
    assert values(cooled, (5, 6, 9, 12)) == near([7 / 12, 0.5, 0.25, 0])


def test_without_a_cooldown_the_schedule_is_left_as_it_is():
    schedule = linear(RUN)
    assert no_cooldown(RUN, schedule) is schedule


def test_a_cooldown_ends_on_the_last_update_where_the_convention_says_so():
    read = Horizon(12, 1, convention=Convention(early=1))
    assert values(cooldown(read, lambda t: 1.0, duration=4), (7, 9, 11, 12)) == near([1, 0.5, 0, 0])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: cooldown(RUN, constant(RUN), duration=13), "cooldown.duration=13"),
        (lambda: cooldown(RUN, constant(RUN), duration=0), "cooldown.duration=0"),
        (lambda: cooldown(RUN, constant(RUN), shape="steep"), "cooldown.shape='steep'"),
        (lambda: cooldown(RUN, lambda t: 0.1, floor=0.3), "floor=0.3 lies above 0.1"),
        (lambda: cooldown(RUN, lambda t: 0.0), "at 0 at update 10"),
        (lambda: cooldown(RUN, constant(RUN), floor=float("nan")), "floor=nan"),
        (lambda: sequence(RUN, parts=[]), "parts=[]"),
        (lambda: sequence(RUN, parts=[{"of": linear}, {"of": linear}]), "parts.0.duration is not set"),
        (lambda: sequence(RUN, parts=[{"of": linear, "duration": 12}, {"of": linear}]), "parts.1 has no update left"),
        (lambda: sequence(RUN, parts=[{"of": linear, "scale": -1}]), "parts.0.scale=-1"),
        (lambda: sequence(RUN, parts=[{"off": linear}]), "parts.0="),
        (lambda: sequence(RUN, parts=["linear"]), "parts.0='linear'"),
        (lambda: product(RUN, factors=[]), "factors=[]"),
        (lambda: repeat(RUN, of=linear, cycles=0), "cycles=0"),
        (lambda: repeat(RUN, of=linear, cycles=13), "cycles=13"),
        (lambda: repeat(RUN, of=linear, length_mult=-1), "length_mult=-1"),
        (lambda: repeat(RUN, of=linear, peak_mult=0), "peak_mult=0"),
        (lambda: stretch(RUN, of=linear, ratio=0), "ratio=0"),
        (lambda: compose(RUN, lambda h: linear_warmup(h, duration=2), linear, "postfix"), "warmup_mode='postfix'"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line_that_names_it(make, says):
    with pytest.raises(ConfigError) as error:
        make()
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_in_a_sequence_each_part_is_a_run_of_its_own_and_the_last_has_the_rest():
    parts = [{"of": linear, "duration": 4}, {"of": lambda h: step(h, every="50%", gamma=0.5), "scale": 0.4}]
    both = sequence(RUN, parts=parts)
    assert values(both, (0, 3, 4, 7, 8, 11, 12, 99)) == near([1, 0.25, 0.4, 0.4, 0.2, 0.2, 0.2, 0.2])
    assert annotations(both)["jumps"][:2] == (4, 8)


def test_a_sequence_after_a_warmup_takes_percent_of_the_updates_that_are_left():
    both = sequence(Horizon(16, 1).after(4), parts=[{"of": constant, "duration": "50%"}, {"of": linear}])
    assert values(both, (5, 6, 9, 12)) == near([1, 1, 0.5, 0])


def test_a_product_multiplies_its_factors_over_the_whole_span():
    both = product(RUN, factors=[linear, lambda h: step(h, every=6, gamma=0.5)])
    assert values(both, (0, 3, 6, 9, 12, 99)) == near([1, 0.75, 0.25, 0.125, 0, 0])
    assert annotations(both)["jumps"][0] == 6


def test_a_repetition_makes_each_cycle_longer_and_lower():
    cycles = repeat(Horizon(14, 1), of=linear, cycles=3, length_mult=2.0, peak_mult=0.5)
    assert values(cycles, (0, 1, 2, 4, 6, 10, 14, 99)) == near([1, 0.5, 0.5, 0.25, 0.25, 0.125, 0, 0])
    assert (annotations(cycles)["jumps"], annotations(cycles)["ends"]) == ((2, 6), (2, 6, 14))


def test_stretching_lengthens_durations_in_updates_and_leaves_percentages():
    slow = stretch(Horizon(40, 1), of=lambda h: step(h, every=6), ratio=2.5)
    assert values(slow, (14, 15, 29, 30)) == near([1, 0.1, 0.1, 0.01])
    same = stretch(Horizon(40, 1), of=lambda h: step(h, every="25%"), ratio=2.5)
    assert values(same, (9, 10, 20)) == near([1, 0.1, 0.01])
