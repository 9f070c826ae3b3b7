"""The metric-driven factor: torch's and GreedyLR's decisions to the bit, a trend test that no spike fools, a state."""

import inspect
import itertools
import json
import math
import random
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trainer.lr import ConfigError, CountPlateau, Greedy, TrendPlateau
from trainer.lr.trend import chance

RULES = [
    lambda **more: CountPlateau(patience=1, cooldown=1, factor=0.5, **more),
    lambda **more: Greedy(patience=1, cooldown=1, smooth=3, factor=0.5, highest=8.0, **more),
    lambda **more: TrendPlateau(window=5, factor=0.5, **more),
]
SOME_NAN = st.one_of(st.floats(0, 4), st.sampled_from([0.0, 1.0, 2.0, 2.0 - 1e-4, math.nan, math.inf]))
ANY = st.one_of(SOME_NAN, SOME_NAN.map(lambda value: -value))


def factors(rule, series):
    """The factor after each validation."""
    return [(rule.observe(value, t), rule.value)[1] for t, value in enumerate(series)]


def peer_factors(make, series):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    peer = make(optimizer)
    return [(peer.step(value), optimizer.param_groups[0]["lr"])[1] for value in series]


def noise(count, seed):
    generator = random.Random(seed)
    return [generator.gauss(0.0, 1.0) for _ in range(count)]


@settings(max_examples=300, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "series": st.lists(SOME_NAN, max_size=60),
            "mode": st.sampled_from(["min", "max"]),
            "threshold_mode": st.sampled_from(["rel", "abs"]),
            "threshold": st.sampled_from([0.0, 1e-4, 0.1]),
            "patience": st.integers(0, 4),
            "cooldown": st.integers(0, 3),
            "factor": st.sampled_from([0.1, 0.5, 0.95]),
            "floor": st.sampled_from([0.0, 0.01, 0.3]),
        }
    )
)
def test_counting_makes_torchs_factor_at_every_validation(common):
    series, floor = common.pop("series"), common.pop("floor")
    series = [value for value in series if common["mode"] == "min" or value != math.inf]  # torch's best for ever
    theirs = peer_factors(
        lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, **common, min_lr=floor, eps=0.0), series
    )
    assert factors(CountPlateau(floor=floor, **common), series) == theirs


@settings(max_examples=300, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "series": st.lists(st.integers(-200, 200).map(lambda n: n / 64), max_size=80),
            "mode": st.sampled_from(["min", "max"]),
            "patience": st.integers(0, 3),
            "cooldown": st.integers(0, 2),
            "smooth": st.sampled_from([1, 2, 8]),
            "factor": st.sampled_from([0.5, 0.95]),
            "floor": st.sampled_from([0.1, 0.9]),
            "highest": st.sampled_from([1.0, 3.0]),
        }
    )
)
def test_greedy_makes_the_factor_of_transformers_at_every_validation(common):
    peers = pytest.importorskip("transformers.optimization")
    series, smooth, floor, highest = (common.pop(name) for name in ("series", "smooth", "floor", "highest"))
    theirs = peer_factors(
        lambda o: peers.GreedyLR(
            o, **common, warmup=common["cooldown"], min_lr=floor, max_lr=highest, eps=0.0,
            smooth=smooth > 1, window_size=smooth, reset_start=10**9,
        ),
        series,
    )  # fmt: skip
    assert factors(Greedy(floor=floor, highest=highest, smooth=smooth, **common), series) == theirs


def test_counting_acts_after_one_bad_validation_more_than_its_patience():
    assert factors(CountPlateau(patience=2), [1.0, 1.0, 1.0, 1.0, 1.0]) == [1.0, 1.0, 1.0, 0.1, 0.1]
    assert factors(CountPlateau(patience=2), [1.0, 1.0, 1.0, 0.5, 1.0, 1.0]) == [1.0] * 6


def test_after_a_reduction_no_bad_validation_counts_during_the_cooldown():
    rule = CountPlateau(patience=0, cooldown=2, factor=0.5)
    assert factors(rule, [1.0] * 8) == [1.0, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]


def test_the_factor_stays_at_the_floor_and_says_nothing_there():
    rule = CountPlateau(patience=0, factor=0.5, floor=0.3)
    events = [rule.observe(1.0, t) for t in range(5)]
    assert [event is not None for event in events] == [False, True, True, False, False]
    assert rule.value == 0.3


