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
from trainer.assemble.targets import refusing
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
    check_command(job)
    folder = Path(job.runtime.output_dir)
    assembly = assemble(cfg, folder)
    resumed = resume_point(cfg.resume, folder)
    if resumed is not None:
        with refusing(f"resume={resumed}"):
            check_resumable(assembly, resumed)
    if assembly.trainer.is_global_zero:
        report.begin(assembly, overrides(job))
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


def resume_point(resume: Any, folder: Path) -> Path | None:
    """The checkpoint to go on from: none, the newest of this run's folder, or the one named."""
    ours = history(folder / "checkpoints")
    if resume == "auto":
        return ours[-1] if ours else None
    path = None if resume in (None, "none") else Path(str(resume))
    inside = path is not None and path.resolve().is_relative_to(folder.resolve())
    if not inside and (ours or (folder / "result.json").exists()):
        raise Refusal(f"{folder} holds a run already: give another name, or go on with resume=auto.")
    if path is None or path.is_file():
        return path
    found = history(path / "checkpoints") or history(path)
    if not found:
        what = "holds no checkpoint" if path.is_dir() else "does not exist"
        raise Refusal(f"resume={resume} {what}: give none, auto, a run's folder or a checkpoint file.")
    return found[-1]


def fit(assembly: Assembly, resumed: Path | None) -> None:
    """Train from the start, or from the checkpoint `resumed`."""
    if resumed is not None:
        saved = check_resumable(assembly, resumed)
        if assembly.trainer.is_global_zero:
            report.tell_changes(saved, assembly.module.recipe.config)
        for logger in assembly.trainer.loggers:
            if hasattr(logger, "restart"):
                logger.restart(saved["updates"])
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


def check_resumable(assembly: Assembly, path: Path) -> dict[str, Any]:
    """What this framework keeps in the checkpoint at `path`; refused where it is not one of this run.

    Its clock counts updates of one batch size, and its tensors belong to one model and one kind of optimizer.
    """
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
    _check_optimizer(path, checkpoint, assembly)
    return saved


def _check_shapes(path: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    """The checkpoint must hold the tensors of this model, each with its shape."""
    for name in sorted(theirs.keys() | ours.keys()):
        shapes = [list(state[name].shape) if name in state else "none" for state in (theirs, ours)]
        if shapes[0] != shapes[1]:
            raise Refusal(
                f"resume={path} has {name} with shape {shapes[0]} where this model has {shapes[1]}: "
                "it is of another model. Keep the model, or start a new run."
            )


def _check_optimizer(path: Path, checkpoint: dict[str, Any], assembly: Assembly) -> None:
    """The checkpoint must hold the state of this optimizer, for these parameter groups."""
    theirs, ours = checkpoint["cadence"]["config"]["optimizer"]["_target_"], assembly.cfg.optimizer._target_
    if theirs != ours:
        raise Refusal(
            f"resume={path} has the state of {theirs}, not of {ours}: keep the optimizer, or start a new run."
        )
    sizes = [len(group["params"]) for group in checkpoint["optimizer_states"][0]["param_groups"]]
    if sizes != [len(group.parameters) for group in assembly.module.recipe.groups]:
        raise Refusal(
            f"resume={path} has parameter groups of {sizes} tensors, which this run has not: "
            "keep optimizer.weight_decay above zero or at zero, as it was, or start a new run."
        )


def _check_monitors(trainer: pl.Trainer, known: list[str]) -> None:
    """What a callback watches must be computed, or it would fail at the first validation."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        monitor = getattr(callback, "monitor", None)
        if monitor is not None and monitor not in known:
            name = type(callback).__name__
            raise Refusal(f"monitor={monitor} of {name} is not computed: choose one of {', '.join(known)}.")
