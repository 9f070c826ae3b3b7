"""One run: from a config to a trained model and its result."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from trainer.checkpoint.io import checkpoints_in
from trainer.checkpoint.owned_folder import owned, writing_into
from trainer.checkpoint.saving import telling_why
from trainer.checkpoint.snapshots import restore_records
from trainer.cli.run_folder import refused
from trainer.cli.typed_program import resuming_command, typed_overrides, typed_program
from trainer.config.components import Parts, build
from trainer.config.resolve import resolve
from trainer.config.run_summary import announce, outcome_of, record_history, record_result
from trainer.config.settings import Settings, settings_of
from trainer.distributed.launch import signals
from trainer.distributed.launch.folder_lock import FolderLock
from trainer.distributed.launch.launcher import write_job
from trainer.distributed.launch.requeue import requeue
from trainer.distributed.launch.restart_limit import record_start
from trainer.distributed.launch.time_limit import TimeLimit, process_age
from trainer.distributed.peer import RankLost
from trainer.distributed.rank_monitor import RankMonitor
from trainer.engine.guard import Diverged, explained
from trainer.engine.module import Module
from trainer.log.run_logger import RunLogger
from trainer.log.tensorboard import TensorBoard
from trainer.lr.guard import Rollback
from trainer.resume.changes import print_changes
from trainer.resume.resume_point import ResumePoint, put_aside, resume_point, take_up, take_up_average
from trainer.resume.rollback import event, roll_back
from trainer.resume.stopped_early import check_not_completed, restored_reason, stopped_early


@dataclass(frozen=True)
class Start:
    """A run that is to start: its folder and settings, and the command that starts it."""

    folder: Path
    settings: Settings
    overrides: list[str]
    program: Sequence[str]


takers: list[Callable[[Start], None]] = []
"""What takes the runs of this process in place of training them, as a worker does that trains several as one."""


def run(settings: Settings) -> None:
    """Train as the settings say; the run's folder then has its config, plan, log, checkpoints and result."""
    job = HydraConfig.get()
    age, folder = process_age(), Path(job.runtime.output_dir)
    overrides, program = typed_overrides(job), typed_program(job)
    if takers:
        takers[-1](Start(folder, settings, overrides, program))
    else:
        run_in(folder, settings, overrides, program, age)


def run_in(folder: Path, settings: Settings, overrides: list[str], program: Sequence[str], age: float = 0.0) -> None:
    """The same in a folder; `program` and `overrides` are the command that would start it.

    `age`: seconds that count for `trainer.max_time` already.
    """
    started = time.monotonic()
    with holding(Start(folder, settings, overrides, program)) as monitor:
        checkpoint = resume_point(settings.resume, folder)
        parts = build(resolve(settings, checkpoint), folder, monitor)
        begin(parts, overrides, program, TimeLimit(settings.trainer.longest, started - age))
        train(parts, monitor, started)


@contextmanager
def holding(start: Start) -> Iterator[RankMonitor]:
    """The folder of a run, held and with its start noted, and the monitor of its processes."""
    trainer, folder = start.settings.trainer, start.folder
    with (
        _naming_the_command(folder, start.program, start.settings.name) as advice,
        owned(FolderLock(folder), trainer.devices, trainer.nodes, trainer.timeout) as monitor,
    ):
        monitor.advice = advice
        with writing_into(folder):
            record_start(folder, trainer.max_idle_restarts)
        yield monitor


def begin(parts: Parts, overrides: list[str], program: Sequence[str], limit: TimeLimit) -> None:
    """Refuse a run that is completed; from here on a signal waits for a save, and the folder says what the run is."""
    resolved = parts.resolved
    if not resolved.changed:
        callbacks = resolved.settings.record["callbacks"]
        check_not_completed(resolved.checkpoint, parts.folder, parts.trainer, callbacks)
    if resolved.checkpoint is not None:
        parts.checkpointing.check_best(resolved.checkpoint.path, resolved.checkpoint.content)
    signals.defer()
    parts.checkpointing.stop_signal.limit = limit
    if parts.trainer.is_global_zero:
        with writing_into(parts.folder):
            announce(parts, overrides, program)
            write_job(parts.folder)


def train(parts: Parts, monitor: RankMonitor, started: float) -> None:
    """Fit, evaluate, and write a result however it ends; a run that Slurm stopped is put in its queue again."""
    outcome: dict[str, Any] = {}
    cause: BaseException | None = None
    try:
        fit(parts)
        test = evaluate(parts)
        write_adapter(parts)
        monitor.finish()
        outcome = {"status": "completed", **stopped_early(parts.module, parts.trainer), "test": test}
    except BaseException as error:
        cause = parts.checkpointing.final_error(monitor.cause(error))
        outcome = outcome_of(cause)
        parts.module.flush(alone=True)
        raise cause from (None if cause is error else error)
    finally:
        if parts.trainer.is_global_zero and not (isinstance(cause, Exception) and refused(cause) and _is_new(parts)):
            record_result(parts, outcome, time.monotonic() - started)
        if signum := parts.checkpointing.stopped_by:
            parts.checkpointing.stop_signal.finish_on_rank_zero(lambda: requeue(signum))


