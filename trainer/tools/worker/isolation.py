"""Runs a job in this process as if it were alone: with its own environment, log and signals, and torch as at the start.

What imports leave behind is shared by all jobs; everything else that a run may set is put back after it.
"""

import os
import random
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from trainer.cli.run_id import forget_run_id
from trainer.distributed.launch import signals
from trainer.distributed.launch.time_limit import count_from_now
from trainer.sweep.worker import Order


def exit_code(run: Callable[[], object]) -> int:
    """Run a program; the exit code that a process would have had."""
    try:
        run()
    except SystemExit as leaving:
        if isinstance(leaving.code, str):
            print(leaving.code, file=sys.stderr)
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


@contextmanager
def isolated(order: Order) -> Iterator[None]:
    """For as long as the run of a job lasts. Signals reach the run, and are ignored afterwards."""
    with ExitStack() as stack:
        for kept in (_torch, _interpreter, warnings.catch_warnings):
            stack.enter_context(kept())
        stack.enter_context(_output(order.log))
        os.environ.clear()
        os.environ.update(order.environment)
        forget_run_id()
        count_from_now()
        try:
            signals.begin_again()
            yield
        finally:
            signals.ignore()
            GlobalHydra.instance().clear()
            HydraConfig.instance().cfg = None


@contextmanager
def _output(log: str) -> Iterator[None]:
    """Append what is printed to the log of the job."""
    streams, kept = (sys.stdout, sys.stderr), [os.dup(1), os.dup(2)]
    for stream in streams:
        stream.flush()
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for own in (1, 2):
        os.dup2(file, own)
    os.close(file)
    opened = [open(own, "w", buffering=1, closefd=False) for own in (1, 2)]  # noqa: SIM115 - alive to the end
    sys.stdout, sys.stderr = opened
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = streams
        for own, before in zip((1, 2), kept):
            os.dup2(before, own)
            os.close(before)


@contextmanager
def _interpreter() -> Iterator[None]:
    """Put arguments, module path, environment and folder back, and the generators of Python and numpy."""
    words, path, environment, folder = sys.argv[:], sys.path[:], dict(os.environ), Path.cwd()
    drawn, drawn_by_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        sys.argv[:], sys.path[:] = words, path
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        random.setstate(drawn)
        np.random.set_state(drawn_by_numpy)  # noqa: NPY002


@contextmanager
def _torch() -> Iterator[None]:
    """Put the switches of torch back, and its generators."""
    threads, dtype, precision = torch.get_num_threads(), torch.get_default_dtype(), torch.get_float32_matmul_precision()
    deterministic = _deterministic()
    cudnn = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    drawn = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        torch.set_float32_matmul_precision(precision)
        if _deterministic() != deterministic:  # it imports much the first time
            torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = cudnn
        torch.set_rng_state(drawn)
        torch.set_grad_enabled(True)


def _deterministic() -> tuple[bool, bool]:
    """Whether only deterministic algorithms are used, and whether others are told of only."""
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
