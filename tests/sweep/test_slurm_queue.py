"""What a sweep under Slurm makes of a squeue that does not answer at once."""

import pytest

from hydra_plugins import slurm_launcher


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """Puts a squeue on the path that fails so many times, and then lists two jobs of an array."""
    monkeypatch.setattr(slurm_launcher, "POLL", 0)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def made(failures):
        program = tmp_path / "squeue"
        count = f"n=$(cat {tmp_path}/n 2>/dev/null || echo 0); echo $((n + 1)) > {tmp_path}/n"
        told = f"[ $n -lt {failures} ] && echo 'Unable to contact slurm controller' >&2 && exit 1"
        program.write_text(f"#!/bin/sh\n{count}\n{told}\nprintf '7_0\\n7_1\\n'\n")
        program.chmod(0o755)

    return made


@pytest.mark.parametrize("failures", [0, 1, slurm_launcher.LOOKS - 1])
def test_a_controller_that_does_not_answer_is_asked_again(squeue, failures):
    squeue(failures)
    assert slurm_launcher._in_queue() == {"7_0", "7_1"}


def test_a_controller_that_never_answers_ends_the_driver_and_not_the_jobs(squeue):
    squeue(slurm_launcher.LOOKS)
    with pytest.raises(RuntimeError, match="Unable to contact slurm controller: the jobs go on"):
        slurm_launcher._in_queue()
