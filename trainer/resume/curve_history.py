"""Where the curve of a run comes from: the config of its start, and what each resume has made of it.

A curve_history is a list of plain segments, kept in every checkpoint: from which sample on, by which rule, with which
config and length. The curve is woven from it anew at each start, so that a run killed and resumed goes on with it.
"""

import hashlib
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from trainer.config.adascale_config import chosen
from trainer.lr import ConfigError, Horizon
from trainer.lr.bounds import fraction
from trainer.lr.schedule import FLOOR, SHAPES, one_of
from trainer.resume.changes import Changes, differences

CURVE = (
    "groups scaling warmup schedule batch_schedule cooldown compat hyper_schedule group_schedule warmup_mode plateau"
).split()
"""What decides the curve, beside optimizer.lr, the length and the batch."""
FITS = {
    "continue": "keeps the old curve, which holds its last value past its end",
    "stretch": "stretches it over the new length",
    "branch_cooldown": "cools down from here to the new end",
    "rewarm": "begins the new curve, with its warm-up, over the updates that are left",
    "branch": "takes the new curve, where it is the same up to here, to the bit",
    "override": "takes the new curve as if it had been so from the start",
}
LENGTH = ("updates", "global batch")
OF_LENGTH = ("continue", "stretch", "branch_cooldown")
"""The policies for a curve of which only the length or the batch has changed."""

Segment = dict[str, Any]


def curve_history(cfg: DictConfig, length: Horizon, saved: dict[str, Any] | None) -> list[Segment]:
    """The segments of this run's curve: those of the checkpoint, and one more where the curve changes.

    Raises `ConfigError` where the config gives another curve than the checkpoint's and no policy says what shall become
    of it, or one that does not fit what has changed.
    """
    rule = _rule(cfg.resume)
    if rule is not None and rule not in FITS:
        raise ConfigError(f"resume.policy={rule} is not known: choose one of {', '.join(FITS)}, or null.")
    one_of("resume.shape", cfg.resume.shape, SHAPES)
    fraction("resume.floor", cfg.resume.floor, FLOOR)
    now = _segment(cfg, length)
    if saved is None:
        if rule is not None and cfg.resume.path in (None, "none"):
            raise ConfigError(f"resume.policy={rule} has nothing to resume: set resume.path, or resume=auto.")
        return [now]
    segments = list(saved["curve_history"])
    told = changes(segments[-1], now)
    if rule == segments[-1]["rule"] == "branch_cooldown":
        told |= differences(_branch(segments[-1]["config"]), _branch(now["config"]))
    if not told and rule in (None, "continue", "stretch", "branch", "override", segments[-1]["rule"]):
        return segments
    if any(chosen(config["scaling"]) for config in (segments[-1]["config"], now["config"])):
        why = f"the curve would change ({_words(told) or f'resume.policy={rule}'})"
        raise ConfigError(
            f"{why}, and with scaling=adascale none can be joined to another: keep it, or start a new run."
        )
    if cfg.batch_schedule or segments[-1]["config"].get("batch_schedule"):
        raise ConfigError(
            f"a run whose batch grows goes on along its own curve only, without a resume.policy: "
            f"{f'keep what was ({_words(told)})' if told else f'leave out resume.policy={rule}'}, or start a new run."
        )
    _check_fit(rule, told, segments)
    begin = saved["updates"] * saved["batch_size"]
    if rule in ("rewarm", "branch_cooldown", "branch") and begin >= _samples(now):
        raise ConfigError(
            f"resume.policy={rule} has no update left: lengthen trainer.duration beyond the checkpoint's."
        )
    return [*segments, {**now, "rule": rule, "samples": begin}]


def change(segment: Segment) -> dict[str, Any]:
    """When a resume has changed the curve, and how."""
    told = {"policy": segment["rule"], "update": segment["samples"] // segment["length"]["batch_size"]}
    trunk = segment["config"]["resume"].get("snapshot")
    return {**told, "of": trunk} if segment["rule"] == "branch" and trunk else told


def _rule(resume: DictConfig) -> str | None:
    """The policy of a resume; a run that starts from a trunk branches off."""
    if resume.snapshot is not None and resume.policy not in (None, "branch"):
        raise ConfigError(
            f"resume.snapshot={resume.snapshot} is followed by resume.policy=branch, not by {resume.policy}."
        )
    return "branch" if resume.snapshot is not None else resume.policy


def _check_fit(rule: str | None, told: Changes, segments: list[Segment]) -> None:
    """Refuse a change that no policy, or the wrong one, has an answer to."""
    if rule is None:
        fitting = [name for name in FITS if _conflict(name, told, segments) is None]
        advice = "; ".join(f"resume.policy={name} {FITS[name]}" for name in fitting)
        raise ConfigError(f"the checkpoint has another curve ({_words(told)}): {advice}.")
    if conflict := _conflict(rule, told, segments):
        raise ConfigError(f"resume.policy={rule} {conflict}.")


def _conflict(rule: str, told: Changes, segments: list[Segment]) -> str | None:
    """Why a policy does not fit what has changed, if so."""
    other = {key: change for key, change in told.items() if key not in (*LENGTH, "resume.shape", "resume.floor")}
    if rule in OF_LENGTH and other:
        return f"keeps the curve, but {_words(other)}: take rewarm or override"
    if rule == "stretch" and len(segments) > 1:
        return "needs a curve that no resume has changed before: take rewarm or override"
    if rule == "branch" and "global batch" in told:
        return f"keeps what was trained, but {_words(told)}: take continue or override"
    if rule == "stretch" and "global batch" in told:
        return f"changes the length only, but {_words(told)}: take continue or override"
    return None


def changes(before: Segment, now: Segment) -> Changes:
    """What of two segments makes their curves differ, by key: (before, now)."""
    told: Changes = {}
    for name, key in zip(LENGTH, ("total", "batch_size")):
        if before["length"][key] != now["length"][key]:
            told[name] = (before["length"][key], now["length"][key])
    if set(told) == {"updates", "global batch"} and _samples(before) == _samples(now):
        del told["updates"]
    told |= differences(_curve(before["config"]), _curve(now["config"]))
    return told | differences(before["tables"], now["tables"])


def _segment(cfg: DictConfig, length: Horizon) -> Segment:
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    keys = ("total", "batch_size", "updates_per_epoch", "tokens_per_sample")
    tables = {key: _files(config[key]) for key in ("schedule", "group_schedule", "hyper_schedule")}
    return {
        "rule": None,
        "samples": 0,
        "config": config,
        "tables": tables,
        "length": {key: getattr(length, key) for key in keys},
    }


def _samples(segment: Segment) -> int:
    return segment["length"]["total"] * segment["length"]["batch_size"]


def _curve(config: dict[str, Any]) -> dict[str, Any]:
    return {**{key: config.get(key) for key in CURVE}, "optimizer": {"lr": config["optimizer"].get("lr")}}


def _branch(config: dict[str, Any]) -> dict[str, Any]:
    """What a cooldown that branches off is made of."""
    return {"resume": {key: config["resume"][key] for key in ("shape", "floor")}}


def _files(tree: Any) -> Any:
    """A config with a fingerprint beside the path of each table: its curve is what the file holds."""
    if isinstance(tree, list):
        return [_files(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    made = {name: _files(value) for name, value in tree.items()}
    if str(made.get("_target_")).endswith(".table") and Path(str(made.get("path"))).is_file():
        made["content"] = hashlib.sha256(Path(made["path"]).read_bytes()).hexdigest()[:12]
    return made


def _words(told: Changes) -> str:
    return ", ".join(f"{key} {before} → {now}" for key, (before, now) in told.items())
