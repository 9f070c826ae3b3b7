"""What the commands for a trained run have in common on the command line."""

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trainer.tools.trained.choices import WHICH

if TYPE_CHECKING:
    from trainer.tools.trained.loading import Run


def parser_for_run(description: str | None) -> argparse.ArgumentParser:
    """A parser for a command that takes the folder of a run."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a run, or one of its checkpoints")
    parser.add_argument("--which", choices=WHICH, default=WHICH[0], help="the weights with the best score, or the last")
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1 (that of the run)")
    return parser


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add what names the data: a split of the run's own, or other data."""
    parser.add_argument(
        "overrides", nargs="*", metavar="data=…", help="other data: data=NAME, data.KEY=VALUE (that of the run)"
    )
    parser.add_argument("--split", default="test", metavar="NAME", help="train, val or test (test)")
    parser.add_argument("--config-dir", "-cd", type=Path, metavar="FOLDER", help="more options for data=NAME")


def loaded(options: argparse.Namespace) -> "Run":
    """The run that the command names."""
    from trainer.tools.trained.loading import load  # late: it needs torch

    words = [word for word in getattr(options, "overrides", ()) if word.lstrip("+").startswith("allow=")]
    return load(
        options.run, options.which, options.device, re.findall(r"[\w.]+", ",".join(words).replace("allow=", ""))
    )


def data_of(run: "Run", options: argparse.Namespace, purpose: Literal["test", "predict"]) -> Any:
    """The split that the command names: its name for the run's own data, batches of other data."""
    if not options.overrides:
        return options.split
    from trainer.tools.trained.batches import split_of  # late: it needs torch

    return split_of(run.other_data(*options.overrides, config_dir=options.config_dir, purpose=purpose), options.split)
