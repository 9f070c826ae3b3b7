"""The watch of a process over the others of its run: from before the data is read until the result is written."""

import os
import re
import secrets
import socket
from collections.abc import Callable, Mapping
from datetime import timedelta
from subprocess import Popen
from types import TracebackType

from lightning_fabric.plugins.environments import ClusterEnvironment, LightningEnvironment
from torch.distributed import DistError, PrefixStore, Store, TCPStore

from trainer.distributed.connection import Connection, listen
from trainer.distributed.environment import environment as started_by
from trainer.distributed.heartbeat import Client, Heartbeat
from trainer.distributed.peer import DONE, FAILED, LEFT, LostPeer, Peer, RankLost
from trainer.distributed.server import Server
from trainer.lr import ConfigError

_EXCHANGE = re.compile(r"gloo|NCCL|connection (closed|reset)|broken pipe|timed out", re.IGNORECASE)
_KEY = "lifeline"


class RankMonitor:
    """Where the processes of a run meet, and the lifeline between them; in a run of one it does nothing.

    `timeout`: within so many seconds a process that dies, fails or stops ends the whole run. Of these, half are the
    silence after which it counts as lost; the rest is for the others to end. `leave_result(loss)` is called once, in
    rank 0, or in rank 1 where rank 0 is lost.
    """

    def __init__(self, devices: int, nodes: int, timeout: float, leave_result: Callable[[LostPeer], None]) -> None:
        self.devices, self.nodes, self.timeout = devices, nodes, timeout
        self.leave_result = leave_result
        self.store: Store | None = None
        self.lifeline: Heartbeat | None = None

    @property
    def world(self) -> int:
        """Processes of the run."""
        return self.devices * self.nodes

    def __enter__(self) -> "RankMonitor":
        """Join the others at once, where somebody else has started this process."""
        if self.world == 1:
            return self
        environment = _environment()
        if environment.creates_processes_externally and int(os.environ.get("WORLD_SIZE", self.world)) == self.world:
            self.join(environment)
        return self

    def join(self, environment: ClusterEnvironment, children: Mapping[int, Popen] | None = None) -> None:
        """Meet the others; `children` are the ranks that this process has started."""
        if self.lifeline is not None:
            return
        rank, address = self._rank(environment), environment.main_address
        held_by_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        try:
            store: Store = TCPStore(
                address,
                environment.main_port,
                is_master=rank == 0 and not held_by_agent,
                wait_for_workers=False,
                timeout=timedelta(seconds=self.timeout),
            )
            self.store = PrefixStore(f"cadence/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
            me = Peer.here(rank)
            self.lifeline = self._hub(me, children or {}) if rank == 0 else self._spoke(me, address)
        except (DistError, OSError) as error:
            if rank == 0:
                raise
            where = f"{address}:{environment.main_port}"
            raise RankLost(f"rank 0 has not come to {where} within {self.timeout:g} s of rank {rank}") from error
        self.lifeline.start()

    def finish(self) -> None:
        """This process has done its part; on rank 0, when all have. RankLost where another has not."""
        if isinstance(self.lifeline, Server) and (loss := self.lifeline.finish()) is not None:
            raise _error(loss)
        if self.lifeline is not None:
            self.lifeline.end(DONE)

    def cause(self, error: BaseException) -> BaseException:
        """What is to be told of an error: the loss of another process, where this one only noticed it."""
        if self.lifeline is None or not isinstance(error, Exception) or not _of_exchange(error):
            return error
        self.lifeline.known.wait(self.timeout / 2 + 5 * self.lifeline.period)
        loss = self.lifeline.loss
        return error if loss is None or loss.member == self.lifeline.me else _error(loss)

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Tell the others how this process ends, and leave none behind that it has started."""
        if self.lifeline is None:
            return
        if isinstance(error, RankLost):
            self.lifeline.wind_up()
        elif error is not None:
            text = f"{type(error).__name__}: {' '.join(str(error).split())}"[:2000]
            self.lifeline.end(FAILED if isinstance(error, Exception) else LEFT, text)
        if isinstance(self.lifeline, Server):
            failed = error is not None and isinstance(error, Exception)
            self.lifeline.release(2.0 if failed else self.timeout / 2)

    def _rank(self, environment: ClusterEnvironment) -> int:
        if isinstance(environment, LightningEnvironment):
            return environment.node_rank() * self.devices + environment.local_rank()
        return environment.global_rank()

    def _hub(self, me: Peer, children: Mapping[int, Popen]) -> Server:
        assert self.store is not None
        token = secrets.token_hex(16)
        listener = listen("127.0.0.1" if self.nodes == 1 else "")
        hub = Server(
            me,
            self.timeout / 2,
            self.leave_result,
            world=self.world,
            listener=listener,
            token=token,
            late=5 * self.timeout if children else self.timeout,
            children=children,
        )
        words = [listener.getsockname()[1], token, me.host, me.pid, me.machine]
        self.store.set(_KEY, "\n".join(map(str, words)))
        return hub

    def _spoke(self, me: Peer, address: str) -> Client:
        assert self.store is not None
        port, token, host, pid, machine = self.store.get(_KEY).decode().split("\n")
        place = ("127.0.0.1" if self.nodes == 1 else address, int(port))
        link = Connection(socket.create_connection(place, self.timeout))
        hub = Peer(0, host, int(pid), machine)
        return Client(me, self.timeout / 2, self.leave_result, hub, link, token)


def _environment() -> ClusterEnvironment:
    """What has started this process."""
    found = started_by()
    return found[0] if found else LightningEnvironment()


def _of_exchange(error: Exception) -> bool:
    """Whether an error comes from the exchange with other processes."""
    return isinstance(error, DistError) or (isinstance(error, RuntimeError) and bool(_EXCHANGE.search(str(error))))


def _error(loss: LostPeer) -> Exception:
    return ConfigError(loss.text) if loss.code == 2 else RankLost(loss.text)
