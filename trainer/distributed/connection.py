"""Messages between two processes of a run: one JSON object a line, over a connection that never blocks."""

import json
import socket
import threading
from contextlib import suppress
from typing import Any

LONGEST = 1 << 16
"""Bytes of a message; a stranger who sends more is cut off."""


class Connection:
    """One end of a connection."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.connection, self.closed = connection, False
        self._rest, self._lock = b"", threading.Lock()

    def write(self, **message: Any) -> None:
        """Send a message, if the other end is there and takes it."""
        with self._lock, suppress(OSError):
            self.connection.sendall(json.dumps(message).encode() + b"\n")

    def read(self) -> list[dict[str, Any]]:
        """The messages that have come; `closed` says afterwards whether there can be more."""
        try:
            while part := self.connection.recv(LONGEST):
                self._rest += part
                if len(self._rest) > 2 * LONGEST:
                    raise ConnectionError
            self.closed = True
        except BlockingIOError:
            pass
        except OSError:
            self.closed = True
        *lines, self._rest = self._rest.split(b"\n")
        try:
            return [message for line in lines if isinstance(message := json.loads(line), dict)]
        except ValueError:
            self.closed = True
            return []

    def close(self) -> None:
        """End the connection."""
        self.closed = True
        self.connection.close()


def listen(address: str) -> socket.socket:
    """A free port on one address, or on all where it is empty."""
    if not address and socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        except OSError:
            pass
    return socket.create_server((address, 0))
