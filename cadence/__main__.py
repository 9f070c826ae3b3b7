"""The command `cadence`, also `python -m cadence`: runs the command that its first argument names."""

import gc
import importlib
import os
import runpy
import sys

TRAIN = "cadence.train"
COMMANDS = {
    "train": (TRAIN, "train a model, or a sweep of them with -m"),
    "plan": ("trainer.tools.plan.command", "show the whole curve of a run before it is trained"),
    "range-test": ("trainer.tools.range_test.command", "find the order of magnitude of the learning rate"),
    "tune": ("trainer.tools.tune.command", "find the learning rate by short trainings"),
    "noise-scale": (
        "trainer.tools.noise_scale.command",
        "measure the gradient noise scale, and what batch it suggests",
    ),
    "report": ("trainer.tools.report.command", "make a page of a sweep: the optimum, curves, failures"),
    "runs": ("trainer.tools.runs.command", "list runs, show, compare or remove them"),
    "doctor": ("trainer.tools.doctor", "find what is wrong with a run from its log"),
    "test": ("trainer.tools.trained.score_command", "score a trained run, also on other data"),
    "predict": ("trainer.tools.trained.predict_command", "write the outputs of a trained run to a file"),
    "export": ("trainer.tools.trained.export_command", "write the net of a trained run for other programs"),
}
"""The module of each command, and what the command does."""
OF_RUNS = ("plan", "range-test", "tune", "noise-scale")
"""Commands beside `train` whose words describe a run."""

EXAMPLES = """\
examples:
  cadence train optimizer=adamw schedule=cosine_warmup
  cadence train --dry-run optimizer=adamw
  cadence train -m optimizer.lr=0.01,0.03,0.1 name=grid
  cadence plan optimizer=sgd schedule=wsd --updates 10000
  cadence range-test optimizer=adamw --confirm
  cadence tune optimizer=adamw --budget 10%
  cadence report outputs/grid --watch
  cadence runs outputs/grid --sort val/loss
  cadence doctor outputs/grid
  cadence test outputs/first data.path=elsewhere
  cadence predict outputs/first predictions.csv
  cadence export outputs/first net.onnx

cadence COMMAND --help shows more, cadence train --help every group and option.
eval "$(cadence -sc install=bash)" lets bash complete commands, options and settings."""


def main() -> int:
    """Run the command that the first argument names, and return the exit code."""
    name, *words = sys.argv[1:] or ["--help"]
    if name.startswith("-"):
        from trainer.cli.streams import drop_unwritable

        drop_unwritable(pipes_only=True)  # as each command does
    if name in ("--help", "-h"):
        print(usage())
        return 0
    if name == "--version":
        from trainer.cli.version import version

        print("cadence", *(part for part in version().values() if part))
        return 0
    if name in ("-sc", "--shell-completion"):
        from cadence.completion import complete

        return run("train", ["-sc", "query=bash"]) if complete(words, list(COMMANDS)) else 0
    if name not in COMMANDS:
        print(f"cadence {name}: there is no such command: take {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    return run(name, words)


def run(name: str, words: list[str]) -> int:
    """Run a command; `train` as the main program, because its ranks and jobs are started again by its name."""
    module = COMMANDS[name][0]
    if module == TRAIN:
        sys.argv[1:] = words
        runpy.run_module(module, run_name="__main__", alter_sys=True)  # does not come back
    sys.argv = [f"cadence {name}", *words]
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in training
    try:
        from trainer.distributed.launch.starting import pause_collector, resume_collector

        if name == "plan":  # which is short
            pause_collector()
        from trainer.cli.run_cli import run_cli
        from trainer.distributed.launch.launcher import ignore_other_ranks, tell_ignored_ranks
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130

    def command() -> None:
        if name in OF_RUNS:
            tell_ignored_ranks(trains=name != "plan")
        else:
            ignore_other_ranks(trains=False)
        main = importlib.import_module(module).main
        gc.freeze()  # neither the collector nor the end of the process looks through what is imported
        main()

    try:
        return run_cli(command)
    finally:
        resume_collector()
        if name == "plan":
            gc.freeze()  # nothing is open, and matplotlib was imported late


def usage() -> str:
    """What --help prints."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:{width}}{purpose}" for name, (_, purpose) in COMMANDS.items()]
    heading = "usage: cadence COMMAND [WORDS ...] | --version | --help\n\ncommands:"
    return "\n".join([heading, *lines, "", EXAMPLES])


if __name__ == "__main__":
    sys.exit(main())
