"""A study counts every trial once, whoever asks and whoever dies, and draws only what the space holds."""

import math
import random
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("optuna", reason="the extra `search` is not installed")

from dataclasses import replace

from hydra.core.override_parser.overrides_parser import OverridesParser
from scipy.stats.qmc import Sobol

from trainer.lr import ConfigError
from trainer.sweep.resolvers import register_spacings
from trainer.sweep.search.rules import Rules, objectives
from trainer.sweep.search.samplers import check_sampler, grid_points, sobol_point
from trainer.sweep.search.search_space import Condition, Parameter, Space, parse_space
from trainer.sweep.search.storage import journal, open_study
from trainer.sweep.search.study import Entry, Study, ended, newest, slots, to_replace

register_spacings()
RULES = Rules(12, "random", 0, 3, "none", 1, 3, 2)
LR = Parameter("optimizer.lr", 1e-4, 1e-1, log=True)
OPTIMIZER = Parameter("optimizer", choices=("sgd", "adamw"))
SGD = Condition("optimizer", ("sgd",))
CONDITIONAL = Space(
    (
        LR,
        OPTIMIZER,
        Parameter("optimizer.lr", 0.1, 1.0, log=True, when=SGD),
        Parameter("optimizer.momentum", 0.8, 0.99, when=SGD),
        Parameter("layers", 1, 4, whole=True),
    )
)


def study(folder: Path, rules: Rules = RULES, of: Space = CONDITIONAL, directions: tuple[str, ...] = ("min",)) -> Study:
    """A study in a journal, as each start of a driver opens it."""
    storage = journal(folder / "study.journal")
    return Study(open_study(storage, "s", directions, {}), storage, of, rules, "here")


def parsed(*words: str, when: Any = None) -> Space:
    return parse_space({}, when or {}, words, OverridesParser.create())[1]


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "random", "qmc"])
def test_a_sampler_draws_from_the_space_and_a_parameter_exists_only_where_its_condition_holds(
    tmp_path: Path, sampler: str
) -> None:
    searched, seen = study(tmp_path, replace(RULES, sampler=sampler, trials=20)), []
    while (trial := searched.ask()) is not None:
        drawn = searched.draw(trial)
        assert drawn == searched.draw(trial)
        sgd = drawn["optimizer"] == "sgd"
        assert set(drawn) == {"optimizer", "optimizer.lr", "layers"} | ({"optimizer.momentum"} if sgd else set())
        low, high = (0.1, 1.0) if sgd else (1e-4, 1e-1)
        assert low <= drawn["optimizer.lr"] <= high
        assert drawn["layers"] in (1, 2, 3, 4)
        assert isinstance(drawn["layers"], int)
        assert searched.complete(trial, [float(drawn["layers"])])
        seen.append(tuple(drawn.items()))
    assert (len(seen), len(set(seen)), searched.over) == (20, 20, True)
    assert searched.best()[0].value == min(float(dict(one)["layers"]) for one in seen)


def test_tpe_finds_the_optimum_of_a_bowl_closer_than_chance(tmp_path: Path) -> None:
    def miss(sampler: str, seed: int) -> float:
        (folder := tmp_path / f"{sampler}{seed}").mkdir()
        searched = study(folder, replace(RULES, sampler=sampler, seed=seed, trials=30, startup=8), Space((LR,)))
        while (trial := searched.ask()) is not None:
            searched.complete(trial, [abs(math.log10(float(searched.draw(trial)["optimizer.lr"])) + 2.5)])
        return float(searched.best()[0].value or 0)

    assert sum(miss("tpe", seed) for seed in range(3)) < 0.5 * sum(miss("random", seed) for seed in range(3))


def test_quasi_random_points_are_those_of_scipys_sobol_sequence_on_the_axes_of_the_space() -> None:
    both = Space((LR, Parameter("layers", 1, 4, whole=True)))
    for slot, shares in enumerate(Sobol(2, scramble=True, rng=7).random(8)):
        point = sobol_point(both, 7, slot)
        assert point["optimizer.lr"] == pytest.approx(1e-4 * 1000 ** shares[0], rel=1e-12)
        assert point["layers"] == 1 + int(4 * shares[1])