def test_a_factor_below_an_edited_floor_is_not_raised():
    rule = CountPlateau(patience=0, floor=0.5)
    rule.load_state_dict({**rule.state_dict(), "value": 0.2})
    assert factors(rule, [1.0, 1.0, 1.0]) == [0.2, 0.2, 0.2]


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_negative_metric_that_gets_slowly_worse_is_bad(mode):
    sign = 1 if mode == "min" else -1
    series = [sign * (-1.0 + 5e-5 * i) for i in range(6)]
    assert factors(CountPlateau(mode=mode, patience=4), series)[-1] == 0.1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("make", RULES)
def test_a_value_that_is_no_number_is_bad_and_never_the_best(make, mode, bad):
    rule = make(mode=mode)
    seen = factors(rule, [bad] * 12)
    assert seen[-1] < 1.0
    assert sorted(seen, reverse=True) == seen
    json.dumps(rule.state_dict())
    better = make(mode=mode)
    sign = -1.0 if mode == "min" else 1.0
    assert factors(better, [bad, *(sign * (20 + i) for i in range(9))])[-1] >= 1.0


def test_greedy_goes_up_to_its_highest_and_down_to_its_floor():
    rule = Greedy(patience=1, factor=0.5, floor=0.1, highest=3.0)
    better, worse = [1.0 - i / 10 for i in range(6)], [9.0] * 14
    assert factors(rule, better) == [1.0, 2.0, 2.0, 3.0, 3.0, 3.0]
    assert factors(rule, worse)[1::2] == [1.5, 0.75, 0.375, 0.1875, 0.1, 0.1, 0.1]


def test_greedy_by_default_never_exceeds_the_planned_curve():
    assert max(factors(Greedy(patience=0), [-float(i) for i in range(50)])) == 1.0


@pytest.mark.parametrize(
    ("series", "p"),
    [
        # Var(S) = n(n-1)(2n+5)/18 without ties; S and p worked out by hand with a table of the normal distribution.
        ([float(-i) for i in range(10)], 0.5 * math.erfc(44 / math.sqrt(125) / math.sqrt(2))),  # S = 45
        ([1.0, 0.0, 3.0, 2.0], 0.5 * math.erfc(-3 / math.sqrt(26 / 3) / math.sqrt(2))),  # S = 2 - 4 = -2
        ([2.0, 2.0, 1.0, 0.0], 0.5 * math.erfc(4 / math.sqrt((156 - 18) / 18) / math.sqrt(2))),  # S = 5, one tie
        ([1.0, 1.0, 1.0], 1.0),
    ],
)
def test_the_chance_of_a_fall_is_that_of_mann_and_kendall(series, p):
    assert chance(series) == pytest.approx(p, rel=1e-9)


def test_the_chance_is_close_to_the_share_of_all_orders_that_fall_as_clearly():
    clarity = {order: chance([float(x) for x in order]) for order in itertools.permutations(range(7))}
    for order in random.Random(0).sample(sorted(clarity), 20):
        exact = sum(p <= clarity[order] for p in clarity.values()) / len(clarity)
        assert clarity[order] == pytest.approx(exact, abs=0.009)


@pytest.mark.parametrize("spike", [-50.0, 50.0])
@pytest.mark.parametrize("at", range(20, 40))
def test_one_spike_in_a_steady_fall_reduces_nothing(spike, at):
    series = [100.0 - i for i in range(60)]
    series[at] += spike
    assert factors(TrendPlateau(), series) == [1.0] * 60


def test_a_lucky_spike_in_a_steady_fall_deceives_counting_alone():
    series = [100.0 - i for i in range(60)]
    series[20] = 20.0
    assert factors(CountPlateau(), series)[-1] < 1.0
    assert factors(TrendPlateau(), series)[-1] == 1.0


@pytest.mark.parametrize("spike", [-50.0, 50.0])
@pytest.mark.parametrize("at", range(15))
def test_one_spike_in_pure_noise_neither_hides_the_plateau_nor_starts_the_window_afresh(at, spike):
    series = noise(16, seed=3)
    series[at] += spike
    assert factors(TrendPlateau(), series)[-1] == 0.1


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("mode", ["min", "max"])
def test_pure_noise_is_a_plateau_and_a_steady_noisy_gain_is_none(seed, mode):
    sign = 1 if mode == "min" else -1
    flat = [sign * value for value in noise(30, seed)]
    gain = [value - sign * 0.5 * i for i, value in enumerate(noise(60, seed))]
    assert factors(TrendPlateau(mode=mode), flat)[-1] < 1.0
    assert factors(TrendPlateau(mode=mode), gain) == [1.0] * 60


def test_after_a_reduction_the_trend_is_sought_in_a_full_new_window():
    assert factors(TrendPlateau(window=5, factor=0.5), [1.0] * 11) == [1.0] * 4 + [0.5] * 5 + [0.25] * 2


