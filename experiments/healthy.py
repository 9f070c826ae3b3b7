"""What the doctor says of the run of each experiment config, which should be nothing that is not so.

Trains each of them as it stands, but for the larger ones, which are shortened, and prints what is found. Examples:

    python experiments/healthy.py                                  # those on digits: a minute
    python experiments/healthy.py schedules warmup --seeds 3 --observe norms
    CADENCE_DATA=FOLDER python experiments/healthy.py --larger     # photographs and text, too
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from hydra import compose, initialize_config_dir  # noqa: E402

from trainer.cli.run_cli import run_cli  # noqa: E402
from trainer.cli.run_id import register_run_id  # noqa: E402
from trainer.doctor import Finding, examine, read_log  # noqa: E402
from trainer.lr import ConfigError  # noqa: E402
from trainer.lr.bounds import whole  # noqa: E402

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
"""What makes the larger ones short: 300 updates of a small net on a part of the photographs, 500 of the GPT."""


def main(arguments: list[str] | None = None) -> None:
    """Train each, and tell."""
    options = parsed(arguments)
    names = options.names or [*DIGITS, *(LARGER if options.larger else ())]
    if unknown := sorted({*names} - {*DIGITS, *LARGER}):
        raise ConfigError(
            f"{unknown[0]} is no experiment that the doctor is tried on: choose from {', '.join((*DIGITS, *LARGER))}."
        )
    data = os.environ.get("CADENCE_DATA")
    if data is None and {*names} & {*LARGER}:
        raise ConfigError("the larger experiments need their data: name its folder, as in CADENCE_DATA=FOLDER.")
    whole("--seeds", options.seeds, "give 1 to 100.", high=100)
    print("| experiment | seed | updates | found |\n| --- | --- | --- | --- |")
    for name in names:
        for seed in range(options.seeds):
            more = [word.format(data=data) for word in LARGER.get(name, ())]
            made, found = trained(name, [*more, f"seed={seed}", f"measure={options.observe}"])
            told = "; ".join(f"{one.sign}: {one.seen}" for one in found) or "nothing"
            print(f"| {name} | {seed} | {made} | {told} |", flush=True)


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="experiments; else all on digits")
    parser.add_argument("--larger", action="store_true", help="the larger ones, too")
    parser.add_argument("--seeds", type=int, default=1, metavar="K", help="runs of each (1)")
    parser.add_argument("--observe", default="none", metavar="OPTION", help="as of train.py: none, norms, noise (none)")
    return parser.parse_args(arguments)


def trained(name: str, overrides: list[str]) -> tuple[int, list[Finding]]:
    """Run an experiment to its end, in a folder that is thrown away: its updates, and what the doctor finds."""
    from trainer.run import assemble, fit

    register_run_id()
    plain = ["callbacks=none", "trainer.accelerator=cpu", "name=healthy", f"experiment={name}"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", [*plain, *overrides])
    with tempfile.TemporaryDirectory() as folder:
        run = assemble(cfg, Path(folder))
        fit(run, None)
        for logger in run.trainer.loggers:
            logger.save()
        (run.folder / "plan.json").write_text(json.dumps(run.facts), encoding="utf-8")
        log = read_log(run.folder)
        return log.made, examine(log)


if __name__ == "__main__":
    sys.exit(run_cli(main))
