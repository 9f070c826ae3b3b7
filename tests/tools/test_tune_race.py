"""Walking, repeating and judging, on synthetic curves: the winner ends inside, and the trainings stay few."""

import math
import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from trainer.tools.tune.axes import AXES
from trainer.tools.tune.race import Stage, interval, is_flat, next_trainings, regrets, rivals, table_of, vertex

BOUNDS = ((-32, 12),)
SEEDS = (0, 1)


def raced(stage, cost):
    """The costs of a stage, asked one after the other as the stage wants them."""
    costs = {}
    while todo := next_trainings(stage, costs):
        assert len(set(todo)) == len(todo)
        for point, seed in todo:
            assert (point, seed) not in costs
            costs[point, seed] = cost(point, seed)
    return costs


def coarse(*start, seeds=SEEDS, most=24, bounds=BOUNDS):
    return Stage(100, 2, tuple((one,) for one in start), seeds, bounds, most)


def valley(optimum, left=0.1, right=0.3, breaks=4.0, offset=0.05):
    """A skewed valley in lattice steps of a quarter decade that breaks `breaks` steps above its optimum."""

    def cost(point, seed):
        away = point[0] - optimum
        return math.inf if away > breaks else 1.0 + (left if away < 0 else right) * away**2 + offset * seed

    return cost


@given(st.floats(-24, 6), st.integers(-24, 6), st.floats(0.01, 1), st.floats(0.01, 1), st.floats(1.5, 20))
def test_the_winner_ends_inside_and_is_the_best_of_its_points(optimum, start, left, right, breaks):
    costs = raced(coarse(start - 2, start, start + 2), valley(optimum, left, right, breaks))
    table = table_of(costs)
    (best,) = table.best
    assert {best - 2, best, best + 2} <= {point[0] for point in table.scores}
    assert abs(best - optimum) <= 2
    assert all(table.counts[(place,)] == 2 for place in (best - 2, best, best + 2) if table.scores[(place,)] < math.inf)


@given(st.floats(-24, 6), st.integers(-24, 6))
def test_the_cost_is_the_distance_and_a_few_more(optimum, start):
    costs = raced(coarse(start - 2, start, start + 2), valley(optimum))
    assert len(costs) <= abs(optimum - start) / 2 + 9


@given(st.integers(0, 1000), st.floats(0, 0.5), st.integers(1, 4))
def test_noise_does_not_keep_a_stage_from_ending(seed, noise, seeds):
    draw = random.Random(seed)
    stage = coarse(-10, -8, -6, seeds=tuple(range(seeds)), most=20)
    costs = raced(stage, lambda point, s: valley(-9)(point, s) + draw.gauss(0, noise))
    assert len({point for point, _ in costs}) <= 20


def test_where_all_break_the_walk_goes_down():
    costs = raced(coarse(-2, 0, 2), lambda point, seed: math.inf if point[0] > -20 else 1.0 + abs(point[0] + 24))
    assert table_of(costs).best == (-24,)


def test_where_all_break_down_to_the_bound_the_stage_ends():
    costs = raced(coarse(-2, 0, 2), lambda point, seed: math.inf)
    assert min(costs)[0][0] == -32 + 2
    assert all(map(math.isinf, table_of(costs).scores.values()))


def test_what_cannot_win_is_not_repeated():
    costs = raced(coarse(-12, -10, -8, -6, -4), valley(-8, left=0.5, right=0.5, breaks=9))
    counts = table_of(costs).counts
    assert counts[(-8,)] == counts[(-10,)] == counts[(-6,)] == 2
    assert counts[(-12,)] == counts[(-4,)] == 1


def test_a_point_that_broke_with_one_seed_does_not_win():
    costs = {((0,), 0): 1.0, ((0,), 1): math.inf, ((2,), 0): 2.0, ((2,), 1): 2.0}
    assert table_of(costs).best == (2,)


@given(st.floats(-5, 5))
def test_the_offset_of_a_seed_decides_nothing(offset):
    rows = {((p,), s): (p - 1) ** 2 + offset * s for p in (0, 1, 2) for s in (0, 1)} | {((3,), 0): 4.0}
    table = table_of(rows)
    assert table.best == (1,)
    assert math.isclose(table.excess((0,)), 1.0, abs_tol=1e-9)
    assert math.isclose(table.excess((3,)), 4.0, abs_tol=1e-9)


def test_the_noise_is_that_of_the_two_way_table():
    residual = 0.03
    rows = {((p,), s): p * p + 0.2 * s + residual * (-1) ** (p + s) for p in (0, 1) for s in (0, 1)}
    table = table_of(rows)
    assert table.free == 1
    assert math.isclose(table.noise, 2 * residual)
    assert math.isclose(table.error((1,)), 2 * residual)


