"""The CPU time that rank 0 spends on the heartbeat of so many processes, in per cent of one core. Example:

python benchmarks/heartbeat.py --processes 64 256 1024 --seconds 5

The other ranks are sockets of another process that beat once a second, as the ranks of a run do.
"""

import argparse
import json
import os
import resource
import selectors
import socket
import statistics
import sys
import time
from multiprocessing import Pipe, Process
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from trainer.distributed.connection import LOOPBACK, listen
from trainer.distributed.heartbeat import Expected, Server
from trainer.distributed.peer import Peer


def ranks(port: int, count: int) -> None:
    """Ranks 1 to `count`, each with a connection; they beat at times spread over the second, and read what comes."""
    poll, connections = selectors.DefaultSelector(), []
    for rank in range(1, count + 1):
        connection = socket.create_connection((LOOPBACK, port))
        peer = {"rank": rank, "host": "a", "pid": 0, "machine": "b"}
        connection.sendall(json.dumps({"token": "word", "peer": peer}).encode() + b"\n")
        connection.setblocking(False)
        poll.register(connection, selectors.EVENT_READ)
        connections.append(connection)
    begun, beat = time.monotonic(), 0
    while True:
        for key, _ in poll.select(0.001):
            key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
        while beat < (time.monotonic() - begun) * count:
            connections[beat % count].sendall(b'{"beat": true}\n')
            beat += 1


def serve(processes: int, seconds: float, result: Any) -> None:
    """Send the per cent of a core that the server takes, in a process of its own."""
    listener = listen(LOOPBACK)
    server = Server(Peer(0, "a", 1, ""), 30.0, print, listener, Expected(processes, 600.0, "word"))
    server.start()
    others = Process(target=ranks, args=(listener.getsockname()[1], processes - 1))
    others.start()
    try:
        while len(server.clients) < processes - 1:
            time.sleep(0.05)
        before, begun = time.process_time(), time.monotonic()
        time.sleep(seconds)
        result.send((time.process_time() - before) / (time.monotonic() - begun) * 100)
    finally:
        others.kill()
        os._exit(0)  # before the server finds the others lost


def share(processes: int, seconds: float) -> float:
    """The per cent of a core."""
    found, result = Pipe(duplex=False)
    server = Process(target=serve, args=(processes, seconds, result))
    server.start()
    try:
        return float(found.recv())
    finally:
        server.join()


def main() -> None:
    """Print a line for each number of processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 64, 256, 1024])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    most = 2 * max(options.processes) + 100
    if min(options.processes) < 2 or options.seconds <= 0 or options.rounds < 1:
        parser.error("give at least 2 processes, more than 0 seconds and 1 round")
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < most:
        parser.error(f"{most} open files are needed: raise the limit by ulimit -n")
    for processes in options.processes:
        found = [share(processes, options.seconds) for _ in range(options.rounds)]
        low, high = min(found), max(found)
        print(
            f"{processes:5} processes: {statistics.median(found):6.2f} % of a core ({low:.2f} to {high:.2f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
