"""Run the doctor on a run of each experiment config, to look for false findings.

Trains each of them by train.py as it is, the larger ones shortened, and runs the doctor on the results. It judges no
threshold, so it is not an experiment in YAML. Examples:

    python experiments/healthy.py                                  # those on digits: a few minutes
    python experiments/healthy.py schedules warmup --seeds 3 --measure norms
    CADENCE_DATA=FOLDER python experiments/healthy.py --larger     # photographs and text, too
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from trainer.cli.run_cli import run_cli  # noqa: E402
from trainer.lr import ConfigError  # noqa: E402
from trainer.lr.bounds import integer  # noqa: E402
from trainer.tools.doctor import main as doctor  # noqa: E402

DIGITS = ("adam_sqrt", "adascale", "critical_batch", "goyal", "increase_batch", "schedules", "warmup")
SMALL = (
    *("data.path={data}/cifar10", "data.batch_size=128", "model.width=16", "data.train_limit=12800"),
    *("data.samples=12800", "trainer.duration=300", "trainer.validate=50"),
)
LARGER = {
    "cifar10_resnet": (*SMALL, "optimizer.lr=0.2"),
    "large_batch": (*SMALL, "scaling.base_batch_size=128", "optimizer.lr=0.1"),
    "super_convergence": (*SMALL, "optimizer.lr=0.2"),
    "shakespeare_char": ("data.path={data}/tinyshakespeare/input.txt", "trainer.duration=500", "trainer.validate=50"),
}
"""Overrides that shorten the larger ones: 300 updates of a small net on a part of the photographs, 500 of the GPT."""


def main(arguments: list[str] | None = None) -> None:
    """Train each, and print the findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="experiments; else all on digits")
    parser.add_argument("--larger", action="store_true", help="the larger ones, too")
    parser.add_argument("--seeds", type=int, default=1, metavar="K", help="runs of each (1)")
    parser.add_argument("--measure", default="none", metavar="OPTION", help="of train.py: none, norms, noise (none)")
    options = parser.parse_args(arguments)
    names = options.names or [*DIGITS, *(LARGER if options.larger else ())]
    if unknown := sorted({*names} - {*DIGITS, *LARGER}):
        known = ", ".join((*DIGITS, *LARGER))
        raise ConfigError(f"{unknown[0]} is not one of these experiments: choose from {known}.")
    data = os.environ.get("CADENCE_DATA")
    if data is None and {*names} & {*LARGER}:
        raise ConfigError("the larger experiments need their data: name its folder, as in CADENCE_DATA=FOLDER.")
    integer("--seeds", options.seeds, "give 1 to 100.", high=100)
    with tempfile.TemporaryDirectory() as root:
        for name in names:
            words = [word.format(data=data) for word in LARGER.get(name, ())]
            train([f"experiment={name}", *words, f"measure={options.measure}"], options.seeds, Path(root, name))
        doctor([str(Path(root, name)) for name in names])


def train(words: list[str], seeds: int, folder: Path) -> None:
    """Train a run of each seed. Raises RuntimeError where one fails."""
    plain = ["callbacks=none", "trainer.accelerator=cpu", f"hydra.sweep.dir={folder}", "hydra.launcher.fork=true"]
    command = [sys.executable, str(ROOT / "train.py"), "-m", *words, f"seed=range(0,{seeds})", *plain]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(f"{words[0]} ended with exit code {ended.returncode}: {ended.stderr.strip()}")


if __name__ == "__main__":
    sys.exit(run_cli(main))
