"""The report of a run: the table at its start, the files in its folder, the summary at its end."""

import json
import math
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from trainer.checkpoint.io import checkpoints_in
from trainer.checkpoint.saving import SaveFailed
from trainer.cli.command import COMMAND
from trainer.cli.environment import tree_without_secrets, without_secrets
from trainer.cli.messages import RunFailed, to_quote
from trainer.cli.plain_yaml import yaml_text
from trainer.cli.version import version as running_version
from trainer.config.batch_scaling import format_scaling, summary_of_scaling
from trainer.config.batch_schedule import format_batches
from trainer.config.components import Parts
from trainer.config.instantiate import Node
from trainer.config.module_optimizer import summary_of_turns
from trainer.config.prepared_net import format_origin
from trainer.config.resolve import Resolved, policy_of_longer
from trainer.config.run_parts import counted, format_parts, summary_of_parts
from trainer.config.settings import Settings
from trainer.config.tensorboard_tabs import charts_of, log_end, text_of
from trainer.distributed.launch import signals
from trainer.engine.gradient_treatment import GradientTreatment
from trainer.engine.lightning_kind import lightning_class, summary_of_replaced
from trainer.files.atomic import replaced, write_text
from trainer.log.run_logger import RunLogger
from trainer.log.tensorboard import TensorBoard
from trainer.log.validations import main_scores
from trainer.lr import ConfigError, Plan
from trainer.optim.groups import Group
from trainer.resume.changes import flat
from trainer.resume.curve_history import summary_of_change

OVERFIT = "overfits"
"""The row of the table that says that only the first batches are trained on."""


def announce(parts: Parts, overrides: list[str], program: Sequence[str] = COMMAND, printed: bool = True) -> None:
    """Show the table, if `printed`, and write it with the config; those of an earlier part get other names.

    `program`: the words that start the run, up to its overrides, as a person would type them.
    """
    resolved, folder = parts.resolved, parts.folder
    start = resolved.start.updates if resolved.start else 0
    summary, rows = show_start(parts, printed)
    for name in ("config.yaml", "overrides.yaml", "plan.json") if start else ():
        if (folder / name).exists():
            with replaced(folder / name.replace(".", f"-until-{start}.")) as earlier:
                shutil.copyfile(folder / name, earlier)
    source: Any = resolved.settings.source
    config = yaml_text(source)
    _write(folder / "config.yaml", config)
    _write(folder / "overrides.yaml", yaml_text(list(overrides)))
    _write(folder / "plan.json", json.dumps(tree_without_secrets({"program": program, **summary}), indent=2) + "\n")
    command = without_secrets(shlex.join([*program, *overrides]))
    for logger in parts.trainer.loggers:
        if isinstance(logger, TensorBoard):
            logger.log_layout(charts_of(summary["parts"]["metrics"]))
            logger.log_text("run", text_of(rows, command, config), start)
        else:
            logger.log_hyperparams(flat(source))


