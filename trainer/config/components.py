"""The parts of a run, built from its resolved config and checked against each other."""

import hashlib
import platform
import sys
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from pytorch_lightning.strategies import Strategy
from torch import nn
from torch.optim import Optimizer

from trainer.checkpoint.checkpointing import Checkpointing
from trainer.checkpoint.io import AtomicCheckpointIO
from trainer.cli.other_names import key_of_others
from trainer.config.adascale_config import adascale_options, check_measurable
from trainer.config.batch_schedule import Ends, chunk_ends, interval, snapshot_ends, snapshot_updates
from trainer.config.callbacks import callbacks_of, connect, is_foreign, sees_chunks
from trainer.config.cuda_graph import check_cuda_graph
from trainer.config.guard import guard_of
from trainer.config.instantiate import Node, check_names, check_values, expect, instantiate, refusing, takes
from trainer.config.metrics import with_shape
from trainer.config.resolve import Resolved
from trainer.config.settings import Settings, TrainerSettings
from trainer.distributed.consistency import ConsistencyCheck
from trainer.distributed.ddp import MonitoredDDP
from trainer.distributed.environment import environment
from trainer.distributed.rank_monitor import RankMonitor
from trainer.distributed.stop_signal import disable_lightning_signals
from trainer.engine.averaging import Average, averages
from trainer.engine.lightning_kind import check_step
from trainer.engine.module import Module
from trainer.engine.plateau import PlateauControl
from trainer.engine.run_hooks import RunHooks
from trainer.engine.step import PairStep
from trainer.engine.task import Task
from trainer.engine.train_spec import Loop, TrainSpec
from trainer.log.failsafe import failsafe
from trainer.log.progress import Progress
from trainer.log.validations_callback import Validations
from trainer.lr import ConfigError, Plan, Plateau, lint
from trainer.lr.bounds import fraction
from trainer.measure.adascale import AdaScale
from trainer.measure.norms import Measurement
from trainer.measure.observers import ObserverSpec
from trainer.measure.update_profile import UpdateProfile
from trainer.resume.changes import flat

OURS = (
    "accelerator devices num_nodes strategy precision logger callbacks plugins max_epochs min_epochs max_steps "
    "min_steps max_time gradient_clip_val accumulate_grad_batches val_check_interval check_val_every_n_epoch "
    "num_sanity_val_steps use_distributed_sampler deterministic barebones default_root_dir fast_dev_run "
    "enable_checkpointing enable_progress_bar enable_model_summary limit_train_batches overfit_batches "
    "log_every_n_steps reload_dataloaders_every_n_epochs"
).split()
"""Options of Lightning's trainer that Cadence sets."""
_CHUNK, _LONGEST, _LONGEST_ON_GPU = 10, 200, 50
"""Updates of a chunk with `trainer.steps_per_execution=null`: of any, and of one whose end nothing sees.

A GPU makes quick updates of large batches, and its memory holds those of two chunks.
"""
MAY_DIFFER = ("data.path", "trainer.threads", "resume.path")
"""Settings that may differ between hosts: the paths of the data and the run, and the threads."""
ROOMS = ("trainer", "models", "data")
"""The folders whose source files determine a run."""


@dataclass(frozen=True)
class Parts:
    """A run: its resolved config, its folder, and the objects that train it. `warnings` are those of the lint."""

    resolved: Resolved
    folder: Path
    module: Module
    data: Any
    trainer: pl.Trainer
    checkpointing: Checkpointing
    warnings: Sequence[str]


def build(resolved: Resolved, folder: Path, rank_monitor: RankMonitor | None = None) -> Parts:
    """Every part of the run in `folder`, built and checked against the others; nothing is trained yet."""
    settings, horizon = resolved.settings, resolved.horizon
    task = task_of(settings, resolved.data)
    logs_scores = isinstance(task.step, RunHooks) and task.step.logs_scores
    check_step(resolved.model.net, lightning=logs_scores)
    warnings = lint.check(resolved.plan, settings.lint_ignore, **_watched(settings, None if logs_scores else task))
    module = Module(resolved.model.net, task, train_spec(resolved))
    check_cuda_graph(settings, module)
    if isinstance(module.step, PairStep):
        module.step.skip_count(partial(may_occur, resolved.data))
    snapshots = snapshot_updates(horizon, settings.trainer.snapshots)
    duration = settings.trainer.checkpoint
    every = None if duration is None else interval(horizon, duration, "trainer.checkpoint")
    profile = _profile(resolved, folder)
    pauses = [*([every] if every else []), *snapshot_ends(snapshots, horizon.total), *(one.next_end for one in profile)]
    best_by = f"val/{task.monitor}"
    better, keep = task.direction, settings.trainer.keep
    checkpointing = Checkpointing(folder / "checkpoints", best_by, better, every, keep, snapshots)
    claims = ConsistencyCheck(_claims(resolved))
    callbacks = [*_plateau(resolved), *profile, Validations(folder), checkpointing, claims]
    _check_static_graph(resolved)
    trainer = _trainer(settings, folder, _strategy(settings.trainer, rank_monitor), callbacks)
    _follow(resolved, module, pauses, trainer)
    disable_lightning_signals(trainer)
    watching = [one for one in trainer.callbacks if one is not checkpointing]  # type: ignore[attr-defined]
    module.monitors = connect(watching, task, not logs_scores, fresh=resolved.changed)
    if not module.hooks.scored("val"):
        trainer.limit_val_batches = 0
    return Parts(resolved, folder, module, resolved.data, trainer, checkpointing, warnings)


