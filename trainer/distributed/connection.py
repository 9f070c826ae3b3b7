"""Messages between two processes of a run: one JSON object a line, over a socket that never blocks."""

import ipaddress
import json
import resource
import socket
import threading
from contextlib import suppress
from typing import Any

from trainer.lr import ConfigError

LOOPBACK = "127.0.0.1"
MAX_BYTES = 1 << 16
"""Bytes of a message; who sends more is disconnected."""
OTHER_FILES = 512
"""Open files for everything else: data, logs, checkpoints, workers."""


class Connection:
    """One end of a connection."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self.socket, self.closed = connected, False
        self._partial, self._lock = b"", threading.Lock()

    def write(self, **message: Any) -> None:
        """Send a message, if the other end is there and takes it."""
        with self._lock, suppress(OSError):
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def read(self) -> list[dict[str, Any]]:
        """The messages that have arrived; afterwards `closed` says whether more can come."""
        try:
            while part := self.socket.recv(MAX_BYTES):
                self._partial += part
                if len(self._partial) > 2 * MAX_BYTES:
                    raise ConnectionError
            self.closed = True
        except BlockingIOError:
            pass
        except OSError:
            self.closed = True
        *lines, self._partial = self._partial.split(b"\n")
        try:
            return [message for line in lines if isinstance(message := json.loads(line), dict)]
        except ValueError:
            self.closed = True
            return []

    def close(self) -> None:
        """End the connection."""
        self.closed = True
        self.socket.close()


def allow_connections(world: int) -> None:
    """Let this process, rank 0, hold two connections to each process of the world: that of the store and a heartbeat.

    The soft limit of open files, often 1,024, is raised as far as needed. `ConfigError` where the hard one is too low.
    """
    needed, (soft, hard) = 2 * world + OTHER_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and 2 * world > hard:
        raise ConfigError(
            f"rank 0 holds two connections to each of {world} processes, and the system lets it open {hard} files: "
            "raise the hard limit of open files (ulimit -Hn) on its machine."
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (needed if hard == resource.RLIM_INFINITY else min(needed, hard), hard)
        )


def listen(address: str, port: int = 0) -> socket.socket:
    """Listen on a port (0: a free one) of one address, or of all addresses where it is empty."""
    if not address and socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        except OSError:
            pass
    return socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET)


def own_address(name: str) -> str:
    """The address of this host that a name stands for, to listen on; empty, for all, where it is only a loopback.

    Others reach a host by its name although its own table of names gives it a loopback address.
    """
    try:
        found = str(socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0][4][0])
        listen(found).close()
    except OSError:
        return ""
    return "" if ipaddress.ip_address(found.partition("%")[0]).is_loopback else found


def loopback_interface() -> str | None:
    """The name of the network interface of the loopback, if it has one of the usual names."""
    return next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
