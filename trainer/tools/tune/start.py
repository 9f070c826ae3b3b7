"""Where the walk over learning rates starts: a range test, or the rate of the config where it finds nothing."""

from argparse import Namespace
from dataclasses import dataclass
from functools import partial

from trainer.config.resolve import Resolved
from trainer.lr import ConfigError
from trainer.lr.range_rules import OURS
from trainer.tools.range_test import command as range_test
from trainer.tools.range_test.steps import RangeTest
from trainer.tools.tune.axes import Axis
from trainer.tools.tune.race import Point

STEP = 2
UPDATES = 100


@dataclass(frozen=True)
class Start:
    """The points to begin with, why, and the updates of the sweeps that told it."""

    points: list[Point]
    note: str
    updates: int


def start_of_rate(options: Namespace, resolved: Resolved, axis: Axis) -> Start:
    """Half-decades around the rate that one sweep suggests."""
    words = [*options.overrides, "--seeds", "1", "--no-files", "--updates", str(UPDATES)]
    for flag, value in (("--config-dir", options.config_dir), ("--config-name", options.config_name)):
        words += [flag, str(value)] if value is not None else []
    asked = range_test.parsed(words)
    configured, scale = resolved.plan.policy.base_lr, resolved.plan.policy.scale
    try:
        settings = resolved.settings
        range_test.check(settings, asked)
        made = partial(range_test.made, asked)
        test = RangeTest(asked, range_test.swept_values(asked), settings.seed, made)
        test.locate()
    except ConfigError as reason:
        return _around(axis, configured, f"no range test is made: {str(reason).rstrip('.')}", 0)
    ours = test.suggestions[OURS]
    if ours.value is None:
        note = f"the range test cannot tell ({str(ours.refused).rstrip('.')}), so the rate of the config is taken"
        return _around(axis, configured, note, test.updates)
    rate = ours.value / scale
    return _around(axis, rate, f"range test: the fall of the loss suggests {rate:.3g}", test.updates)


def _around(axis: Axis, rate: float, note: str, updates: int) -> Start:
    middle = axis.point(rate)
    low, high = axis.bounds
    points: list[Point] = [(place,) for place in (middle - STEP, middle, middle + STEP) if low <= place <= high]
    ends = f"{axis.at(points[0][0]):.3g} to {axis.at(points[-1][0]):.3g}"
    return Start(points, f"{note}; the walk starts with {ends}", updates)