def test_a_grid_has_each_point_once_and_a_condition_multiplies_only_where_it_holds() -> None:
    of = Space((OPTIMIZER, Parameter("m", choices=("0.8", "0.9"), when=SGD), Parameter("n", 1, 3, step=1, whole=True)))
    drawn = [{name: value for name, value in point.items() if name != "n"} for point in grid_points(of)]
    assert len(drawn) == (2 + 1) * 3
    with pytest.raises(ConfigError, match="optimizer.lr: numbers from 0.0001 to 0.1, logarithmic has no single values"):
        grid_points(Space((LR,)))


def test_a_search_that_goes_on_continues_what_ran_and_draws_no_point_again(tmp_path: Path) -> None:
    first = study(tmp_path)
    done = [first.ask() for _ in range(4)]
    drawn = {trial.number: first.draw(trial) for trial in done if trial}
    assert done[0] is not None
    first.complete(done[0], [1.0])
    second = study(tmp_path)
    going = {trial.number: second.draw(trial) for trial in second.of_this_driver()}
    assert going == {number: values for number, values in drawn.items() if number}
    for _ in range(RULES.trials - 4):
        assert (trial := second.ask()) is not None
        assert second.draw(trial) not in drawn.values()
    assert second.ask() is None
    assert not second.over


def test_a_record_that_a_kill_cut_short_is_dropped(tmp_path: Path) -> None:
    first = study(tmp_path)
    assert first.ask() is not None
    path = tmp_path / "study.journal"
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    second = study(tmp_path)
    assert second.ask() is not None
    assert [entry.state for entry in study(tmp_path).entries()] == ["running"] * 2


def test_a_trial_is_told_once_and_a_nan_is_a_failure(tmp_path: Path) -> None:
    searched = study(tmp_path)
    trial, other = searched.ask(), searched.ask()
    assert trial is not None
    assert other is not None
    assert searched.complete(trial, [float("nan")])
    assert not searched.complete(trial, [1.0])
    assert searched.failed(other, "exit code 1")
    assert not searched.running(other)
    assert [entry.state for entry in searched.entries()] == ["failed", "failed"]
    assert searched.best() == []


@pytest.mark.parametrize("pruner", ["median", "asha", "hyperband"])
def test_a_pruner_ends_the_bad_and_spares_the_good(tmp_path: Path, pruner: str) -> None:
    searched, verdicts = study(tmp_path, replace(RULES, pruner=pruner, trials=40, reduction=2), Space((LR,))), {}
    for number in range(12):
        assert (trial := searched.ask()) is not None
        searched.draw(trial)
        verdicts[number] = False
        for steps in range(1, 9):  # what was told before is told again, as a reader of the file does
            if searched.report(trial, [float(number % 4)] * steps):
                verdicts[number] = searched.pruned(trial)
                break
        else:
            searched.complete(trial, [float(number % 4)])
    assert not any(pruned for number, pruned in verdicts.items() if number % 4 == 0)
    assert sum(pruned for number, pruned in verdicts.items() if number % 4 == 3) >= 1


def test_several_metrics_have_the_trials_that_none_beats(tmp_path: Path) -> None:
    searched = study(tmp_path, directions=("min", "max"))
    for values in ([1.0, 1.0], [2.0, 3.0], [2.0, 2.0]):
        assert (trial := searched.ask()) is not None
        searched.complete(trial, values)
    assert sorted(trial.number for trial in searched.best()) == [0, 1]


@pytest.mark.parametrize("seed", range(200))
def test_the_trials_that_count_are_as_many_as_were_asked_for_however_drivers_race_and_die(seed: int) -> None:
    draw, trials, retries = random.Random(seed), random.Random(seed).randint(1, 6), 2
    entries: list[Entry] = []
    for _ in range(400):
        held = slots(entries, trials)
        again = to_replace(entries, trials, retries)
        running = [entry for entry in entries if entry.state == "running" and entry.number in held]
        action = draw.random()
        if again and action < 0.4:  # several drivers may put the same trial back
            entries += [Entry(len(entries) + k, "running", again[0]) for k in range(draw.randint(1, 2))]
        elif action < 0.6 and not ended(entries, trials, retries):  # one too many may ask
            entries += [Entry(len(entries) + k, "running") for k in range(draw.randint(1, 2))]
        elif running:
            one = draw.choice(running)
            entries[one.number] = replace(one, state=draw.choice(["complete", "pruned", "failed", "lost"]))
        elif ended(entries, trials, retries):
            break
    assert ended(entries, trials, retries)
    held, last = slots(entries, trials), newest(entries, trials)
    assert sorted(last) == list(range(trials))
    for slot in range(trials):
        chain = [entry for entry in entries if held.get(entry.number) == slot]
        assert all(entry.state == "lost" for entry in chain[:-1])
        assert last[slot] == chain[-1]
        assert last[slot].state != "lost" or len(chain) == retries + 1