def train_spec(resolved: Resolved) -> TrainSpec:
    """How the net is trained, from the resolved config."""
    settings, run, model = resolved.settings, resolved.settings.trainer, resolved.model
    return TrainSpec(
        policy=resolved.plan.policy,
        horizon=resolved.horizon,
        optimizer=model.optimizer,
        groups=model.groups,
        observers=_observers(resolved),
        gradients=run.gradients,
        guard=guard_of(resolved),
        average=_average(resolved),
        accumulate=run.accumulate,
        cuda_graph=run.cuda_graph,
        micro_batch=settings.data["batch_size"],
        log_every=run.log_every,
        origin={
            "config": settings.record,
            "curve_history": resolved.history,
            **({"edits": found} if (found := resolved.edits) else {}),
            "base": model.origin.base,
            **_data_facts(resolved.data),
        },
    )


def _follow(resolved: Resolved, module: Module, pauses: Sequence[Ends], trainer: pl.Trainer) -> None:
    """Connect the data to the module's clock; its chunks end at `pauses`, and get shorter as the batch grows."""
    run, horizon = resolved.settings.trainer, resolved.horizon
    if run.overfit is not None and horizon.growth.grows:
        raise ConfigError(f"trainer.overfit={run.overfit} repeats batches of one size: take batch_schedule=none.")
    seen = any(map(sees_chunks, trainer.callbacks))  # type: ignore[attr-defined]
    alone = run.devices * run.nodes == 1 and not horizon.growth.grows and not seen
    longest = _LONGEST if trainer.strategy.root_device.type == "cpu" else _LONGEST_ON_GPU
    steps = run.steps_per_execution or _CHUNK
    loop = Loop(
        total=horizon.total,
        validation_interval=interval(horizon, run.validate, "trainer.validate"),
        pauses=(*pauses, *chunk_ends(horizon, steps)),
        steps_per_execution=steps,
        longest=longest if alone and run.steps_per_execution is None else None,
        accumulate=run.accumulate,
        stages=[(stage.update, stage.ratio) for stage in horizon.growth.stages],
        left_out=module.clock.left_out,
        repeated=run.overfit,
        whole=seen or run.profile,  # a profile has the reading of a chunk as a part of its own
    )
    with refusing("trainer.overfit"):
        resolved.data.follow(lambda: module.clock.t, loop)


def _data_facts(data: Any) -> dict[str, Any]:
    """What net and task are made from, for a checkpoint to hold: they can then be made again without the data."""
    names = [str(name) for name in getattr(data, "class_names", None) or ()]
    return {"shape": dict(data.shape), "class_names": names}


def task_of(settings: Settings, data: Any) -> Task:
    """The task, with the tensors of its loss in the precision of the run; `ConfigError` for a loss that is always 0."""
    step, shape = settings.task.get("step"), data.shape
    if isinstance(step, Mapping) and not step.get("_partial_") and takes(step, "task.step", settings.allow, "net"):
        raise ConfigError(
            f"task.step._target_={step['_target_']} would be called without a net: add +task.step._partial_=true."
        )
    if isinstance(step, Mapping) and step.get("_partial_") and not takes(step, "task.step", settings.allow, "t", True):
        raise ConfigError(
            f"task.step._target_={step['_target_']} takes no t: add it, as in def step(net, batch, *, t)."
        )
    node = with_shape(settings.task, shape, settings.allow)
    made = expect("task", instantiate(node, "task", settings.allow), Task)
    made = replace(made, class_names=made.class_names or tuple(map(str, getattr(data, "class_names", None) or ())))
    dtype = torch.float64 if settings.trainer.precision == "64-true" else torch.float32
    for loss in (made.loss, *getattr(made.step, "pairs", ())):
        if isinstance(loss, nn.Module):
            loss.to(dtype)
    smoothing = getattr(made.loss, "label_smoothing", 0.0)
    fraction("task.loss.label_smoothing", smoothing, "it is the share of the target that is spread over all classes.")
    if isinstance(made.loss, nn.CrossEntropyLoss) and shape.get("classes") == 1:
        raise ConfigError(
            "task.loss: the cross entropy over the 1 class of this data is always 0: take task=regression."
        )
    weight, classes = getattr(made.loss, "weight", None), shape.get("classes")
    if (
        isinstance(made.loss, nn.CrossEntropyLoss | nn.NLLLoss)
        and weight is not None
        and classes not in (None, len(weight))
    ):
        raise ConfigError(f"task.loss.weight has {len(weight)} numbers for the {classes} classes: give one for each.")
    return made


