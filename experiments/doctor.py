"""Judge the doctor: runs of small families that are healthy or were made bad, and what it says of each.

The families `used` have set its thresholds; `unseen` ones have not. Examples:

    python experiments/doctor.py unseen
    python experiments/doctor.py used --only gpt "deep tanh"
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch  # noqa: E402

from experiments.doctor_cases.families import USED  # noqa: E402
from experiments.doctor_cases.runs import cases  # noqa: E402
from experiments.doctor_cases.second import SECOND  # noqa: E402
from experiments.doctor_cases.third import THIRD  # noqa: E402
from experiments.doctor_cases.unseen import UNSEEN  # noqa: E402
from trainer.cli.run_cli import run_cli  # noqa: E402
from trainer.doctor import examine  # noqa: E402
from trainer.lr import ConfigError  # noqa: E402

RIGHT = {
    "healthy": set(),
    "too high": {"lr-too-high", "not-finite", "warmup-too-short"},
    "too low": {"lr-too-low", "not-learning"},
    "no signal": {"not-learning"},
    "target scale": {"target-scale", "not-finite"},
    "dead net": {"zero-gradients", "not-learning"},
    "weight decay": {"weight-decay-too-high"},
}
"""The signs that tell the truth of a fault. Far below the best rate nothing may be seen beside the noise."""
OPPOSITE = {"too high": "lr-too-low", "too low": "lr-too-high"}


def main(arguments: list[str] | None = None) -> None:
    """Train all runs, and print each on which the doctor is not right, and the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=("used", "unseen"), help="the families that set the thresholds, or others")
    parser.add_argument("--only", nargs="+", metavar="FAMILY", help="some of them")
    options = parser.parse_args(arguments)
    families = {"used": {**USED, **SECOND, **THIRD}, "unseen": UNSEEN}[options.which]
    if unknown := sorted({*(options.only or ())} - families.keys()):
        raise ConfigError(f"{unknown[0]} is not a family: choose from {', '.join(families)}.")
    torch.set_num_threads(1)
    counts: Counter[str] = Counter()
    for name in options.only or families:
        for case in cases(families[name]):
            findings = examine(case.log)
            found = [one.heading for one in findings]
            outcome = judged(case.fault, [one.sign for one in findings if not one.note])
            counts["notes"] += sum(one.note for one in findings)
            counts[f"{'healthy' if case.fault == 'healthy' else 'bad'} {outcome}"] += 1
            print(f"{outcome:8} {name:12} {case.name:32} {', '.join(found) or '-'}", flush=True)
    print(", ".join(f"{what}: {count}" for what, count in sorted(counts.items())))


def judged(fault: str, found: list[str]) -> str:
    """Whether what was found is right of a run with a fault, or the opposite."""
    if fault == "healthy":
        return "false" if found else "right"
    if RIGHT[fault] & {*found}:
        return "right"
    return "opposite" if OPPOSITE.get(fault) in found else "missed"


if __name__ == "__main__":
    sys.exit(run_cli(main))
