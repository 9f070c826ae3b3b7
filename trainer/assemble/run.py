"""One run: from a config to a trained model and its result."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from trainer.assemble import curve, parts, report
from trainer.assemble.targets import build
from trainer.callbacks.checkpointing import Checkpointing
from trainer.checkpoint import BEST, history, read
from trainer.lr import Plan, Refusal
from trainer.module import Module, Recipe


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
    if job.mode == RunMode.MULTIRUN:
        raise Refusal(
            f"hydra/launcher={job.launcher._target_} would run all jobs in one process: take hydra/launcher=process."
        )
    folder = Path(job.runtime.output_dir)
    assembly = assemble(cfg, folder)
    resumed = resume_point(cfg.resume, folder)
    if assembly.trainer.is_global_zero:
        report.begin(assembly, job.overrides.task)
    outcome: dict[str, Any] = {"status": "failed"}
    try:
        fit(assembly, resumed)
        outcome = {"status": "completed", "test": evaluate(assembly)}
    except BaseException as error:
        outcome["error"] = f"{type(error).__name__}: {' '.join(str(error).split())}"
        assembly.module.drain()
        raise
    finally:
        if assembly.trainer.is_global_zero:
            report.end(assembly, outcome, time.time() - started)


def assemble(cfg: DictConfig, folder: Path) -> Assembly:
    """Every part of the run, built and checked against the others; nothing is trained yet."""
    curve.check_keys(cfg)
    settings = curve.trainer_settings(cfg)
    allow = list(cfg.allow)
    parts.prepare(settings, cfg.seed)
    length = curve.horizon(cfg, settings) if cfg.data.get("samples") is not None else None
    data = parts.data(cfg)
    length = curve.horizon(cfg, settings, data.train_samples) if length is None else length
    net = parts.net(cfg, data.shape, settings)
    groups, optimizer = parts.optimizer(cfg, net)
    plan = Plan(curve.policy(cfg, length, {group.name: group.lr_mult for group in groups}), length)
    task = build(cfg.task, "task", allow)
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    recipe = Recipe(plan.policy, length, optimizer, groups, settings.clip, settings.log_every, plain)
    module = Module(net, task, recipe)
    leg = length.updates(settings.validate, "trainer.validate", least=1)
    every = length.updates(settings.checkpoint, "trainer.checkpoint", least=1) if settings.checkpoint else None
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
    facts = report.facts(cfg, settings, plan, groups)
    return Assembly(cfg, folder, module, data, trainer, checkpointing, facts)


def resume_point(resume: Any, folder: Path) -> Path | None:
    """The checkpoint to go on from: none, the newest of this run's folder, or the one named."""
    ours = history(folder / "checkpoints")
    if resume in (None, "none"):
        if ours or (folder / "result.json").exists():
            raise Refusal(f"{folder} holds a run already: give another name, or go on with resume=auto.")
        return None
    if resume == "auto":
        return ours[-1] if ours else None
    path = Path(str(resume))
    if path.is_dir():
        found = history(path / "checkpoints") or history(path)
        if not found:
            raise Refusal(f"resume={path} holds no checkpoint: name a run's folder or a checkpoint file.")
        return found[-1]
    if not path.is_file():
        raise Refusal(f"resume={path} does not exist: give none, auto, a run's folder or a checkpoint file.")
    return path


def fit(assembly: Assembly, resumed: Path | None) -> None:
    """Train from the start, or from the checkpoint `resumed`."""
    if resumed is not None:
        _check_resumable(assembly, resumed)
        assembly.checkpointing.adopt(resumed)
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
    best = assembly.checkpointing.folder / BEST
    if best.exists() and read(best)["cadence"]["updates"] == assembly.checkpointing.best["update"]:
        assembly.module.load_state_dict(read(best)["state_dict"])
    assembly.trainer.test(assembly.module, datamodule=assembly.data, verbose=False)
    scores = assembly.trainer.callback_metrics
    return {name.removeprefix("test/"): value.item() for name, value in scores.items() if name.startswith("test/")}


def _check_resumable(assembly: Assembly, path: Path) -> None:
    """The clock of a checkpoint counts updates of one batch size; told in one line where this run's differ."""
    checkpoint, horizon = read(path), assembly.module.horizon
    saved = checkpoint["cadence"]
    _check_shapes(path, checkpoint["state_dict"], assembly.module.state_dict())
    for name in ("batch_size", "updates_per_epoch"):
        if saved[name] != getattr(horizon, name):
            raise Refusal(
                f"resume={path} counts updates with {name}={saved[name]}, but this run has {getattr(horizon, name)}: "
                "its clock does not fit. Keep the global batch and the data, or start a new run."
            )
    if saved["updates"] >= horizon.total:
        raise Refusal(
            f"resume={path} has all {saved['updates']} updates of this run: lengthen trainer.duration to go on."
        )
    if assembly.trainer.is_global_zero:
        report.tell_changes(saved, assembly.module.recipe.config)
    for logger in assembly.trainer.loggers:
        if hasattr(logger, "restart"):
            logger.restart(saved["updates"])


def _check_shapes(path: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    """The checkpoint must hold the tensors of this model, each with its shape."""
    for name in sorted(theirs.keys() | ours.keys()):
        shapes = [list(state[name].shape) if name in state else "none" for state in (theirs, ours)]
        if shapes[0] != shapes[1]:
            raise Refusal(
                f"resume={path} has {name} with shape {shapes[0]} where this model has {shapes[1]}: "
                "it is of another model. Keep the model, or start a new run."
            )
