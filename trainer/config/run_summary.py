"""What a run says of itself: the table at its start, the files in its folder, the summary at its end."""

import json
import math
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from trainer.checkpoint.io import checkpoints_in
from trainer.cli.version import version as running_version
from trainer.config.adascale_config import worded
from trainer.config.batch_scaling import lines, rescaled
from trainer.config.batch_schedule import told
from trainer.config.settings import TrainerSettings, global_batch
from trainer.engine.gradient_treatment import GradientTreatment
from trainer.log.tensorboard import TensorBoard
from trainer.lr import ConfigError, Plan
from trainer.optim.groups import Group
from trainer.resume.changes import flat

if TYPE_CHECKING:
    from trainer.run import Assembly


def facts(cfg: DictConfig, settings: TrainerSettings, plan: Plan, groups: list[Group]) -> dict[str, Any]:
    """Everything that decides the learning rate, as plain numbers."""
    reference = cfg.scaling.get("base_batch_size")
    rule = cfg.scaling._target_.rpartition(".")[2].removesuffix("_scaling")
    batch = global_batch(cfg, settings)
    curves = ("warmup", "schedule", "batch_schedule", "cooldown", "plateau", "average")
    return {
        "global_batch": batch,
        "per_device_batch": cfg.data.batch_size,
        "devices": settings.devices,
        "nodes": settings.nodes,
        "accumulate": settings.accumulate,
        "scaling": {"no": "none"}.get(rule, rule),
        "base_batch_size": reference,
        "kappa": batch / reference if reference else None,
        "scaled": rescaled(cfg, plan.horizon).told(),
        "curve": {key: _name(cfg[key]) for key in curves},
        "gradients": settings.gradients.settings(),
        **plan.facts(),
        "epochs": plan.horizon.reference.epochs,
        "groups": [
            {
                "name": group.name,
                "tensors": len(group.parameters),
                "parameters": group.size,
                "lr_mult": group.lr_mult,
                "weight_decay": group.weight_decay,
                "schedule": group.schedule,
            }
            for group in groups
        ],
    }


def rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """The table at the start of a run: what, and how it comes about."""
    batch = "{per_device_batch} per device × {devices} devices × {nodes} nodes × {accumulate} accumulated"
    kappa = f"κ = {facts['kappa']:g}" if facts["kappa"] else "no base batch"
    epoch = facts["updates_per_epoch"]
    first = " with the first batch" if facts["batches"] else ""
    length = f"{epoch} an epoch{first}, {facts['epochs']:.4g} epochs" if epoch else "no epochs"
    groups = [
        f"{g['name']}: {g['parameters']:,} numbers in {g['tensors']} tensors, "
        f"weight decay {g['weight_decay'] if g['weight_decay'] is not None else 'none'}"
        + (f", lr × {g['lr_mult']:g}" if g["lr_mult"] != 1 else "")
        for g in facts["groups"]
    ]
    words = worded(facts, length)
    return [
        ("global batch", f"{facts['global_batch']} = {batch.format(**facts)}"),
        ("scaling", f"{facts['scaling']}, {kappa}, {words.scale}"),
        *(("", line) for line in lines(facts["scaled"], facts["kappa"])),
        ("learning rate", f"base {facts['base_lr']:g}, peak {facts['peak_lr']:g} at {words.peak}"),
        ("", f"first {facts['first_lr']:g}, last {facts['last_lr']:g}"),
        ("updates", words.updates),
        *(("batch grows", stages) for stages in told(facts["batches"])),
        ("warm-up", f"W = {facts['warmup_updates']} updates"),
        ("curve", ", ".join(f"{key} {name}" for key, name in facts["curve"].items())),
        *(("resumed", "{policy} at update {update}".format(**change)) for change in facts["changes"]),
        *(("trunk", change["of"]) for change in facts["changes"] if "of" in change),
        *(("gradients", words) for words in GradientTreatment(**facts["gradients"]).summary()),
        *zip(["groups", *[""] * len(groups)], groups),
    ]


