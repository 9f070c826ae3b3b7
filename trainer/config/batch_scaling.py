"""Applies the batch-size rule of a config: numbers tuned at one batch, adapted to the batch of the run."""

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from trainer.config.adascale_config import is_adascale
from trainer.config.instantiate import instantiate, refusing
from trainer.config.settings import CurveSettings, Settings
from trainer.config.tuned_hyperparameters import LINKED, Tuned, adaptive, tuned_hyperparameters
from trainer.lr import ConfigError, Horizon
from trainer.lr.bounds import integer, number
from trainer.lr.scaling import Scaled
from trainer.lr.scaling_average import scaled_decay


@dataclass(frozen=True)
class ScaledNumbers:
    """The curve's settings with the scaled numbers; `optimizer.lr` is still the tuned one, which `scale` multiplies.

    `changed` holds (before, after) for each number that changed, `kept` the numbers that a rule could have changed but
    did not, both by key. `length` is the horizon they are for. `unsuited` are the keys of optimizers like Adam, for
    which AdaScale, where it is chosen, was not derived.
    """

    curve: CurveSettings
    length: Horizon
    scale: float
    changed: Mapping[str, tuple[Any, Any]]
    kept: Mapping[str, Any]
    unsuited: tuple[str, ...] = ()


def scaled_numbers(curve: CurveSettings, length: Horizon) -> ScaledNumbers:
    """The curve's settings with their numbers scaled by `scaling` to the batch of `length`."""
    rule = instantiate(curve.scaling, "scaling", curve.allow)
    reference = curve.scaling.get("base_batch_size")
    if reference is not None:
        integer("scaling.base_batch_size", reference, "it is the global batch at which optimizer.lr was tuned.")
    takes = inspect.signature(rule).parameters if callable(rule) else {}
    main, *others = tuned_hyperparameters(curve)
    first = _applied(curve, rule, main, length.batch_size)
    now: dict[str, tuple[Any, Any]] = {}
    kept: dict[str, Any] = {}
    for tuned in [main, *others] if {"tuned", "adaptive"} & set(takes) else [main]:
        outcome = first if tuned is main else _applied(curve, rule, tuned, length.batch_size)
        if outcome.lr != first.lr:
            raise ConfigError(
                f"scaling: it scales the rate of {main.key} by {first.lr:g} and of {tuned.key} by {outcome.lr:g}, but "
                "all groups share one factor: choose scaling=linear or scaling=sqrt."
            )
        _compare(tuned, outcome, now, kept)
    before, after = _warmup_duration(curve, first.warmup, length)
    if before != after:
        now["warmup.duration"] = (before, after)
    elif before is not None:
        kept["warmup.duration"] = before
    made = _with_numbers(curve, {key: value for key, (_, value) in now.items()}) if now else curve
    rate = main.numbers.get("lr")
    if rate is not None and first.lr != 1.0:
        now = {"optimizer.lr": (rate, rate * first.lr), **now}
    return ScaledNumbers(made, length, first.lr, now, kept, _unsuited(curve, [main, *others]))


def summary_of_scaling(numbers: ScaledNumbers, settings: Settings) -> dict[str, Any]:
    """The changed and kept values: the tuned numbers, the decay of an average, the length."""
    changed, kept = dict(numbers.changed), dict(numbers.kept)
    average, reference = settings.average, settings.curve.scaling.get("base_batch_size")
    if (decay := average.get("decay")) is not None:
        if average.get("scaled"):
            every = average.get("every", 1)
            now = scaled_decay(decay, settings.global_batch, average.get("base_batch_size"), every)
            changed["average.decay"] = (decay, now)
        elif reference is not None:
            kept["average.decay"] = decay
    kept["trainer.duration"] = _described_length(settings.curve)
    return {"changed": {key: list(pair) for key, pair in changed.items()}, "kept": kept}


