"""What a sweep shows of its jobs while they run."""

from pathlib import Path

from tests.sweep.test_sweep import app, sweep

__all__ = ["app"]


def test_a_job_is_a_line_with_its_warnings_and_what_a_lone_one_prints_is_shown(app: Path) -> None:
    _, out, err = sweep(app, "act=warn,complete")
    assert (out.count("job says"), err) == (0, "job 0 warning: planted\n")
    assert [line.split()[:2] for line in out.splitlines() if line.startswith("job ")] == [
        ["job", "0:"],
        ["job", "0"],
        ["job", "1:"],
        ["job", "1"],
    ]
    _, out, err = sweep(app, "act=warn", "name=alone")
    assert ("job says 0\n" in out, "warning: planted\n" in out, err) == (True, True, "")
