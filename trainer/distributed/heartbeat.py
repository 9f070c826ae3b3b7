"""The heartbeat between the processes of a run: each learns within seconds that another has failed, died or stopped.

Rank 0 is the server. Every other rank holds one connection to it. Both ends send a beat every second or less, from a
thread, so that a long compilation or validation interrupts nothing. A closed connection means a dead process, and is
noticed at once; a stopped process, or a host that is gone, is silent. The server tells all ranks what it finds. Each
process then ends by itself, because its own collectives fail; one that still waits inside a collective is ended from
here.
"""

import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from subprocess import Popen, TimeoutExpired
from typing import Any

from trainer.distributed.connection import Connection
from trainer.distributed.peer import DEAD, FAILED, LEFT, SILENT, LostPeer, Peer, describe_exit, is_stopped


class Heartbeat(threading.Thread):
    """What server and client share: beats, the lost peer once it is known, and the end of a process that hangs.

    A peer is lost after `silence` seconds without a beat, half of `trainer.timeout`; `leave_result` is called in the
    one process that reports the loss.
    """

    def __init__(self, me: Peer, silence: float, leave_result: Callable[[LostPeer], None]) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self.me, self.silence, self.leave_result = me, silence, leave_result
        self.period = min(1.0, silence / 10)
        self.advice: Callable[[], str] = str
        self.lost: LostPeer | None = None
        self.known = threading.Event()
        self.news = False  # whether a peer has said how it ends, or its connection is closed
        self.ended: dict[int, tuple[str, str, float]] = {}
        self.selector = selectors.DefaultSelector()

    def end(self, how: str, text: str = "") -> None:
        """Tell the others how this process ends, done, failed, or left (by a signal). A failed one must end in time."""
        self.ended[self.me.rank] = (how, text, time.monotonic())
        self.send(end=how, text=text)
        if how == FAILED:
            self.lose(LostPeer(self.me, FAILED, f"{self.me} failed: {text}"))

    def send(self, **message: Any) -> None:
        """Send to the others."""
        raise NotImplementedError

    def find_lost(self, now: float) -> LostPeer | None:
        """The first peer that is lost, if any."""
        raise NotImplementedError

    def restart_clocks(self, now: float) -> None:
        """Count every silence from now."""
        raise NotImplementedError

    def lose(self, lost: LostPeer) -> None:
        """Tell the others that a peer is lost, and end this process if it does not end by itself."""
        if self.lost is None:
            self.lost = lost
            self.send(lost=lost.to_dict())
            self.known.set()
            threading.Thread(target=self._end_in_time, args=(lost,), daemon=True).start()

    def run(self) -> None:
        """Beat, listen and check until the process ends."""
        last = beaten = checked = time.monotonic()
        while True:
            for key, _ in self.selector.select(self.period / 2):
                key.data()
            now = time.monotonic()
            if now - last > self.silence / 2:  # this process itself was stopped: first read what the others sent
                self.restart_clocks(now)
            last = now
            if now - beaten >= self.period:
                beaten = now
                self.send(beat=True)
            due = self.news or now - checked >= self.period / 2  # not for each beat of 1,000 ranks
            if self.lost is None and due:
                checked, self.news = now, False
                if (lost := self.find_lost(now)) is not None:
                    self.lose(lost)

    def judge(self, peer: Peer, heard: float, now: float, closed: bool) -> LostPeer | None:
        """Whether a peer is lost, by its own message, by its closed connection, or by its silence."""
        how, text, since = self.ended.get(peer.rank, ("", "", now))
        if how == FAILED:
            return LostPeer(peer, FAILED, f"{peer} failed: {text}")
        if how == LEFT and now - since > self.silence:
            return LostPeer(peer, LEFT, f"{peer} left: {text}")
        if how:
            return None
        if closed:
            return LostPeer(peer, DEAD, f"{peer} is gone: process {peer.pid} ended without a message")
        if now - heard > self.silence and now - heard > (patience := self.patience(peer)):
            text = f"{peer} has not answered for {patience:g} s: process {peer.pid} hangs or is stopped"
            return LostPeer(peer, SILENT, f"{text}; if it was only slow, raise trainer.timeout={2 * self.silence:g}")
        return None

    def patience(self, peer: Peer) -> float:
        """Seconds that a peer may be silent: half as many again if it is seen to run, and so may only lack CPU time."""
        return self.silence * (1.5 if peer.is_running() else 1.0)

    def _end_in_time(self, lost: LostPeer) -> None:
        """Give this process time to end by itself: long where the lost peer ends in order, short where it is gone."""
        if lost.kind == SILENT:
            lost.peer.kill()
        time.sleep(self.silence if lost.kind in (FAILED, LEFT) else self.silence / 3)
        try:
            if self.reports_loss:
                print(lost.text + (self.advice() if lost.is_gone else ""), file=sys.stderr, flush=True)
                self.leave_result(lost)
        finally:
            self.kill_children()
            os._exit(lost.code)

    @property
    def reports_loss(self) -> bool:
        """Whether this process reports the loss: rank 0 does, or rank 1 where rank 0 is lost."""
        return self.lost is not None and self.me.rank == (1 if self.lost.peer.rank == 0 else 0)

    def end_after_loss(self) -> None:
        """Leave a result as this process ends because of a loss, if the lost rank is 0, which else leaves one."""
        if self.lost is not None and self.me.rank and self.reports_loss:
            self.leave_result(self.lost)

    def kill_children(self, seconds: float = 0.0) -> None:
        """Kill the processes that this one started, if they do not end within `seconds`; a client has none."""


