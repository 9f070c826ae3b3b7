"""What a report says of an optimum, an edge, a spread or a difference must be so: by hand, and on planted truths."""

import math
import random
import statistics
import sys

import numpy as np
import pytest
from scipy import stats

from trainer.lr import ConfigError
from trainer.tools.report.comparison import Importance, best_configuration, compare_options, importance, repeats
from trainer.tools.report.figures import importance_figure
from trainer.tools.report.optimum import Undetermined, optimum
from trainer.tools.report.rates import extend, find_edge, refine, width

GRID = [10 ** (k / 4) for k in range(-12, 1)]


def parabola(seed, seeds=3, noise=0.02, at=-1.6, grid=GRID):
    draw = random.Random(seed)
    pairs = [
        (rate, 0.5 + 0.3 * (math.log10(rate) - at) ** 2 + draw.gauss(0, noise)) for rate in grid for _ in range(seeds)
    ]
    return tuple(zip(*pairs))


def test_a_parabola_without_noise_is_found_to_the_digit():
    found = optimum(*parabola(0, noise=0.0))
    assert math.log10(found.rate) == pytest.approx(-1.6, abs=1e-9)
    assert (found.low, found.high) == pytest.approx((found.rate, found.rate))
    assert found.coefficients == pytest.approx((0.5 + 0.3 * 1.6**2, 2 * 0.3 * 1.6, 0.3))
    assert found.cost(0.1) == pytest.approx(0.5 + 0.3 * 0.6**2)


def skewed(steep):
    return lambda d: 0.1 * (math.exp(-d) + math.exp(steep * d) / steep)


CURVES = {
    "parabola": lambda d: 0.3 * d * d,
    "three times as steep above": skewed(3),
    "five times as steep above": skewed(5),
    "a kink a third of a decade above": lambda d: 0.3 * d * d + 2 * max(0.0, d - 0.35),
    "a kink a fifth of a decade above": lambda d: 0.3 * d * d + 2 * max(0.0, d - 0.2),
    "cubic above": lambda d: 0.3 * d * d + max(0.0, d) ** 3,
    "steeply cubic above": lambda d: 0.3 * d * d + 3 * max(0.0, d) ** 3,
}


@pytest.mark.sample(8)
@pytest.mark.parametrize(("step", "seeds", "noise"), [(0.25, 3, 0.01), (0.25, 2, 0.02), (0.5, 3, 0.02)])
@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
def test_the_interval_covers_the_optimum_of_convex_curves(curve, step, seeds, noise):
    """150 curves each, whose optimum lies anywhere between the rates of the grid."""
    trials, covered, told = 150, 0, 0
    for seed in range(trials):
        draw = random.Random(seed)
        at = -1.6 + draw.uniform(-step / 2, step / 2)
        grid = [-3 + i * step for i in range(int(3 / step) + 1)]
        pairs = [(10**x, curve(x - at) + draw.gauss(0, noise)) for x in grid for _ in range(seeds)]
        try:
            found = optimum(*zip(*pairs))
        except Undetermined:
            continue
        told += 1
        covered += found.low <= 10**at <= found.high
    assert told >= 0.9 * trials
    assert covered >= 0.93 * told


def test_more_seeds_and_less_noise_give_a_narrower_interval():
    widths = [
        math.log10(found.high / found.low)
        for found in (optimum(*parabola(0, seeds, noise)) for seeds, noise in [(2, 0.03), (4, 0.01), (8, 0.001)])
    ]
    assert widths[0] > 2 * widths[1] > 4 * widths[2]


def test_a_wall_where_training_breaks_gives_an_interval_up_to_it():
    rates = [0.01, 0.01, 0.03, 0.03, 0.1, 0.1, 0.3, 0.3, 1.0, 1.0]
    costs = [2.08, 2.06, 1.02, 1.02, 0.67, 0.69, 0.616, 0.612, 1.7, 1.4]
    found = optimum(rates, costs)
    assert found.window == (0.1, 1.0)  # no parabola fits more
    assert 0.1 < found.low < 0.2
    assert 0.3 < found.high < 0.5


def test_the_rate_at_which_training_breaks_is_no_part_of_the_parabola():
    rates, costs = parabola(0, seeds=1, noise=0.0, at=-1.5, grid=[0.003, 0.01, 0.02, 0.03, 0.05, 0.1])
    broken = optimum([*rates, 0.11], [*costs, 9.0])
    assert math.log10(broken.rate) == pytest.approx(-1.5, abs=1e-9)
    assert broken.window[1] == 0.1


