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

from hydra.core.plugins import Plugins  # noqa: E402

from trainer.cli.command import run_program  # noqa: E402
from trainer.cli.hydra_internals import composed_once  # noqa: E402
from trainer.config.model_data import share_data  # noqa: E402
from trainer.sweep.worker import Order  # noqa: E402
from trainer.tools.worker.inbox import Inbox  # noqa: E402
from trainer.tools.worker.isolation import exit_code, isolated  # noqa: E402
from trainer.tools.worker.together import train_together  # noqa: E402


def main() -> None:
    """Train jobs as they come."""
    inbox = Inbox(Connection(int(sys.argv[1])))
    share_data()
    Plugins.instance()  # reads all plugins, before the time of a job counts
    gc.collect()
    gc.freeze()  # what is imported stays, and is not looked at again
    with composed_once():
        while orders := inbox.take():
            if len(orders) > 1:
                train_together(orders, inbox)
            else:
                train_alone(orders[0], inbox)
            gc.collect()


def train_alone(order: Order, inbox: Inbox) -> None:
    """Run the program of a job, as an interpreter of its own would."""
    started = time.monotonic()

    def job() -> None:
        inbox.check([order])
        run_program(order.words)

    with isolated(order):
        code = exit_code(job)
    inbox.ended(order, code, time.monotonic() - started)


if __name__ == "__main__":
    main()
