"""What all commands have in common."""

import os

from cadence.__main__ import run


def test_threads_of_each_command_sleep_while_they_wait(monkeypatch, tmp_path):
    monkeypatch.delenv("OMP_WAIT_POLICY")
    assert run("doctor", [str(tmp_path)]) == 2  # no run
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    run("doctor", [str(tmp_path)])
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
