"""Time the updates of Cadence against a bare PyTorch loop and against its peers, side by side in one process.

updates  a tiny MLP, where the loop is all there is: bare PyTorch, Cadence, stock Lightning, transformers.Trainer
gpt      nanoGPT's CPU setting (experiment=shakespeare_char): Cadence and a bare loop, block by block in turn
ddp      a ResNet-9 on two processes: Cadence, a bare DDP loop, and one process at the same global batch, in turn
adamw    a step of AdamW of 1M and 10M numbers: torch's default, its loop, foreach, and fused, which is ours
lr       one evaluation of a policy and one step of a scheduler of torch and transformers; and the plan of a long run

Trust the ratios: microseconds depend on the machine and on what else it does. Examples:

    python benchmarks/benchmark.py updates --rounds 7 --out outputs/updates.json
    python benchmarks/benchmark.py gpt --data FOLDER/input.txt --full --threads 2
    python benchmarks/benchmark.py lr
"""

import argparse
import gc
import importlib
import json
import os
import random
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from benchmarks.report import machine, show, summary  # noqa: E402
from trainer.cli.run_cli import run_cli  # noqa: E402
from trainer.lr import ConfigError  # noqa: E402

if TYPE_CHECKING:
    from benchmarks.loops import Loop, Spent, Work

VARIANTS = {
    "bare": "loops",
    "cadence": "loops",
    "lightning": "lightning",
    "lightning_sparse": "lightning",
    "transformers": "huggingface",
}


def main(arguments: list[str] | None = None) -> None:
    """Measure, show a table, and write the numbers where `--out` says."""
    options = parse(arguments)
    import torch

    torch.set_num_threads(options.threads)
    if options.what == "adamw":
        from benchmarks.steps import show as show_steps
        from benchmarks.steps import steps

        report = {"what": options.what, "machine": machine(options.threads), **steps(options)}
        show_steps(report)
        return write(report, options.out)
    report = {"updates": updates, "gpt": gpt, "ddp": ddp, "lr": lr}[options.what](options)
    times, base = report.pop("times"), "cadence" if options.what == "lr" else "bare"
    rows = {name: summary([one[name] for one in times], [one[base] for one in times]) for name in times[0]}
    report = {"what": options.what, "machine": machine(options.threads), **report, "rows": rows}
    if options.what == "lr":
        from benchmarks.lr import show as show_lr

        show_lr(report)
    else:
        show(report)
    return write(report, options.out)


def write(report: dict[str, Any], out: Path | None) -> None:
    """Keep the numbers, where a file is named."""
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        print(out)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("updates", "gpt", "ddp", "adamw", "lr"), default="updates")
    parser.add_argument(
        "--updates",
        type=int,
        help="of a run: 1000; gpt: 300, or 2000 with --full; ddp: 20 blocks; adamw: 10; lr: 10000",
    )
    parser.add_argument(
        "--rounds", type=int, default=7, help="updates, adamw, lr: measured rounds, after one to warm up"
    )
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="updates: which")
    parser.add_argument("--data", type=Path, help="gpt: the text file to train on")
    parser.add_argument("--block", type=int, default=50, help="gpt, ddp: updates of one loop before another's turn")
    parser.add_argument("--full", action="store_true", help="gpt: train to the end, and validate on the way")
    parser.add_argument("--planned", type=int, default=1_000_000, help="lr: updates of the run that is planned")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of PyTorch")
    parser.add_argument("--out", type=Path, help="a JSON file for the numbers")
    options = parser.parse_args(arguments)
    leasts = {"updates": 100 if options.what == "lr" else 2, "rounds": 1, "block": 1, "planned": 100, "threads": 1}
    for name, least in leasts.items():
        if (value := getattr(options, name)) is not None and value < least:
            raise ConfigError(f"--{name}={value} is too few: give at least {least}.")
    if options.what == "gpt" and options.data is None:
        raise ConfigError("--data is not set: gpt trains on a text file, name it.")
    return options


def updates(options: argparse.Namespace) -> dict[str, Any]:
    """What an update took in every round of every variant that can run here."""
    from benchmarks.loops import Work

    loops, skipped = available(["bare", *(name for name in options.variants if name != "bare")])
    work = Work.of(options.updates or 1000, options.threads)
    return {
        "updates": work.updates,
        "times": measure(work, loops, options.rounds),
        "unit": "rounds",
        "skipped": skipped,
    }


def available(names: list[str]) -> tuple[dict[str, "Loop"], dict[str, str]]:
    """The loops by name, and why those are missing that cannot run here."""
    loops, skipped = {}, {}
    for name in names:
        try:
            loops[name] = getattr(importlib.import_module(f"benchmarks.{VARIANTS[name]}"), name)
        except ImportError as error:
            skipped[name] = f"{' '.join(str(error).split())}: pip install '.[peers]' brings it"
    return loops, skipped


def measure(work: "Work", loops: dict[str, "Loop"], rounds: int) -> list[dict[str, "Spent"]]:
    """What an update of each loop took in each round, in shuffled order, after one round to warm up.

    RuntimeError where a loop does not end with the very weights of the bare one: then it did other work.
    """
    from torch.nn.utils import parameters_to_vector

    names, order, times = list(loops), random.Random(0), []
    for _ in range(rounds + 1):
        order.shuffle(names)
        spent, weights = {}, {}
        for name in names:
            gc.collect()
            with tempfile.TemporaryDirectory() as folder:
                whole, net = loops[name](work, Path(folder))
            spent[name], weights[name] = whole / work.updates, parameters_to_vector(net.parameters())
        for name in names:
            if not weights[name].equal(weights["bare"]):
                raise RuntimeError(f"{name} ends with other weights than the bare loop: it did not do the same work.")
        times.append({name: spent[name] for name in loops})
    return times[1:]


def gpt(options: argparse.Namespace) -> dict[str, Any]:
    """What an update of the character GPT took in every block of both loops."""
    from benchmarks.gpt import side_by_side

    with tempfile.TemporaryDirectory() as folder:
        return side_by_side(options, Path(folder))


def ddp(options: argparse.Namespace) -> dict[str, Any]:
    """What an update of a ResNet-9 took on two processes and on one, in every block of every loop."""
    from benchmarks.ddp import side_by_side

    with tempfile.TemporaryDirectory() as folder:
        return side_by_side(options, Path(folder))


def lr(options: argparse.Namespace) -> dict[str, Any]:
    """What the learning rates of an update took, in Cadence and its peers."""
    from benchmarks.lr import evaluations

    return evaluations(options)


if __name__ == "__main__":
    sys.exit(run_cli(main))