def format_scaling(summary: Mapping[str, Any], kappa: float | None) -> list[str]:
    """The lines of a `summary_of_scaling`; none where nothing changed and the batch is the tuned one."""
    if not summary["changed"] and kappa in (None, 1.0):
        return []
    changed = [f"{key} {_short(before)} → {_short(after)}" for key, (before, after) in summary["changed"].items()]
    kept = ", ".join(f"{key} {_short(value)}" for key, value in summary["kept"].items())
    return [*changed, f"kept: {kept or 'nothing'}"]


def _applied(curve: CurveSettings, rule: Any, tuned: Tuned, batch_size: int) -> Scaled:
    """The result of the rule for the tuned numbers of one optimizer or group."""
    takes = inspect.signature(rule).parameters if callable(rule) else {}
    given: dict[str, Any] = {"tuned": dict(tuned.numbers)} if "tuned" in takes else {}
    if "adaptive" in takes and curve.scaling.get("adaptive") is None:
        given["adaptive"] = adaptive(tuned, curve.allow)
    with refusing("scaling"):
        made = rule(batch_size, **given)
        scaled = made if isinstance(made, Scaled) else Scaled(made)
        number("scaling", scaled.lr, "the rule must return a finite number or a Scaled.")
        for name, value in scaled.settings.items():
            if name not in LINKED or name not in tuned.numbers:
                raise ConfigError(f"scaling: the rule sets {name}, which {tuned.key} does not have as a number.")
            number(f"scaling: {tuned.key}.{name}", value, "the rule must return a finite number of 0 or more.", low=0.0)
    return scaled


def _unsuited(curve: CurveSettings, tuned: list[Tuned]) -> tuple[str, ...]:
    if not is_adascale(curve.scaling):
        return ()
    return tuple(one.key for one in tuned if one.key.endswith("optimizer") and adaptive(one, curve.allow))


def _compare(tuned: Tuned, outcome: Scaled, now: dict[str, tuple[Any, Any]], kept: dict[str, Any]) -> None:
    """Sort tuned numbers into those that change and those that are kept."""
    for name, place in tuned.places.items():
        before = tuned.numbers[name]
        after = float(outcome.settings.get(name, before))
        if after != before:
            now[place] = (before, after)
        else:
            kept[place] = before


def _warmup_duration(curve: CurveSettings, factor: float, length: Horizon) -> tuple[Any, Any]:
    """The warm-up's duration before and after: `factor` times the epochs, where it is given in epochs or samples.

    One in updates has κ times the epochs already, and so has a percentage of a run given in updates.
    """
    duration = curve.warmup.get("duration")
    unit = str(duration).strip()
    unit = str(curve.duration).strip() if unit.endswith("%") else unit
    if factor == 1.0 or duration is None or not unit.endswith(("ep", "samples", "tokens")):
        return duration, duration
    with refusing("warmup"):
        return duration, round(length.updates(duration, "warmup.duration") * factor)


def _described_length(curve: CurveSettings) -> str:
    """The length of the run and the unit in which it stays the same at another batch."""
    duration = str(curve.duration).strip()
    units = {"ep": "epochs", "samples": "samples", "tokens": "tokens"}
    unit = next((word for end, word in units.items() if duration.endswith(end)), "updates")
    return f"{duration} ({'scale-invariant iterations' if is_adascale(curve.scaling) else unit})"


def _with_numbers(curve: CurveSettings, numbers: Mapping[str, Any]) -> CurveSettings:
    """The settings with these numbers at their keys; beta1 and beta2 go into `betas`, where there is one."""
    made: Any = {name: copy.deepcopy(dict(getattr(curve, name))) for name in ("optimizer", "groups", "warmup")}
    for key, value in numbers.items():
        *path, name = key.split(".")
        node = made
        for step in path:
            node = node[int(step)] if isinstance(node, list) else node[step]
        if name in node:
            node[name] = value
        else:
            node["betas"] = [value if f"beta{i}" == name else beta for i, beta in enumerate(node["betas"], start=1)]
    return replace(curve, **made)


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