@pytest.mark.parametrize("make", RULES)
@settings(max_examples=60, deadline=None)
@given(series=st.lists(ANY, max_size=30), mode=st.sampled_from(["min", "max"]))
@example(series=[1.0] * 20, mode="min")
@example(series=[*range(8), *[7.0] * 8, *range(8)], mode="max")
def test_a_rule_goes_on_from_its_state_as_if_never_stopped(make, series, mode):
    whole = make(mode=mode)
    events = [whole.observe(value, t) for t, value in enumerate(series)]
    for cut in range(len(series) + 1):
        first, second = make(mode=mode), make(mode=mode)
        told = [first.observe(value, t) for t, value in enumerate(series[:cut])]
        saved = first.state_dict()
        second.load_state_dict(json.loads(json.dumps(saved)))
        told += [second.observe(value, t) for t, value in enumerate(series[cut:], start=cut)]
        assert told == events
        assert second.state_dict() == whole.state_dict()
        assert first.state_dict() == saved


@pytest.mark.parametrize("make", RULES)
@settings(max_examples=100, deadline=None)
@given(series=st.lists(ANY, max_size=60))
def test_the_factor_stays_within_its_bounds_and_changes_if_and_only_if_an_event_says_so(make, series):
    rule, before = make(floor=0.2), 1.0
    for t, value in enumerate(series):
        event = rule.observe(value, t)
        assert (event is not None) == (rule.value != before)
        assert event is None or (event.startswith("plateau: val/loss ") and "\n" not in event)
        assert 0.2 <= rule.value <= 8.0
        before = rule.value


@pytest.mark.parametrize("other", [TrendPlateau(), CountPlateau(monitor="val/accuracy"), CountPlateau(mode="max")])
def test_of_another_rule_or_metric_only_the_factor_is_taken_over(other):
    rule = CountPlateau(patience=0)
    factors(rule, [0.4, 0.5, 0.3])
    fresh = other.state_dict()
    other.load_state_dict(rule.state_dict())
    assert other.state_dict() == {**fresh, "value": 0.1}


def test_an_event_says_what_was_seen_and_what_changes():
    rule = CountPlateau(monitor="val/accuracy", mode="max", patience=2)
    events = [rule.observe(value, t) for t, value in ((10, 0.412), (20, 0.4), (30, 0.41), (40, math.nan))]
    assert events[:3] == [None] * 3
    assert events[3] == (
        "plateau: val/accuracy has not improved on 0.412 of update 10 for 3 validations, factor 1 -> 0.1"
    )


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: CountPlateau(factor=1.0), "factor=1.0"),
        (lambda: CountPlateau(factor=0.0), "factor=0.0"),
        (lambda: CountPlateau(factor=math.nan), "factor=nan"),
        (lambda: CountPlateau(floor=1.0), "floor=1.0"),
        (lambda: CountPlateau(floor=-0.1), "floor=-0.1"),
        (lambda: CountPlateau(mode="auto"), "mode='auto'"),
        (lambda: CountPlateau(monitor=""), "monitor=''"),
        (lambda: CountPlateau(monitor=None), "monitor=None"),
        (lambda: CountPlateau(patience=-1), "patience=-1"),
        (lambda: CountPlateau(patience=2.5), "patience=2.5"),
        (lambda: CountPlateau(patience=True), "patience=True"),
        (lambda: CountPlateau(cooldown=-1), "cooldown=-1"),
        (lambda: CountPlateau(threshold=-1e-4), "threshold=-0.0001"),
        (lambda: CountPlateau(threshold=1.0), "threshold=1.0"),
        (lambda: CountPlateau(threshold_mode="share"), "threshold_mode='share'"),
        (lambda: Greedy(highest=0.9), "highest=0.9"),
        (lambda: Greedy(highest=math.inf), "highest=inf"),
        (lambda: Greedy(smooth=0), "smooth=0"),
        (lambda: TrendPlateau(window=3), "window=3 is too short"),
        (lambda: TrendPlateau(window=1), "window=1"),
        (lambda: TrendPlateau(confidence=1.0), "confidence=1.0"),
        (lambda: TrendPlateau(confidence=0.2), "confidence=0.2"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_in_one_line_that_names_it(make, says):
    with pytest.raises(ConfigError) as error:
        make()
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("option", "rule"), [("count", CountPlateau), ("trend", TrendPlateau), ("greedy", Greedy)])
def test_an_option_lists_every_setting_with_its_default(option, rule):
    written = yaml.safe_load((Path(__file__).parents[2] / "conf" / "plateau" / f"{option}.yaml").read_text())
    assert written.pop("_target_") == f"trainer.lr.{rule.__name__}"
    assert written == {name: getattr(rule(), name) for name in inspect.signature(rule).parameters}
