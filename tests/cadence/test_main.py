"""What all commands have in common."""

import os
import subprocess
import sys

import pytest

from cadence.__main__ import run


def test_threads_of_each_command_sleep_while_they_wait(monkeypatch, tmp_path):
    monkeypatch.delenv("OMP_WAIT_POLICY")
    assert run("doctor", [str(tmp_path)]) == 2  # no run
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    run("doctor", [str(tmp_path)])
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


@pytest.mark.parametrize("words", ["--help", "--version", "-sc install=bash"])
def test_a_reader_that_has_left_is_no_error(words):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "cadence", *words.split()]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=100)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
