"""On two processes the noise has the same bits as on one, and a composite optimizer keeps the weights alike."""

import json
import os
import subprocess
import sys

import pytest

from tests.trainer.ranks import ROOT, train


@pytest.mark.slow
def test_noise_has_the_same_bits_on_one_and_two_ranks_and_the_weights_stay_alike(tmp_path):
    alone = train(tmp_path / "alone", processes=1)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, str(ROOT / "tests" / "trainer" / "ranks.py"), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first["noise"] == alone["noise"]
    assert len(set(alone["noise"])) == 6
