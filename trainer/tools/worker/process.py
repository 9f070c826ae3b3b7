"""The program of a worker: trains the jobs of a sweep in this process, until the driver has no more.

python -m trainer.tools.worker.process PIPE
"""

import gc
import sys
import time
from multiprocessing.connection import Connection

from trainer.distributed.launch import signals

if __name__ == "__main__":
    signals.handle_signals()
    signals.ignore()  # until a job runs

from trainer.cli.command import run_program  # noqa: E402
from trainer.cli.hydra_internals import composed_once  # noqa: E402
from trainer.config.model_data import share_data  # noqa: E402
from trainer.sweep.worker import Order  # noqa: E402
from trainer.tools.worker.inbox import Inbox  # noqa: E402
from trainer.tools.worker.isolation import exit_code, isolated  # noqa: E402


def main() -> None:
    """Train jobs as they come."""
    inbox = Inbox(Connection(int(sys.argv[1])))
    share_data()
    gc.collect()
    gc.freeze()  # what is imported stays, and is not looked at again
    with composed_once():
        while orders := inbox.take():
            for order in orders:
                train_alone(order, inbox)


def train_alone(order: Order, inbox: Inbox) -> None:
    """Run the program of a job, as an interpreter of its own would."""
    started = time.monotonic()
    with isolated(order):
        code = exit_code(lambda: run_program(order.words))
    gc.collect()
    inbox.ended(order, code, time.monotonic() - started)


if __name__ == "__main__":
    main()
