"""One run: from a config to a trained model and its result."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from trainer.checkpoint.io import checkpoints_in
from trainer.checkpoint.saving import SaveFailed, telling_why
from trainer.checkpoint.snapshots import remove_orphans_of, restore_records
from trainer.cli.command import check_command
from trainer.cli.messages import RunFailed
from trainer.cli.run_folder import emptied_where_refused, refused, removed_where_refused
from trainer.cli.typed_program import resuming_command, typed_overrides, typed_program
from trainer.cli.version import version
from trainer.config.components import Parts, build
from trainer.config.resolve import resolve
from trainer.config.run_summary import announce, record_history, write_result
from trainer.config.settings import Settings, settings_of
from trainer.distributed.launch import signals
from trainer.distributed.launch.folder_lock import PREDECESSOR, FolderLock, follow
from trainer.distributed.launch.launcher import rank, started_by, write_job
from trainer.distributed.launch.requeue import requeue
from trainer.distributed.launch.restart_limit import record_start
from trainer.distributed.launch.time_limit import TimeLimit, process_age
from trainer.distributed.peer import LostPeer
from trainer.distributed.rank_monitor import RankMonitor
from trainer.engine.guard import Diverged, explained
from trainer.engine.module import Module
from trainer.files.atomic import write_text
from trainer.log.tensorboard import TensorBoard
from trainer.lr import ConfigError
from trainer.lr.guard import Rollback
from trainer.resume.changes import print_changes
from trainer.resume.resume_point import ResumePoint, put_aside, resume_point, take_up, take_up_average
from trainer.resume.rollback import event, roll_back
from trainer.resume.stopped_early import check_not_completed, restored_reason, stopped_early


def run(cfg: DictConfig) -> None:
    """Train as the config says; the run's folder then has its config, plan, log, checkpoints and result."""
    job = HydraConfig.get()
    check_command(job)
    age, folder = process_age(), Path(job.runtime.output_dir)
    run_in(folder, cfg, typed_overrides(job), typed_program(job), age)


def run_in(folder: Path, cfg: DictConfig, overrides: list[str], program: Sequence[str], age: float = 0.0) -> None:
    """The same in a folder; `program` and `overrides` are the command that would start it.

    `age`: seconds that count for `trainer.max_time` already.
    """
    started, begun, settings = time.time(), time.monotonic() - age, settings_of(cfg)
    with _naming_the_command(folder, program, settings.name), _owned(settings, FolderLock(folder)) as monitor:
        with _writing_into(folder):
            record_start(folder, settings.trainer.max_idle_restarts)
        checkpoint = resume_point(settings.resume, folder)
        resolved = resolve(settings, checkpoint)
        parts = build(resolved, folder, monitor)
        if not resolved.changed:
            check_not_completed(checkpoint, folder, parts.trainer, settings.record["callbacks"])
        signals.defer()
        parts.checkpointing.stop_signal.limit = TimeLimit(settings.trainer.longest, begun)
        if parts.trainer.is_global_zero:
            with _writing_into(folder):
                announce(parts, overrides, program)
                write_job(folder)
        train(parts, monitor, started)


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
        outcome = _outcome(cause)
        parts.module.flush(alone=True)
        raise cause from (None if cause is error else error)
    finally:
        if parts.trainer.is_global_zero and not (isinstance(cause, Exception) and refused(cause) and _is_new(parts)):
            record_result(parts, outcome, time.time() - started)
        if signum := parts.checkpointing.stopped_by:
            parts.checkpointing.stop_signal.finish_on_rank_zero(lambda: requeue(signum))


def record_result(parts: Parts, outcome: dict[str, Any], seconds: float) -> None:
    """Write the result. Where that fails, say so on stderr; `RunFailed` if the run is completed otherwise."""
    try:
        parts.checkpointing.run_folder.check()
        write_result(parts, outcome, seconds)
    except SaveFailed:
        if outcome.get("status") == "completed":
            raise
    except ConfigError as error:
        line = f"the run is {outcome.get('status', 'failed')}, but {error}"
        if outcome.get("status") == "completed":
            raise RunFailed(line) from error
        print(f"warning: {line}", file=sys.stderr, flush=True)


@contextmanager
def _writing_into(folder: Path) -> Iterator[None]:
    """Refuse a folder that cannot be written."""
    try:
        yield
    except OSError as error:
        why = f"{folder} cannot be written ({error.strerror or error})"
        raise ConfigError(f"{why}: choose another folder, by name or hydra.run.dir.") from error


def _outcome(cause: BaseException) -> dict[str, Any]:
    """What the result says of a run that has ended by an error or was interrupted."""
    if isinstance(cause, signals.Interrupted):
        return {"status": "interrupted", "error": str(cause)}
    by_lightning = isinstance(cause, SystemExit) and isinstance(cause.__context__, KeyboardInterrupt)
    if by_lightning or isinstance(cause, KeyboardInterrupt):
        return {"status": "interrupted", "error": "interrupted by KeyboardInterrupt"}
    return {"status": "failed", "error": f"{type(cause).__name__}: {' '.join(str(cause).split())}"}


@contextmanager
def _naming_the_command(folder: Path, program: Sequence[str], name: str) -> Iterator[None]:
    """Give an interruption the command that continues the run, where a checkpoint was saved."""
    try:
        yield
    except signals.Interrupted as interrupted:
        if checkpoints_in(folder / "checkpoints"):
            interrupted.command = resuming_command(HydraConfig.get(), program, name)
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
        if isinstance(logger, TensorBoard):
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
    if any(parts.folder.glob("events.out.tfevents*")):
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoard):
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


@contextmanager
def _owned(settings: Settings, lock: FolderLock) -> Iterator[RankMonitor]:
    """The monitor of a run's processes while this run holds its folder: rank 0 locks it, the others follow.

    Raises:
        ConfigError: another run holds the folder.
    """
    with ExitStack() as stack:
        stack.enter_context(removed_where_refused(lock.folder))
        stack.enter_context(lock)
        stack.enter_context(emptied_where_refused(lock))
        child = started_by() == "cadence"  # of a rank 0 that has locked the folder
        if child:
            stack.enter_context(follow(lock.folder))
        monitor = stack.enter_context(_rank_monitor(settings, lock))
        if rank() == 0:
            lock.acquire()
            remove_orphans_of(lock.folder, owned=lock.exclusive)
            monitor.let_others_begin()
        elif not child:
            monitor.wait_to_begin(2 * PREDECESSOR)
        yield monitor


def _rank_monitor(settings: Settings, lock: FolderLock) -> RankMonitor:
    """The monitor of a run's processes, which writes a result when one is lost and no other run has the folder."""
    folder = lock.folder

    def leave_result(lost: LostPeer) -> None:
        holder = lock.holder()
        if lock.file is None and (holder.get("host"), holder.get("pid")) != (lost.peer.host, lost.peer.pid):
            return
        result = {"status": "failed", "error": lost.text, "metrics": {}, "folder": str(folder)}
        result["versions"] = version()
        write_text(folder / "result.json", json.dumps(result, indent=2) + "\n")

    run = settings.trainer
    return RankMonitor(run.devices, run.nodes, run.timeout, leave_result)
