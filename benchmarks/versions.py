"""The CPU time of an update in this checkout and in another one, such as an older commit, in turn. Example:

git worktree add ../before v0.1.0
python benchmarks/versions.py ../before --rounds 15
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = """
import sys, tempfile, time
from pathlib import Path

root, updates, words = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
sys.path.insert(0, root)
from hydra import compose, initialize_config_dir
from trainer.cli.hydra_internals import VERSION_BASE
from trainer.cli.run_id import register_run_id
from trainer.run import assemble, fit

register_run_id()
fixed = ["callbacks=none", "trainer.accelerator=cpu", "trainer.threads=1", f"trainer.duration={updates}",
         f"trainer.validate={updates}", "name=x", *words]
for _ in sys.stdin:
    with tempfile.TemporaryDirectory() as folder, initialize_config_dir(root + "/conf", **VERSION_BASE):
        run = assemble(compose("train", fixed), Path(folder))
        spent = []
        start, step = run.module.on_train_start, run.module.training_step
        run.module.on_train_start = lambda: (start(), spent.append(time.process_time()))
        def timed(chunk, batch_idx):
            step(chunk, batch_idx)
            spent.append(time.process_time())
        run.module.training_step = timed
        fit(run)
    print((spent[-1] - spent[0]) / updates * 1e6, flush=True)
"""
"""Trains one run for each line that it reads, and prints the microseconds of CPU time of an update."""
WORDS = ["model.hidden=[8]", "data.batch_size=4", "logger=none", "trainer.steps_per_execution=50", "optimizer=sgd"]


def main() -> None:
    """Print each median, and the mean difference with its standard error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="the folder of another checkout")
    parser.add_argument("overrides", nargs="*", default=WORDS, help=f"of the run ({' '.join(WORDS)})")
    parser.add_argument("--rounds", type=int, default=15, help="processes of each checkout (15)")
    parser.add_argument("--updates", type=int, default=2000, help="updates of a run (2000)")
    options = parser.parse_args()
    if options.rounds < 2 or options.updates < 1:
        parser.error(f"--rounds={options.rounds} --updates={options.updates}: give at least 2 rounds and 1 update")
    if not (options.other / "train.py").is_file():
        parser.error(f"{options.other} is not a checkout of Cadence: name a folder that holds train.py")
    roots = {"this": ROOT, "other": options.other.resolve()}
    times: dict[str, list[float]] = {name: [] for name in roots}
    for number in range(options.rounds):
        for name, spent in _round(roots, options, number).items():
            times[name].append(spent)
        print(f"\rround {number + 1} of {options.rounds}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    _show(times)


def _round(roots: dict[str, Path], options: argparse.Namespace, number: int) -> dict[str, float]:
    """The least of three runs of each checkout, in turn, in a process of its own.

    A process is up to 20 µs faster or slower than the next one of the same code, so each round starts new ones.
    """
    workers = {name: _started(root, options) for name, root in roots.items()}
    spent: dict[str, list[float]] = {name: [] for name in roots}
    for turn in range(4):
        for name in sorted(roots, reverse=bool((number + turn) % 2)):
            spent[name].append(_asked(workers[name]))
    for worker in workers.values():
        worker.communicate()
    return {name: min(values[1:]) for name, values in spent.items()}  # the first run warms caches


def _started(root: Path, options: argparse.Namespace) -> "subprocess.Popen[str]":
    words = [sys.executable, "-c", WORK, str(root), str(options.updates), *options.overrides]
    return subprocess.Popen(words, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _asked(worker: "subprocess.Popen[str]") -> float:
    """The microseconds of an update in one more run of a worker."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write("go\n")
    worker.stdin.flush()
    for line in worker.stdout:
        try:
            return float(line)
        except ValueError:
            continue  # what the run prints
    raise SystemExit(f"a run has failed with exit code {worker.wait()}: see above")


def _show(times: dict[str, list[float]]) -> None:
    differences = [this - other for this, other in zip(times["this"], times["other"])]
    low, middle, high = statistics.quantiles(differences, n=4)
    mean, error = statistics.fmean(differences), statistics.stdev(differences) / len(differences) ** 0.5
    for name, spent in times.items():
        print(f"{name:<6} {statistics.median(spent):8.1f} µs an update, {min(spent):.1f} to {max(spent):.1f}")
    print(f"this - other: mean {mean:+.1f} µs ± {error:.1f}; median {middle:+.1f}, quartiles {low:+.1f} to {high:+.1f}")
    print(json.dumps({name: [round(value, 2) for value in spent] for name, spent in times.items()}))


if __name__ == "__main__":
    main()
