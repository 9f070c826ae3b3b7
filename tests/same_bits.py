"""Train small runs of many kinds and hash all that they leave, to compare two versions of this code bit by bit.

    python tests/same_bits.py --root . --out new.json
    python tests/same_bits.py --root ../older --old-names --out old.json
    python tests/same_bits.py --compare old.json new.json

Each command is a fresh process of ROOT/.venv/bin/python with ROOT/train.py, in a temporary folder. A case gives six
SHA-256: of the newest checkpoint its `weights`, its `optimizer` state and all `other` content, of the best checkpoint
its weights (`best`), of the event file every scalar (`log`), of result.json, plan.json and validations.jsonl the
`numbers`. What depends on the time, on paths and versions, and the config itself are left out. Hashes are comparable
between runs on one machine with the same packages. All cases take a quarter of an hour on one core, most of it imports;
`--jobs 2` halves that.
"""

import argparse
import csv
import hashlib
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from same_bits_cases import CASES, Command, train

Leaves = dict[str, str]
"""Each number, text or tensor as its fingerprint, by its path."""
PARTS = ("weights", "best", "optimizer", "log", "other", "numbers")
RENAMED = {
    "batch_schedule": "schedule_batch",
    "hyper_schedule": "hyper",
    "measure": "observe",
    "warmup_mode": "composition",
    "trainer.snapshots": "trainer.branches",
    "trainer.max_idle_restarts": "trainer.futile_starts",
    "trainer.steps_per_execution": "trainer.updates_per_call",
    "resume.snapshot": "resume.trunk",
    "hydra.launcher.fork": "hydra.launcher.warm",
    "hydra.launcher.shared_prefix": "hydra.launcher.trunk",
}
"""Keys of the config, new to old. `group=option` renames an option. Groups are renamed in tags and fields, too."""
FIELDS = {
    r"(^|/)lineage/": r"\1curve_history/",
    r"(^|/)owing$": r"\1validation_due",
    r"(^|/)live/pace(/|$)": r"\1observers/adascale\2",
    r"(^|/)live(/|$)": r"\1observers\2",
}
"""Patterns in the paths of tags and fields, and what takes their place, in both versions."""
SKIPPED = (
    r"/config(/|$)|/tables(/|$)|/of$|^(state_dict|optimizer_states|pytorch-lightning_version)(/|$)"
    r"|samples_per_second|(^|/)(format|version|commit)$"
)
"""Paths that are not compared: configs, places, versions, times; and what has a part of its own."""
RESULT = "test metrics best updates total_updates scale_invariant_iterations scaled".split()
PLAN = (
    "global_batch per_device_batch devices nodes accumulate base_batch_size kappa scaled total_updates warmup_updates "
    "updates_per_epoch base_lr scale most_gain fewest_updates peak_lr peak_update first_lr last_lr mean_lr batches "
    "curves epochs groups changes"
).split()
"""The fields of result.json and plan.json that are compared, as far as they are numbers."""


def old_word(word: str) -> str:
    """A word of a command in the names of the older version."""
    for new, old in RENAMED.items():
        if "=" in new and word == new:
            return old
        word = re.sub(rf"^([+~]*){re.escape(new)}(?=[.=])", rf"\g<1>{old}", word)
    return word


def canonical(path: str) -> str:
    """The path of a tag or field in the newer names; one in newer names stays."""
    groups = {old: new for new, old in RENAMED.items() if not set(".=") & set(new)}
    path = re.sub(r"\w+", lambda match: groups.get(match[0], match[0]), path)
    for pattern, name in FIELDS.items():
        path = re.sub(pattern, name, path)
    return path


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of nested dicts and lists with its path; what is empty counts as a value."""
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from leaves(value, f"{path}/{key}" if path else str(key))
    elif isinstance(tree, list | tuple) and tree:
        for i, value in enumerate(tree):
            yield from leaves(value, f"{path}/{i}")
    else:
        yield path, tree


def fingerprint(value: Any) -> str:
    """A value as text that differs where a bit differs: tensors by type, shape and bytes, floats in hexadecimal."""
    import torch

    if isinstance(value, torch.Tensor):
        content = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return f"{value.dtype} {list(value.shape)} {hashlib.sha256(content).hexdigest()[:16]}"
    if isinstance(value, float):
        return value.hex()
    return repr(list(value) if isinstance(value, tuple) else value)


def printed(tree: Any) -> Leaves:
    """The fingerprints of all that is compared of a tree."""
    kept = ((canonical(path), value) for path, value in leaves(tree))
    return {path: fingerprint(value) for path, value in kept if not re.search(SKIPPED, path)}


def numbers(path: Path, names: list[str]) -> Leaves:
    """The numbers below these names in a JSON file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    found = leaves({name: content[name] for name in names if name in content})
    return printed({f"{path.stem}/{name}": value for name, value in found if isinstance(value, int | float | None)})


