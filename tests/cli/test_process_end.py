"""How a process of several ends: its threads and exit functions come to their end, but it is not taken apart."""

import subprocess
import sys

import pytest

PROGRAM = """
import atexit
import sys
import threading
import time

from trainer.cli.process_end import end_process
from trainer.distributed.heartbeat import Heartbeat


class Beats(Heartbeat):
    def __init__(self):
        threading.Thread.__init__(self, daemon=True)

    def run(self):
        time.sleep(60)


class Kept:
    def __del__(self, say=print):
        say("taken apart", flush=True)


def late():
    time.sleep(0.2)
    print("a thread has ended")


kept = Kept()
others = threading.Thread(target=time.sleep, args=(60,), daemon=True)
(Beats() if sys.argv[1] == "several" else others).start()
threading.Thread(target=late).start()
atexit.register(print, "an exit function")
end_process(3)
"""


@pytest.mark.parametrize(("processes", "last"), [("several", []), ("one", ["taken apart"])])
def test_only_a_process_of_several_is_not_taken_apart(processes, last):
    done = subprocess.run([sys.executable, "-c", PROGRAM, processes], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.splitlines() == ["a thread has ended", "an exit function", *last]