@contextmanager
def _naming_the_command(folder: Path, program: Sequence[str], name: str) -> Iterator[Callable[[], str]]:
    """Give an interruption, and the loss of a rank, the command that continues the run, where there is a checkpoint."""

    def command() -> str:
        saved = checkpoints_in(folder / "checkpoints")
        return resuming_command(HydraConfig.get(), program, name) if saved else ""

    def advice() -> str:
        return f"; go on with: {found}" if (found := command()) else ""

    try:
        yield advice
    except signals.Interrupted as interrupted:
        interrupted.command = command()
        raise
    except RankLost as lost:
        if lost.is_gone:
            lost.advice = advice()
        raise


def fit(parts: Parts) -> None:
    """Train from the start, or go on from the checkpoint that the run was resolved with; then after each rollback."""
    fit_once: Callable[[], None] = partial(_fit, parts)
    while True:
        try:
            return fit_once()
        except Diverged as error:
            first = parts.module.first_failure(error) if isinstance(parts.module.guard.rule, Rollback) else error
            failure = explained(first, parts.data)
            if not isinstance(parts.module.guard.rule, Rollback):
                raise failure from error
        point = roll_back(failure, parts.module, parts.checkpointing)
        fit_once = partial(_fit_again, parts, point, event(point, failure, parts.module.guard.rule.limit))


def _fit_again(parts: Parts, point: ResumePoint, line: str) -> None:
    """Go on from a checkpoint in the same process, after a rollback."""
    trainer, module, t = parts.trainer, parts.module, point.saved["updates"]
    module.metric_buffer.clear()
    for logger in trainer.loggers:
        if isinstance(logger, RunLogger):
            logger.restart(t)
    module.log_event(t, line, "rollbacks", len(module.control.rollbacks))
    if trainer.is_global_zero:
        record_history(parts)
    parts.checkpointing.source = point.path
    module.load_state_dict(point.content["state_dict"])  # ranks are compared before it is loaded
    trainer.strategy.checkpoint_io.preload(point.path, point.content)  # type: ignore[attr-defined]
    trainer.fit(module, datamodule=parts.data, ckpt_path=point.path, weights_only=True)


def _fit(parts: Parts) -> None:
    trainer = parts.trainer
    module: Module = parts.module
    checkpoint, start = parts.resolved.checkpoint, parts.resolved.start
    if checkpoint is not None and trainer.is_global_zero:
        put_aside(checkpoint)
        restore_records(checkpoint.path, parts.folder)
    has_events = any(parts.folder.glob("events.out.tfevents*"))
    for logger in trainer.loggers:
        if isinstance(logger, RunLogger) and (has_events or not isinstance(logger, TensorBoard)):
            logger.restart(start.updates if start else 0)
    if checkpoint is None or start is None:
        trainer.fit(module, datamodule=parts.data)
        return
    trainer.precision_plugin.convert_module(module)  # before loading: otherwise float64 weights would be rounded
    parts.checkpointing.source = checkpoint.path
    if trainer.is_global_zero:
        print_changes(start.updates, checkpoint.saved["config"], parts.resolved.settings.record)
    over = start.reached >= module.horizon.total or restored_reason(checkpoint, trainer) is not None
    if over and not parts.checkpointing.validation_due(checkpoint.content):
        take_up(checkpoint, module, parts.checkpointing)
        if parts.checkpointing.best["update"] is None:
            take_up_average(checkpoint, module, parts.data)
        return
    trainer.strategy.checkpoint_io.preload(checkpoint.path, checkpoint.content)  # type: ignore[attr-defined]
    trainer.fit(module, datamodule=parts.data, ckpt_path=checkpoint.path, weights_only=True)


def evaluate(parts: Parts) -> dict[str, float]:
    """Score the test data, if there is any, with the best checkpoint."""
    if not len(parts.data.test_dataloader()) or not parts.module.hooks.scored("test"):
        return {}
    best = parts.checkpointing.best_checkpoint()
    if best is not None:
        parts.module.load_state_dict(best["state_dict"])
    parts.trainer.test(parts.module, datamodule=parts.data, verbose=False)
    scores = parts.trainer.callback_metrics
    return {name.removeprefix("test/"): value.item() for name, value in scores.items() if name.startswith("test/")}


def write_adapter(parts: Parts) -> None:
    """Write the best adapter, if the net has one, as peft loads it."""
    save = getattr(parts.module.net, "save_pretrained", None)
    if not parts.resolved.settings.adapter or save is None or not parts.trainer.is_global_zero:
        return
    best = parts.checkpointing.best_checkpoint()
    if best is not None:
        parts.module.load_state_dict(best["state_dict"])
    with telling_why(parts.folder / "adapter"):
        save(str(parts.folder / "adapter"))


def assemble(cfg: DictConfig, folder: Path, resumed: Path | None = None) -> Parts:
    """The parts of the run that a config describes, for callers that train it; `resumed` is a checkpoint."""
    settings = settings_of(cfg)
    return build(resolve(settings, ResumePoint.read(resumed, folder) if resumed else None), folder)


def _is_new(parts: Parts) -> bool:
    """Whether this start has begun the run, and has made no update."""
    return parts.resolved.start is None and parts.module.clock.t == 0