def scalars(folder: Path) -> Leaves:
    """The points of each tag as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it tells of each resume
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    points = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    texts = {tag: " ".join(f"{point.step}:{point.value.hex()}" for point in row) for tag, row in points.items()}
    return printed({tag: hashlib.sha256(text.encode()).hexdigest()[:16] for tag, text in texts.items()})


def left_by_run(folder: Path) -> dict[str, Leaves]:
    """What a run has left in its folder, by part."""
    import torch

    newest = max((folder / "checkpoints").glob("update-*.ckpt"))
    checkpoint = torch.load(newest, map_location="cpu", weights_only=True)
    best = torch.load(folder / "checkpoints/best.ckpt", map_location="cpu", weights_only=True)
    scored = (folder / "validations.jsonl").read_text(encoding="utf-8").splitlines()
    validations = {f"validations/{i}": json.loads(line) for i, line in enumerate(scored)}
    other = {"newest": printed(checkpoint), "best": printed(best)}
    return {
        "weights": printed(checkpoint["state_dict"]),
        "best": printed(best["state_dict"]),
        "optimizer": printed({str(i): state for i, state in enumerate(checkpoint["optimizer_states"])}),
        "log": scalars(folder),
        "other": {f"{which}/{path}": value for which, found in other.items() for path, value in found.items()},
        "numbers": numbers(folder / "result.json", RESULT) | numbers(folder / "plan.json", PLAN) | printed(validations),
    }


def left_by_plan(folder: Path) -> dict[str, Leaves]:
    """The planned curves of each policy, update by update, and the numbers of the plans."""
    with (folder / "plan.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    columns = {name: list(column) for name, column in zip(header, zip(*rows, strict=True), strict=True)}
    plans = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    known = {name: {key: facts[key] for key in (*PLAN, "lr") if key in facts} for name, facts in plans.items()}
    texts = {name: hashlib.sha256(repr(column).encode()).hexdigest()[:16] for name, column in columns.items()}
    return {"log": printed(texts), "numbers": printed(known)}


def left(folder: Path) -> dict[str, Leaves]:
    """All that is compared of a case, by part; of a sweep the jobs by their number."""
    if (folder / "plan.csv").exists():
        return left_by_plan(folder)
    found: dict[str, Leaves] = {part: {} for part in PARTS}
    for result in sorted(folder.rglob("result.json")):
        place = result.parent.relative_to(folder).as_posix()
        for part, values in left_by_run(result.parent).items():
            found[part] |= {path if place == "." else f"{place}/{path}": value for path, value in values.items()}
    if not found["weights"]:
        raise RuntimeError("the run has left no result")
    return found


def digest(values: Leaves) -> str:
    """The SHA-256 of a part, whatever the order of its paths."""
    text = "\n".join(f"{path} {value}" for path, value in sorted(values.items()))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Runner:
    """Runs commands of the version at `root` in folders below `work`."""

    root: Path
    python: str
    work: Path
    old: bool
    extra: tuple[str, ...] = ()

    def first(self, command: Command) -> Path:
        """The folder of a first part, which several cases may go on from."""
        return self.work / f"first-{hashlib.sha256(repr(command).encode()).hexdigest()[:8]}"

    def begin(self, command: Command) -> None:
        """Train a first part; where it fails, the reason lies in its folder."""
        try:
            self.run(command, self.first(command))
        except Exception as error:
            (self.first(command) / "failed").write_text(str(error), encoding="utf-8")

    def case(self, name: str) -> dict[str, Any]:
        """The hashes of a case, or the reason why there are none."""
        folder, commands = self.work / name, CASES[name]
        try:
            if len(commands) > 1:
                shutil.copytree(self.first(commands[0]), folder)
                if (folder / "failed").exists():
                    raise RuntimeError((folder / "failed").read_text(encoding="utf-8"))
            for command in commands[1:] or commands:
                self.run(command, folder)
            found = left(folder / "outputs/run")
        except Exception as error:
            return {"failed": f"{type(error).__name__}: {error}"}
        return {"hashes": {part: digest(found[part]) for part in found}, "leaves": found}

    def run(self, command: Command, folder: Path) -> None:
        """Run a command in a folder; RuntimeError with its last lines where it fails."""
        folder.mkdir(parents=True, exist_ok=True)
        script, *words = train(*command[1:], *self.extra) if command[0] == "train.py" else command
        words = [" ".join(map(old_word, word.split(" "))) for word in words] if self.old else words
        hidden = ("CADENCE_", "SLURM_", "HYDRA_", "RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_", "PYTHONPATH")
        env = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
        env |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
        env |= {"HF_HOME": str(self.work / "cache")}
        process = subprocess.Popen(
            [self.python, str(self.root / script), *words],
            cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        try:
            told, _ = process.communicate(timeout=500)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        if process.returncode:
            raise RuntimeError(f"exit code {process.returncode}: {' | '.join(told.splitlines()[-4:])}")


def write_data(folder: Path) -> None:
    """A text, a table of a curve, and photographs of noise as the hub has CIFAR-10."""
    import datasets
    import numpy as np

    datasets.disable_progress_bars()
    folder.mkdir(parents=True)
    words = "the quick brown fox jumps over the lazy dog, and once more.\n"
    (folder / "words.txt").write_text(words * 40, encoding="utf-8")
    (folder / "curve.csv").write_text("t,value\n0,0.4\n20,1.0\n60,0.3\n", encoding="utf-8")
    features = datasets.Features({"img": datasets.Image(), "label": datasets.Value("int64")})
    for split, count in (("train", 48), ("test", 16)):
        draw = np.random.default_rng(count)
        images = list(draw.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8))
        rows = {"img": images, "label": draw.integers(0, 10, count).tolist()}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / f"{split}.parquet")


def measured(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Run the chosen cases, and tell of each as it ends."""
    root = options.root.resolve()
    python = Path(shutil.which(options.python or root / ".venv/bin/python") or sys.executable).absolute()
    runner = Runner(root, str(python), work.resolve(), options.old_names, tuple(options.also))
    write_data(runner.work / "data")
    names = options.only or list(CASES)
    print(f"{'case':<24}", *(f"{part:<12}" for part in PARTS), flush=True)
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(runner.begin, dict.fromkeys(CASES[name][0] for name in names if len(CASES[name]) > 1)))
        found = {}
        for name, outcome in zip(names, pool.map(runner.case, names)):
            found[name] = outcome
            print(row(name, outcome), flush=True)
    return found