def show_start(parts: Parts, printed: bool = True) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Print the table at the start of a run, and the warnings; the summary and its rows."""
    summary = {**summary_of_run(parts.resolved), "lint": parts.warnings}
    rows = [(name, without_secrets(text)) for name, text in [*format_run(summary), *_format_start(parts.resolved)]]
    if printed and not parts.resolved.settings.trainer.quiet:
        _print_table(rows)
    for warning in parts.warnings:
        print(f"warning: {without_secrets(warning)}", file=sys.stderr)
    return summary, rows


def record_history(parts: Parts) -> None:
    """Write the history of the curve into `plan.json` again, after a rollback."""
    path = parts.folder / "plan.json"
    if not path.exists():
        return
    history = parts.resolved.history
    changed = {"changes": list(map(summary_of_change, history[1:])), "curve_history": history}
    _write(path, json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changed}, indent=2) + "\n")


def write_result(parts: Parts, outcome: dict[str, Any], seconds: float, printed: bool = True) -> None:
    """Write `result.json` and the final metrics of the log, and show the summary, if it is to be printed."""
    module, best, settings = parts.module, dict(parts.checkpointing.best), parts.resolved.settings
    arrays = best.pop("arrays") | {name: one for name, one in module.arrays.items() if name[:5] == "test/"}
    newest = checkpoints_in(parts.checkpointing.folder)
    tested = {f"test/{name}": value for name, value in outcome.get("test", {}).items()}
    metrics = {**best["scores"], **tested}
    result = {
        **tree_without_secrets(outcome),
        "metrics": metrics,
        "arrays": arrays,
        "directions": {name: better for name in metrics if (better := module.task.better(name.partition("/")[2]))},
        "best": {"metric": parts.checkpointing.monitor, "mode": parts.checkpointing.mode, **best},
        **({} if settings.trainer.overfit is None else {"overfit": settings.trainer.overfit}),
        "updates": module.clock.t,
        "total_updates": module.horizon.total,
        **({} if module.clock.tau is None else {"scale_invariant_iterations": module.clock.tau}),
        "scaled": summary_of_scaling(parts.resolved.numbers, settings),
        "seconds": round(seconds, 3),
        "recent": module.recent,
        "folder": str(parts.folder),
        "checkpoint": str(newest[-1]) if newest else None,
        "versions": {**running_version(), **_versions()},
    }
    _write(parts.folder / "result.json", json.dumps(_finite(result), indent=2) + "\n")
    for logger in parts.trainer.loggers:
        if isinstance(logger, TensorBoard):
            log_end(logger, settings.record, metrics, module.clock.t, outcome["status"] == "completed")
        elif isinstance(logger, RunLogger):
            logger.end(outcome["status"])
    if printed and outcome["status"] == "completed":
        quiet = settings.trainer.quiet
        longer = None if quiet or not newest else policy_of_longer(parts.resolved)  # it resumes from a checkpoint
        _print_result(result, settings, longer)


@cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "pytorch-lightning", "hydra-core")}


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


def outcome_of(cause: BaseException) -> dict[str, Any]:
    """What the result says of a run that has ended by an error or was interrupted."""
    if isinstance(cause, signals.Interrupted):
        return {"status": "interrupted", "error": str(cause)}
    by_lightning = isinstance(cause, SystemExit) and isinstance(cause.__context__, KeyboardInterrupt)
    if by_lightning or isinstance(cause, KeyboardInterrupt):
        return {"status": "interrupted", "error": "interrupted by KeyboardInterrupt"}
    return {"status": "failed", "error": f"{type(cause).__name__}: {' '.join(str(cause).split())}"}


def summary_of_run(resolved: Resolved) -> dict[str, Any]:
    """Everything that decides the learning rate, as plain numbers: the content of `plan.json` beside the program."""
    settings, plan, run = resolved.settings, resolved.plan, resolved.settings.trainer
    scaling = settings.curve.scaling
    reference = scaling.get("base_batch_size")
    rule = scaling["_target_"].rpartition(".")[2].removesuffix("_scaling")
    curves = ("warmup", "schedule", "batch_schedule", "cooldown")
    nodes = {key: getattr(settings.curve, key) for key in curves}
    nodes |= {"plateau": settings.plateau, "average": settings.average}
    return {
        "parts": summary_of_parts(resolved),
        "global_batch": settings.global_batch,
        "order": resolved.data.order_note,
        "overfit": run.overfit,
        "per_device_batch": settings.data["batch_size"],
        "devices": run.devices,
        "nodes": run.nodes,
        "accumulate": run.accumulate,
        "scaling": {"no": "none"}.get(rule, rule),
        "base_batch_size": reference,
        "kappa": settings.global_batch / reference if reference else None,
        "scaled": summary_of_scaling(resolved.numbers, settings),
        "curve": {key: _name(node) for key, node in nodes.items()},
        "gradients": run.gradients.settings(),
        **plan.summary(),
        "warmup_share_below_one": _share_below_one(settings, plan),
        "epochs": plan.horizon.reference.epochs,
        "groups": list(map(_summary_of_group, resolved.model.groups)),
        **_summary_of_module(resolved),
        **resolved.model.origin.summary(),
        "changes": [summary_of_change(segment) for segment in resolved.history[1:]],
        "edits": resolved.edits,
        "curve_history": resolved.history,
    }


def format_run(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The rows of the table at the start of a run."""
    groups = [
        f"{g['name']}: {counted(g['parameters'], 'number')} in {counted(g['tensors'], 'tensor')}"
        + (f", weight decay {g['weight_decay']}" if g["weight_decay"] is not None else "")
        + (f", lr × {g['lr_mult']:g}" if g["lr_mult"] != 1 else "")
        for g in summary["groups"]
    ]
    scale, peak, updates = _format_clock(summary)
    curve = [f"{key} {name}" for key, name in summary["curve"].items() if name != "none"]
    return [
        *format_parts(summary["parts"]),
        ("global batch", _format_batch(summary)),
        *_format_order(summary),
        *_headed("scaling", [*_format_rule(summary, scale), *format_scaling(summary["scaled"], summary["kappa"])]),
        ("learning rate", f"base {summary['base_lr']:g}, peak {summary['peak_lr']:g} at {peak}"),
        ("", f"first {summary['first_lr']:g}, last {summary['last_lr']:g}"),
        ("updates", updates),
        *(("batch grows", stages) for stages in format_batches(summary["batches"])),
        *([("warm-up", _format_warmup(summary))] if summary["warmup_updates"] else []),
        *([("curve", ", ".join(curve))] if curve else []),
        *_headed("module", summary["module"]),
        *map(_format_change, summary["changes"]),
        *(("snapshot", change["of"]) for change in summary["changes"] if "of" in change),
        *(("gradients", line) for line in GradientTreatment(**summary["gradients"]).summary()),
        *format_origin(summary),
        *_headed("groups", groups),
    ]