@pytest.mark.parametrize(
    ("rates", "costs", "reason"),
    [
        ([0.1, 0.2, 0.4], [2, 1, 2], "3 learning rates"),
        ([0.1, 0.2, 0.4, 0.8], [4, 3, 2, 1], "0.8, is at the edge"),
        ([0.1, 0.2, 0.4, 0.8], [1, 2, 3, 4], "0.1, is at the edge"),
        ([0.1, 0.2, 0.4, 0.8, 1.6], [1, 2, 0.99, 2, 0.995], "too flat"),
    ],
)
def test_a_fit_is_refused_where_it_would_say_nothing(rates, costs, reason):
    with pytest.raises(Undetermined, match=reason):
        optimum(rates, costs)


def test_pure_noise_rarely_gets_an_optimum():
    told = 0
    for seed in range(200):
        draw = random.Random(seed)
        try:
            optimum(GRID, [draw.gauss(1, 0.1) for _ in GRID])
            told += 1
        except Undetermined:
            pass
    assert told < 60  # the window is where the noise was lowest, so some curves look convex


def test_the_range_within_a_percentage_is_read_off_between_the_rates():
    found = width([0.01, 0.1, 1.0], [1.2, 1.0, 1.1], within=0.05)
    assert math.log10(found.low) == pytest.approx(-1 - 0.25)
    assert math.log10(found.high) == pytest.approx(-1 + 0.5)
    assert found.decades == pytest.approx(0.75)
    assert not found.open_low
    assert not found.open_high


def test_a_range_that_reaches_the_end_of_the_grid_is_open_unless_the_next_rate_failed():
    assert width([0.01, 0.1, 1.0], [1.2, 1.0, 1.01]).open_high
    assert not width([0.01, 0.1, 1.0], [1.2, 1.0, 1.01], failed=[3.0]).open_high
    falling = width([1.0, 10.0], [-0.98, -0.90])  # an accuracy
    assert falling.low == 1.0
    assert falling.high == pytest.approx(10 ** (0.049 / 0.08))


def test_an_edge_is_found_on_either_side_and_nothing_inside():
    assert find_edge([0.1, 0.2, 0.4], [3, 2, 1]).side == "high"
    low = find_edge([0.1, 0.2, 0.4], [1, 2, 3])
    assert (low.side, low.best, low.margin, low.extension) == ("low", 0.1, 1, (0.025, 0.05))
    assert find_edge([0.1, 0.2, 0.4], [2, 1, 3]) is None
    assert find_edge([0.1, 0.2], [2, 1]) is None
    assert find_edge([], []) is None


def test_an_edge_beyond_which_training_fails_is_not_extended_but_a_far_failure_says_nothing():
    assert find_edge([0.1, 0.3, 1.0], [3, 2, 1], failed=[3.0]).extension == ()
    assert find_edge([0.1, 0.3, 1.0], [3, 2, 1], failed=[1e20]).extension == (3.0, 10.0)


@pytest.mark.parametrize(
    ("grid", "side", "more"),
    [
        ([0.01, 0.03, 0.1, 0.3], "high", [1.0, 3.0]),
        ([0.01, 0.02, 0.05, 0.1, 0.2], "low", [0.002, 0.005]),
        ([16, 32, 64], "high", [128.0, 256.0]),
        ([1e-3, 1e-2, 1e-1], "low", [1e-5, 1e-4]),
        ([0.0, 0.5, 0.9], "high", [1.3, 1.7]),
    ],
)
def test_a_grid_is_carried_on_in_its_own_steps(grid, side, more):
    assert extend(grid, side) == pytest.approx(more)


def test_a_finer_grid_lies_between_the_best_and_its_neighbours():
    assert refine([0.1, 0.8, 6.4], 0.8) == pytest.approx([0.2, 0.4, 1.6, 3.2])


def test_repeats_are_summed_up_as_the_standard_library_and_scipy_do():
    values = [0.61, 0.58, 0.66, 0.60]
    told = repeats(values)
    assert (told.n, told.mean, told.std) == (4, statistics.fmean(values), statistics.stdev(values))
    assert (told.low, told.high) == pytest.approx(stats.t.interval(0.95, 3, told.mean, stats.sem(values)))
    assert repeats([2.0]).std is None


