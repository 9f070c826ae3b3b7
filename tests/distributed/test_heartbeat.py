"""The lifeline alone, two ends of it in one process: what each hears of the other."""

import signal
import socket
import subprocess
import sys
import time

import pytest

from trainer.distributed.connection import Connection, listen
from trainer.distributed.consistency import difference
from trainer.distributed.heartbeat import Client
from trainer.distributed.peer import DONE, FAILED, LEFT, LostPeer, Peer, ending, stopped
from trainer.distributed.server import Server


@pytest.fixture
def ends():
    """A hub and a spoke that can be lost without an end to this process."""
    listener = listen("127.0.0.1")
    first, second = Peer(0, "a", 1, ""), Peer(1, "b", 2, "")
    hub = Server(first, 2.0, print, world=2, listener=listener, token="word", late=60.0, children={})
    link = Connection(socket.create_connection(listener.getsockname()))
    spoke = Client(second, 2.0, print, first, link, "word")
    hub._end_in_time = spoke._end_in_time = lambda loss: None
    return hub, spoke


def begin(*lines):
    for line in lines:
        line.start()


def test_a_rank_that_says_done_and_goes_is_no_loss(ends):
    hub, spoke = ends
    begin(hub, spoke)
    spoke.end(DONE)
    assert hub.finish() is None
    spoke.link.connection.shutdown(socket.SHUT_RDWR)
    assert not hub.known.wait(1.0)


@pytest.mark.parametrize(
    ("how", "says"), [(FAILED, "rank 1 on b failed: ValueError: no"), (LEFT, "rank 1 on b left: ValueError: no")]
)
def test_the_hub_does_not_finish_well_where_a_rank_has_failed_or_left(ends, how, says):
    hub, spoke = ends
    begin(hub, spoke)
    spoke.end(how, "ValueError: no")
    assert hub.finish().text == says


def test_a_child_that_fails_after_it_has_said_done_fails_the_run(ends):
    hub, spoke = ends
    begin(hub, spoke)
    while not hub.members:
        time.sleep(0.01)
    hub.children[1] = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1); raise SystemExit(3)"])
    spoke.end(DONE)
    assert hub.finish().text == "rank 1 on b ended with exit code 3 after the end of the run"


def test_a_closed_connection_is_a_lost_rank_to_either_end(ends):
    hub, spoke = ends
    begin(hub, spoke)
    while not hub.members:
        time.sleep(0.01)
    spoke.link.connection.shutdown(socket.SHUT_RDWR)
    assert hub.known.wait(10)
    assert spoke.known.wait(10)
    assert hub.loss.text == "rank 1 on b is gone: process 2 ended without a word"
    assert spoke.loss.text == "rank 0 on a is gone: process 1 ended without a word"


def test_a_rank_that_does_not_beat_is_lost_after_the_silence_and_one_that_beats_is_not(ends):
    hub, spoke = ends
    begin(hub)  # the spoke has said who it is, and does not beat
    assert hub.known.wait(10)
    says = "rank 1 on b has not answered for 2 s: process 2 hangs or is stopped"
    assert hub.loss.text == f"{says}; if it was only starved, raise trainer.timeout=4"
    spoke.start()
    assert spoke.known.wait(10)
    assert spoke.loss == hub.loss


def test_a_process_of_this_machine_that_runs_may_be_starved_and_is_waited_for_longer(ends):
    hub, _ = ends
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    member = Peer(1, "b", child.pid, Peer.here(0).machine)
    try:
        assert (hub.patience(member), hub.patience(Peer(1, "b", child.pid, "another"))) == (3.0, 2.0)
        now = time.monotonic()
        assert hub.over(member, now - 2.9, now, closed=False) is None
        assert "has not answered for 3 s" in hub.over(member, now - 3.1, now, closed=False).text
        child.send_signal(signal.SIGSTOP)
        end = time.monotonic() + 60
        while not stopped(child.pid):
            assert time.monotonic() < end
            time.sleep(0.02)
        assert hub.patience(member) == 2.0
    finally:
        child.kill()
        child.wait()
    assert hub.patience(member) == 2.0, "a process that has gone runs no more"


def test_who_beats_is_not_lost(ends):
    begin(*ends)
    assert not ends[0].known.wait(5.0)
    assert not ends[1].known.is_set()


def test_a_stranger_without_the_word_is_not_heard(ends):
    hub, _ = ends
    hub.start()
    stranger = Connection(socket.create_connection(hub.listener.getsockname()))
    stranger.write(token="guess", member=Peer(1, "x", 3, "").__dict__)
    stranger.write(end=FAILED, text="false")
    time.sleep(0.5)
    assert hub.ended == {}
    assert hub.members[1][0].host == "b"


def test_a_loss_is_heard_as_it_was_told():
    loss = LostPeer(Peer(3, "host", 7, "machine"), FAILED, "text", 2)
    assert LostPeer.heard(loss.told()) == loss


def test_how_a_process_ended_and_whether_it_is_stopped():
    assert ending(-9) == "was killed by SIGKILL"
    assert ending(2) == "ended with exit code 2"
    child = subprocess.Popen([sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"])
    try:
        end = time.monotonic() + 60
        while not stopped(child.pid):
            assert time.monotonic() < end
            time.sleep(0.05)
        Peer(1, "here", child.pid, Peer.here(0).machine).kill()
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
    told = difference(everybody)
    assert told is None if says is None else says in told
