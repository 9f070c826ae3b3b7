"""With all processes on one host nothing listens beyond the loopback; with several, own addresses are taken."""

import os
import socket
from pathlib import Path

import pytest

from tests.distributed import worlds
from trainer.distributed.connection import own_address
from trainer.distributed.rank_monitor import RankMonitor

LISTENS = "0A"
LOOPBACKS = ("0100007F", "00000000000000000000000001000000")
"""127.0.0.1 and ::1, as /proc/net writes them."""


def listening(pid: int) -> set[str]:
    """The local addresses on which a process listens, as /proc/net writes them."""
    sockets = set()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        try:
            sockets.add(str(file.readlink()).removeprefix("socket:[").removesuffix("]"))
        except OSError:  # closed meanwhile
            continue
    lines = [
        line.split() for kind in ("tcp", "tcp6") for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]
    ]
    return {words[1].partition(":")[0] for words in lines if words[3] == LISTENS and words[9] in sockets}


def meet(rank: int, folder: Path) -> None:
    """Join as a run does, with the process group, and note where this process listens."""
    import torch
    from torch.distributed import PrefixStore

    from trainer.distributed.environment import environment

    with RankMonitor(2, 1, 60, lambda lost: None) as monitor:
        monitor.join(environment()[0])
        torch.distributed.init_process_group("gloo", rank=rank, world_size=2, store=PrefixStore("group", monitor.store))
        torch.distributed.all_reduce(torch.ones(1))
        (folder / str(rank)).write_text(" ".join(listening(os.getpid())))
        torch.distributed.barrier()
        monitor.finish()
    assert not torch.distributed.is_initialized()


def test_on_one_host_store_heartbeat_and_gloo_listen_on_the_loopback(tmp_path):
    assert worlds.run(2, meet, tmp_path) == [0, 0]
    found = [set((tmp_path / str(rank)).read_text().split()) for rank in (0, 1)]
    assert found[0]
    assert all(address in LOOPBACKS for address in found[0] | found[1])


@pytest.mark.parametrize(
    ("known", "own"), [("127.0.0.1", ""), ("::1", ""), ("192.0.2.7", ""), (None, "")], ids=["4", "6", "other", "none"]
)
def test_a_name_that_stands_for_no_address_of_this_host_but_a_loopback_gives_all_addresses(monkeypatch, known, own):
    def look(*_, **__):
        if known is None:
            raise socket.gaierror
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (known, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", look)
    assert own_address("node") == own


def test_the_address_of_this_host_is_taken():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing, and chooses the interface
        except OSError:
            pytest.skip("this host has no address beside the loopback")
        address = probe.getsockname()[0]
    assert own_address(address) == address
