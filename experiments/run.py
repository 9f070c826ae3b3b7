"""Run an experiment: train its sweeps by train.py, judge its claims, and write a report with its pictures.

An experiment is a file experiments/NAME.yaml. Runs, claims.json and the report go to FOLDER/NAME; what is there already
is not trained again. The exit code is 1 where it is not as claimed. Examples:

    python experiments/run.py                       # which there are
    python experiments/run.py warmup --seeds 2 --jobs 1
    python experiments/run.py goyal --docs          # write docs/experiments.md, too
"""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments.claims import flat, judged_all, with_values  # noqa: E402
from experiments.record import Table, check, check_options, measured_by, options_of, publish, summary  # noqa: E402
from experiments.results import Results, Trial, trials_in  # noqa: E402
from trainer.cli.run_cli import run_cli  # noqa: E402
from trainer.config.instantiate import check_names, check_values  # noqa: E402
from trainer.lr import ConfigError  # noqa: E402
from trainer.tools.report.claims import Claims, Plot, write_claims  # noqa: E402
from trainer.tools.report.command import main as report  # noqa: E402

HERE = ROOT / "experiments"
QUIET = [
    "callbacks=none", "trainer.threads=1", "trainer.steps_per_execution=50", "trainer.log_every=1000",
    "lint.ignore=[huge-lr,unreached]", "allow=[experiments]",
    "+callbacks.training_set._target_=experiments.callbacks.TrainingSet",
]  # fmt: skip
"""Overrides of every run: no callback but the one that scores the whole training set at its end."""
DATA = "CADENCE_DATA"
"""The environment variable that may name a folder with the data of the larger experiments."""


@dataclass(frozen=True)
class Sweep:
    """Jobs as behind `python train.py -m`, and the name of their arm (see `experiments.results.trials_in`)."""

    arm: str
    jobs: str


@dataclass(frozen=True)
class Experiment:
    """An experiment as its YAML describes it.

    `curve` is the interval at which the loss over the training set is logged, `tuned` the key that each arm is tuned
    by, `summary` how seeds are summed up, `columns` are expressions with `{arm}` for the table, `data` the data set of
    a larger experiment, which trains on a GPU where there is one.
    """

    title: str
    about: str
    setting: str
    source: str
    seeds: int
    sweeps: Sequence[Sweep]
    claims: Sequence[dict[str, Any]]
    metric: str = "train_loss"
    curve: str = ""
    tuned: str = ""
    tuned_by: str = ""
    summary: str = "mean"
    data: str = ""
    columns: dict[str, str] | None = None
    notes: Sequence[str] = ()
    plots: Sequence[dict[str, Any]] = ()


def main(arguments: list[str] | None = None) -> None:
    """Run the experiment that is named. Raises `NotReproduced`, exit code 1, where it is not as claimed."""
    parser = options_of(__doc__)
    parser.add_argument("name", nargs="?", metavar="NAME", help="of the experiment")
    options = parser.parse_args(arguments)
    if options.name is None:
        print("\n".join(f"{name:<20}  {read(name).title}" for name in names()))
        return
    experiment = read(options.name)
    seeds = experiment.seeds if options.seeds is None else options.seeds
    folder = (options.out / options.name).resolve()  # train.py may run in another folder
    check_options(options, folder)
    begun = time.perf_counter()
    results = swept(options.name, experiment, folder, seeds, options.jobs)
    words = shlex.join(["python", "experiments/run.py", *(arguments or sys.argv[1:])])
    how = measured_by(words, seeds, len(results.trials), time.perf_counter() - begun, options.jobs)
    found = judged_claims(experiment, results, how)
    write_claims(folder, found)
    print(summary(found), flush=True)
    metric = "test/accuracy" if experiment.metric == "test_error" else "test/train_loss"
    report([str(folder), "--metric", metric])
    if options.docs:
        publish(options.name, folder, [folder / "report" / name for name in found.more["pictures"]])
    check(options.name, found.claims)


def names() -> list[str]:
    """The names of all experiments."""
    return sorted(path.stem for path in HERE.glob("*.yaml"))


def read(name: str) -> Experiment:
    """An experiment from its file. Raises ConfigError where it is not known, or its file is not valid."""
    if name not in names():
        raise ConfigError(f"{name} is not an experiment: choose from {', '.join(names())}.")
    tree = yaml.safe_load((HERE / f"{name}.yaml").read_text(encoding="utf-8"))
    place = f"experiments/{name}.yaml"
    check_names(place, Experiment, tree)
    for i, one in enumerate(tree["sweeps"]):
        check_names(f"{place}: sweeps.{i}", Sweep, one)
        check_values(f"{place}: sweeps.{i}", Sweep, one)
    experiment = Experiment(**{**tree, "sweeps": [Sweep(**one) for one in tree["sweeps"]]})
    list(flat(experiment.claims))
    return experiment


