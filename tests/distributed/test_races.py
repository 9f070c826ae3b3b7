"""Two starts of one folder: one trains, the other is refused. The program beside it races more, and other kinds."""

import random

import pytest

from tests.distributed.races import RACES


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["three starts", "killed and started again"])
def test_a_folder_is_trained_by_one_start(tmp_path, kind):
    assert RACES[kind](tmp_path, random.Random(0))
