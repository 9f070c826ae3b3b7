"""The promise of the project: the rate that every update used is the policy's, to the bit, and so is the log."""

import json
from itertools import product

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.distributed import worlds
from tests.engine.sweep_of_curves import (
    ACCUMULATIONS,
    COMBINATIONS,
    MIDDLE,
    SCHEDULES,
    THIRD,
    UPDATES,
    WARMUPS,
    train_all,
    train_third,
)


def check(row, processes):
    assert row["batch"] == 4 * processes * row["accumulate"]
    assert len(row["groups"]) == 2
    assert row["fresh"] == row["planned"]
    assert row["resumed"] == row["planned"][MIDDLE:]
    assert len({tuple(lrs) for lrs in row["planned"]}) > 1 or row["name"].startswith("constant-none")


def check_log(folder, row):
    for where, first in ((folder / row["name"], 0), (folder / row["name"] / "resumed", MIDDLE)):
        events = EventAccumulator(str(where), size_guidance={"scalars": 0}).Reload()
        for i, group in enumerate(row["groups"]):
            points = events.Scalars(f"lr/{group}")
            assert [point.step for point in points] == list(range(first, UPDATES))
            assert [point.value for point in points] == [float(np.float32(lrs[i])) for lrs in row["planned"][first:]]


def test_in_one_process_every_update_of_every_curve_uses_and_logs_the_planned_rate(tmp_path, all_cases):
    """All 28 combinations with --all-cases, otherwise the third that two processes train, too."""
    rows = train_all(tmp_path, 1, COMBINATIONS if all_cases else THIRD)
    assert len(rows) == (28 if all_cases else 10)
    for row in rows:
        check(row, processes=1)
        check_log(tmp_path, row)


@pytest.mark.slow
def test_in_two_processes_every_update_of_every_curve_uses_and_logs_the_planned_rate(tmp_path):
    assert {schedule for schedule, *_ in THIRD} == {*SCHEDULES}
    assert {(warmup, accumulate) for _, warmup, accumulate in THIRD} == {*product(WARMUPS, ACCUMULATIONS)}
    assert worlds.run(2, train_third, tmp_path) == [0, 0]
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert ranks[0] == ranks[1]
    assert len(ranks[0]) == len(THIRD)
    for row in ranks[0]:
        check(row, processes=2)
        check_log(tmp_path, row)