def row(name: str, outcome: dict[str, Any]) -> str:
    """A case as a line of the table."""
    if "failed" in outcome:
        return f"{name:<24} failed: {outcome['failed']}"
    return " ".join([f"{name:<24}", *(f"{outcome['hashes'].get(part, '-')[:12]:<12}" for part in PARTS)]).rstrip()


def compare(paths: list[Path], only: list[str] | None) -> int:
    """Print two tables side by side, and what differs; how many parts do. A case that one of them lacks differs."""
    one, two = (json.loads(path.read_text(encoding="utf-8")) for path in paths)
    count = 0
    for name in only or dict.fromkeys([*one, *two]):
        pair = [table.get(name, {"failed": "is missing"}) for table in (one, two)]
        for outcome, path in zip(pair, paths, strict=True):
            if "failed" in outcome:
                count += 1
                print(f"{name:<24} {path}: {outcome['failed']}")
        if any("failed" in outcome for outcome in pair):
            continue
        for part in pair[0]["hashes"]:
            before, now = (outcome["hashes"].get(part, "-") for outcome in pair)
            print(f"{name:<24} {part:<10} {before[:24]:<24} {now[:24]:<24} {'same' if before == now else 'DIFFERENT'}")
            if before != now:
                count += 1
                differences(*(outcome["leaves"].get(part, {}) for outcome in pair))
    print(f"{count} parts differ" if count else "all the same")
    return count


def differences(before: Leaves, now: Leaves, most: int = 6) -> None:
    """Print the first values that differ."""
    paths = [path for path in dict.fromkeys([*before, *now]) if before.get(path) != now.get(path)]
    for path in paths[:most]:
        print(f"    {path}: {before.get(path, 'absent')[:60]} → {now.get(path, 'absent')[:60]}")
    if len(paths) > most:
        print(f"    … and {len(paths) - most} more")


def main() -> int:
    """Make a table, or compare two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(), help="the version to run: a folder with train.py")
    parser.add_argument("--out", type=Path, help="write the table to this JSON file")
    parser.add_argument("--only", nargs="+", choices=CASES, metavar="NAME", help=f"of {', '.join(CASES)}")
    parser.add_argument("--python", help="the interpreter; default ROOT/.venv/bin/python, or else this one")
    parser.add_argument(
        "--old-names", action="store_true", help="give the commands in the keys from before they changed"
    )
    parser.add_argument("--jobs", type=int, default=1, help="how many cases run at a time")
    parser.add_argument("--work", type=Path, help="train in this new folder and leave it; default a temporary one")
    parser.add_argument("--also", nargs="+", default=[], metavar="WORD", help="further words, as seed=1, for every run")
    parser.add_argument("--compare", nargs=2, type=Path, metavar="JSON", help="print two tables side by side instead")
    options = parser.parse_args()
    if options.compare:
        return 1 if compare(options.compare, options.only) else 0
    with tempfile.TemporaryDirectory() as temporary:
        found = measured(options, options.work or Path(temporary, "runs"))
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 1 if any("failed" in outcome for outcome in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
