"""Which trainings a tune makes, and what it answers, where the cost of each rate and length is planted."""

import math
from itertools import pairwise

import pytest

from trainer.config.resolve import resolve
from trainer.config.settings import settings_of
from trainer.lr.range_test import Sweep
from trainer.tools.range_test import command as range_test
from trainer.tools.range_test.steps import RangeTest
from trainer.tools.tune import command, output, steps
from trainer.tools.tune.axes import AXES
from trainer.tools.tune.members import Members, Outcome
from trainer.tools.tune.start import Start, start_of_rate

SMALL = ("trainer.accelerator=cpu", "trainer.threads=1", "trainer.validate=200", "logger=none")


@pytest.fixture
def planted(monkeypatch):
    """Trainings whose cost is planted: a function of the place on the lattice and of the length."""

    def plant(cost, start):
        def train_all(self, asked, many=None):
            for one in asked:
                key, _, number = one.words[0].partition("=")
                axis = AXES[key.removeprefix("optimizer.").removesuffix(".duration")]
                place = round(axis.place_of(float(number.removesuffix("%"))))
                value = cost(place, one.updates) + 0.01 * one.seed
                yield Outcome(value, one.updates, "" if math.isfinite(value) else "Diverged: planted")

        monkeypatch.setattr(Members, "train_all", train_all)
        monkeypatch.setattr(steps, "start_of_rate", lambda *given: Start([(place,) for place in start], "planted", 0))

    return plant


@pytest.mark.parametrize("step", [-2, -1, 0, 1])
def test_whole_runs_follow_a_best_rate_that_moves_with_the_length(tuned, planted, step):
    def best(updates):
        return -8 + step * 2 * math.log10(updates / 2000)

    planted(lambda place, updates: 1 + 0.05 * (place - best(updates)) ** 2, [-10, -8, -6])
    out, numbers = tuned(*SMALL, "trainer.duration=2000")
    assert out.count("quarter-decades, 2,000 updates each (100 % of the run)") == 1
    whole = numbers["stages"][-1]
    assert [stage["updates"] for stage in numbers["stages"]] == [200, 632, 2000]
    assert len(whole["trainings"]) == 3
    assert {one["seed"] for one in whole["trainings"]} == {0}
    assert numbers["values"][0] == pytest.approx(0.01, rel=0.02)
    assert numbers["runs"] <= 6.5
    assert numbers["neighbours"][0]["error"] is not None
    _, shorter = tuned(*SMALL, "trainer.duration=2000", "--whole", "0", "--out", "shorter")
    assert len(shorter["stages"]) == 2


def test_a_winner_at_the_end_of_the_whole_runs_is_told(tuned, planted):
    planted(lambda place, updates: 1 + 0.05 * (place + 8) ** 2, [-10, -8, -6])
    out, _ = tuned(*SMALL, "trainer.duration=2000", "--seeds", "1", "--whole", "2")
    assert "optimizer.lr: 0.01; a t-test at 95 % finds no end on either side\n" in out
    assert "\nnothing above it was trained for 2,000 updates: the best may lie there\n" in out
    out, _ = tuned(*SMALL, "trainer.duration=2000", "--out", "three")
    assert "the best lies above" in out
    assert "nothing above" not in out
    assert "of --whole" not in out
    out, _ = tuned(*SMALL, "trainer.duration=2000", "--whole", "9", "--out", "nine")
    assert "whole runs at most, not the 9 of --whole: all trainings together stay within 6.5 runs\n" in out


def test_short_trainings_end_no_side_on_which_no_whole_run_was_made(tuned, planted):
    planted(lambda place, updates: 1 + 0.05 * (place - (0 if updates < 2000 else -12)) ** 2, [-2, 0, 2])
    out, numbers = tuned(*SMALL, "trainer.duration=2000", "--whole", "2")
    assert "\nnothing below it was trained for 2,000 updates: the best may lie there\n" in out
    assert numbers["intervals"][0][0] is None


def test_the_number_of_the_config_is_one_of_the_whole_runs(tuned, planted):
    """Short trainings are best with a high momentum, and whole ones with that of the config."""
    words = (*SMALL, "trainer.duration=2000", "optimizer=momentum", "--of", "momentum")
    planted(lambda memory, updates: 1 + (10 - memory if updates < 2000 else memory - 4) ** 2, [])
    _, numbers = tuned(*words)
    whole = {one["values"][0] for one in numbers["stages"][-1]["trainings"]}
    assert 0.9 in whole
    assert len(whole) == 3
    assert numbers["values"] == [0.9]
    (neighbour,) = numbers["neighbours"]  # the nearest one that was trained, which is no step of the lattice away
    assert neighbour["values"] == [min(whole - {0.9})]
    assert neighbour["regret"] > 1


def test_a_stage_without_room_for_a_training_is_told_once(tuned, planted):
    planted(lambda place, updates: 1.0 if updates == 200 else 1 + 0.003 * (place + 16) ** 2, [-4, -2, 0])
    out, numbers = tuned(*SMALL, "trainer.duration=2000")
    assert [stage["updates"] for stage in numbers["stages"]] == [200, 632, 2000]
    assert out.count("\n632 updates (31.6 % of the run)") == 1


def test_a_warm_up_is_shown_as_a_share(tuned, planted):
    planted(lambda place, updates: 1 + 0.05 * (place + 6) ** 2, [])
    out, numbers = tuned(*SMALL, "trainer.duration=2000", "--of", "warmup", "warmup=linear", "warmup.duration=5%")
    assert f"warmup.duration: {numbers['values'][0]:.3g}%; " in out
    assert "\n3.162%  " in out


