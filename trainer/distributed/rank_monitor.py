"""Monitors the processes of a run from before the data is read until the result is written."""

import os
import re
import secrets
import socket
from collections.abc import Callable, Mapping
from datetime import timedelta
from subprocess import Popen
from types import TracebackType
from typing import Any

from lightning_fabric.plugins.environments import ClusterEnvironment, LightningEnvironment
from torch.distributed import DistError, PrefixStore, Store, TCPStore, destroy_process_group, is_initialized

from trainer.distributed.connection import (
    LOOPBACK,
    Connection,
    allow_connections,
    listen,
    loopback_interface,
    own_address,
)
from trainer.distributed.environment import environment as cluster_environment
from trainer.distributed.heartbeat import Client, Expected, Heartbeat, Server
from trainer.distributed.peer import DONE, FAILED, LEFT, LostPeer, Peer, RankLost
from trainer.lr import ConfigError

_EXCHANGE = re.compile(r"gloo|NCCL|connection (closed|reset)|broken pipe|timed out", re.IGNORECASE)
_KEY, _BEGIN = "heartbeat", "begin"


class RankMonitor:
    """The store where the processes of a run meet, and the heartbeat between them. Does nothing for one process.

    A process that dies, fails or stops ends the whole run within `timeout` seconds. After half of them without a beat
    it counts as lost; the other half is for the others to end. `leave_result(lost)` is called once, in rank 0, or in
    rank 1 where rank 0 is lost. `advice()` says how to go on after that.
    """

    def __init__(self, devices: int, nodes: int, timeout: float, leave_result: Callable[[LostPeer], None]) -> None:
        self.devices, self.nodes, self.timeout = devices, nodes, timeout
        self.leave_result = leave_result
        self.advice: Callable[[], str] = str
        self.store: Store | None = None
        self.heartbeat: Heartbeat | None = None

    @property
    def world(self) -> int:
        """Processes of the run."""
        return self.devices * self.nodes

    def __enter__(self) -> "RankMonitor":
        """Join the others at once, where another program started this process."""
        if self.world == 1:
            return self
        (environment,) = cluster_environment()
        if environment.creates_processes_externally and int(os.environ.get("WORLD_SIZE", self.world)) == self.world:
            self.join(environment)
        return self

    def join(self, environment: ClusterEnvironment, children: Mapping[int, Popen] | None = None) -> None:
        """Meet the others; `children` are the ranks that this process started."""
        if self.heartbeat is not None:
            return
        rank, agent_has_store = self._rank(environment), os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        address = LOOPBACK if self.nodes == 1 and not agent_has_store else environment.main_address
        if self.nodes == 1 and (interface := loopback_interface()):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        try:
            store = self._store(address, environment.main_port, serves=rank == 0 and not agent_has_store)
            self.store = PrefixStore(f"cadence/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
            me = Peer.this_process(rank)
            self.heartbeat = self._serve(me, address, children or {}) if rank == 0 else self._connect(me, address)
        except (DistError, OSError) as error:
            if rank == 0:
                raise
            where = f"{address}:{environment.main_port}"
            raise RankLost(f"rank {rank} has not reached rank 0 at {where} within {self.timeout:g} s") from error
        self.heartbeat.advice = lambda: self.advice()
        self.heartbeat.start()

    def let_others_begin(self) -> None:
        """In rank 0: let the other ranks go on, which wait in `wait_to_begin` where another program started them."""
        if self.store is not None:
            self.store.set(_BEGIN, "")

    def wait_to_begin(self, seconds: float) -> None:
        """In another rank: wait until rank 0 lets it go on. Raises RankLost where rank 0 has ended, or takes longer."""
        if self.store is None:
            return
        try:
            self.store.wait([_BEGIN], timedelta(seconds=seconds))
        except DistError as error:
            raise RankLost("rank 0 has not begun") from error

    def finish(self) -> None:
        """This process is done; rank 0 waits until all are.

        Raises:
            RankLost, ConfigError: another rank was lost first.
        """
        if isinstance(self.heartbeat, Server) and (lost := self.heartbeat.finish()) is not None:
            raise _error(lost)
        if self.heartbeat is not None:
            self.heartbeat.end(DONE)
            if is_initialized():  # left to the exit of the interpreter, a thread of gloo may abort the process
                destroy_process_group()

    def cause(self, error: BaseException) -> BaseException:
        """The error to report: the loss of another process where `error` only follows from it, else `error`."""
        if self.heartbeat is None or not isinstance(error, Exception) or not _of_exchange(error):
            return error
        self.heartbeat.known.wait(self.timeout / 2 + 5 * self.heartbeat.period)
        lost = self.heartbeat.lost
        return error if lost is None or lost.peer == self.heartbeat.me else _error(lost)

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Tell the others how this process ends, and end the processes that it started."""
        if self.heartbeat is None:
            return
        if isinstance(error, RankLost):
            self.heartbeat.end_after_loss()
        elif error is not None:
            text = f"{type(error).__name__}: {' '.join(str(error).split())}"[:2000]
            self.heartbeat.end(FAILED if isinstance(error, Exception) else LEFT, text)
        failed = error is not None and isinstance(error, Exception)
        self.heartbeat.kill_children(2.0 if failed else self.timeout / 2)

    def _store(self, address: str, port: int, serves: bool) -> Store:
        """The store of the run. torch's own server would listen on all addresses of the host."""
        if serves:
            allow_connections(self.world)
        own: dict[str, Any] = (
            {"is_master": True, "master_listen_fd": self._listen(address, port).detach()} if serves else {}
        )
        timeout = timedelta(seconds=self.timeout)
        return TCPStore(address, port, wait_for_workers=False, timeout=timeout, **own)

    def _listen(self, address: str, port: int = 0) -> socket.socket:
        """Listen where the other ranks connect: on the loopback, where all of them run on this host."""
        return listen(LOOPBACK if self.nodes == 1 else own_address(address), port)

    def _rank(self, environment: ClusterEnvironment) -> int:
        if isinstance(environment, LightningEnvironment):
            return environment.node_rank() * self.devices + environment.local_rank()
        return environment.global_rank()

    def _serve(self, me: Peer, name: str, children: Mapping[int, Popen]) -> Server:
        """The server of rank 0; its address goes into the store."""
        assert self.store is not None
        seconds = 5 * self.timeout if children else self.timeout
        expected = Expected(self.world, seconds, secrets.token_hex(16), children)
        listener = self._listen(name)
        server = Server(me, self.timeout / 2, self.leave_result, listener, expected)
        address = [listener.getsockname()[1], expected.token, me.host, me.pid, me.machine]
        self.store.set(_KEY, "\n".join(map(str, address)))
        return server

    def _connect(self, me: Peer, address: str) -> Client:
        """The client of another rank, connected to the server that the store names."""
        assert self.store is not None
        port, token, host, pid, machine = self.store.get(_KEY).decode().split("\n")
        target = (LOOPBACK if self.nodes == 1 else address, int(port))
        connection = Connection(socket.create_connection(target, self.timeout))
        server = Peer(0, host, int(pid), machine)
        return Client(me, self.timeout / 2, self.leave_result, server, connection, token)


def _of_exchange(error: Exception) -> bool:
    """Whether an error comes from the communication with other processes."""
    return isinstance(error, DistError) or (isinstance(error, RuntimeError) and bool(_EXCHANGE.search(str(error))))


def _error(lost: LostPeer) -> Exception:
    if lost.code == 2:
        return ConfigError(lost.text)
    error = RankLost(lost.text)
    error.is_gone = lost.is_gone
    return error