@given(st.floats(-0.49, 0.49), st.floats(0.1, 3))
def test_the_vertex_of_a_parabola_is_met(shift, bend):
    table = table_of({((p,), 0): bend * (p - shift) ** 2 for p in (-1, 0, 1)})
    assert math.isclose(vertex(table, 1), shift, abs_tol=1e-6)


def test_the_vertex_leans_away_from_a_neighbour_that_broke():
    table = table_of({((-2,), 0): 2.0, ((0,), 0): 1.0, ((2,), 0): math.inf})
    assert vertex(table, 2) == -0.5


def test_the_interval_ends_where_a_point_is_worse():
    noise = {(p, s): 0.01 * (-1) ** (p + s) for p in range(-3, 4) for s in (0, 1)}
    table = table_of({((p,), s): 0.02 * p * p + noise[p, s] for p in range(-3, 4) for s in (0, 1)})
    low, high = interval(table)
    assert low is not None
    assert high is not None
    assert low <= -1
    assert high >= 1
    assert not is_flat(table)
    assert interval(table_of({((p,), s): noise[p, s] for p in (-1, 0, 1) for s in (0, 1)})) == (None, None)


def test_regret_is_a_share_of_the_best():
    table = table_of({((p,), s): 2.0 + abs(p) + 0.1 * s for p in (-1, 0, 1) for s in (0, 1)})
    assert math.isclose(regrets(table, [(1,)])[1,][0], 1 / 2.05 * 1.025, rel_tol=1e-6)


def test_two_numbers_at_once_walk_along_a_slanted_valley():
    stage = Stage(10, 2, ((0, 0),), SEEDS, ((-12, 12), (-12, 12)), 60)
    costs = raced(stage, lambda p, s: 1 + 0.02 * (p[0] + p[1] - 8) ** 2 + 0.05 * (p[0] - p[1] - 4) ** 2 + 0.1 * s)
    assert table_of(costs).best == (6, 2)


@given(st.sampled_from(sorted(AXES)), st.integers(-40, 20))
def test_a_point_and_its_number_are_one(name, place):
    axis = AXES[name]
    low, high = axis.bounds
    inside = min(max(place, low), high)
    assert axis.point(axis.at(inside)) == inside


def test_the_walk_stops_on_level_ground():
    costs = raced(coarse(-2, 0, 2, seeds=(0,)), lambda point, seed: 1.0 - 1e-6 * point[0])
    assert len(costs) == 3
    assert is_flat(table_of(costs))


def test_with_one_seed_no_noise_is_known():
    table = table_of({((p,), 0): float(p * p) for p in (-1, 0, 1)})
    assert table.noise is None
    assert table.error((1,)) is None
    assert not is_flat(table)


def test_a_stage_without_doubt_repeats_only_the_best_and_its_neighbours():
    flat = valley(0, left=1e-3, right=1e-3, offset=0.05)
    wide = raced(coarse(-4, -2, 0, 2, 4), lambda point, seed: flat(point, seed) + 0.02 * (point[0] // 2 % 2) * seed)
    few = raced(replace(coarse(-4, -2, 0, 2, 4), doubtful=False), flat)
    assert sum(seed for _, seed in few) == 3
    assert sum(seed for _, seed in wide) >= 3


@given(st.integers(1, 12), st.integers(-24, 6))
def test_no_stage_trains_more_than_it_has_room_for(room, optimum):
    costs = raced(replace(coarse(-2, 0, 2), room=room), valley(optimum))
    whole = raced(coarse(-2, 0, 2), valley(optimum))
    assert len(costs) == min(room, len(whole))
    assert costs.items() <= whole.items()


def test_rivals_are_the_ends_of_what_is_nearly_as_good_apart_from_the_best():
    scores = {-6: 1.02, -4: 1.01, -2: 1.2, 0: 1.0, 2: 1.01, 4: 1.029, 6: 1.04, 8: math.inf}
    table = table_of({((place,), 0): score for place, score in scores.items()})
    assert rivals(table, 2, 0.03) == [(-6,), (4,)]
    assert rivals(table, 2, 0.0) == []
    assert rivals(table_of({((place,), 0): 1.0 + place**2 for place in (-2, 0, 2)}), 2, 0.03) == []


def test_points_that_break_do_not_count_as_points():
    costs = raced(coarse(2, 4, seeds=(0,), most=3), valley(-2, breaks=1.0))
    assert {point[0] for point, _ in costs} == {4, 2, 0, -2, -4}