class Client(Heartbeat):
    """The heartbeat of any other rank, connected to that of rank 0."""

    def __init__(
        self,
        me: Peer,
        silence: float,
        leave_result: Callable[[LostPeer], None],
        server: Peer,
        connection: Connection,
        token: str,
    ) -> None:
        super().__init__(me, silence, leave_result)
        self.server, self.connection, self.heard = server, connection, time.monotonic()
        self.selector.register(connection.socket, selectors.EVENT_READ, self._receive)
        self.send(token=token, peer=me.__dict__)

    def _receive(self) -> None:
        self.heard = time.monotonic()
        for message in self.connection.read():
            if "end" in message:
                self.ended[self.server.rank] = (message["end"], message["text"], self.heard)
                self.news = True
            if "lost" in message:
                self.lose(LostPeer.from_dict(message["lost"]))
        if self.connection.closed:
            self.news = True
            self.selector.unregister(self.connection.socket)

    def send(self, **message: Any) -> None:
        if "lost" not in message:  # this rank can only find the server itself lost
            self.connection.write(**message)

    def find_lost(self, now: float) -> LostPeer | None:
        return self.judge(self.server, self.heard, now, self.connection.closed)

    def restart_clocks(self, now: float) -> None:
        self.heard = now


@dataclass(frozen=True)
class Expected:
    """The ranks that the server waits for: how many there are, and within how many seconds each must connect.

    `token` is what a client must know; `children` are the ranks whose processes the server started itself.
    """

    world: int
    seconds: float
    token: str
    children: Mapping[int, Popen] = field(default_factory=dict)


