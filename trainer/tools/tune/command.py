"""Find the learning rate by short trainings: the rate, its interval, what its neighbours cost, an override to paste.

Takes every override that cadence train takes. A range test tells where to start. Then the run is trained in short, with
its whole schedule, at half-decades of the rate, until the best one has a worse neighbour on each side; then at
quarter-decades around it, with more updates; then a few whole runs decide. All rates share their seeds, and what cannot
win is not repeated. A tune that was stopped goes on where it was when the same command is given. Examples:

    cadence tune optimizer=adamw schedule=cosine_warmup --budget 10%
    cadence tune experiment=shakespeare_char data.path=input.txt --budget 5% --seeds 3
    cadence tune optimizer=adamw --of lr,weight_decay        # two numbers at once
    cadence tune optimizer=momentum --of momentum            # or weight_decay, or warmup
    cadence tune model=resnet9 data=cifar10 --jobs 4         # four trainings at once, on as many GPUs
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from trainer.cli.command import COMMAND
from trainer.cli.compose import add_config_options, compose_config
from trainer.cli.environment import tree_without_secrets
from trainer.cli.run_folder import removed_where_refused
from trainer.distributed.launch.folder_lock import FolderLock
from trainer.files.atomic import write_text
from trainer.files.plain import read_record
from trainer.lr import ConfigError
from trainer.lr.bounds import integer
from trainer.tools.drawing import needed_for_pictures
from trainer.tools.run_folders import TUNE
from trainer.tools.tune.axes import AXES, axes_of
from trainer.tools.writable import write_new_file

PICTURE, BY = "tune.png", "command.json"


def main(words: list[str] | None = None) -> None:
    """Tune, print what was found, and write the files."""
    options = parsed(words)
    axes_of(options.of)
    integer("--seeds", options.seeds, "give 1 to 20.", high=20)
    integer("--whole", options.whole, "give 2 to 20 whole runs, or 0 for none.", low=0, high=20)
    if options.whole == 1:
        raise ConfigError("--whole=1: one run decides nothing: give 2 to 20, or 0 for none.")
    integer("--jobs", options.jobs, "give 1 to 64.", high=64)
    needed_for_pictures()
    cfg = compose_config(options.overrides, options)
    from trainer.config.variants import for_tuning  # late: a refused command does not need it

    given = _identity(options, OmegaConf.to_container(cfg))
    root = options.out or Path("outputs") / f"tune-{_digest(given)[:8]}"
    with removed_where_refused(root, also=(BY,)), FolderLock(root, "a tune") as lock:
        _take(lock, given)
        try:
            _tune(options, partial(for_tuning, cfg), root)
        except (OSError, KeyboardInterrupt, SystemExit):
            if any(root.glob("*/**/result.json")):
                print(f"{root} keeps what was trained: the same command goes on", file=sys.stderr, flush=True)
            raise


def _tune(options: argparse.Namespace, config: Callable[[], Any], root: Path) -> None:
    """Tune in a folder that this process holds, print what was found, and write the files."""
    from trainer.tools.tune.members import Members  # late: it needs torch
    from trainer.tools.tune.output import draw, format_answer, format_stage
    from trainer.tools.tune.steps import Tuner, as_json
    from trainer.tools.tune.workers import Workers

    members = Members(config(), options.overrides, root, _program(options))
    with Workers(members, options.jobs) as workers, _progress() as progress:
        tuner = Tuner(options, members.cfg, members, progress, workers.train if options.jobs > 1 else None)
        answer = tuner.run()
        score = members.score(tuner.resolved)
    for stage in answer.distinct_stages:
        share = 100 * stage.updates / answer.total
        print(f"\n{stage.updates:,} updates ({share:.3g} % of the run), {score}")
        print("\n".join(format_stage(stage, answer.axes)))
    print("\n" + "\n".join(["; ".join(filter(None, answer.notes)), *format_answer(answer)]))
    numbers = finite(tree_without_secrets(as_json(answer, options)))
    write_text(root / TUNE, json.dumps(numbers, indent=1, allow_nan=False) + "\n")
    write_new_file(root / PICTURE, partial(draw(answer, score).savefig, dpi=120))
    print(f"\n{root / PICTURE}  {root / TUNE}  all trainings as a page: cadence report {root}", flush=True)


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add_config_options(parser)
    add("--of", default="lr", metavar="NAMES", help=f"what is tuned: one or two of {', '.join(AXES)} (lr)")
    add("--budget", default="10%", metavar="DURATION",
        help="length of the first trainings: updates, 5ep, or a share of the run (10%%)")  # fmt: skip
    add("--seeds", type=int, default=2, metavar="K", help="seeds of each point that may win, from seed= on (2)")
    add("--whole", type=int, default=3, metavar="N", help="whole runs that decide at the end (3); 0: none")
    add("--jobs", type=int, default=1, metavar="N",
        help="processes that train at once what is not trained as one; each takes a GPU in turn (1)")  # fmt: skip
    add(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="folder of all trainings (outputs/tune-ID, with an ID by command and config)",
    )
    return parser.parse_intermixed_args(words)


def _identity(options: argparse.Namespace, config: Any) -> dict[str, str]:
    """The command and the hash of its config: its trainings are only taken up by the same."""
    given = {name: str(value) for name, value in sorted(vars(options).items()) if name not in ("out", "jobs")}
    return {**given, "config": _digest(config)}


def _digest(plain: Any) -> str:
    return hashlib.sha256(json.dumps(plain, default=str).encode()).hexdigest()


def _take(lock: FolderLock, given: dict[str, str]) -> None:
    """Lock the folder of a tune, which belongs to one command and config."""
    root, path = lock.folder, lock.folder / BY
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        if path.exists() and read_record(path) != given:
            raise ConfigError(
                f"--out={root} holds a tune by another command or config: name another folder, or remove this one."
            )
        write_text(path, json.dumps(given, indent=1) + "\n")
    except OSError as error:
        raise ConfigError(f"--out={root} cannot be written ({error.strerror}): name another folder.") from error


def _program(options: argparse.Namespace) -> list[str]:
    named = [] if options.config_name == "train" else ["--config-name", options.config_name]
    return [*COMMAND, *named, *([] if options.config_dir is None else ["--config-dir", str(options.config_dir)])]


@contextmanager
def _progress() -> Iterator[Any]:
    """A bar on a terminal, and a line for each training elsewhere."""
    from trainer.tools.tune.progress import Bar, Lines  # late: it needs rich

    shown = Bar() if sys.stderr.isatty() else Lines()
    with shown:
        yield shown


def finite(tree: Any) -> Any:
    """The same tree, with None for each number that is not finite, which JSON cannot hold."""
    from trainer.tools.range_test.steps import finite as finite_tree  # late: it needs torch

    return finite_tree(tree)