def may_occur(data: Any, target: int) -> bool:
    """Whether the data may have this target: False only where all splits are in memory and have none."""
    splits = [source for source in getattr(data, "splits", [data]) if source is not None]
    return any(not hasattr(source, "has_target") or source.has_target(target) for source in splits)


def _observers(resolved: Resolved) -> ObserverSpec:
    """The measurements of updates: those of `measure`, and those that AdaScale needs."""
    settings, gains = resolved.settings, adascale_options(resolved.settings)
    measurement = None
    if settings.measure:
        measurement = expect("measure", instantiate(settings.measure, "measure", settings.allow), Measurement)
        if measurement.noise is not None:
            check_measurable("measure=noise", settings.trainer)
    adascale = AdaScale(**gains) if gains is not None else None
    micro_batch, batch = settings.data["batch_size"], resolved.horizon.batch_size
    return ObserverSpec(tuple(resolved.groups), micro_batch, batch, measurement, adascale)


def _plateau(resolved: Resolved) -> list[pl.Callback]:
    """The callback of the plateau factor, if there is one.

    With a resume that warms up again, the factor starts at 1, whatever the checkpoint says.
    """
    settings = resolved.settings
    if not settings.plateau:
        return []
    rule = expect("plateau", instantiate(settings.plateau, "plateau", settings.allow), Plateau)
    return [PlateauControl(rule, fresh=resolved.changed and resolved.history[-1]["rule"] == "rewarm")]


def _profile(resolved: Resolved, folder: Path) -> list[UpdateProfile]:
    if not resolved.settings.trainer.profile:
        return []
    return [UpdateProfile(folder, resolved.start.updates if resolved.start else 0, resolved.horizon.total)]


def _average(resolved: Resolved) -> Average:
    """The average of the weights. An optimizer that averages itself allows neither another average nor a schedule."""
    settings, plan, optimizer = resolved.settings, resolved.plan, resolved.model.optimizer()
    make = instantiate(settings.average, "average", settings.allow)
    with refusing("average"):
        made = expect("average", make(resolved.horizon.reference), Average)
    own = _averaging_groups(optimizer)
    name = str(settings.curve.optimizer["_target_"]).rpartition(".")[2]
    if own and made.keep is not None:
        raise ConfigError(f"average={made.kind}: {name} averages its weights itself: take average=none.")
    falls = [group for group in own if _falls(plan, group)]
    if falls or (own and settings.plateau):
        what = f"the rate of group {falls[0]} changes after the warm-up" if falls else "plateau lowers the rate"
        raise ConfigError(
            f"optimizer={name} averages its weights in place of a schedule, but {what}: "
            "take schedule=constant, cooldown=none and plateau=none."
        )
    return replace(made, growth=plan.horizon.growth)


def _averaging_groups(optimizer: Optimizer) -> list[str]:
    """The groups whose optimizer averages their weights in place of a schedule; a plain EMA, as SPlus has, is not."""
    found = []
    for part in getattr(optimizer, "parts", [optimizer]):
        if averages(part):
            found += [group["name"] for group in part.param_groups if "ema_rate" not in group]
    return found


def _falls(plan: Plan, group: str) -> bool:
    """Whether the rate of a group changes after the warm-up."""
    rates = plan.curves[group][plan.policy.warmup.updates :]
    return len(rates) > 0 and min(rates) != max(rates)


