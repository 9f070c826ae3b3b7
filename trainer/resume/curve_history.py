"""Where the curve of a run comes from: the config of its start, and how each resume has changed it.

A curve history is a list of plain segments, kept in every checkpoint: from which sample on, by which rule, with which
config and length. A rollback of the guard adds one, too, which keeps the curve and lowers the rate by `backoff`. The
curve is made from the history at each start, so that a run that was killed goes on with the same one.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.cli.environment import resolved, tree_without_secrets
from trainer.lr import ConfigError, Horizon
from trainer.lr.backoff import ROLLBACK
from trainer.lr.bounds import fraction
from trainer.lr.scaling_adascale import ADASCALE
from trainer.lr.schedule import FLOOR, SHAPES, one_of
from trainer.resume.changes import Changes, differences

CURVE = (
    "groups scaling warmup schedule batch_schedule cooldown compat hyper_schedule group_schedule warmup_mode plateau"
).split()
"""The config keys that decide the curve, beside optimizer.lr, the length and the batch."""
UNTRAINED = ("name", "resume", "init", "logger", "lint", "allow", "measure", "callbacks")
TRAINED = (
    *("validate", "precision", "clip", "agc", "sam", "gradient_noise", "sync_batchnorm", "lightning"),
    "overfit",
)
"""Keys of `trainer` that decide what a run becomes, beside its length and batch."""
UNTRAINED_DATA = ("data.batch_size", "data.eval_batch_size", "data.num_workers")
FITS = {
    "continue": "keeps the old curve, which holds its last value past its end",
    "stretch": "stretches it over the new length",
    "branch_cooldown": "cools down from here to the new end",
    "rewarm": "begins the new curve, with its warm-up, over the updates that are left",
    "branch": "takes the new curve, which must equal the old one up to here to the bit",
    "override": "takes the new curve as if the run had started with it",
}
LENGTH = ("updates", "global batch")
OF_LENGTH = ("continue", "stretch", "branch_cooldown")
"""The policies that keep the curve: only the length or the batch may have changed."""

Segment = dict[str, Any]


@dataclass(frozen=True)
class ResumeSettings:
    """The `resume` config: the checkpoint, the policy, and the shape and floor of `branch_cooldown`."""

    path: str | None
    snapshot: str | None
    policy: str | None
    shape: str
    floor: float

    @property
    def rule(self) -> str | None:
        """The policy of a resume; a run that starts from a snapshot branches off."""
        if self.snapshot is not None and self.policy not in (None, "branch"):
            raise ConfigError(
                f"resume.snapshot={self.snapshot} is followed by resume.policy=branch, not by {self.policy}."
            )
        return "branch" if self.snapshot is not None else self.policy


def curve_history(
    config: Mapping[str, Any], resume: ResumeSettings, length: Horizon, saved: Mapping[str, Any] | None
) -> list[Segment]:
    """The segments of this run's curve: those of the checkpoint, and one more where the curve changes.

    Raises:
        ConfigError: the config gives another curve than the checkpoint's, and there is no policy, or none that fits.
    """
    rule = resume.rule
    if rule is not None and rule not in [*FITS]:
        raise ConfigError(f"resume.policy={rule} is not known: choose one of {', '.join(FITS)}, or null.")
    one_of("resume.shape", resume.shape, SHAPES)
    fraction("resume.floor", resume.floor, FLOOR)
    now = first_segment(config, length)
    if saved is None:
        if rule is not None and resume.path in (None, "none"):
            raise ConfigError(f"resume.policy={rule} has nothing to resume: set resume.path, or resume=auto.")
        return [now]
    segments = list(saved["curve_history"])
    changed = changes(segments[-1], now)
    last = [segment["rule"] for segment in segments if segment["rule"] != ROLLBACK][-1]
    if rule == last == "branch_cooldown":
        changed |= differences(_branch(segments[-1]["config"]), _branch(now["config"]))
    if not changed and rule in (None, "continue", "stretch", "branch", "override", last):
        return segments
    _check_joinable(rule, changed, [segments[-1]["config"], config])
    _check_fit(rule, changed, segments)
    begin = saved["updates"] * saved["batch_size"]
    if rule in ("rewarm", "branch_cooldown", "branch") and begin >= _samples(now):
        raise ConfigError(
            f"resume.policy={rule} has no update left: lengthen trainer.duration beyond the checkpoint's."
        )
    return [*segments, {**now, "rule": rule, "samples": begin}]


def edits(update: int, saved: Mapping[str, Any], config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What this resume and earlier ones have changed beside the curve: at which update, and (before, now) by key.

    `saved` is the entry of the checkpoint, `config` the present one.
    """
    changed = differences(saved["config"], config)
    found = {key: list(pair) for key, pair in changed.items() if _is_edit(key)}
    return [*saved.get("edits", ()), *([{"update": update, "changed": found}] if found else [])]


