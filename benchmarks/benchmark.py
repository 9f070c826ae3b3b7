"""Time the updates of Cadence beside a bare PyTorch loop and its peers, in one process.

updates  a tiny MLP, to time the loop itself: bare PyTorch, Cadence, stock Lightning, transformers.Trainer
gpt      nanoGPT's CPU setting (experiment=shakespeare_char): Cadence and a bare loop, block by block in turn
ddp      a ResNet-9 on two processes: Cadence, a bare DDP loop, and one process at the same global batch, in turn
fsdp     an MLP on two processes that shard it: Cadence and a bare loop around FSDP2, in turn
processes  speed and memory of 1, 2 and 4 processes, with DDP and FSDP
compile  ResNet-9 and a GPT, compiled in Cadence and as they are in a bare loop; and how often a run compiles anew
growth   how costs grow with parameters, groups, updates, jobs and samples; --picture draws it
adamw    a step of AdamW of 1M and 10M numbers: torch's default, its loop, foreach, and fused, Cadence's default
data     batches from memory, workers, a mapped file of tokens and Parquet, beside bare reading
lr       one evaluation of a policy and one step of a scheduler of torch and transformers; and the plan of a long run

Compare the ratios: microseconds depend on the machine and its load. Examples:

    python benchmarks/benchmark.py updates --rounds 7 --out outputs/updates.json
    python benchmarks/benchmark.py gpt --data FOLDER/input.txt --full --threads 2
    python benchmarks/benchmark.py lr
"""

import argparse
import importlib
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from benchmarks.compared import keep, line  # noqa: E402
from benchmarks.report import NAMES, machine, show, summary  # noqa: E402
from trainer.cli.run_cli import run_cli  # noqa: E402
from trainer.lr import ConfigError  # noqa: E402

MODULES = {
    "updates": "updates",
    "gpt": "gpt",
    "ddp": "ddp",
    "fsdp": "fsdp",
    "processes": "processes",
    "compile": "compiled",
    "growth": "growth",
    "adamw": "steps",
    "lr": "lr",
    "data": "batches",
}
"""What is measured, and the module whose function `measured` does it."""


def main(arguments: list[str] | None = None) -> None:
    """Measure, show a table, and write the numbers where `--out` says."""
    options = parse(arguments)
    import torch

    torch.set_num_threads(options.threads)
    module = importlib.import_module(f"benchmarks.{MODULES[options.what]}")
    found = module.measured(options)
    report = {"what": options.what, "machine": machine(options.threads), **found}
    if times := report.pop("times", None):
        base = "cadence" if options.what == "lr" else "bare"
        report["rows"] = {
            name: summary([one[name] for one in times], [one[base] for one in times]) for name in times[0]
        }
        wall = {name: [one[name].wall for one in times] for name in times[0]}
        other = "torch" if options.what == "lr" else base
        report["lines"] = [
            line(what, wall[name], peer, wall[other], target)
            for name, (what, peer, target) in getattr(module, "LINES", {}).items()
            if name in wall and other in wall
        ]
    getattr(module, "show", show)(report)
    keep(options.out, report)
    if options.picture is not None:
        module.draw(report["costs"], options.picture)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=MODULES, default="updates")
    parser.add_argument(
        "--updates",
        type=int,
        help="of a run: 1000; gpt: 300, or 2000 with --full; ddp, fsdp: 20 blocks; adamw: 10; lr: 10000",
    )
    parser.add_argument(
        "--rounds", type=int, default=7, help="updates, adamw, lr: measured rounds, after one to warm up"
    )
    parser.add_argument("--variants", nargs="+", choices=NAMES, default=list(NAMES), help="updates: which loops")
    parser.add_argument("--data", type=Path, help="gpt: the text file to train on")
    parser.add_argument(
        "--block", type=int, default=50, help="gpt, ddp, fsdp: updates of one loop before another's turn"
    )
    parser.add_argument("--full", action="store_true", help="gpt: train to the end, and validate on the way")
    parser.add_argument("--planned", type=int, default=1_000_000, help="lr: updates of the run that is planned")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of PyTorch")
    parser.add_argument("--picture", type=Path, help="growth: a picture to draw, as docs/growth.svg")
    parser.add_argument("--out", type=Path, help="a JSON file for the numbers")
    options = parser.parse_args(arguments)
    leasts = {"updates": 100 if options.what == "lr" else 2, "rounds": 1, "block": 1, "planned": 100, "threads": 1}
    for name, least in leasts.items():
        if (value := getattr(options, name)) is not None and value < least:
            raise ConfigError(f"--{name}={value} is too few: give at least {least}.")
    if options.what == "gpt" and options.data is None:
        raise ConfigError("--data is not set: gpt trains on a text file, name it.")
    return options


if __name__ == "__main__":
    sys.exit(run_cli(main))
