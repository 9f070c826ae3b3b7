"""A rank without memory ends the run, which then goes on to the same bits. The program beside it plants all faults."""

import pytest

from tests.distributed.rank_faults import check, finish


@pytest.mark.sample(0)
@pytest.mark.slow
def test_a_rank_without_memory_ends_all_and_the_run_goes_on(tmp_path):
    (tmp_path / "unharmed").mkdir()
    unharmed = finish(tmp_path / "unharmed", "ddp")
    (tmp_path / "harmed").mkdir()
    good, told = check(tmp_path / "harmed", ("ddp", "memory", 1), unharmed)
    assert good, told