def test_a_positive_interval_over_a_decade_is_logarithmic_unless_it_says_otherwise() -> None:
    texts = {
        "x=interval(1e-4,1e-1)": "x: numbers from 0.0001 to 0.1, logarithmic",
        "x=interval(1,9)": "x: numbers from 1 to 9, linear",
        "x=interval(0,10)": "x: numbers from 0 to 10, linear",
        "x=tag(linear,interval(1e-4,1e-1))": "x: numbers from 0.0001 to 0.1, linear",
        "x=tag(log,interval(1,2))": "x: numbers from 1 to 2, logarithmic",
        "x=int(interval(1,8))": "x: whole numbers from 1 to 8, linear",
        "x=range(8,65,8)": "x: whole numbers from 8 to 64 in steps of 8, linear",
        "x=a,b": "x: a | b",
        "x=logspace(1,100,3)": "x: 1 | 10 | 100",
    }
    assert {word: str(parsed(word).parameters[0]) for word in texts} == texts


@pytest.mark.parametrize(
    ("words", "when", "told"),
    [
        (("x=1",), {}, "has nothing to search"),
        (("x=interval(2,1)",), {}, "from 2 to 1 is not an interval"),
        (("x=interval(0,inf)",), {}, "is not an interval"),
        (("x=tag(log,interval(0,1))",), {}, "a logarithmic interval must begin above zero"),
        (("x=tag(lgo,interval(1,2))",), {}, "the tag lgo is not known"),
        (("x=tag(log,range(1,64))",), {}, "log is for an interval, as in int"),
        (("x=tag(log,choice(1,8,64))",), {}, "log is for an interval"),
        (("x=a,a",), {}, "holds a value twice"),
        (("x=range(1,2)",), {}, "a range to search needs two values or more"),
        (("x=a,b",), {"y=a": {"z": "interval(1,2)"}}, "y is not a choice of this search"),
        (("x=a,b",), {"x=c": {"z": "interval(1,2)"}}, "c is not among the choices of x: a, b"),
        (("x=a,b",), {"x": {"z": "interval(1,2)"}}, "must be KEY=VALUE"),
        (("x=a,b",), {"x=a": {"z": "1,2"}, "x=a,b": {"z": "3,4"}}, "hold at the same time"),
        (("x=a,b",), {"x=a": {"x": "1,2"}}, "a key cannot depend on itself"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(words: tuple[str, ...], when: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parsed(*words, when=when)


def test_what_cannot_draw_or_judge_is_refused() -> None:
    for rules, metrics, told in (
        (replace(RULES, sampler="cmaes"), 2, "cmaes needs one metric"),
        (replace(RULES, sampler="cmaes"), 1, "cmaes needs two numeric parameters"),
        (replace(RULES, pruner="asha"), 2, "asha judges by one metric"),
    ):
        with pytest.raises(ConfigError, match=told):
            check_sampler(rules, Space((LR,)), metrics)
    with pytest.raises(ConfigError, match="sampler=tpf is not known: choose one of tpe"):
        replace(RULES, sampler="tpf")


def test_the_goal_comes_from_the_task_and_an_unknown_one_needs_a_direction() -> None:
    task = {"monitor": "accuracy", "mode": "max"}
    assert objectives(None, None, task) == (["val/accuracy"], ["max"])
    assert objectives(["val/loss", "val/accuracy"], None, task) == (["val/loss", "val/accuracy"], ["min", "max"])
    assert objectives("test/f1", "max", task) == (["test/f1"], ["max"])
    for metric, direction, told in (
        ("val/f1", None, "has no known direction"),
        ("val/f1", "up", "must be min or max"),
        (["a", "b"], "min", "for each of a, b"),
        ([], None, "must name one metric"),
    ):
        with pytest.raises(ConfigError, match=told):
            objectives(metric, direction, task)