def _format_order(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    count = summary.get("overfit")
    if count is None:
        return [("order", summary["order"])] if "order" in summary else []
    batches = "the first batch alone" if count == 1 else f"the first {count} batches alone, in turn"
    return [(OVERFIT, f"{batches}, again and again (trainer.overfit={count})")]


def _format_start(resolved: Resolved) -> list[tuple[str, str]]:
    """Where a resumed run goes on from."""
    if resolved.checkpoint is None or resolved.start is None:
        return []
    return [("resumed", f"from {resolved.checkpoint.path}, after update {resolved.start.updates}")]


def _headed(name: str, texts: Sequence[str]) -> list[tuple[str, str]]:
    """A row for each text, the first one with the name."""
    return list(zip([name, *[""] * len(texts)], texts))


def _format_batch(summary: Mapping[str, Any]) -> str:
    factors = {"devices": summary["devices"], "nodes": summary["nodes"], "accumulated": summary["accumulate"]}
    product = [f"{summary['per_device_batch']} per device", *(f"{n} {name}" for name, n in factors.items() if n > 1)]
    whole = str(summary["global_batch"])
    return f"{whole} = {' × '.join(product)}" if len(product) > 1 else whole


def _format_rule(summary: Mapping[str, Any], scale: str) -> list[str]:
    """The line of the batch-size rule; none where there is no rule and no batch to compare with."""
    kappa = [f"κ = {summary['kappa']:g}"] if summary["kappa"] else []
    if summary["scaling"] == "none":
        return kappa
    return [", ".join([summary["scaling"], *kappa, scale])]


def _format_warmup(summary: Mapping[str, Any]) -> str:
    width = f"W = {counted(summary['warmup_updates'], 'update')}"
    share = summary["warmup_share_below_one"]
    return f"{width}: {share} of {counted(summary['total_updates'], 'update')} is less than one" if share else width


def _share_below_one(settings: Settings, plan: Plan) -> str | None:
    """The share of the warm-up where it is less than an update, which lasts one."""
    share = str(settings.curve.warmup.get("duration", "")).strip()
    if plan.policy.warmup.updates != 1 or not share.endswith("%"):
        return None
    return share if float(share[:-1]) * plan.horizon.reference.total < 50 else None


def _format_change(change: Mapping[str, Any]) -> tuple[str, str]:
    if "factor" not in change:
        return "resumed", "{policy} at update {update}".format(**change)
    after = f", back at 1 after {change['rewarm']} updates" if change["rewarm"] else ""
    return "rolled back", f"to update {change['update']}, rate × {change['factor']:g}{after}"


def _format_clock(summary: Mapping[str, Any]) -> tuple[str, str, str]:
    """The scale, the update of the peak and the length in words; under AdaScale in scale-invariant iterations."""
    total, peak, epoch = summary["total_updates"], summary["peak_update"], summary["updates_per_epoch"]
    first = " with the first batch" if summary["batches"] else ""
    length = f", {epoch:,} an epoch{first}, {counted(summary['epochs'], 'epoch')}" if epoch else ""
    if "most_gain" not in summary:
        return f"scale {summary['scale']:g}", f"update {peak}", f"T = {total:,}{length}"
    units = f"T = {total:,} scale-invariant iterations of {summary['base_batch_size']} samples"
    return (
        f"S = {summary['most_gain']:g}, a gain from 1 to S at each update",
        f"iteration {peak}, times the gain",
        f"between {summary['fewest_updates']:,} and {total:,}, until {units}{length.replace(',', ':', 1)}",
    )


def _summary_of_group(group: Group) -> dict[str, Any]:
    return {
        "name": group.name,
        "tensors": len(group.parameters),
        "parameters": group.size,
        "lr_mult": group.lr_mult,
        "weight_decay": group.weight_decay,
        "schedule": group.schedule,
    }


def _summary_of_module(resolved: Resolved) -> dict[str, list[str]]:
    """What a LightningModule has and the run does not use; empty for other nets."""
    net, settings = resolved.model.net, resolved.settings
    if lightning_class(net) is None:
        return {"module": []}
    ignore = settings.task["step"].get("ignore", ()) if "step" in settings.task else ()
    node = settings.curve.optimizer
    if "class" in node:
        made = [f"configure_optimizers gives {node['class']}", *summary_of_turns(settings, net)]
        return {"module": [*made, *summary_of_replaced(net, ignore, None)]}
    return {"module": summary_of_replaced(net, ignore, str(node["_target_"]).rpartition(".")[2])}


def _name(node: Node) -> str:
    """The name of a part of the curve: its function without the name of its kind, or its shape."""
    word = str(node.get("_target_", "none")).rpartition(".")[2]
    plain = word.removesuffix("_warmup").removesuffix("_cooldown").removesuffix("_average")
    return {"no": "none", "cooldown": str(node.get("shape"))}.get(plain, plain)


def _print_table(rows: list[tuple[str, str]]) -> None:
    fold = Column(overflow="fold")  # so that long paths are shown whole
    table = Table(Column(), fold, show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, text in rows:
        changed = name in (OVERFIT, "resumed", "rolled back") or " → " in text
        table.add_row(Text(name, "bold"), Text(text, "yellow" if changed else ""))
    with (console := Console(file=sys.stdout, highlight=False)).capture() as printed:
        console.print(table)
    print("\n".join(map(str.rstrip, printed.get().splitlines())))


def _print_result(result: dict[str, Any], settings: Settings, policy: str | None) -> None:
    """Show the summary of a completed run; `policy` is the one by which it can be made longer."""
    best, seconds, folder = result["best"], f"{result['seconds']:.1f} s", Path(result["folder"])
    found = f"{_scores(best['scores'])}  after update {best['update']}, by {best['metric']}"
    overfits = "overfit" in result and "loss" in result["recent"]
    rows = {
        **({"train": f"loss {result['recent']['loss']:.4g} on the batches that it overfits"} if overfits else {}),
        **({} if best["value"] is None else {"best": found}),
        "test": _scores(result["test"]) or "there is nothing to test on",
        "updates": f"{result['updates']} in {seconds}",
        **({"stopped": f"early: {result['stopped_early']['reason']}"} if "stopped_early" in result else {}),
        "folder": result["folder"],
        **({} if settings.trainer.quiet else _next_steps(folder, settings.allow if result["test"] else None)),
        **({} if policy is None else {"longer": _longer(settings.name, policy)}),
    }
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    for name, text in rows.items():
        console.print(Text.assemble((f"{name:<7}", "bold"), f"  {text}"))


def _next_steps(folder: Path, allow: Sequence[str] | None) -> dict[str, str]:
    """What to do with a run: see its curves, ask what its log says, predict; `allow` is None where it has no test."""
    if not (logged := any(folder.glob("events.out.tfevents*"))) and allow is None:
        return {}
    here = Path.cwd()
    near = folder.relative_to(here) if folder.is_relative_to(here) else folder
    look = [("tensorboard", "--logdir", str(near.parent)), ("cadence", "doctor", str(near))] if logged else []
    predict = ["cadence", "predict", str(near), "predictions.csv", *([f"allow=[{','.join(allow)}]"] if allow else [])]
    return {"next": "\n         ".join(map(shlex.join, look if allow is None else [*look, predict]))}


def _longer(name: str, policy: str) -> str:
    """The settings by which a completed run is trained on."""
    name = shlex.quote(f'"{name}"' if to_quote(name) else name)
    return f"the same with name={name} resume=auto resume.policy={policy}\n         and another trainer.duration"


def _scores(scores: dict[str, float]) -> str:
    return "  ".join(f"{name.removeprefix('val/')} {value:.4f}" for name, value in main_scores(scores).items())


def _finite(tree: Any) -> Any:
    """The same with None for each number that JSON cannot represent."""
    if isinstance(tree, dict):
        return {key: _finite(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def _write(path: Path, text: str) -> None:
    """Replace a small file."""
    try:
        write_text(path, text)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror}): make room, or choose another folder."
        ) from error
