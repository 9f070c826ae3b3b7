"""One run: from a config to a trained model and its result."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from trainer.assemble import curve, parts, report
from trainer.assemble.command import check_command, overrides
from trainer.assemble.resume import check_resumable, check_unused, restore, resume_point
from trainer.assemble.targets import refusing
from trainer.callbacks.checkpointing import Checkpointing
from trainer.checkpoint import BEST, read
from trainer.lr import Plan, Refusal
from trainer.module import Module, Recipe
from trainer.tensorboard import TensorBoard


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
    started = time.time()
    job = HydraConfig.get()
    check_command(job)
    folder = Path(job.runtime.output_dir)
    assembly = assemble(cfg, folder)
    resumed = resume_point(cfg.resume, folder)
    if assembly.trainer.is_global_zero:
        check_unused(folder, cfg.resume, resumed)
    start = 0
    if resumed is not None:
        with refusing(f"resume={resumed}"):
            start = check_resumable(assembly, resumed)["updates"]
    if assembly.trainer.is_global_zero:
        report.begin(assembly, overrides(job), start)
    outcome: dict[str, Any] = {"status": "failed"}
    try:
        fit(assembly, resumed)
        outcome = {"status": "completed", "test": evaluate(assembly)}
    except BaseException as error:
        outcome["error"] = f"{type(error).__name__}: {' '.join(str(error).split())}"
        assembly.module.drain(alone=True)
        raise
    finally:
        if assembly.trainer.is_global_zero:
            report.end(assembly, outcome, time.time() - started)


def assemble(cfg: DictConfig, folder: Path) -> Assembly:
    """Every part of the run, built and checked against the others; nothing is trained yet."""
    curve.check_keys(cfg)
    settings = curve.trainer_settings(cfg)
    parts.prepare(settings, cfg.seed)
    length = curve.horizon(cfg, settings) if cfg.data.get("samples") is not None else None
    data = parts.data(cfg)
    length = curve.horizon(cfg, settings, data.train_samples) if length is None else length
    net = parts.net(cfg, data.shape, settings)
    groups, optimizer = parts.optimizer(cfg, net)
    plan = Plan(curve.policy(cfg, length, {group.name: group.lr_mult for group in groups}), length)
    task = parts.task(cfg, data.shape)
    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    recipe = Recipe(plan.policy, length, optimizer, groups, settings.clip, settings.log_every, plain)
    module = Module(net, task, recipe)
    leg = length.updates(settings.validate, "trainer.validate", least=1)
    every = (
        length.updates(settings.checkpoint, "trainer.checkpoint", least=1) if settings.checkpoint is not None else None
    )
    data.follow(
        lambda: module.clock.t,
        total=length.total,
        leg=leg,
        pauses=(every,) if every else (),
        per_call=settings.updates_per_call,
        accumulate=settings.accumulate,
    )
    checkpointing = Checkpointing(folder / "checkpoints", f"val/{task.monitor}", task.mode, every, settings.keep)
    trainer = parts.trainer(cfg, settings, folder, checkpointing)
    _check_monitors(trainer, [f"val/{name}" for name in ("loss", *task.metrics)])
    facts = report.facts(cfg, settings, plan, groups)
    return Assembly(cfg, folder, module, data, trainer, checkpointing, facts)


def fit(assembly: Assembly, resumed: Path | None) -> None:
    """Train from the start, or from the checkpoint `resumed`."""
    saved = check_resumable(assembly, resumed) if resumed else {"updates": 0}
    if any(assembly.folder.glob("events.out.tfevents*")):
        for logger in assembly.trainer.loggers:
            if isinstance(logger, TensorBoard):
                logger.restart(saved["updates"])
    if resumed is not None:
        assembly.checkpointing.source = resumed
        if assembly.trainer.is_global_zero:
            report.tell_changes(saved, assembly.module.recipe.config)
        if saved["updates"] == assembly.module.horizon.total:
            return restore(assembly, read(resumed))
    assembly.trainer.fit(
        assembly.module,
        datamodule=assembly.data,
        ckpt_path=resumed,
        weights_only=True if resumed else None,
    )
    return None


def evaluate(assembly: Assembly) -> dict[str, float]:
    """Score the test data, if there is any, with the best checkpoint."""
    if not len(assembly.data.test_dataloader()):
        return {}
    if assembly.checkpointing.best["update"] is not None:
        assembly.module.load_state_dict(read(assembly.checkpointing.folder / BEST)["state_dict"])
    assembly.trainer.test(assembly.module, datamodule=assembly.data, verbose=False)
    scores = assembly.trainer.callback_metrics
    return {name.removeprefix("test/"): value.item() for name, value in scores.items() if name.startswith("test/")}


def _check_monitors(trainer: pl.Trainer, known: list[str]) -> None:
    """What a callback watches must be computed, or it would fail at the first validation."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        monitor = getattr(callback, "monitor", None)
        if monitor is not None and monitor not in known:
            name = type(callback).__name__
            raise Refusal(f"monitor={monitor} of {name} is not computed: choose one of {', '.join(known)}.")
