"""A rank that fails, dies, stops or differs ends the whole run in time, named in the last line and in the result."""

import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

from tests.distributed import worlds
from tests.distributed.faults import fault, result, train, words

RUNS = {
    "stopped": (fault(1, "training", "stop"), {}),
    "stopped_0": (fault(0, "training", "stop"), {}),
    "leaves": (fault(1, "after fit", "leave"), {}),
    "unharmed": ([], {}),
    "killed": (fault(1, "training", "kill"), {}),
    "killed_0": (fault(0, "validation", "kill"), {}),
    "raises": (fault(1, "training", "raise"), {}),
    "raises_last": (fault(1, "after test", "raise"), {}),
    "other_lr": ([], {1: ["optimizer.lr=0.2"]}),
    "other_seed": ([], {1: ["seed=7"]}),
}
WAITED_FOR = ("stopped", "stopped_0", "leaves")
"""These are lost after half of the timeout, so it is short; they come first, for they leave the cores to the others."""
GONE = "is gone: process"
SILENT = "has not answered for 15 s"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, request):
    """The runs that are looked at, each of two processes, started as by hand; the exit codes are kept beside them."""
    looked_at = {item.callspec.params.get("name") for item in request.session.items if hasattr(item, "callspec")}
    names = [name for name in RUNS if name in looked_at | {"unharmed"}]
    return worlds.once(tmp_path_factory, "lost", partial(fill, names))


def fill(names, place):
    """Run them, four at a time, and note the exit codes; what is not over after so long is killed."""
    waiting, running = list(names), {}
    while waiting or running:
        while waiting and len(running) < 4:
            name = waiting.pop(0)
            more, per_rank = RUNS[name]
            told = words(name, *more, timeout=30 if name in WAITED_FOR else 150)
            running[name] = (worlds.start(2, train, place, name, told, per_rank), time.monotonic() + 140)
        time.sleep(0.1)
        for name, (processes, end) in list(running.items()):
            alive = [process for process in processes if process.exitcode is None]
            for process in alive if time.monotonic() > end else ():
                process.kill()
            if not alive:
                (place / f"{name}.codes").write_text(" ".join(str(process.exitcode) for process in processes))
                del running[name]


def told(folder, name, rank):
    return (folder / f"{name}.{rank}.txt").read_text().splitlines()


@pytest.mark.sample(3)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "codes", "teller", "says"),
    [
        ("killed", "1 -9", 0, ("rank 1 on ", GONE)),
        ("killed_0", "-9 1", 1, ("rank 0 on ", GONE)),
        ("stopped", "1 -9", 0, ("rank 1 on ", SILENT)),
        ("stopped_0", "-9 1", 1, ("rank 0 on ", SILENT)),
        ("raises", "1 1", 0, ("rank 1 on ", "failed: ValueError: planted")),
        ("raises_last", "1 1", 0, ("rank 1 on ", "failed: ValueError: planted")),
        ("leaves", "1 1", 0, ("rank 1 on ", "left: SystemExit: 0")),
        ("other_lr", "2 2", 0, ("rank 1 differs from rank 0: optimizer.lr is 0.2, not 0.003.",)),
        ("other_seed", "2 2", 0, ("rank 1 differs from rank 0: ", " seed is 7, not 0.")),
    ],
)
def test_a_lost_rank_ends_all_and_the_last_line_and_the_result_name_it(folder, name, codes, teller, says):
    assert (folder / f"{name}.codes").read_text() == codes
    if codes == "2 2":  # refused before the first update: nothing is left
        assert not list((folder / "outputs").glob(f"{name}/*"))
        assert all(text in told(folder, name, teller)[-1] for text in says)
        return
    left = result(folder, name)
    assert left["status"] == "failed"
    for text in says:
        assert text in told(folder, name, teller)[-1]
        assert text in left["error"]
    saved = any((folder / "outputs" / name / "checkpoints").iterdir())
    assert told(folder, name, teller)[-1].endswith("resume=auto") == (saved and says[-1] in (GONE, SILENT))


@pytest.mark.slow
def test_a_run_that_nobody_harms_completes_and_says_once_how_its_global_batch_comes_about(folder):
    assert (folder / "unharmed.codes").read_text() == "0 0"
    assert result(folder, "unharmed")["status"] == "completed"
    line = "global batch   64 = 32 per device × 2 devices"
    assert [one.rstrip() for one in told(folder, "unharmed", 0)].count(line) == 1
    assert told(folder, "unharmed", 1) == []


@pytest.mark.sample(0)
@pytest.mark.slow
def test_a_child_that_is_stopped_while_it_starts_is_found_by_its_parent_and_killed(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name not in worlds.LAUNCHERS}
    command = [sys.executable, str(worlds.ROOT / "train.py"), *words("early", timeout=12)]
    with (tmp_path / "said.txt").open("w") as said:
        parent = subprocess.Popen(
            command, cwd=tmp_path, env=environment | {"OMP_NUM_THREADS": "1"}, stdout=said, stderr=said
        )
        try:
            child = _child(parent)
            os.kill(child, signal.SIGSTOP)
            assert parent.wait(120) == 1
        finally:
            parent.kill()
            parent.wait()
    last = (tmp_path / "said.txt").read_text().splitlines()[-1]
    assert last.startswith("rank 1 on ")
    assert last.endswith(f"has been stopped for 6 s: process {child}")
    assert result(tmp_path, "early")["error"] == last
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def _child(parent):
    """The process id of the first child, as soon as there is one."""
    children = worlds.Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    end = time.monotonic() + 120
    while time.monotonic() < end and parent.poll() is None:
        if found := children.read_text().split():
            return int(found[0])
        time.sleep(0.1)
    raise AssertionError("no child was started")
