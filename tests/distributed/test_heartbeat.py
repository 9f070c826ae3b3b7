"""The heartbeat alone, two ends of it in one process: what each hears of the other."""

import signal
import socket
import subprocess
import sys
import time

import pytest

from trainer.distributed.connection import Connection, listen
from trainer.distributed.consistency import describe_difference
from trainer.distributed.heartbeat import Client, Expected, Server
from trainer.distributed.peer import DONE, FAILED, LEFT, LostPeer, Peer, describe_exit, is_stopped


@pytest.fixture
def ends():
    """A server and a client that can be lost without an end to this process."""
    listener = listen("127.0.0.1")
    first, second = Peer(0, "a", 1, ""), Peer(1, "b", 2, "")
    server = Server(first, 2.0, print, listener, Expected(2, 60.0, "word"))
    connection = Connection(socket.create_connection(listener.getsockname()))
    client = Client(second, 2.0, print, first, connection, "word")
    server._end_in_time = client._end_in_time = lambda lost: None
    return server, client


def begin(*ends):
    for end in ends:
        end.start()


def test_a_rank_that_says_done_and_goes_is_no_loss(ends):
    server, client = ends
    begin(server, client)
    client.end(DONE)
    assert server.finish() is None
    client.connection.socket.shutdown(socket.SHUT_RDWR)
    assert not server.known.wait(1.0)


@pytest.mark.parametrize(
    ("how", "says"), [(FAILED, "rank 1 on b failed: ValueError: no"), (LEFT, "rank 1 on b left: ValueError: no")]
)
def test_the_server_does_not_finish_well_where_a_rank_has_failed_or_left(ends, how, says):
    server, client = ends
    begin(server, client)
    client.end(how, "ValueError: no")
    assert server.finish().text == says


def test_a_child_that_fails_after_it_has_said_done_fails_the_run(ends):
    server, client = ends
    begin(server, client)
    while not server.clients:
        time.sleep(0.01)
    server.children[1] = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1); raise SystemExit(3)"])
    client.end(DONE)
    assert server.finish().text == "rank 1 on b ended with exit code 3 after the end of the run"


def test_a_closed_connection_is_a_lost_rank_to_either_end(ends):
    server, client = ends
    begin(server, client)
    while not server.clients:
        time.sleep(0.01)
    client.connection.socket.shutdown(socket.SHUT_RDWR)
    assert server.known.wait(10)
    assert client.known.wait(10)
    assert server.lost.text == "rank 1 on b is gone: process 2 ended without a message"
    assert client.lost.text == "rank 0 on a is gone: process 1 ended without a message"


def test_a_rank_that_does_not_beat_is_lost_after_the_silence_and_one_that_beats_is_not(ends):
    server, client = ends
    begin(server)  # the client has said who it is, and does not beat
    assert server.known.wait(10)
    says = "rank 1 on b has not answered for 2 s: process 2 hangs or is stopped"
    assert server.lost.text == f"{says}; if it was only slow, raise trainer.timeout=4"
    client.start()
    assert client.known.wait(10)
    assert client.lost == server.lost


def test_a_process_of_this_machine_that_runs_may_be_starved_and_is_waited_for_longer(ends):
    server, _ = ends
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    peer = Peer(1, "b", child.pid, Peer.this_process(0).machine)
    try:
        assert (server.patience(peer), server.patience(Peer(1, "b", child.pid, "another"))) == (3.0, 2.0)
        now = time.monotonic()
        assert server.judge(peer, now - 2.9, now, closed=False) is None
        assert "has not answered for 3 s" in server.judge(peer, now - 3.1, now, closed=False).text
        child.send_signal(signal.SIGSTOP)
        end = time.monotonic() + 60
        while not is_stopped(child.pid):
            assert time.monotonic() < end
            time.sleep(0.02)
        assert server.patience(peer) == 2.0
    finally:
        child.kill()
        child.wait()
    assert server.patience(peer) == 2.0, "a process that has gone runs no more"


