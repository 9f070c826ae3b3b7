"""How often processes talk beside DDP's exchange of gradients: never in an update, once in a chunk, once in a flush."""

import json
from collections import Counter

import pytest
from torch._C._distributed_c10d import ProcessGroup

from tests.distributed import worlds
from tests.engine.equality import assembled
from trainer.run import fit

CALLS = "allreduce broadcast allgather _allgather_base reduce gather scatter reduce_scatter barrier send recv alltoall"
CHUNK, FLUSH = 10, 40


def counted(folder, updates, words):
    """The calls of all process groups in a run of so many updates on two processes."""
    counts, before = Counter(), {name: getattr(ProcessGroup, name) for name in CALLS.split()}

    def counting(name):
        def call(*args, **kwargs):
            counts[name] += 1
            return before[name](*args, **kwargs)

        return call

    run = assembled(folder, 2, 1, f"trainer.duration={updates}", f"trainer.validate={updates}", *words)
    for name in before:
        setattr(ProcessGroup, name, counting(name))
    try:
        fit(run)
    finally:
        for name, call in before.items():
            setattr(ProcessGroup, name, call)
    return counts


def compare(rank, folder, words):
    """Write how many more calls 80 updates make than 40."""
    counted(folder / "first", 40, words)  # it alone makes the process group
    short, long = (counted(folder / str(updates), updates, words) for updates in (40, 80))
    assert short["allreduce"] > 4
    (folder / f"{rank}.json").write_text(json.dumps(long - short))


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("trainer.clip=1", "average=ema", "measure=norms", "optimizer=adamw")])
def test_an_update_makes_no_call_of_its_own(tmp_path, words):
    words = (*words, f"trainer.steps_per_execution={CHUNK}", f"trainer.log_every={FLUSH}")
    assert worlds.run(2, compare, tmp_path, words) == [0, 0]
    questions_and_flushes = 40 // CHUNK + 40 // FLUSH
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == {"allreduce": questions_and_flushes}