class Server(Heartbeat):
    """The heartbeat of rank 0: it hears every other rank, and watches the processes that it started."""

    def __init__(
        self,
        me: Peer,
        silence: float,
        leave_result: Callable[[LostPeer], None],
        listener: socket.socket,
        expected: Expected,
    ) -> None:
        super().__init__(me, silence, leave_result)
        self.expected, self.children = expected, dict(expected.children)
        self.clients: dict[int, tuple[Peer, Connection]] = {}
        self.rank_of: dict[Connection, int] = {}
        self.heard: dict[int, float] = {}
        self.begun = time.monotonic()
        self.stopped_since: dict[int, float] = {}
        self.listener = listener
        self.selector.register(listener, selectors.EVENT_READ, self._accept)

    def _accept(self) -> None:
        try:
            connection = Connection(self.listener.accept()[0])
        except OSError:
            return
        self.selector.register(connection.socket, selectors.EVENT_READ, lambda: self._receive(connection))

    def _receive(self, connection: Connection) -> None:
        for message in connection.read():
            if message.get("token") == self.expected.token:
                peer = Peer(**message["peer"])
                self.clients[peer.rank], self.rank_of[connection] = (peer, connection), peer.rank
            rank = self.rank_of.get(connection)
            if rank is not None and self.clients[rank][1] is connection:
                self.heard[rank] = time.monotonic()
                if "end" in message:
                    self.ended[rank] = (message["end"], message["text"], time.monotonic())
                    self.news = True
        if connection.closed:
            self.news = True
            self.selector.unregister(connection.socket)
            connection.close()

    def send(self, **message: Any) -> None:
        for _, connection in list(self.clients.values()):
            connection.write(**message)

    def find_lost(self, now: float) -> LostPeer | None:
        for rank in range(1, self.expected.world):
            peer, connection = self.clients.get(rank, (None, None))
            lost = self._lost_child(rank, peer, connection is not None and connection.closed, now)
            if lost is None and peer is not None and connection is not None:
                lost = self.judge(peer, self.heard[rank], now, connection.closed)
            elif lost is None and now - self.begun > self.expected.seconds:
                unseen = Peer(rank, "an unknown host", 0, "")
                text = f"rank {rank} of {self.expected.world} has not connected within {self.expected.seconds:g} s"
                lost = LostPeer(unseen, SILENT, text)
            if lost is not None:
                return lost
        return None

    def _lost_child(self, rank: int, peer: Peer | None, closed: bool, now: float) -> LostPeer | None:
        """Whether a process that this one started is lost, as only its parent can see."""
        child = self.children.get(rank)
        if child is None or rank in self.ended:
            return None
        peer = peer or Peer(rank, self.me.host, child.pid, self.me.machine)
        if closed:
            with suppress(TimeoutExpired):
                child.wait(1)
        if (code := child.poll()) is not None:
            return LostPeer(peer, DEAD, f"{peer} {describe_exit(code)}", 2 if code == 2 else 1)
        if not is_stopped(child.pid):
            self.stopped_since.pop(rank, None)
        elif now - self.stopped_since.setdefault(rank, now) > self.silence:
            return LostPeer(peer, SILENT, f"{peer} has been stopped for {self.silence:g} s: process {child.pid}")
        return None

    def restart_clocks(self, now: float) -> None:
        self.heard = dict.fromkeys(self.heard, now)
        self.begun = max(self.begun, now - self.expected.seconds / 2)
        self.stopped_since.clear()

    def finish(self) -> LostPeer | None:
        """Wait until every other rank has ended; the peer that is lost, or left before its end, if any."""
        while self.lost is None and any(rank not in self.ended for rank in range(1, self.expected.world)):
            self.known.wait(self.period / 2)
        for rank, (how, text, _) in self.ended.items():
            if how == LEFT and rank != self.me.rank:
                self.lose(LostPeer(self.clients[rank][0], LEFT, f"{self.clients[rank][0]} left: {text}"))
        for rank, child in self.children.items() if self.lost is None else ():
            with suppress(TimeoutExpired):
                child.wait(self.silence)
            peer, code = self.clients[rank][0], child.poll()
            if code:
                self.lose(LostPeer(peer, DEAD, f"{peer} {describe_exit(code)} after the end of the run"))
            if code is None:
                text = f"{peer} is still there {self.silence:g} s after the end of the run: process {peer.pid}"
                self.lose(LostPeer(peer, SILENT, text))
        return self.lost

    def kill_children(self, seconds: float = 0.0) -> None:
        end = time.monotonic() + seconds
        for child in self.children.values():
            with suppress(TimeoutExpired):
                child.wait(max(0.0, end - time.monotonic()))
            if child.poll() is None:
                child.kill()
