"""Find the order of magnitude of the learning rate: train for a few updates while it rises, and see where it breaks.

Takes every override that cadence train takes. It trains as cadence train would (batch, accumulation, groups, clipping,
momentum, weight decay, precision), but at the rates of the sweep. A first sweep over all rates locates one; several
seeds then go around it, more slowly, or over --start to --end. Nothing is logged or checkpointed. Examples:

    cadence range-test optimizer=sgd schedule=linear --out outputs/range
    cadence range-test optimizer=adamw --seeds 5 --loss val --confirm 25%      # and three short trainings
    cadence range-test optimizer=momentum --cyclic                             # base and highest for cycles
    cadence range-test optimizer=adamw --of weight_decay                       # up to where it trains at all
"""

import argparse
from functools import partial
from typing import Any

from omegaconf import OmegaConf

from trainer.cli.compose import add_config_options, add_file_options, compose_config
from trainer.config.settings import Settings, settings_of
from trainer.config.variants import for_tuning
from trainer.lr import ConfigError
from trainer.lr.bounds import integer, number
from trainer.lr.range_test import FEWEST, SPACINGS, rates
from trainer.tools.drawing import needed_for_pictures
from trainer.tools.writable import check_writable

RANGES = {"lr": (1e-7, 10.0), "weight_decay": (1e-6, 100.0), "momentum": (0.5, 0.999)}
"""The ends of a sweep where --start and --end do not give them."""
LONGEST = 100_000
"""The most updates of a sweep."""


def main(words: list[str] | None = None) -> None:
    """Sweep, print what was found, and write the files."""
    options = parsed(words)
    values = swept_values(options)
    settings = settings_of(compose_config(options.overrides, options))
    check(settings, options)
    if not options.no_files:
        needed_for_pictures()
        check_writable(options.out)
    from trainer.tools.range_test.steps import RangeTest  # late: it needs torch

    test = RangeTest(options, values, settings.seed, partial(made, options))
    try:
        print("\n".join(test.format_heading()), flush=True)
        print("\n".join(test.run_sweeps()), flush=True)
        if options.cyclic:
            print("\n" + "\n".join(test.find_cycles()), flush=True)
        if options.confirm is not None:
            print("\n" + "\n".join(test.run_confirmation()), flush=True)
    finally:
        if test.sweeps and not options.no_files:
            print(f"\n{test.save()}", flush=True)


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add_config_options(parser)
    add("--of", choices=tuple(RANGES), default="lr", help="what rises (lr); for the others the rate stays at its peak")
    add("--start", type=float, metavar="X", help="the first value (1e-7; 1e-6 for weight_decay, 0.5 for momentum)")
    add("--end", type=float, metavar="X", help="the last value (10; 100 for weight_decay, 0.999 for momentum)")
    add("--updates", type=int, default=100, metavar="N", help="updates of a sweep (100)")
    add("--spacing", choices=SPACINGS, default="exponential", help="of the values (exponential)")
    add("--seeds", type=int, default=3, metavar="K", help="sweeps, each with its own seed, from seed= on (3)")
    add(
        "--loss",
        choices=("train", "val"),
        help="of the batch, or of fixed validation samples (val, where there are some)",
    )
    add("--val-samples", type=int, default=512, metavar="N", help="how many of them (512)")
    add("--confirm", nargs="?", const="25%", metavar="DURATION",
        help="then train at 0.316, 1, 3.16 times the result: updates, 5ep, or a share of the run (25%%)")  # fmt: skip
    add("--confirm-seeds", type=int, default=1, metavar="K", help="seeds of each of these trainings (1)")
    add("--cyclic", action="store_true", help="then rise linearly and watch the score: base and highest for cycles")
    add("--cyclic-updates", type=int, default=400, metavar="N", help="updates of that rise (400)")
    add_file_options(parser, "outputs/range_test")
    return parser.parse_intermixed_args(words)


def swept_values(options: argparse.Namespace) -> list[float]:
    """The values of the sweep; for momentum, it is 1 / (1 - momentum) that is spaced."""
    integer("--updates", options.updates, f"a sweep has {FEWEST} to {LONGEST:,} updates; try 100.", FEWEST, LONGEST)
    known = RANGES[options.of]
    start = known[0] if options.start is None else options.start
    end = known[1] if options.end is None else options.end
    if options.of != "momentum":
        return rates(start, end, options.updates, options.spacing)
    why = "momentum is the share of the last step that is kept, from 0 to 0.99999."
    pairs = (("--start", start), ("--end", end))
    low, high = (1.0 / (1.0 - number(name, value, why, 0.0, 0.99999)) for name, value in pairs)
    return [1.0 - 1.0 / memory for memory in rates(low, high, options.updates, options.spacing)]


def made(options: argparse.Namespace, overrides: list[str], seed: int, sweeps: bool) -> Settings:
    """The settings of a seed in one process, without loggers; of a sweep, without validation and plateaus, too."""
    cfg = for_tuning(compose_config([*overrides, f"seed={seed}"], options))
    for key in ("logger", *(("plateau",) if sweeps else ())):
        OmegaConf.update(cfg, key, {}, merge=False, force_add=True)
    cfg.trainer.checkpoint = None
    if sweeps:
        lightning: Any = OmegaConf.to_container(cfg.trainer.lightning, resolve=True)
        cfg.trainer.lightning = {**lightning, "limit_val_batches": 0}
    return settings_of(cfg)


def check(settings: Settings, options: argparse.Namespace) -> None:
    """Refuse a run that cannot be swept, and options that do not fit."""
    run = settings.trainer
    if run.world > 1:
        raise ConfigError(
            f"{run.world} processes: a sweep runs in one: take trainer=auto "
            f"trainer.accumulate={run.world * run.accumulate}, which trains on the same batches."
        )
    if settings.resume.path is not None:
        raise ConfigError(f"resume.path={settings.resume.path}: a sweep starts from the beginning: take resume=none.")
    last = 2**32 - 1 - 1000
    integer("seed", settings.seed, f"give 0 to {last}: the sweeps take the seeds that follow, too.", 0, last)
    integer("--seeds", options.seeds, "give 1 to 100 sweeps.", high=100)
    integer("--val-samples", options.val_samples, "give a number of samples, at least 1.")
    integer("--confirm-seeds", options.confirm_seeds, "give 1 to 100.", high=100)
    integer("--cyclic-updates", options.cyclic_updates, "a rise takes 20 to 100,000 updates; try 400.", 20, LONGEST)
    if options.of != "lr" and (options.confirm is not None or options.cyclic):
        raise ConfigError(f"--of={options.of} has no --confirm and no --cyclic: these are for the learning rate.")
