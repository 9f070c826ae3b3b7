"""The end of a program whose processes have exchanged data: all that the interpreter does at exit but its last step."""

import atexit
import os
import sys
import threading
from contextlib import suppress
from typing import NoReturn


def end_process(code: int) -> NoReturn:
    """Exit with this code.

    Taking the interpreter apart can abort a process that has trained with others: a thread of gloo that frees a tensor
    waits for the interpreter, and is ended inside a destructor ("terminate called without an active exception", seen
    with torch 2.13). Such a process waits for its threads and runs its exit functions, and then ends at once.
    """
    if not _was_one_of_several():
        sys.exit(code)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a full disk, a closed pipe
            stream.flush()
    os._exit(code)


def _was_one_of_several() -> bool:
    module = sys.modules.get("trainer.distributed.heartbeat")
    return module is not None and any(isinstance(thread, module.Heartbeat) for thread in threading.enumerate())
