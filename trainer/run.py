"""One run: from a config to a trained model and its result."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from trainer.checkpoint.checkpointing import Checkpointing
from trainer.checkpoint.io import BEST, read
from trainer.checkpoint.snapshots import restore_records
from trainer.cli.command import check_command, overrides
from trainer.config import adascale_config as pace
from trainer.config import components as parts
from trainer.config import group_facts as grouping
from trainer.config import lr_policy as policy
from trainer.config import run_summary as report
from trainer.config import settings as curve
from trainer.config.averaging import settle
from trainer.config.batch_scaling import rescaled
from trainer.config.batch_schedule import blocks, ends, growing, points, stops
from trainer.config.instantiate import refusing
from trainer.config.monitors import check_monitors
from trainer.config.processes import claims, strategy, watch_over
from trainer.config.sharding import check_sharded
from trainer.config.train_spec import made
from trainer.distributed.consistency import ConsistencyCheck
from trainer.distributed.launch import signals
from trainer.distributed.launch.launcher import write_job
from trainer.distributed.launch.requeue import requeue
from trainer.distributed.launch.restart_limit import record_start
from trainer.distributed.rank_monitor import RankMonitor
from trainer.distributed.stop_signal import disable_lightning_signals
from trainer.engine.module import Module
from trainer.engine.train_spec import Loop
from trainer.log.tensorboard import TensorBoard
from trainer.log.validations_callback import Validations
from trainer.lr import Plan, lint
from trainer.resume.changes import tell_changes
from trainer.resume.curve_history import change, curve_history
from trainer.resume.resume_point import Fitted, begin_from, check_fits, check_resumable, restore, whole
from trainer.resume.resumed_curve import woven


@dataclass
class Assembly:
    """The parts of a run, put together and checked."""

    cfg: DictConfig
    folder: Path
    module: Module
    data: pl.LightningDataModule
    trainer: pl.Trainer
    checkpointing: Checkpointing
    facts: dict[str, Any]


def run(cfg: DictConfig) -> None:
    """Train what the config names; the run's folder then holds its config, plan, log, checkpoints and result."""
    job = HydraConfig.get()
    check_command(job)
    curve.check_keys(cfg)
    with watch_over(cfg, Path(job.runtime.output_dir)) as watch:
        _run(cfg, job, watch)


def _run(cfg: DictConfig, job: HydraConf, watch: RankMonitor) -> None:
    started = time.time()
    folder = Path(job.runtime.output_dir)
    record_start(folder, cfg.trainer.max_idle_restarts)
    resumed = begin_from(cfg.resume, folder)
    assembly = assemble(cfg, folder, resumed, watch)
    start = 0
    if resumed is not None:
        with refusing(f"resume.path={resumed}"):
            start = check_resumable(assembly, resumed)["updates"]
    signals.defer()
    if assembly.trainer.is_global_zero:
        report.begin(assembly, overrides(job), start)
        write_job(folder)
    outcome: dict[str, Any] = {}
    try:
        fit(assembly, resumed)
        test = evaluate(assembly)
        watch.finish()
        outcome = {"status": "completed", "test": test}
    except BaseException as error:
        cause = assembly.checkpointing.final_error(watch.cause(error))
        status = "stopped" if isinstance(cause, signals.Stopped) else "failed"
        outcome = {"status": status, "error": f"{type(cause).__name__}: {' '.join(str(cause).split())}"}
        assembly.module.flush(alone=True)
        raise cause from (None if cause is error else error)
    finally:
        if assembly.trainer.is_global_zero:
            report.end(assembly, outcome, time.time() - started)
        if signum := assembly.checkpointing.stopped_by:
            assembly.checkpointing.stop_signal.finish_on_rank_zero(lambda: requeue(signum))