def test_the_labels_of_the_picture_do_not_overlap(tuned, planted, monkeypatch):
    figures, real = [], output.draw
    monkeypatch.setattr(output, "draw", lambda *given: figures.append(real(*given)) or figures[-1])
    planted(lambda place, updates: 1 + 0.05 * (place + 9.5) ** 2, [-11, -9, -7])
    tuned(*SMALL, "trainer.duration=2000")
    (panel,) = figures[0].axes
    left, right = panel.get_xlim()
    labels = [
        one for one in panel.get_xticklabels(which="both") if one.get_text() and left <= one.get_position()[0] <= right
    ]
    boxes = sorted((one.get_window_extent() for one in labels), key=lambda box: box.x0)
    assert len(boxes) > 1
    assert all(a.x1 < b.x0 for a, b in pairwise(boxes))
    assert "where the best lies" in [one.get_text() for one in panel.get_legend().get_texts()]


def test_a_start_counts_all_its_sweeps(monkeypatch, compose):
    monkeypatch.setattr(RangeTest, "_sweep", lambda self, seed, of, values, loss: Sweep(values, [1.0] * len(values)))
    found = start_of_rate(command.parsed([]), resolve(settings_of(compose())), AXES["lr"])
    assert found.updates == 100 + 300 + 900
    assert "or the model is trained already), so the rate of the config is taken" in found.note


def test_the_sweeps_of_a_run_of_several_processes_are_made_in_one():
    words = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "resume.path=outputs/x"]
    made = range_test.made(range_test.parsed(words), words, 0, True)
    assert (made.trainer.world, made.trainer.accumulate, made.resume.path) == (1, 2, None)


def test_a_rival_of_the_coarse_winner_wins_where_longer_trainings_say_so(tuned, planted):
    """Two valleys: short trainings are a little better in the one that a longer one leaves far behind."""

    def cost(place, updates):
        shift = math.log10(updates / 200)
        return min(3 - shift + 0.02 * (place + 8) ** 2, 2.98 - 0.1 * shift + 0.02 * place**2)

    planted(cost, [-8, -4, 0])
    _, numbers = tuned(*SMALL, "trainer.duration=2000")
    short, longer, _ = numbers["stages"]
    assert min(short["trainings"], key=lambda one: one["cost"])["values"] == [1.0]
    assert min(longer["trainings"], key=lambda one: one["cost"])["values"] == [pytest.approx(0.01)]
    assert numbers["values"][0] == pytest.approx(0.01, rel=0.02)
    assert numbers["runs"] <= 6.5


def test_a_rate_that_a_longer_run_does_not_bear_is_left_by_more_than_a_step(tuned, planted):
    """Short trainings are best at 1; the whole run learns nothing above 0.1."""

    def cost(place, updates):
        if updates == 2000:
            return 1.0 if place > -4 else 0.1 + 0.01 * (place + 6) ** 2
        return 0.2 + 0.01 * place**2

    planted(cost, [-4, -2, 0])
    _, numbers = tuned(*SMALL, "trainer.duration=2000")
    whole = [round(4 * math.log10(one["values"][0])) for one in numbers["stages"][-1]["trainings"]]
    assert whole[:2] == [0, -3]
    assert -6 <= 4 * math.log10(numbers["values"][0]) <= -4
    assert numbers["runs"] <= 6.5


def test_where_the_first_trainings_had_to_be_long_they_belong_to_the_fine_stage(tuned, planted):
    planted(lambda place, updates: 1.0 if updates == 200 else 1 + 0.1 * (place + 7) ** 2, [-8, -6, -4])
    _, numbers = tuned(*SMALL, "trainer.duration=2000")
    flat, coarse, fine, _ = numbers["stages"]
    assert [one["updates"] for one in (flat, coarse, fine)] == [200, 632, 632]
    assert all(one in fine["trainings"] for one in coarse["trainings"])
    assert numbers["values"][0] == pytest.approx(10 ** (-7 / 4), rel=0.02)
    assert numbers["runs"] <= 6.5


@pytest.mark.parametrize(("start", "drift"), [(-20, 0), (-6, 20), (4, -20), (-14, 8)])
def test_no_tune_by_a_tenth_costs_more_than_a_quarter_of_a_grid(tuned, planted, start, drift):
    """Wherever it starts, and however far the best rate moves from one length to the next, here up to 5 decades."""
    planted(
        lambda place, updates: 1 + 0.001 * abs(place + 6 + drift * math.log10(updates / 2000)),
        [start - 2, start, start + 2],
    )
    _, numbers = tuned(*SMALL, "trainer.duration=2000")
    assert numbers["runs"] <= 6.5
    assert len(numbers["stages"][-1]["trainings"]) >= 2


def test_whole_runs_stay_below_what_broke_and_what_breaks_does_not_count(tuned, planted):
    def cost(place, updates):
        return math.inf if place > (-5 if updates == 2000 else -4) else 1 + 0.05 * (place + 4 + updates / 1000) ** 2

    planted(cost, [-8, -6, -4])
    _, numbers = tuned(*SMALL, "trainer.duration=2000")
    whole = [one["values"][0] for one in numbers["stages"][-1]["trainings"]]
    assert max(whole) <= 10 ** (-4 / 4)
    assert len([one for one in numbers["stages"][-1]["trainings"] if one["cost"] is not None]) == 3
    assert numbers["values"][0] == pytest.approx(10 ** (-6 / 4), rel=0.02)
