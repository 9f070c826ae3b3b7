"""Imported only by the fork server of a sweep, once: prepares it to fork jobs.

The standard library starts the fork server and imports this module in it (`set_forkserver_preload`). It imports what
every job needs and does nothing else: no thread, no device, no config. So a fork of it is as good as a fresh
interpreter. Where an import has started a thread or opened a CUDA device it is not, and `REFUSED` says so.
"""

import gc
import importlib
import os
import signal
from contextlib import suppress

from trainer.sweep.fork_server import MODULES, why_not_fork

os.setsid()  # signals to the driver's process group do not reach it: it ends when the driver and all jobs have ended
for signum in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(signum, signal.SIG_IGN)
os.dup2(2, 1)  # what imports print goes to stderr
for name in os.environ.pop(MODULES).split():
    with suppress(ImportError):  # the job itself reports it
        importlib.import_module(name)
REFUSED = why_not_fork()
gc.freeze()
