"""bash completes `cadence train`: commands, options of a group, keys, and files for other words."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHELL = """
eval "$(cadence -sc install=bash)"
complete -p cadence
COMP_LINE=$1 COMP_POINT=${#1} COMP_WORDS=($1)
[[ $1 == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_cadence cadence "${COMP_WORDS[COMP_CWORD]}"
printf "%s\\n" "${COMPREPLY[@]}"
"""


@pytest.fixture
def completed(python, tmp_path):
    """What bash offers for a line, with the cursor at its end."""
    (tmp_path / "cadence").write_text(f'#!/bin/sh\nexec {python} -m cadence "$@"\n')
    (tmp_path / "cadence").chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    (tmp_path / "work" / "outputs").mkdir(parents=True)

    def run(line):
        words = ["bash", "-c", SHELL, "bash", line]
        done = subprocess.run(words, env=env, cwd=tmp_path / "work", capture_output=True, text=True, timeout=100)
        assert done.stderr == ""
        registered, *found = done.stdout.splitlines()
        assert set(registered.split("-")) >= {"o nospace ", "o default ", "F _cadence cadence"}
        return found

    return run


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("cadence tr", ["train "]),
        ("cadence re", ["report "]),
        ("cadence train schedule=cos", [f"schedule=cosine{rest}" for rest in ("", "_cyclic", "_warmup")]),
        ("cadence train optimizer=sgd trainer.overf", ["trainer.overfit="]),
        ("cadence plan optimizer.l", ["optimizer.lr="]),
        ("cadence runs outp", ["outputs"]),
        ("cadence nothing x", [""]),
    ],
)
def test_a_line_is_completed(completed, line, found):
    assert completed(line) == found


def test_another_shell_is_offered_nothing(python):
    done = subprocess.run([python, "-m", "cadence", "-sc", "install=csh"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
