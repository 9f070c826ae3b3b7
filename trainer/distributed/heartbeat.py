"""The lifeline between the processes of a run: each hears within seconds that another has failed, died or stopped.

Rank 0 is the hub, every other rank holds one connection to it and sends a beat every few seconds, from a thread: a
long compilation or validation silences nobody. A closed connection is a dead process, heard at once; a process that is
stopped, or a host that is gone, is silent. What the hub finds it tells all. Each process then winds up by itself, for
its own exchange fails too; one that cannot (it waits for the lost one within the exchange) is ended from here.
"""

import os
import selectors
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from trainer.distributed.connection import Connection
from trainer.distributed.peer import DEAD, FAILED, LEFT, SILENT, LostPeer, Peer


class Heartbeat(threading.Thread):
    """What hub and spoke share: beats, the loss when it is known, and the end of a process that cannot end itself.

    `silence` is how many seconds a member may be silent, half of `trainer.timeout`; `leave_result` is called in the
    one process that tells of a loss.
    """

    def __init__(self, me: Peer, silence: float, leave_result: Callable[[LostPeer], None]) -> None:
        super().__init__(name="lifeline", daemon=True)
        self.me, self.silence, self.leave_result = me, silence, leave_result
        self.period = min(1.0, silence / 10)
        self.loss: LostPeer | None = None
        self.known = threading.Event()
        self.ended: dict[int, tuple[str, str, float]] = {}
        self.selector = selectors.DefaultSelector()

    def end(self, how: str, text: str = "") -> None:
        """Say how this process ends: done, failed, or left (by a signal). Who failed must be gone in time."""
        self.ended[self.me.rank] = (how, text, time.monotonic())
        self.send(end=how, text=text)
        if how == FAILED:
            self.lose(LostPeer(self.me, FAILED, f"{self.me} failed: {text}"))

    def send(self, **message: Any) -> None:
        """Tell the others."""
        raise NotImplementedError

    def check(self, now: float) -> LostPeer | None:
        """Who is lost, if anyone."""
        raise NotImplementedError

    def lose(self, loss: LostPeer) -> None:
        """Know of a loss: tell it, and end this process where it does not end by itself."""
        if self.loss is None:
            self.loss = loss
            self.send(lost=loss.told())
            self.known.set()
            threading.Thread(target=self._end_in_time, args=(loss,), daemon=True).start()

    def run(self) -> None:
        """Beat, listen and look until the process ends."""
        last = beaten = time.monotonic()
        while True:
            for key, _ in self.selector.select(self.period / 2):
                key.data()
            now = time.monotonic()
            if now - last > self.silence / 2:  # this process itself was stopped: hear the others out first
                self.forgive(now)
            last = now
            if now - beaten >= self.period:
                beaten = now
                self.send(beat=True)
            if self.loss is None and (loss := self.check(now)) is not None:
                self.lose(loss)

    def forgive(self, now: float) -> None:
        """Count every silence from now."""
        raise NotImplementedError

    def over(self, member: Peer, heard: float, now: float, closed: bool) -> LostPeer | None:
        """Whether a member is lost, by its own word, by its closed connection, or by its silence."""
        how, text, since = self.ended.get(member.rank, ("", "", now))
        if how == FAILED:
            return LostPeer(member, FAILED, f"{member} failed: {text}")
        if how == LEFT and now - since > self.silence:
            return LostPeer(member, LEFT, f"{member} left: {text}")
        if how:
            return None
        if closed:
            return LostPeer(member, DEAD, f"{member} is gone: process {member.pid} ended without a word")
        if now - heard > self.silence and now - heard > (patience := self.patience(member)):
            text = f"{member} has not answered for {patience:g} s: process {member.pid} hangs or is stopped"
            return LostPeer(
                member, SILENT, f"{text}; if it was only starved, raise trainer.timeout={2 * self.silence:g}"
            )
        return None

    def patience(self, member: Peer) -> float:
        """Seconds that a member may be silent: half as many more where it can be seen to run, and may be starved."""
        return self.silence * (1.5 if member.runs_here() else 1.0)

    def _end_in_time(self, loss: LostPeer) -> None:
        """Give this process time to end by itself: long where another winds up, short where one is gone."""
        if loss.kind == SILENT:
            loss.member.kill()
        time.sleep(self.silence if loss.kind in (FAILED, LEFT) else self.silence / 3)
        try:
            if self.teller:
                print(loss.text, file=sys.stderr, flush=True)
                self.leave_result(loss)
        finally:
            self.release()
            os._exit(loss.code)

    @property
    def teller(self) -> bool:
        """Whether it is this process that tells of the loss: rank 0, or rank 1 where rank 0 is lost."""
        return self.loss is not None and self.me.rank == (1 if self.loss.member.rank == 0 else 0)

    def wind_up(self) -> None:
        """This process ends because of a loss: leave a result where rank 0, which leaves one itself, is the lost."""
        if self.loss is not None and self.me.rank and self.teller:
            self.leave_result(self.loss)

    def release(self) -> None:
        """Leave no process behind that this one has started."""


class Client(Heartbeat):
    """The lifeline of any other rank, to the hub."""

    def __init__(
        self,
        me: Peer,
        silence: float,
        leave_result: Callable[[LostPeer], None],
        hub: Peer,
        link: Connection,
        token: str,
    ) -> None:
        super().__init__(me, silence, leave_result)
        self.hub, self.link, self.heard = hub, link, time.monotonic()
        self.selector.register(link.connection, selectors.EVENT_READ, self._hear)
        self.send(token=token, member=me.__dict__)

    def _hear(self) -> None:
        self.heard = time.monotonic()
        for message in self.link.read():
            if "end" in message:
                self.ended[self.hub.rank] = (message["end"], message["text"], self.heard)
            if "lost" in message:
                self.lose(LostPeer.heard(message["lost"]))
        if self.link.closed:
            self.selector.unregister(self.link.connection)

    def send(self, **message: Any) -> None:
        if "lost" not in message:  # what this rank finds lost is the hub itself
            self.link.write(**message)

    def check(self, now: float) -> LostPeer | None:
        return self.over(self.hub, self.heard, now, self.link.closed)

    def forgive(self, now: float) -> None:
        self.heard = now
