"""Named rules that find likely mistakes in a curve before training.

| rule | level | it finds |
| --- | --- | --- |
| zero-lr | warning | an update at a learning rate of 0, in a group that is not frozen, or not any more |
| last-lr | warning | a curve that falls, and ends above 20 % of its peak |
| rises-after-end | warning | a learning rate past the end of the run above its last one |
| unreached | error | a jump or bend of the schedule at or beyond the end of the run |
| long-warmup | warning | a warm-up of more than 30 % of the run, or not near 1 by then |
| floor-above-group | error | a curve that ends above the group's peak, its rate where the schedule is 1 |
| jump | warning | a change by more than a factor of 3 from one update to the next that no stair accounts for |
| betas-overwritten | warning | a momentum, beta1 or beta2 that a schedule moves away from its configured value |
| monitor | error | a plateau that watches a metric which is never logged |
| huge-lr | error | a learning rate above 1000 |
| short-cycle | warning | a run that ends in the middle of a cycle |
| large-batch | warning | a batch that grows beyond a tenth of an epoch, or beyond the noise scale given |
| adaptive-gain | warning | AdaScale, SGD's rule, with an optimizer that divides by its second moments |

An error is refused at the start of training, a warning is shown; `ignore` takes the names of rules to leave out.
"""

from collections.abc import Collection, Sequence
from difflib import get_close_matches
from typing import NamedTuple

from trainer.lr import rules
from trainer.lr.bounds import ConfigError
from trainer.lr.plan import Plan

ERROR, WARNING = "error", "warning"
_OF_CURVES = {
    "zero-lr": (WARNING, rules.zero),
    "last-lr": (WARNING, rules.last),
    "rises-after-end": (WARNING, rules.rises),
    "unreached": (ERROR, rules.unreached),
    "long-warmup": (WARNING, rules.long_warmup),
    "floor-above-group": (ERROR, rules.floor_above_group),
    "jump": (WARNING, rules.jump),
    "betas-overwritten": (WARNING, rules.betas),
    "huge-lr": (ERROR, rules.huge),
    "short-cycle": (WARNING, rules.short_cycle),
    "large-batch": (WARNING, rules.large_batch),
    "adaptive-gain": (WARNING, rules.adaptive_gain),
}
RULES = (*_OF_CURVES, "monitor")


class Finding(NamedTuple):
    """What a rule has found."""

    rule: str
    level: str
    message: str


def lint(plan: Plan, *, monitor: str | None = None, logged: Collection[str] | None = None) -> list[Finding]:
    """All findings on a plan, errors first.

    `monitor` is the metric that the plateau factor watches, `logged` the names of the metrics that the run computes
    (empty where it never validates). Without either, the rule `monitor` finds nothing.
    """
    found = [Finding(rule, level, text) for rule, (level, rule_of) in _OF_CURVES.items() for text in rule_of(plan)]
    found += [Finding("monitor", ERROR, text) for text in rules.unlogged(monitor, logged)]
    return sorted(found, key=lambda finding: finding.level)


def check(
    plan: Plan, ignore: Sequence[str], *, monitor: str | None = None, logged: Collection[str] | None = None
) -> list[str]:
    """The warnings on a plan, one line each; `ConfigError` for the first error. Rules in `ignore` do not count."""
    check_names(ignore)
    found = [one for one in lint(plan, monitor=monitor, logged=logged) if one.rule not in ignore]
    for rule, level, message in found:
        if level == ERROR:
            way = "" if rule == "monitor" else f" (lint.ignore=[{rule}] trains anyway)"
            raise ConfigError(f"lint {rule}: {message}{way}")
    return [f"{rule}: {message}" for rule, _, message in found]


def check_names(ignore: Sequence[str]) -> None:
    """Refuse a name that no rule has."""
    if isinstance(ignore, str) or not isinstance(ignore, Sequence):
        raise ConfigError(f"lint.ignore={ignore!r} is not a list of rules: write lint.ignore=[{ignore}].")
    for name in ignore:
        if name not in RULES:
            near = get_close_matches(str(name), RULES, n=1)
            meant = f"did you mean {near[0]}?" if near else f"choose from {', '.join(RULES)}."
            raise ConfigError(f"lint.ignore: there is no rule {name!r}: {meant}")
