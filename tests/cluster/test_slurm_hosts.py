"""Slurm with each node on a host of its own, with its own address and name."""

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
SCRIPT = "slurm_hosts.sh"


def test_two_nodes_train_to_the_same_bits_as_each_other_and_as_one_host(slurm, place, whole):
    job = slurm.submit(place.quick())
    slurm.end(job, place)
    assert place.ends_as(whole)
    assert "× 2 nodes" in (place.path / "log").read_text()
