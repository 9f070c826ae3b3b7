"""Stops and resumes small runs of many kinds at many points, and compares all that they leave, bit by bit.

    python tests/resume/sweep_of_points.py --points 300
    python tests/resume/sweep_of_points.py --points 8 --only "early stopping 3" ddp

A point is one resumed run: from a checkpoint within a validation interval or at its end, from the best checkpoint, from
a checkpoint of a run that was resumed itself (a chain), or in its own folder after a signal stopped it between two
chunks of updates or in a validation. Compared with the run that was never stopped: the newest and the best checkpoint
(weights, optimizer, averages, observers, the state of every callback, with that of a planted one on every hook, which
hashes each batch, rate and metric that it sees), every scalar of the TensorBoard log, each validation, the result.

Each run is a forked process, or two. Prints a line for each miss, and the counts.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import torch  # noqa: E402

from tests.distributed import worlds  # noqa: E402
from tests.resume.resumed_cases import ONE, TWO, words_of  # noqa: E402
from trainer.checkpoint.io import read  # noqa: E402

KINDS = ("within", "end", "stopped", "chain", "best", "stopped in a validation")
"""The kinds of points, in the order in which the cases get them."""
STOPS = {"stopped": "on_train_batch_start", "stopped in a validation": "on_validation_batch_end"}
UNLIKE = ("config", "curve_history", "version", "commit", "format")
"""Entries of a checkpoint about the command and the code."""
READ_AHEAD = {"RebatchedArrowExamplesIterable": ("examples_iterable",)}
"""Entries in the position of a stream of `datasets` which it does not read again: how far it has read ahead."""
RESULT = ("status", "metrics", "best", "updates", "total_updates", "stopped_early")


def train(rank: int, folder: Path, words: Sequence[str], point: Path | None) -> None:
    """Train as the command would in `folder`, quietly; what goes wrong is written beside it."""
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # as in a process that was not forked from a server
    os.chdir(folder.parent)
    said = folder.with_suffix(f".said{rank}")
    with said.open("a") as out, contextlib.redirect_stderr(out), contextlib.redirect_stdout(out):
        try:
            _run(folder, [*words, *([f"resume.path='{point}'"] if point else [])])
        except BaseException:
            traceback.print_exc(file=out)
            raise


def _run(folder: Path, words: Sequence[str]) -> None:
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import open_dict

    from trainer.cli.hydra_internals import VERSION_BASE
    from trainer.cli.run_id import register_run_id
    from trainer.config.settings import settings_of
    from trainer.distributed.launch.signals import handle_signals
    from trainer.run import run_in

    register_run_id()
    handle_signals()
    with initialize_config_dir(str(ROOT / "conf"), **VERSION_BASE):
        cfg = compose("train", list(words), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    cfg = cfg.copy()
    with open_dict(cfg):
        del cfg["hydra"]
    run_in(folder, settings_of(cfg), list(words), ["train.py"])


def trained(case: str, folder: Path, point: Path | str | None = None, more: Sequence[str] = ()) -> int:
    """Train a case in processes of its own; their exit code."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    arguments = (folder, [*words_of(case), *more], point)
    if case in TWO:
        processes = worlds.start(2, train, *arguments)
    else:
        processes = [worlds.server().Process(target=train, args=(0, *arguments))]
        processes[0].start()
    for process in processes:
        process.join(300)
        if process.exitcode is None:
            process.kill()
    return max(process.exitcode if process.exitcode is not None else 1 for process in processes)


def newest(folder: Path) -> Path:
    """The newest checkpoint of a run."""
    return sorted((folder / "checkpoints").glob("update-*.ckpt"))[-1]


def differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """The paths of all that differs between two trees, tensors by their bits."""
    if isinstance(one, dict) and isinstance(other, dict):
        unused = READ_AHEAD.get(str(one.get("type")), ())
        for key in (one.keys() | other.keys()).difference(unused):
            if key not in one or key not in other:
                yield f"{path}/{key} is in one of them"
            elif key not in UNLIKE:
                yield from differences(one[key], other[key], f"{path}/{key}")
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for i, pair in enumerate(zip(one, other)):
            yield from differences(*pair, f"{path}/{i}")
    elif isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if one.dtype != other.dtype or one.shape != other.shape or _bits(one) != _bits(other):
            yield f"{path}: tensors differ"
    elif repr(one) != repr(other):
        yield f"{path}: {str(one)[:60]} → {str(other)[:60]}"


def _bits(value: torch.Tensor) -> bytes:
    return value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def misses(whole: Path, resumed: Path, begin: int) -> list[str]:
    """What a resumed run left that the whole run did not; its folder has the log from update `begin` on."""
    from trainer.log.scalars import scalars
    from trainer.log.validations import read_validations

    found = []
    for name in (newest(whole).name, "best.ckpt"):
        paths = [folder / "checkpoints" / name for folder in (whole, resumed)]
        if not all(path.exists() for path in paths):
            found += [f"{name}: missing"] * (paths[0].exists() != paths[1].exists())
            continue
        found += [f"{name}{line}" for line in differences(*map(read, paths))]
    logs = [scalars(folder) for folder in (whole, resumed)]
    for tag in sorted(logs[0].keys() | logs[1].keys()):
        if "samples_per_second" in tag:
            continue
        first, second = ([p for p in log.get(tag, []) if p[0] >= begin] for log in logs)
        found += [] if repr(first) == repr(second) else [f"log {tag}: {len(first)} → {len(second)} points, or values"]
    seen = [[one for one in read_validations(folder) if one["update"] > begin] for folder in (whole, resumed)]
    found += list(differences(*seen, "validations"))
    results = [json.loads((folder / "result.json").read_text()) for folder in (whole, resumed)]
    found += list(differences(*({key: result.get(key) for key in RESULT} for result in results), "result"))
    return found