def _trainer(settings: Settings, folder: Path, strategy: Strategy | str, more: Sequence[pl.Callback]) -> pl.Trainer:
    """Lightning's trainer, which runs the loop."""
    run = settings.trainer
    for key in run.lightning:
        if key in OURS:
            hint = key_of_others(key, run.lightning[key]) or "use the keys of trainer, logger, callbacks."
            raise ConfigError(f"trainer.lightning.{key} is decided elsewhere: {hint}")
    check_names("trainer.lightning", pl.Trainer, run.lightning)
    check_values("trainer.lightning", pl.Trainer, run.lightning)
    loggers = [_logger(f"logger.{name}", node, settings.allow, folder) for name, node in settings.logger.items()]
    callbacks = [one for one in callbacks_of(settings) if not (run.quiet and isinstance(one, Progress))]
    with refusing("trainer"):
        return pl.Trainer(
            accelerator=run.accelerator,
            devices=run.devices,
            num_nodes=run.nodes,
            strategy=strategy,
            precision=run.precision,  # type: ignore[arg-type]
            logger=loggers,
            callbacks=[*callbacks, *more],
            log_every_n_steps=1 if any(map(is_foreign, callbacks)) else None,  # of what callbacks log, in chunks
            plugins=[AtomicCheckpointIO(), *environment()],
            max_epochs=-1,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            # False imports the compiler of PyTorch, to tell it
            deterministic=run.deterministic or (False if torch.are_deterministic_algorithms_enabled() else None),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=str(folder),
            **run.lightning,
        )


def _logger(key: str, node: Node, allow: Sequence[str], folder: Path) -> Logger:
    made = instantiate(node, key, allow)
    with refusing(key):
        return failsafe(expect(key, made(str(folder)) if node.get("_partial_") else made, Logger))


def _strategy(run: TrainerSettings, monitor: RankMonitor | None) -> Strategy | str:
    """One process, or several, which hold all weights each (DDP) or share them (FSDP)."""
    if run.world == 1 and run.strategy == "auto":
        return "auto"
    if run.strategy == "fsdp":
        from trainer.distributed.fsdp import MonitoredFSDP  # late: the import takes a tenth of a process's start

        return MonitoredFSDP(monitor, run.timeout, run.threads)
    return MonitoredDDP(monitor, run.timeout, run.threads, **asdict(run.ddp))


def _check_static_graph(resolved: Resolved) -> None:
    """Refuse a static graph where gradients are accumulated: torch then no longer exchanges them, without an error."""
    run = resolved.settings.trainer
    if run.ddp.static_graph and run.world > 1 and (run.accumulate > 1 or resolved.horizon.growth.grows):
        raise ConfigError(
            "trainer.ddp.static_graph=true needs updates of one micro-batch, because DDP loses gradients otherwise: "
            "set trainer.accumulate=1 and batch_schedule=none, or leave it false."
        )


def _watched(settings: Settings, task: Task | None) -> dict[str, Any]:
    """The monitor of the plateau factor, and the scores that it may watch; one entry of a metric is one of them.

    Without a task, nothing is known of the scores.
    """
    monitor = settings.plateau.get("monitor")
    if task is None:
        return {"monitor": monitor, "logged": None}
    scored = [f"val/{name}" for name in task.scored]
    inside = [monitor for name in scored if str(monitor).startswith(f"{name}/")]
    return {"monitor": monitor, "logged": [*scored, *inside]}


def _claims(resolved: Resolved) -> dict[str, str]:
    """Config, plan, versions and code as short texts by name, which must be the same on all ranks."""
    config, plan, checkpoint = flat(resolved.settings.record), resolved.plan, resolved.checkpoint
    curves = hashlib.sha256(b"".join(array("d", curve).tobytes() for curve in plan.curves.values())).hexdigest()[:12]
    length = plan.horizon
    return {
        **{key: str(value) for key, value in config.items() if key not in MAY_DIFFER},
        "the checkpoint": "none" if checkpoint is None else checkpoint.path.name,
        "the plan": f"{curves} of {length.total} updates of {length.batch_size}",
        **{name: version(name) for name in ("torch", "pytorch-lightning")},
        "python": platform.python_version(),
        "the code": _code_hash(),
    }


def _code_hash() -> str:
    """A hash of the source files, which may differ between hosts.

    Of a user's `models` and `data` folders it covers only the imported files, because they may hold real data.
    """
    root, found = Path(__file__).parents[2], _own_code().copy()
    for name in sorted(name for name in sys.modules if name.startswith(("models.", "data."))):
        file = Path(getattr(sys.modules[name], "__file__", None) or root)
        if root not in file.parents and file.suffix == ".py":
            found.update(f"{name}\n".encode() + file.read_bytes())
    return found.hexdigest()[:12]


@cache
def _own_code() -> Any:
    """The hash of our own source files so far, as they were when this process first asked."""
    root, found = Path(__file__).parents[2], hashlib.sha256()
    for path in sorted(path for room in ROOMS for path in (root / room).rglob("*.py")):
        found.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return found