def test_a_paired_difference_takes_out_what_the_seeds_share():
    luck = {0: 0.3, 1: -0.2, 2: 0.1}
    a = {("lr", rate): {s: 1 + (rate - 2) ** 2 + luck[s] for s in luck} for rate in (1, 2, 3)}
    b = {cell: {s: v + 0.05 + 0.001 * s for s, v in values.items()} for cell, values in a.items()}
    (told,) = compare_options({"b": b, "a": a})
    assert (told.option, told.other, told.wins, told.shared) == ("a", "b", 3, 3)
    assert told.tuned.mean == pytest.approx(0.051)
    assert told.grid.mean == pytest.approx(0.051)
    assert told.tuned.low > 0.045
    reference = stats.ttest_rel([b[("lr", 2)][s] for s in luck], [a[("lr", 2)][s] for s in luck]).confidence_interval(
        0.95
    )
    assert (told.tuned.low, told.tuned.high) == pytest.approx((reference.low, reference.high))


def test_a_configuration_with_fewer_seeds_is_not_called_best_and_pairs_are_of_the_same_seeds_only():
    assert best_configuration({"lucky": {0: 0.1}, "solid": {0: 0.5, 1: 0.5}}) == "solid"
    (told,) = compare_options({"a": {"x": {0: 1.0, 1: 1.0}}, "b": {"x": {1: 3.0, 2: 9.0}}})
    assert (told.tuned.n, told.tuned.mean) == (1, 2.0)


def test_several_comparisons_share_the_five_percent():
    cells = {"x": {0: 1.0, 1: 1.1}}
    told = compare_options({name: {"x": {s: v + i for s, v in cells["x"].items()}} for i, name in enumerate("abc")})
    assert [one.level for one in told] == [0.975, 0.975]
    assert compare_options({"a": cells}) == []


def test_importance_finds_the_planted_shares():
    draw = random.Random(0)
    rows = [(10 ** draw.uniform(-3, 0), draw.choice(["a", "b"]), draw.random()) for _ in range(120)]
    costs = [abs(math.log10(lr) + 1.5) + (0.5 if word == "b" else 0) for lr, word, _ in rows]
    told = importance(dict(zip(("lr", "word", "nothing"), map(list, zip(*rows)))), costs)
    assert isinstance(told, Importance)
    assert list(told.shares) == ["lr", "word", "nothing"]
    assert all(low <= mean <= high for mean, low, high in told.shares.values())
    assert told.shares["nothing"][0] < 0.05 < 0.1 < told.shares["word"][0] < told.shares["lr"][0]


def test_importance_agrees_with_an_analysis_of_variance_of_the_ranks_of_a_full_grid():
    draw = random.Random(0)
    rows = [(rate, word) for rate in (0.01, 0.03, 0.1, 0.3, 1.0) for word in "abc" for _ in range(3)]
    shift = {"a": 0.0, "b": 0.3, "c": 0.5}
    costs = [(math.log10(rate) + 1) ** 2 + shift[word] + draw.gauss(0, 1e-3) for rate, word in rows]
    ranks = stats.rankdata(costs)

    def share(i):
        groups = [[rank for row, rank in zip(rows, ranks) if row[i] == level] for level in {row[i] for row in rows}]
        return np.var([np.mean(group) for group in groups]) / np.var(ranks)

    found = importance({"lr": [row[0] for row in rows], "word": [row[1] for row in rows]}, costs)
    assert found.shares["lr"][0] == pytest.approx(share(0), abs=0.03)
    assert found.shares["word"][0] == pytest.approx(share(1), abs=0.03)
    assert found.explained > 0.9


def test_without_optuna_importance_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match="pip install 'optuna>="):
        importance({"a": list(range(20)), "b": list(range(20))}, list(range(20)))


def test_a_mean_above_ninety_percent_of_the_trees_ends_its_bar():
    error = importance_figure(Importance({"a": (0.3, 0.1, 0.5), "b": (0.02, 0.0, 0.0)}, 0.5), {})["data"][0]["error_x"]
    assert error["array"] == pytest.approx([0.0, 0.2])
    assert error["arrayminus"] == pytest.approx([0.02, 0.2])


def test_importance_says_why_it_says_nothing():
    assert "too few" in importance({"a": [1] * 5, "b": [2] * 5}, [1.0] * 5)
    draw = random.Random(1)
    noise = {key: [draw.random() for _ in range(40)] for key in "ab"}
    assert "too little" in importance(noise, [draw.random() for _ in range(40)])
