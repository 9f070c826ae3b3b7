"""Measure the gradient noise scale B_simple = tr(Σ) / |G|² of a run, and the batch sizes that follow from it.

Takes every override that cadence train takes. It trains as cadence train would, at the planned learning rates, and at
a few points measures the gradients of many micro-batches without changing anything. Nothing is logged or checkpointed.
Examples:

    cadence noise-scale optimizer=sgd schedule=linear --out outputs/noise
    cadence noise-scale optimizer=sgd --at 0 --updates 100 --no-files        # at the start alone
    cadence noise-scale experiment=cifar10_resnet --at 1ep,50%,90% --micro 128 --batch 4096 --updates 20
"""

import argparse
import json
import platform
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from trainer.cli.compose import add_config_options, add_file_options, compose_config
from trainer.config.settings import Settings, settings_of
from trainer.lr import ConfigError, Horizon
from trainer.lr.bounds import integer
from trainer.tools.drawing import needed_for_pictures
from trainer.tools.writable import check_writable, save_numbers


def main(words: list[str] | None = None) -> None:
    """Train to the points, measure there, and print what was found."""
    options = parsed(words)
    settings = quiet(options)
    sizes = sampling_sizes(options, settings)
    if not options.no_files:
        needed_for_pictures()
        check_writable(options.out)
    from trainer.config.components import build
    from trainer.config.resolve import resolve
    from trainer.run import fit
    from trainer.tools.noise_scale import output  # late: these need torch
    from trainer.tools.noise_scale.probe import Probe, Sampling

    sampling = Sampling(*sizes)

    with tempfile.TemporaryDirectory() as folder:
        parts = build(resolve(settings), Path(folder))
        length = parts.module.horizon
        probe = Probe(parts, updates_of(options.at, length), sampling)
        parts.module.observers = parts.module.observers.with_probe(probe.attach)
        parts.trainer.callbacks.remove(parts.checkpointing)  # type: ignore[attr-defined]
        notes = remarks(parts.module.net, sampling.micro)
        print("\n".join(heading(length, sizes, notes)), flush=True)
        fit(parts)
    print("\r\033[K" if sys.stderr.isatty() else "", end="", file=sys.stderr)
    advice = output.advise(probe.measured, length.batch_size)
    print("\n".join([*output.format_points(probe.measured), "", *output.format_advice(advice, length.batch_size)]))
    if not options.no_files:
        print(f"\n{save(options, probe, advice, notes)}")


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_options(parser)
    parser.add_argument(
        "--at", default="10%,50%,90%", metavar="LIST", help="where to measure: updates, 10%%, 5ep, … (10%%,50%%,90%%)"
    )
    parser.add_argument("--updates", type=int, default=50, metavar="N", help="batches to measure at each point (50)")
    parser.add_argument("--micro", type=int, metavar="b", help="samples of a micro-batch (data.batch_size)")
    parser.add_argument("--batch", type=int, metavar="B", help="samples of a batch, a multiple of b (16 b)")
    parser.add_argument("--seed", type=int, default=0, help="of the samples that are drawn (0)")
    add_file_options(parser, "outputs/noise_scale")
    return parser.parse_intermixed_args(words)


def quiet(options: argparse.Namespace) -> Settings:
    """The settings of the run, without measurements, loggers and callbacks; refused where it cannot be measured."""
    cfg = compose_config(options.overrides, options)
    run, resume = settings_of(cfg).trainer, cfg.resume.path
    if run.world > 1:
        raise ConfigError(f"{run.world} processes: the noise scale is measured in one: take trainer=auto, and --batch.")
    if run.precision == "16-mixed":
        raise ConfigError("trainer.precision=16-mixed scales its gradients: measure with bf16-mixed or 32-true.")
    if resume is not None:
        raise ConfigError(f"resume.path={resume}: the noise scale is measured from the start: take resume=none.")
    for key in ("measure", "logger", "callbacks"):
        OmegaConf.update(cfg, key, {}, merge=False, force_add=True)
    cfg.trainer.checkpoint = None
    return settings_of(cfg)


def sampling_sizes(options: argparse.Namespace, settings: Settings) -> tuple[int, int, int, int]:
    """How many batches are measured at a point, the samples of a micro-batch and of a batch, and the seed."""
    why = "it is a number of samples, at least 1."
    micro = integer("--micro", settings.data["batch_size"] if options.micro is None else options.micro, why)
    batch = 16 * micro if options.batch is None else integer("--batch", options.batch, why)
    if batch % micro or batch == micro:
        raise ConfigError(
            f"--batch={batch} is not made of two or more micro-batches of {micro}: give a multiple of --micro, "
            f"as {max(2, batch // micro) * micro}."
        )
    integer("--updates", options.updates, "an interval needs at least 2; try 50.", low=2)
    integer("--seed", options.seed, "give a number from 0.", low=0, high=2**32 - 1)
    return options.updates, micro, batch, options.seed


def updates_of(at: str, length: Horizon) -> list[int]:
    """The updates before which to measure."""
    points = sorted({length.updates(word.strip(), "--at") for word in at.split(",")})
    if points[-1] >= length.total:
        raise ConfigError(
            f"--at={at} has update {points[-1]}, but the last one is {length.total - 1}: measure before it."
        )
    return points


def heading(length: Horizon, sizes: tuple[int, int, int, int], notes: list[str]) -> list[str]:
    """The lines that say what will be measured."""
    updates, micro, batch, _ = sizes
    return [
        f"a run of T = {length.total:,} updates of {length.batch_size:,} samples; at each point "
        f"{updates} batches of {batch:,} in micro-batches of {micro:,}",
        *notes,
        "",
    ]


def remarks(net: Any, micro: int) -> list[str]:
    """A note on nets with BatchNorm, whose numbers depend on the micro-batch."""
    from trainer.engine.averaging import batch_norms

    norms = [name for name, _ in batch_norms(net)]
    if not norms:
        return []
    return [
        f"note: BatchNorm ({norms[0]}{' and others' if len(norms) > 1 else ''}) ties the samples of a micro-batch "
        f"together: these are the numbers of the loss with statistics over {micro} samples. They hold for "
        "larger batches that are made of such micro-batches; give --micro what one device sees."
    ]


def save(options: argparse.Namespace, probe: Any, advice: dict[str, Any] | None, notes: list[str]) -> str:
    """Write the picture and the numbers. Returns their paths, to print."""
    import torch

    from trainer.tools.noise_scale.output import draw

    length = probe.parts.module.horizon
    figure = draw(probe.measured, length.batch_size, length.total)
    numbers = {
        "overrides": options.overrides,
        "sampling": asdict(probe.sampling),
        "batch_size": length.batch_size,
        "total": length.total,
        "notes": notes,
        "points": [asdict(point) for point in probe.measured],
        "advice": advice,
        "machine": {"torch": torch.__version__, "python": platform.python_version(), "machine": platform.machine()},
    }
    return save_numbers(options.out, json.dumps(numbers, indent=1), figure)
