"""Try every optimizer on the digits: its best learning rate and loss, its time, its memory.

Writes OUT, a page with a table. It takes about five minutes on one core. Examples:

    python benchmarks/optimizers/command.py
    python benchmarks/optimizers/command.py --only adamw lion muon --updates 100 --out outputs/optimizers.md
"""

import argparse
import os
import shlex
import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from benchmarks.report import machine  # noqa: E402
from trainer.cli.run_cli import run_cli  # noqa: E402
from trainer.lr import ConfigError  # noqa: E402


def main(arguments: list[str] | None = None) -> None:
    """Train, measure, write the page."""
    options = parse(arguments)
    import torch

    from benchmarks.optimizers import cost, page, trial

    known = trial.names()
    for name in options.only or ():
        if name not in known:
            raise ConfigError(f"--only={name} is not an optimizer: choose from {', '.join(known)}.")
    torch.set_num_threads(1)
    trials = []
    for count, name in enumerate(options.only or known, start=1):
        trials.append(trial.search(name, options.updates, options.points, lambda line: print(line, flush=True)))
        best = trials[-1].best
        print(f"[{count}/{len(options.only or known)}] {name}: loss {trials[-1].losses[best]:.4f} at lr {best:g}")
    base = cost.measure(trials, options.rounds)
    where = machine(1)
    where["versions"]["pytorch-optimizer"] = version("pytorch-optimizer")
    command = shlex.join(
        ["python", "benchmarks/optimizers/command.py", *(sys.argv[1:] if arguments is None else arguments)]
    )
    facts = {"machine": where, "command": command, "updates": options.updates, "rounds": options.rounds, "base": base}
    try:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(page.page(trials, facts), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--out={options.out} cannot be written ({error.strerror}): name another file.") from error
    print(f"{options.out}: {len(trials)} optimizers")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some optimizers; all")
    parser.add_argument("--updates", type=int, default=200, help="of each run: 200")
    parser.add_argument("--points", type=int, default=5, help="of the grid of learning rates: 5")
    parser.add_argument("--rounds", type=int, default=15, help="of the timing: 15")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "docs" / "optimizers.md", help="the page: docs/optimizers.md"
    )
    options = parser.parse_args(arguments)
    for name, least in (("updates", 20), ("points", 1), ("rounds", 1)):
        if getattr(options, name) < least:
            raise ConfigError(f"--{name}={getattr(options, name)} is too few: give at least {least}.")
    return options


if __name__ == "__main__":
    sys.exit(run_cli(main))
