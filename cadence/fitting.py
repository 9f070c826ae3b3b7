"""`cadence.fit`: train a run in this process, as in a notebook."""

import os
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict, read_write
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from pytorch_lightning.utilities.seed import isolate_rng

from cadence.composing import composed_job, given_config, words_of
from trainer.cli.command import COMMAND, check_command
from trainer.cli.run_id import register_run_id, renew_run_id
from trainer.cli.typed_program import resuming_words, typed_overrides
from trainer.config.settings import settings_of
from trainer.distributed.launch import signals
from trainer.distributed.launch.launcher import rank, tell_ignored_ranks
from trainer.lr import ConfigError
from trainer.run import run_in
from trainer.tools.trained.loading import Run, load


def fit(
    *overrides: str | Sequence[str] | DictConfig,
    config_dir: str | Path | None = None,
    config_name: str = "train",
    which: str | None = None,
) -> Run:
    """Train the run that `cadence train OVERRIDES` would train, to the same bits, into the same folder `outputs/NAME`.

    It runs in this process on one device. Ctrl-C, which in a notebook interrupts the kernel, saves the run at the end
    of an update, says how to go on, and raises KeyboardInterrupt; a second one raises it at once. Seeds, threads,
    signal handlers and other state of the process are put back at the end. A class of a notebook is found as
    `model._target_=__main__.Net allow=[__main__]`.

    Args:
        overrides: as on the command line, in one list or one by one; or a config that has been composed.
        config_dir: a folder with more options, as `--config-dir`.
        config_name: the config to start from.
        which: "best" or "last": the weights of the run that is returned; None: the best, where it validates.

    Raises:
        ConfigError: the config is invalid, or asks for several processes: train those by the command.
    """
    words = words_of(overrides) if (cfg := given_config(overrides)) is None else [f"name={cfg.get('name')}"]
    renew_run_id()
    register_run_id()
    with _job(words, config_dir, config_name) as (job, composed), _restored_process():
        made = composed if cfg is None else cfg
        _check_process(job)
        folder, program = Path(job.runtime.output_dir), [*COMMAND, *_flags(config_dir, config_name)]
        settings = settings_of(made)
        if (world := settings.trainer.world) > 1:
            raise ConfigError(
                f"{world} processes: fit trains in this one. Run {shlex.join([*program, *words])} in a terminal, and "
                f"load the run by cadence.load({str(folder)!r})."
            )
        with _interruptible(resuming_words(job, made.name)):
            run_in(folder, settings, typed_overrides(job), program)
    best = (folder / "checkpoints" / "best.ckpt").exists()
    return load(folder, which or ("best" if best else "last"), allow=settings.allow)


@contextmanager
def _interruptible(words: list[str]) -> Iterator[None]:
    """Raise KeyboardInterrupt after Ctrl-C; `words` continue the run."""
    try:
        with signals.handled():
            yield
    except signals.Interrupted as interrupted:
        how = f"go on with: cadence.fit({', '.join(map(repr, words))})" if interrupted.command else interrupted.advice
        print(f"{interrupted}; {how}", file=sys.stderr)
        if interrupted.signum == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise
    except SystemExit as leaving:  # Lightning leaves so after Ctrl-C, and a notebook would lose its kernel
        if isinstance(leaving.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise


@contextmanager
def _job(words: list[str], config_dir: str | Path | None, config_name: str) -> Iterator[tuple[DictConfig, DictConfig]]:
    """The settings of Hydra, which `${hydra:…}` reads meanwhile, and the config of the run."""
    composed = composed_job(words, config_dir, config_name)
    with read_write(composed), open_dict(composed):
        composed.hydra.runtime.output_dir = str(Path(composed.hydra.run.dir).absolute())
        composed.hydra.runtime.cwd = str(Path.cwd())
        composed.hydra.job.num, composed.hydra.job.id = 0, "0"
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(composed)
    made = composed.copy()
    with open_dict(made):
        del made["hydra"]
    try:
        yield composed.hydra, made
    finally:
        HydraConfig.instance().cfg = before


@contextmanager
def _restored_process() -> Iterator[None]:
    """Put back what a run sets for its whole process."""
    environment, threads = dict(os.environ), torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    main = threading.current_thread() is threading.main_thread()
    handlers = {signum: signal.getsignal(signum) for signum in signals.SIGNALS} if main else {}
    try:
        with warnings.catch_warnings(), isolate_rng():
            yield
    finally:
        for signum, handler in handlers.items():
            if signal.getsignal(signum) is not handler:
                signal.signal(signum, handler)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic[0])
        torch.backends.cudnn.benchmark = deterministic[1]
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)


def _check_process(job: Any) -> None:
    """As the command does; here Lightning has been imported before, and has then read the environment."""
    tell_ignored_ranks()
    rank_zero_only.rank = rank()  # type: ignore[attr-defined]
    check_command(job)


def _flags(config_dir: str | Path | None, config_name: str) -> list[str]:
    """The flags of the command line."""
    named = [] if config_name == "train" else ["--config-name", config_name]
    return [*named, *([] if config_dir is None else ["--config-dir", str(config_dir)])]
