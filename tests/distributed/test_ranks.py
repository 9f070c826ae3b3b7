"""On two processes the noise has the same bits as on one, and a composite optimizer keeps the weights alike."""

import json

import pytest

from tests.distributed import worlds
from tests.distributed.ranks import as_rank, train


@pytest.mark.slow
def test_noise_has_the_same_bits_on_one_and_two_ranks_and_the_weights_stay_alike(tmp_path):
    alone = train(tmp_path / "alone", processes=1)
    assert worlds.run(2, as_rank, tmp_path) == [0, 0]
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first["noise"] == alone["noise"]
    assert len(set(alone["noise"])) == 6
