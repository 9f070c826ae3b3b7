"""The program that watches a long run: its rule finds what grows, and it samples a real run."""

from pathlib import Path

import pytest

from tests import soak


def samples(**growth):
    """A hundred samples, of which the named values grow by this factor over the run."""
    level = {"memory": 400.0, "files": 8.0, "threads": 2.0, "wall": 1.0, "cpu": 1.0}
    return [{name: value * growth.get(name, 1.0) ** (i / 99) for name, value in level.items()} for i in range(100)]


@pytest.mark.parametrize(("name", "factor"), [("memory", 1.1), ("files", 1.5), ("threads", 1.5), ("cpu", 2.0)])
def test_what_grows_is_named(name, factor):
    assert [fault.partition(":")[0] for fault in soak.faults(soak.quarters(samples(**{name: factor})))] == [name]
    assert not soak.faults(soak.quarters(samples()))


def test_a_short_run_is_sampled(tmp_path, monkeypatch):
    monkeypatch.chdir(Path.cwd())  # the program leaves it
    found = soak.train(80, 2, tmp_path)
    assert found[-1]["update"] == 80
    assert all(one["memory"] > 50 and one["files"] > 2 and one["threads"] > 0 for one in found)
