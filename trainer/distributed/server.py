"""Rank 0's end of the lifeline: it hears every other rank, and watches the processes that it has started."""

import selectors
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from subprocess import Popen, TimeoutExpired
from typing import Any

from trainer.distributed.connection import Connection
from trainer.distributed.heartbeat import Heartbeat
from trainer.distributed.peer import DEAD, LEFT, SILENT, LostPeer, Peer, ending, stopped


class Server(Heartbeat):
    """The lifeline of rank 0. `children` are the ranks that it has started itself; `late` bounds how late one comes."""

    def __init__(
        self,
        me: Peer,
        silence: float,
        leave_result: Callable[[LostPeer], None],
        *,
        world: int,
        listener: socket.socket,
        token: str,
        late: float,
        children: Mapping[int, Popen],
    ) -> None:
        super().__init__(me, silence, leave_result)
        self.world, self.token, self.late, self.children = world, token, late, dict(children)
        self.members: dict[int, tuple[Peer, Connection]] = {}
        self.heard: dict[int, float] = {}
        self.begun = time.monotonic()
        self.halted: dict[int, float] = {}
        self.listener = listener
        self.selector.register(listener, selectors.EVENT_READ, self._accept)

    def _accept(self) -> None:
        try:
            link = Connection(self.listener.accept()[0])
        except OSError:
            return
        self.selector.register(link.connection, selectors.EVENT_READ, lambda: self._hear(link))

    def _hear(self, link: Connection) -> None:
        for message in link.read():
            if message.get("token") == self.token:
                member = Peer(**message["member"])
                self.members[member.rank] = (member, link)
            for rank, (_, own) in self.members.items():
                if own is link:
                    self.heard[rank] = time.monotonic()
                    if "end" in message:
                        self.ended[rank] = (message["end"], message["text"], time.monotonic())
        if link.closed:
            self.selector.unregister(link.connection)
            link.close()

    def send(self, **message: Any) -> None:
        for _, link in list(self.members.values()):
            link.write(**message)

    def check(self, now: float) -> LostPeer | None:
        for rank in range(1, self.world):
            member, link = self.members.get(rank, (None, None))
            loss = self._child(rank, member, link is not None and link.closed, now)
            if loss is None and member is not None and link is not None:
                loss = self.over(member, self.heard[rank], now, link.closed)
            elif loss is None and now - self.begun > self.late:
                unseen = Peer(rank, "an unknown host", 0, "")
                loss = LostPeer(unseen, SILENT, f"rank {rank} of {self.world} has not come within {self.late:g} s")
            if loss is not None:
                return loss
        return None

    def _child(self, rank: int, member: Peer | None, closed: bool, now: float) -> LostPeer | None:
        """Whether a process that this one has started is lost, as only its parent can see."""
        child = self.children.get(rank)
        if child is None or rank in self.ended:
            return None
        member = member or Peer(rank, self.me.host, child.pid, self.me.machine)
        if closed:
            with suppress(TimeoutExpired):
                child.wait(1)
        if (code := child.poll()) is not None:
            return LostPeer(member, DEAD, f"{member} {ending(code)}", 2 if code == 2 else 1)
        if not stopped(child.pid):
            self.halted.pop(rank, None)
        elif now - self.halted.setdefault(rank, now) > self.silence:
            return LostPeer(member, SILENT, f"{member} has been stopped for {self.silence:g} s: process {child.pid}")
        return None

    def forgive(self, now: float) -> None:
        self.heard = dict.fromkeys(self.heard, now)
        self.begun = max(self.begun, now - self.late / 2)
        self.halted.clear()

    def finish(self) -> LostPeer | None:
        """Wait until every other rank has ended; who is lost, or has left before its end."""
        while self.loss is None and any(rank not in self.ended for rank in range(1, self.world)):
            self.known.wait(self.period / 2)
        for rank, (how, text, _) in self.ended.items():
            if how == LEFT and rank != self.me.rank:
                self.lose(LostPeer(self.members[rank][0], LEFT, f"{self.members[rank][0]} left: {text}"))
        for rank, child in self.children.items() if self.loss is None else ():
            with suppress(TimeoutExpired):
                child.wait(self.silence)
            member, code = self.members[rank][0], child.poll()
            if code:
                self.lose(LostPeer(member, DEAD, f"{member} {ending(code)} after the end of the run"))
            if code is None:
                text = f"{member} is still there {self.silence:g} s after the end of the run: process {member.pid}"
                self.lose(LostPeer(member, SILENT, text))
        return self.loss

    def release(self, seconds: float = 0.0) -> None:
        """End the processes that this one has started, after so many seconds to end by themselves."""
        end = time.monotonic() + seconds
        for child in self.children.values():
            with suppress(TimeoutExpired):
                child.wait(max(0.0, end - time.monotonic()))
            if child.poll() is None:
                child.kill()
