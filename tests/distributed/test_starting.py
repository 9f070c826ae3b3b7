"""A command says on a terminal that it has begun, before it imports anything slow."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TRAIN = str(Path(__file__).parents[2] / "train.py")


def on_a_terminal(words, **environment):
    """What a command writes on a terminal as its stderr."""
    here, there = os.openpty()
    subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, stderr=there, env=os.environ | environment)
    return all_of(here, there).splitlines()


def all_of(here, there):
    """What was written on a terminal: one read may give only a part."""
    os.close(there)
    text = b""
    try:
        while more := os.read(here, 65536):
            text += more
    except OSError:  # the other side is closed
        pass
    os.close(here)
    return text.decode()


def test_the_first_line_says_that_the_command_has_begun():
    told = on_a_terminal([TRAIN, "optimizer.lr=abc"])
    assert told[0] == "starting ..."
    assert told[1].startswith("optimizer.lr='abc'")


@pytest.mark.parametrize("words", [[TRAIN, "--cfg", "job"], ["-m", "cadence.train", "--version"]])
def test_nothing_is_said_where_nothing_is_trained(words):
    assert on_a_terminal(words) == []


def test_another_rank_says_nothing():
    assert "starting ..." not in on_a_terminal([TRAIN, "optimizer.lr=abc"], RANK="1", WORLD_SIZE="2", LOCAL_RANK="1")


def test_nothing_is_said_in_a_file():
    done = subprocess.run([sys.executable, TRAIN, "optimizer.lr=abc"], capture_output=True, text=True)
    assert done.stderr.startswith("optimizer.lr='abc'")


SECOND = """
import os, signal, time
from trainer.distributed.launch import signals
signals.handle_signals()
signals.reported()
signals.defer()
for pause in (0, 0.7):
    time.sleep(pause)
    os.kill(os.getpid(), signal.SIGINT)
time.sleep(30)
"""


def test_a_second_ctrl_c_gives_the_terminal_its_cursor_back(interruptible):
    here, there = os.openpty()
    done = subprocess.run([sys.executable, "-c", SECOND], cwd=Path(TRAIN).parent, stdout=there, stderr=there)
    assert done.returncode == 130
    told = all_of(here, there)
    assert "press Ctrl-C again to end at once" in told
    assert told.endswith("\x1b[?25h\r\n")