def assemble(cfg: DictConfig, folder: Path, resumed: Path | None = None, watch: RankMonitor | None = None) -> Assembly:
    """Every part of the run, built and checked against the others; nothing is trained yet.

    The curve of a run that goes on from the checkpoint `resumed` is made from that checkpoint's.
    """
    curve.check_keys(cfg)
    settings = curve.trainer_settings(cfg)
    parts.prepare(settings, cfg.seed)
    planned = curve.horizon(cfg, settings) if cfg.data.get("samples") is not None else None
    data = parts.data(cfg)
    planned = curve.horizon(cfg, settings, data.train_samples) if planned is None else planned
    length = pace.in_updates(cfg, planned, curve.global_batch(cfg, settings), data.train_samples)
    net = parts.net(cfg, data.shape, settings)
    groups, optimizer = parts.optimizer(rescaled(cfg, planned).cfg, net)
    check_sharded(cfg, settings, net, optimizer)
    saved = _checked(cfg, resumed, Fitted(net, groups, cfg.optimizer._target_, length))
    segments = curve_history(cfg, planned, saved)
    facts = grouping.facts(groups)
    plan = Plan(*growing(cfg, woven(segments, cfg, facts), planned), policy.settings(rescaled(cfg, planned).cfg, facts))
    length = pace.in_updates(cfg, plan.horizon, curve.global_batch(cfg, settings), data.train_samples)
    task = parts.task(cfg, data.shape)
    scored = [f"val/{name}" for name in ("loss", *task.metrics)]
    warnings = lint.check(plan, cfg.lint.ignore, monitor=cfg.plateau.get("monitor"), logged=scored)
    module = Module(net, task, made(cfg, settings, plan, length, optimizer, groups, segments))
    branches = points(length, settings.snapshots)
    every = None if settings.checkpoint is None else ends(length, settings.checkpoint, "trainer.checkpoint")
    data.follow(
        lambda: module.clock.t,
        Loop(
            total=length.total,
            validation_interval=ends(length, settings.validate, "trainer.validate"),
            pauses=(*([every] if every else []), *stops(branches, length.total), *blocks(length, settings)),
            steps_per_execution=settings.steps_per_execution,
            accumulate=settings.accumulate,
            stages=[(stage.update, stage.ratio) for stage in length.growth.stages],
        ),
    )
    monitor = f"val/{task.monitor}"
    checkpointing = Checkpointing(folder / "checkpoints", monitor, task.mode, every, settings.keep, branches)
    rewarmed = saved is not None and segments[-1]["rule"] == "rewarm" and segments != saved["curve_history"]
    callbacks = [
        *parts.plateau(cfg, fresh=rewarmed),
        Validations(folder),
        checkpointing,
        ConsistencyCheck(claims(cfg, plan)),
    ]
    trainer = parts.trainer(cfg, settings, folder, strategy(settings, watch), *callbacks)
    disable_lightning_signals(trainer)
    check_monitors(trainer, scored)
    told = {
        **report.facts(cfg, settings, plan, groups),
        "changes": [change(one) for one in segments[1:]],
        "curve_history": segments,
        "lint": warnings,
    }
    return Assembly(cfg, folder, module, data, trainer, checkpointing, told)


def _checked(cfg: DictConfig, resumed: Path | None, fitted: Fitted) -> dict[str, Any] | None:
    """What the checkpoint to go on from keeps, if there is one and it fits."""
    if resumed is None:
        return None
    with refusing(f"resume.path={resumed}"):
        checkpoint = whole(resumed)
        check_fits(resumed, checkpoint, fitted)
    return checkpoint["cadence"]


def fit(assembly: Assembly, resumed: Path | None) -> None:
    """Train from the start, or from the checkpoint `resumed`."""
    saved = check_resumable(assembly, resumed) if resumed else {"updates": 0}
    if resumed is not None and assembly.trainer.is_global_zero:
        restore_records(resumed, assembly.folder)
    if any(assembly.folder.glob("events.out.tfevents*")):
        for logger in assembly.trainer.loggers:
            if isinstance(logger, TensorBoard):
                logger.restart(saved["updates"])
    if resumed is not None:
        assembly.trainer.precision_plugin.convert_module(assembly.module)  # else weights in float64 come in rounded
        assembly.checkpointing.source = resumed
        if assembly.trainer.is_global_zero:
            tell_changes(saved, assembly.module.spec.origin["config"])
        done = saved["reached"] >= assembly.module.horizon.total
        if done and not assembly.checkpointing.validation_due(checkpoint := read(resumed)):
            restore(assembly, checkpoint)
            if assembly.checkpointing.best["update"] is None:
                settle(assembly.module, assembly.data, checkpoint)
            return
    assembly.trainer.fit(
        assembly.module,
        datamodule=assembly.data,
        ckpt_path=resumed,
        weights_only=True if resumed else None,
    )


def evaluate(assembly: Assembly) -> dict[str, float]:
    """Score the test data, if there is any, with the best checkpoint."""
    if not len(assembly.data.test_dataloader()):
        return {}
    if assembly.checkpointing.best["update"] is not None:
        assembly.module.load_state_dict(read(assembly.checkpointing.folder / BEST)["state_dict"])
    assembly.trainer.test(assembly.module, datamodule=assembly.data, verbose=False)
    scores = assembly.trainer.callback_metrics
    return {name.removeprefix("test/"): value.item() for name, value in scores.items() if name.startswith("test/")}