def begin(assembly: "Assembly", overrides: list[str], start: int) -> None:
    """Show the table, and keep it with the config in the folder and the log; those of an earlier part stay aside."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(overflow="fold")  # a path is read to its end
    lines = rows(assembly.facts)
    for name, text in lines:
        table.add_row(f"[bold]{name}", text)
    Console(file=sys.stdout, highlight=False).print(table)
    for warning in assembly.facts["lint"]:
        print(f"warning: {warning}", file=sys.stderr)
    folder = assembly.folder
    for name in ("config.yaml", "overrides.yaml", "plan.json") if start else ():
        if (folder / name).exists():
            (folder / name).replace(folder / name.replace(".", f"-until-{start}."))
    _write(folder / "config.yaml", OmegaConf.to_yaml(assembly.cfg, resolve=False))
    _write(folder / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(list(overrides))))
    _write(folder / "plan.json", json.dumps(assembly.facts, indent=2) + "\n")
    text = "\n".join(f"| {name} | {value} |" for name, value in [("", ""), ("---", "---"), *lines])
    for logger in assembly.trainer.loggers:
        if isinstance(logger, TensorBoard):
            logger.log_text("plan", text, start)
            logger.log_text("config", f"```yaml\n{OmegaConf.to_yaml(assembly.cfg)}```", start)
        else:
            logger.log_hyperparams(flat(OmegaConf.to_container(assembly.cfg)))


def end(assembly: "Assembly", outcome: dict[str, Any], seconds: float) -> None:
    """Write `result.json` and the final metrics of the log, and show the summary."""
    module, best = assembly.module, assembly.checkpointing.best
    monitor = assembly.checkpointing.monitor
    test = outcome.get("test", {})
    newest = checkpoints_in(assembly.checkpointing.folder)
    metrics = {**best["scores"], **{f"test/{name}": value for name, value in test.items()}}
    result = {
        **outcome,
        "metrics": metrics,
        "best": {"metric": monitor, **best},
        "updates": module.clock.t,
        "total_updates": module.horizon.total,
        **({} if module.clock.tau is None else {"scale_invariant_iterations": module.clock.tau}),
        "scaled": assembly.facts["scaled"],
        "seconds": round(seconds, 3),
        "recent": module.recent,
        "folder": str(assembly.folder),
        "checkpoint": str(newest[-1]) if newest else None,
        "versions": {
            **running_version(),
            **{name: version(name) for name in ("torch", "pytorch-lightning", "hydra-core")},
        },
    }
    for logger in assembly.trainer.loggers:
        if isinstance(logger, TensorBoard):
            final = {f"final/{name}": value for name, value in metrics.items()}
            config = _ordered(OmegaConf.to_container(assembly.cfg, resolve=True))
            logger.log_hparams(config, final, module.clock.t, outcome["status"] == "completed")
            logger.close()
    _write(assembly.folder / "result.json", json.dumps(_finite(result), indent=2) + "\n")
    if outcome["status"] == "completed":
        _summarise(result)


def _name(node: DictConfig) -> str:
    """What a part of the curve is called: its function without the name of its kind, or its shape."""
    word = str(node.get("_target_", "none")).rpartition(".")[2]
    plain = word.removesuffix("_warmup").removesuffix("_cooldown").removesuffix("_average")
    return {"no": "none", "cooldown": node.get("shape")}.get(plain, plain)


def _summarise(result: dict[str, Any]) -> None:
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    best = result["best"]
    if best["value"] is not None:
        console.print(
            f"[bold]best[/]     {_scores(best['scores'])}  after update {best['update']}, by {best['metric']}"
        )
    console.print(f"[bold]test[/]     {_scores(result['test']) or 'this data has no test set'}")
    console.print(f"[bold]updates[/]  {result['updates']} in {result['seconds']:.1f} s")
    console.print(f"[bold]folder[/]   {result['folder']}")


def _scores(scores: dict[str, float]) -> str:
    return "  ".join(f"{name.removeprefix('val/')} {value:.4f}" for name, value in scores.items())


def _finite(tree: Any) -> Any:
    """The same with null for each number that JSON cannot hold."""
    if isinstance(tree, dict):
        return {key: _finite(value) for key, value in tree.items()}
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def _ordered(config: Any) -> dict[str, Any]:
    """The config as dotted keys, what decides the learning rate first: a viewer shows the first few columns."""
    groups = ["optimizer", "schedule", "warmup", "scaling", *config]
    keys = flat(config).items()
    shown = [(key, value) for key, value in keys if not key.endswith("_partial_")]
    return dict(sorted(shown, key=lambda item: groups.index(item[0].partition(".")[0])))


def _write(path: Path, text: str) -> None:
    """Write a small file at once."""
    aside = path.with_name(f".{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror}): choose another folder.") from error
