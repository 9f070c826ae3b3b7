"""Messages between two processes of a run: one JSON object a line, over a socket that never blocks."""

import json
import socket
import threading
from contextlib import suppress
from typing import Any

MAX_BYTES = 1 << 16
"""Bytes of a message; who sends more is disconnected."""


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


def listen(address: str) -> socket.socket:
    """Listen on a free port of one address, or of all addresses where it is empty."""
    if not address and socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        except OSError:
            pass
    return socket.create_server((address, 0))