def _is_edit(key: str) -> bool:
    group, _, name = key.partition(".")
    if group in (*UNTRAINED, *CURVE) or key in ("optimizer.lr", *UNTRAINED_DATA) or key.endswith("._partial_"):
        return False
    return group != "trainer" or name.partition(".")[0] in TRAINED


def first_segment(config: Mapping[str, Any], length: Horizon) -> Segment:
    """The segment of a run of `length` that starts with this resolved config."""
    plain = resolved(config)
    keys = ("total", "batch_size", "updates_per_epoch", "tokens_per_sample")
    return {
        "rule": None,
        "samples": 0,
        "config": config,
        "tables": {
            key: tree_without_secrets(_files(plain[key])) for key in ("schedule", "group_schedule", "hyper_schedule")
        },
        "length": {key: getattr(length, key) for key in keys},
    }


def summary_of_change(segment: Segment) -> dict[str, Any]:
    """At which update a resume has changed the curve, and how."""
    found = {"policy": segment["rule"], "update": segment["samples"] // segment["length"]["batch_size"]}
    if segment["rule"] == ROLLBACK:
        return {**found, **{name: segment[name] for name in ("factor", "rewarm", "failed")}}
    snapshot = segment["config"]["resume"].get("snapshot")
    return {**found, "of": snapshot} if segment["rule"] == "branch" and snapshot else found


def _check_joinable(rule: str | None, changed: Changes, configs: Sequence[Mapping[str, Any]]) -> None:
    """Refuse another curve under AdaScale or with a batch that grows; `configs`: the one before and the present one."""
    if any(config["scaling"].get("_target_") == ADASCALE for config in configs):
        why = f"the curve would change ({_format(changed) or f'resume.policy={rule}'})"
        raise ConfigError(
            f"{why}, and with scaling=adascale a run keeps its curve: leave it as it was, or start a new run."
        )
    if any(config.get("batch_schedule") for config in configs):
        raise ConfigError(
            f"a run whose batch grows keeps its curve, without a resume.policy: "
            f"{f'keep what was ({_format(changed)})' if changed else f'leave out resume.policy={rule}'}, "
            "or start a new run."
        )


def _check_fit(rule: str | None, changed: Changes, segments: list[Segment]) -> None:
    """Refuse a change without a policy, or with one that does not fit it."""
    if rule is None:
        fitting = [name for name in FITS if _conflict(name, changed, segments) is None]
        advice = "; ".join(f"resume.policy={name} {FITS[name]}" for name in fitting)
        raise ConfigError(f"the checkpoint has another curve ({_format(changed)}): {advice}.")
    if conflict := _conflict(rule, changed, segments):
        raise ConfigError(f"resume.policy={rule} {conflict}.")


def _conflict(rule: str, changed: Changes, segments: list[Segment]) -> str | None:
    """Why a policy does not fit what has changed, if so."""
    other = {key: change for key, change in changed.items() if key not in (*LENGTH, "resume.shape", "resume.floor")}
    if rule in OF_LENGTH and other:
        return f"keeps the curve, but {_format(other)}: take rewarm or override"
    if rule == "stretch" and any(segment["rule"] != "stretch" for segment in segments[1:]):
        return "needs a curve that no resume has changed but by stretch: take rewarm or override"
    if rule == "branch" and "global batch" in changed:
        return f"keeps what was trained, but {_format(changed)}: take continue or override"
    if rule == "stretch" and "global batch" in changed:
        return f"changes the length only, but {_format(changed)}: take continue or override"
    return None


def changes(before: Segment, now: Segment) -> Changes:
    """The settings that make the curves of two segments differ, by key: (before, now)."""
    changed: Changes = {}
    for name, key in zip(LENGTH, ("total", "batch_size")):
        if before["length"][key] != now["length"][key]:
            changed[name] = (before["length"][key], now["length"][key])
    if set(changed) == {"updates", "global batch"} and _samples(before) == _samples(now):
        del changed["updates"]
    changed |= differences(_curve(before["config"]), _curve(now["config"]))
    return changed | differences(before["tables"], now["tables"])


def _samples(segment: Segment) -> int:
    return segment["length"]["total"] * segment["length"]["batch_size"]


def _curve(config: dict[str, Any]) -> dict[str, Any]:
    return {**{key: config.get(key) for key in CURVE}, "optimizer": {"lr": config["optimizer"].get("lr")}}


def _branch(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of a cooldown that branches off."""
    return {"resume": {key: config["resume"][key] for key in ("shape", "floor")}}


def _files(tree: Any) -> Any:
    """A config with the hash of the file beside the path of each table, since the file decides the curve."""
    if isinstance(tree, list):
        return [_files(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    made = {name: _files(value) for name, value in tree.items()}
    if str(made.get("_target_")).endswith(".table") and Path(str(made.get("path"))).is_file():
        made["content"] = hashlib.sha256(Path(made["path"]).read_bytes()).hexdigest()[:12]
    return made


def _format(changed: Changes) -> str:
    return ", ".join(f"{key} {before} → {now}" for key, (before, now) in changed.items())