@dataclass
class Case:
    """A run of `name` that was never stopped, and the points at which it is resumed."""

    name: str
    work: Path
    draw: random.Random

    @property
    def whole(self) -> Path:
        """The folder of the run that was never stopped."""
        return self.work / "whole"

    def begin(self) -> None:
        """Train without a stop. RuntimeError with what it said where that fails."""
        self._train(self.whole)

    def _train(self, folder: Path, point: Path | str | None = None, more: Sequence[str] = (), code: int = 0) -> None:
        ended = trained(self.name, folder, point, more)
        if ended != code:
            said = "\n".join(path.read_text() for path in folder.parent.glob(f"{folder.name}.said*"))
            raise RuntimeError(f"exit code {ended} where {code} is expected: {' | '.join(said.splitlines()[-6:])}")

    def point(self, kind: str, number: int) -> tuple[str, list[str]]:
        """Resume at a point of a kind; where it was, and what differs."""
        folder = self.work / f"point-{number}"
        files = sorted((self.whole / "checkpoints").glob("update-*.ckpt"))[:-1]
        ends = {one["update"] for one in self._validations()}
        if kind in STOPS:
            return self._stopped(kind, folder)
        if kind == "best":
            path = self.whole / "checkpoints" / "best.ckpt"
            if path.exists() and updates_of(path) < updates_of(newest(self.whole)):
                return self._from(path, folder)
        fitting = [path for path in files if (updates_of(path) in ends) == (kind == "end")] or files
        path = self.draw.choice(fitting)
        if kind == "chain" and path != files[-1]:
            self._train(self.work / f"first-{number}", path)
            later = [other for other in files if other.name > path.name]
            path = self.work / f"first-{number}" / "checkpoints" / self.draw.choice(later).name
        return self._from(path, folder)

    def _validations(self) -> list[dict[str, Any]]:
        from trainer.log.validations import read_validations

        return read_validations(self.whole)

    def _from(self, path: Path, folder: Path) -> tuple[str, list[str]]:
        self._train(folder, path)
        return f"{path.parent.parent.name}/{path.stem}", misses(self.whole, folder, updates_of(path))

    def _stopped(self, kind: str, folder: Path) -> tuple[str, list[str]]:
        """Stop by a signal at a random moment, and go on in the same folder."""
        counts = read(newest(self.whole))["callbacks"]["Planted"]["counts"]
        nth = self.draw.randint(2, max(2, counts.get(STOPS[kind], 2) - 1))
        send = "+callbacks.send._target_=tests.distributed.signalling.Send"
        words = [send, f"+callbacks.send.hook={STOPS[kind]}", "+callbacks.send.signum=12", f"+callbacks.send.nth={nth}"]
        where = f"{STOPS[kind]} {nth}"
        ended = trained(self.name, folder, None, words)
        if ended == 128 + 12:
            self._train(folder, "auto")
        elif ended:
            self._train(folder, "auto", code=-1)  # tells what it said
        return where, misses(self.whole, folder, 0)


def updates_of(path: Path) -> int:
    """How many updates a checkpoint has behind it."""
    return int(read(path)["cadence"]["updates"])


def sweep(names: Sequence[str], points: int, work: Path, seed: int = 0) -> tuple[int, list[str]]:
    """Resume at so many points, dealt out to the cases; how many there were, and a line for each miss."""
    if any("../data" in word for name in names for word in words_of(name)):
        from tests.same_bits import write_data

        write_data(work / "data")
    done, missed = 0, list[str]()
    for i, name in enumerate(names):
        case = Case(name, work / f"case-{i}", random.Random(f"{seed} {name}"))
        began, share = time.monotonic(), points * (i + 1) // len(names) - points * i // len(names)
        try:
            case.begin()
        except RuntimeError as error:
            missed.append(f"{name}: never trained: {error}")
            print(missed[-1], flush=True)
            continue
        bad = 0
        for k in range(share):
            kind = KINDS[(i + k) % len(KINDS)]
            try:
                where, found = case.point(kind, k)
            except (RuntimeError, OSError, KeyError, IndexError) as error:
                where, found = "?", [f"{type(error).__name__}: {error}"]
            done += 1
            if found:
                bad += 1
                missed.append(f"{name}, {kind}, {where}: {len(found)} differences: {'; '.join(found[:4])}")
                print(f"MISS {missed[-1]}", flush=True)
        print(f"{name:<34} {share} points, {bad} missed, {time.monotonic() - began:.0f} s", flush=True)
        shutil.rmtree(case.work)
    return done, missed


def main() -> int:
    """Sweep, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=300, help="how many resumed runs")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="cases, by their names")
    parser.add_argument("--seed", type=int, default=0, help="which points are drawn")
    options = parser.parse_args()
    names = options.only or [*ONE, *TWO]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as work:
        done, missed = sweep(names, options.points, Path(work), options.seed)
    print(f"{done} points over {len(names)} configs: {len(missed)} misses, {time.monotonic() - began:.0f} s")
    return 1 if missed else 0


if __name__ == "__main__":
    from tests.resume import sweep_of_points  # by its name, as the processes import it

    sys.exit(sweep_of_points.main())