def test_who_beats_is_not_lost(ends):
    begin(*ends)
    assert not ends[0].known.wait(5.0)
    assert not ends[1].known.is_set()


def test_a_stranger_without_the_word_is_not_heard(ends):
    server, _ = ends
    server.start()
    stranger = Connection(socket.create_connection(server.listener.getsockname()))
    stranger.write(token="guess", peer=Peer(1, "x", 3, "").__dict__)
    stranger.write(end=FAILED, text="false")
    time.sleep(0.5)
    assert server.ended == {}
    assert server.clients[1][0].host == "b"


def test_a_loss_is_heard_as_it_was_told():
    lost = LostPeer(Peer(3, "host", 7, "machine"), FAILED, "text", 2)
    assert LostPeer.from_dict(lost.to_dict()) == lost


def test_how_a_process_ended_and_whether_it_is_stopped():
    assert describe_exit(-9) == "was killed by SIGKILL"
    assert describe_exit(2) == "ended with exit code 2"
    child = subprocess.Popen([sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"])
    try:
        end = time.monotonic() + 60
        while not is_stopped(child.pid):
            assert time.monotonic() < end
            time.sleep(0.05)
        Peer(1, "here", child.pid, Peer.this_process(0).machine).kill()
        assert child.wait(60) == -9
    finally:
        child.kill()


def test_a_member_of_another_machine_is_not_killed():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        for machine in ("", "another"):
            Peer(1, "there", child.pid, machine).kill()
        time.sleep(0.2)
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize(
    ("everybody", "says"),
    [
        ([{"a": "1"}], None),
        ([{"a": "1"}, {"a": "1"}], None),
        ([{"a": "1", "weights": "x"}, {"a": "2", "weights": "y"}], "rank 1 differs from rank 0: a is 2, not 1. "),
        ([{"weights": "x"}, {"weights": "y"}], "rank 1 differs from rank 0: weights is y, not x. "),
        ([{"a": "1"}, {}, {"a": "2"}], "ranks 1, 2 differ from rank 0: a is not set, not 1. "),
        ([dict.fromkeys("abcdef", "1"), {}], "; d is not set, not 1; and 2 more. "),
    ],
)
def test_what_differs_is_told_with_the_ranks(everybody, says):
    found = describe_difference(everybody)
    assert found is None if says is None else says in found


def limited(world, soft, hard):
    """What the limits of open files are after the call, in a process of its own; or what it says."""
    work = (
        "import resource; from trainer.distributed.connection import allow_connections\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        f"try: allow_connections({world}); print(*resource.getrlimit(resource.RLIMIT_NOFILE))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    return subprocess.run([sys.executable, "-c", work], capture_output=True, text=True, check=True).stdout.strip()


def test_rank_zero_may_open_a_connection_to_each_process_of_a_large_world():
    assert limited(1024, 1024, 4000) == "2560 4000"
    assert limited(1024, 1024, 2100) == "2100 2100"
    assert limited(2, 1024, 4000) == "1024 4000"
    told = limited(1024, 1024, 2000)
    assert told.startswith("ConfigError rank 0 holds two connections to each of 1024 processes, and the system lets it")


def test_a_server_of_many_ranks_hears_each_of_them():
    """Two hundred, each by a connection of its own: none is lost while they beat, and the one that closes at once."""
    listener, many = listen("127.0.0.1"), 200
    server = Server(Peer(0, "a", 1, ""), 2.0, print, listener, Expected(many + 1, 60.0, "word"))
    server._end_in_time = lambda lost: None
    server.start()
    others = []
    for rank in range(1, many + 1):
        others.append(Connection(socket.create_connection(listener.getsockname())))
        others[-1].write(token="word", peer=Peer(rank, "b", 0, "").__dict__)
    end = time.monotonic() + 3.0
    while time.monotonic() < end:
        for one in others:
            one.write(beat=True)
        time.sleep(0.1)
    assert len(server.clients) == many
    assert server.lost is None
    others[76].close()
    assert server.known.wait(1.0)
    assert server.lost.peer.rank == 77
    for one in others:
        one.close()