def swept(name: str, experiment: Experiment, folder: Path, seeds: int, jobs: int) -> Results:
    """Run the sweeps one after the other, each in a folder of its own. Returns the results of all."""
    trials: list[Trial] = []
    for number, sweep in enumerate(experiment.sweeps):
        place = folder / f"sweep-{number}"
        words = at_best(sweep.jobs, results(experiment, trials))
        train(command(name, experiment, words, place, seeds, jobs), place)
        trials += trials_in(place, sweep.arm, experiment.tuned)
    return results(experiment, trials)


def at_best(jobs: str, found: Results) -> str:
    """The overrides with `{best ARM}` as the value at which that arm, which has run before, is best."""
    return re.sub(r"\{best ([^}]+)\}", lambda arm: f"{found.best(arm[1]):g}", jobs)


def results(experiment: Experiment, trials: Sequence[Trial]) -> Results:
    """The trials, as the experiment wants them summed up."""
    return Results(trials, experiment.metric, experiment.summary, experiment.tuned_by)


def command(name: str, experiment: Experiment, words: str, place: Path, seeds: int, jobs: int) -> list[str]:
    """The command that trains one sweep."""
    interval = experiment.curve or "${trainer.duration}"
    return [
        sys.executable, str(ROOT / "train.py"), "-m", f"experiment={name}", *QUIET, *machine_words(experiment),
        f"trainer.validate='{interval}'", f"+callbacks.training_set.curve={str(bool(experiment.curve)).lower()}",
        *shlex.split(words), f"seed=range(0,{seeds})", "resume=auto", f"name={name}", f"hydra.sweep.dir='{place}'",
        f"hydra.launcher.jobs={jobs}", "hydra.launcher.fork=true",
    ]  # fmt: skip


def machine_words(experiment: Experiment) -> list[str]:
    """The overrides for the device and for the data of a larger experiment."""
    if not experiment.data:
        return ["trainer.accelerator=cpu"]
    import torch  # late: it takes seconds

    precision = ["trainer.precision=bf16-mixed"] if torch.cuda.is_available() else []
    folder = os.environ.get(DATA)
    path = [f"data.path='{Path(folder) / experiment.data}'"] if folder else []
    return ["trainer.accelerator=auto", *precision, *path]


def train(words: Sequence[str], place: Path) -> None:
    """Run a sweep. A run that diverged is a result; RuntimeError where the sweep itself did not run."""
    print(shlex.join(words), flush=True)
    code = subprocess.run(words, cwd=ROOT).returncode
    record = place / "sweep.json"
    if code == 2:
        raise ConfigError("the sweep was refused, for the reason above.")
    if code not in (0, 1) or not record.exists():
        raise RuntimeError(f"the sweep ended with exit code {code}: {shlex.join(words)}")
    waiting = [job for job in json.loads(record.read_text())["jobs"] if job["status"] not in ("completed", "failed")]
    if waiting:
        raise RuntimeError(f"{len(waiting)} jobs of the sweep did not run: give the same command again to go on.")


def judged_claims(experiment: Experiment, found: Results, how: dict[str, Any]) -> Claims:
    """The claims beside what was measured, with the table of all arms, and what to draw."""
    plots = tuple(Plot(**one) for one in experiment.plots)
    more = {
        "about": experiment.about, "setting": experiment.setting, "tables": [vars(arms_table(experiment, found))],
        "notes": [with_values(" ".join(note.split()), found.functions) for note in experiment.notes],
        "pictures": [f"{plot.name}.png" for plot in plots], **how,
    }  # fmt: skip
    claims = tuple(judged_all(experiment.claims, experiment.source, found.functions))
    return Claims(experiment.title, experiment.source, claims, plots, more)


def arms_table(experiment: Experiment, found: Results) -> Table:
    """Every arm, at its best where it was tuned: updates, training loss, test error, and the columns asked for."""
    columns, tuned = experiment.columns or {}, [experiment.tuned, "tried"] if experiment.tuned else []
    head = ["arm", *tuned, "updates", "training loss", "test error, %", *columns]
    rows = []
    for arm in found.arms:
        tried = [x for x in found.arm(arm) if x is not None]
        asked = [with_values("{" + text.replace("{arm}", arm) + ":.3g}", found.functions) for text in columns.values()]
        rows.append([
            arm, *([f"{found.best(arm):g}", f"{min(tried):g} to {max(tried):g}"] if tried else []),
            f"{found.value('updates', arm):.0f}", found.spread("train_loss", arm, 4),
            found.spread("test_error", arm, 2, unit=100), *("" if cell == "nan" else cell for cell in asked),
        ])  # fmt: skip
    return Table("Every arm (mean ± standard deviation over the seeds)", head, rows)


if __name__ == "__main__":
    sys.exit(run_cli(main))
