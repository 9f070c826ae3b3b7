"""What `trainer.cuda_graph=true` cannot record."""

import torch

from trainer.config.prepared_net import MAKE_GRAPHS
from trainer.config.settings import Settings, TrainerSettings
from trainer.engine.cuda_graph import OPTIMIZERS
from trainer.engine.module import Module
from trainer.engine.run_hooks import RunHooks
from trainer.lr import ConfigError
from trainer.lr.guard import Skip


def check_cuda_graph(settings: Settings, module: Module) -> None:
    """Refuse an update that cannot be recorded once and replayed, in one line that says why."""
    run = settings.trainer
    if not run.cuda_graph:
        return
    if not _on_cuda(run):
        raise ConfigError(
            "trainer.cuda_graph=true replays updates of a CUDA GPU, and this run has none: take "
            "trainer.cuda_graph=false."
        )
    for there, what, instead in (*_of_the_trainer(run), *_of_the_update(settings, module)):
        if there:
            raise ConfigError(
                f"{what}, and trainer.cuda_graph=true cannot: take {instead}, or trainer.cuda_graph=false."
            )


def _on_cuda(run: TrainerSettings) -> bool:
    return run.accelerator != "cpu" and torch.cuda.is_available()


def _of_the_trainer(run: TrainerSettings) -> list[tuple[object, str, str]]:
    """What of the trainer's settings is there that cannot be recorded: why, and what to take instead."""
    wider = [name for name in ("sam", "gradient_noise") if getattr(run.gradients, name) is not None]
    return [
        (run.world > 1, f"{run.world} processes exchange gradients in each update", "one process"),
        (run.strategy != "auto", f"trainer.strategy={run.strategy} wraps the net", "trainer.strategy=auto"),
        (run.accumulate > 1, f"trainer.accumulate={run.accumulate} seeds each micro-batch", "trainer.accumulate=1"),
        (run.precision == "16-mixed", "trainer.precision=16-mixed looks at each update", "bf16-mixed"),
        (run.compile in MAKE_GRAPHS, f"trainer.compile={run.compile} makes graphs of its own", "trainer.compile=true"),
        (run.profile, "trainer.profile=true looks into updates", "trainer.profile=false"),
        *((True, f"trainer.{name} draws or computes anew in each update", f"trainer.{name}=null") for name in wider),
    ]


def _of_the_update(settings: Settings, module: Module) -> list[tuple[object, str, str]]:
    """The same for the optimizer, the curve and the step."""
    spec, step = module.spec, module.step
    optimizer = spec.optimizer()
    name, scheduled = type(optimizer).__name__, ", ".join(spec.policy.hyper_schedules)
    fused = all(group.get("fused") for group in optimizer.param_groups)
    ours = type(step).__module__.startswith("trainer.") and type(module.hooks) is RunHooks
    return [
        (
            type(optimizer) not in OPTIMIZERS,
            f"{name} waits for the check of each update",
            "optimizer=adamw, adam or sgd",
        ),
        (not fused, f"{name} with optimizer.fused=false waits for the check of each update", "optimizer.fused=true"),
        (isinstance(spec.guard, Skip), "guard=skip judges each update before its step", "guard=stop"),
        (spec.horizon.growth.grows, "batch_schedule changes the size of the batch", "batch_schedule=none"),
        (scheduled, f"hyper_schedule.{scheduled} changes a number of each update", "hyper_schedule=none"),
        (spec.policy.most_gain is not None, "scaling=adascale reads each update", "another scaling"),
        (settings.measure, "measure reads each update", "measure=none"),
        (not ours, "a step of your own may change with the update", "a task with loss and net alone"),
    ]
