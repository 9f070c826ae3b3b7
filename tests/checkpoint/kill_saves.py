"""Kills processes at random system calls inside saves, and looks at what is left in the run's folder.

    python tests/checkpoint/kill_saves.py --points 240

Each point is a forked process that `strace` kills before one system call, drawn from all that the save makes. Then no
file may be missing, or have other content than before or after the save; and after the next start, or the next save of
a sweep, no temporary file may be left.
"""

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)] * (str(ROOT) not in sys.path)

from hydra import compose, initialize_config_dir  # noqa: E402
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader  # noqa: E402

from trainer.checkpoint.io import BEST, checkpoints_in, read  # noqa: E402
from trainer.checkpoint.snapshots import remove_orphans_of  # noqa: E402
from trainer.cli.hydra_internals import VERSION_BASE  # noqa: E402
from trainer.cli.run_id import register_run_id  # noqa: E402
from trainer.config.components import Parts  # noqa: E402
from trainer.config.run_summary import announce, write_result  # noqa: E402
from trainer.log.eventfile import EventFile  # noqa: E402
from trainer.log.validations import append_validation, read_validations  # noqa: E402
from trainer.resume.resume_point import Start  # noqa: E402
from trainer.run import assemble, fit  # noqa: E402
from trainer.sweep.job import Job  # noqa: E402
from trainer.sweep.summary import SUMMARY, write_summary  # noqa: E402

TINY = (
    *("data=synthetic", "data.samples=64", "data.val_samples=16", "data.batch_size=16", "model.hidden=[128]"),
    *("trainer.duration=8", "trainer.validate=4", "logger=none", "warmup=none", "trainer.threads=1"),
    *("callbacks=none", "trainer.accelerator=cpu", "name=kills"),
)


class Lost(Exception):
    """A kill has left something missing or wrong."""


@dataclass
class Run:
    """A trained run; after save number n its weights, results and jobs all say n, and its log n scalars more."""

    parts: Parts
    number: int = 100

    @property
    def folder(self) -> Path:
        return self.parts.folder

    def checkpoint(self) -> None:
        """A new best, a snapshot after every second save, the newest checkpoint, and the removal of the oldest."""
        callback, module, trainer = self.parts.checkpointing, self.parts.module, self.parts.trainer
        module.clock.t = self.number
        with torch.no_grad():
            for weight in module.net.parameters():
                weight.fill_(self.number)
        callback.best["update"] = self.number
        callback.snapshots = {self.number} if self.number % 2 else set()
        trainer.save_checkpoint(callback.folder / BEST)
        callback._save(trainer, module)

    def result(self) -> None:
        write_result(self.parts, {"status": "completed", "test": {}, "number": self.number}, 1.0)

    def config(self) -> None:
        """Config, overrides and plan, and those of the earlier part under other names."""
        resolved = replace(self.parts.resolved, start=Start(self.number, self.number))
        announce(replace(self.parts, resolved=resolved), [f"number={self.number}"], [str(self.number)])

    def sweep(self) -> None:
        write_summary([Job(self.number, [], self.folder, [])], self.folder / "sweep")

    def events(self) -> None:
        file = EventFile(self.folder)
        for step in range(200):
            file.write_scalars(("number",), step, 0.0, (float(self.number),))
            if step % 20 == 0:
                file.flush()
                append_validation(self.folder, 1000 * self.number + step, {"number": self.number})
        file.close()


KINDS: dict[str, Callable[[Run], None]] = {
    "checkpoint": Run.checkpoint,
    "result": Run.result,
    "config": Run.config,
    "sweep": Run.sweep,
    "events": Run.events,
}
SHARE = {"checkpoint": 4, "config": 2, "result": 1, "sweep": 1, "events": 2}


Numbers = dict[str, set[int]]
"""The saves whose content each kind may have: the last one that was not killed, and the one that was."""


def check(run: Run, numbers: Numbers) -> None:
    """Raise `Lost` where a file is missing, or holds anything but what one of these saves wrote."""
    with naming("checkpoints"):
        _check_checkpoints(run.folder / "checkpoints", numbers["checkpoint"])
    with naming("small files"):
        assert json.loads((run.folder / "result.json").read_text())["number"] in numbers["result"]
        summary = json.loads((run.folder / "sweep" / SUMMARY).read_text())
        assert summary["jobs"][0]["number"] in numbers["sweep"]
        (override,) = (run.folder / "overrides.yaml").read_text().splitlines()
        assert int(override.rpartition("=")[2]) in numbers["config"]
        assert int(json.loads((run.folder / "plan.json").read_text())["program"][0]) in numbers["config"]
        assert (run.folder / "config.yaml").read_text().count("\noptimizer:") == 1
    with naming("log"):
        for path in run.folder.glob("events.out.tfevents.*"):
            values = [
                (event.step, value.tensor.float_val[0]) for event in _events(path) for value in event.summary.value
            ]
            assert [step for step, _ in values] == list(range(len(values)))
            assert len({value for _, value in values}) <= 1
        assert all(row["number"] == row["update"] // 1000 for row in read_validations(run.folder) if "number" in row)


def _check_checkpoints(folder: Path, fit_numbers: set[int]) -> None:
    newest = checkpoints_in(folder)
    assert len(newest) >= 2, "fewer than trainer.keep"
    assert int(newest[-1].stem[-8:]) in fit_numbers, newest
    snapshots = [path for at in folder.glob("at-*") for path in checkpoints_in(at)]
    for path in [folder / BEST, *newest, *snapshots, *(path.parent / BEST for path in snapshots)]:
        content = read(path)
        number = content["cadence"]["updates"]
        assert path.name in (BEST, f"update-{number:08d}.ckpt")
        weights = [value for name, value in content["state_dict"].items() if name.startswith("net.")]
        assert number < 100 or all(bool((value == number).all()) for value in weights), path


def _events(path: Path) -> Iterator:
    return EventFileLoader(str(path)).Load()


@contextlib.contextmanager
def naming(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise Lost(f"{what}: {type(error).__name__}: {error}") from error


def saving(run: Run, kind: str, *options: str) -> tuple[bool, str]:
    """Save in a forked process under `strace`; whether it was killed, and the trace."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.read(reader, 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        KINDS[kind](run)
        os._exit(0)
    with tempfile.NamedTemporaryFile("r") as trace:
        command = ["strace", "-f", "-p", str(child), "-o", trace.name, *options]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
            strace.stderr.readline()  # it is attached
            os.write(writer, b"x")
            _, status = os.waitpid(child, 0)
            strace.stderr.read()
        os.close(reader)
        os.close(writer)
        return os.WIFSIGNALED(status), trace.read()


def calls(trace: str) -> list[tuple[str, int]]:
    """The system calls of a trace: each by its name, and how often this name has come."""
    names = re.findall(r"^(?:\d+ +)?(\w+)\(", trace, re.MULTILINE)
    seen: Counter[str] = Counter()
    found = []
    for name in names[1:]:  # the first is the wait for the start
        seen[name] += 1
        found.append((name, seen[name]))
    return found


def temporaries(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if path.is_file()]


def tidy(folder: Path) -> None:
    """Remove logs and snapshots that have been checked, so that later checks are as quick as the first."""
    for path in [*folder.glob("events.out.tfevents.*"), *folder.glob("validations.jsonl")]:
        path.unlink()
    for path in folder.glob("checkpoints/at-*"):
        shutil.rmtree(path)


def untouched(run: Run, kind: str) -> None:
    """Save in a forked process that nothing kills."""
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        KINDS[kind](run)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status:
        raise Lost(f"{kind}: the save after a kill failed")


def prepared(folder: Path) -> tuple[Run, dict[str, list[tuple[str, int]]]]:
    """A trained run whose files of each kind have been replaced before, and the system calls of each kind of save."""
    with initialize_config_dir(str(ROOT / "conf"), **VERSION_BASE):
        register_run_id()
        run = Run(assemble(compose("train", list(TINY)), folder / "run"))
    fit(run.parts)
    for _ in range(2):
        run.number += 1
        for kind in KINDS:
            untouched(run, kind)
    run.number += 1
    return run, {kind: calls(saving(run, kind)[1]) for kind in KINDS}


def kill(points: int, seed: int, folder: Path) -> dict[str, int]:
    """Kill at `points` random system calls; the counts of what was lost."""
    draw, counts, kinds = random.Random(seed), Counter(), Counter()
    run, traces = prepared(folder)
    numbers = {kind: {run.number} for kind in KINDS}
    while counts["kills"] < points:
        kind = draw.choices(list(SHARE), list(SHARE.values()))[0]
        name, nth = draw.choice(traces[kind])
        run.number += 1
        killed, _ = saving(run, kind, "-e", f"inject={name}:signal=KILL:when={nth}")
        counts["kills"] += killed
        if killed and counts["kills"] % 20 == 0:
            print(dict(counts), flush=True)
        kinds[kind] += killed
        try:
            check(run, {**numbers, kind: {*numbers[kind], run.number}})
            counts["left behind"] += len(temporaries(run.folder))
            remove_orphans_of(run.folder)
            untouched(run, kind)
            numbers[kind] = {run.number}
            check(run, numbers)
            if left := temporaries(run.folder):
                counts["orphans"] += len(left)
                raise Lost(f"{left} is left")
            tidy(run.folder)
        except Lost as lost:
            counts["lost"] += 1
            print(f"{kind} killed before {name} number {nth}: {lost}", flush=True)
    print("; ".join(f"{kind}: {kinds[kind]} kills at {len(traces[kind])} system calls" for kind in KINDS), flush=True)
    return {key: counts[key] for key in ("kills", "lost", "left behind", "orphans")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = kill(options.points, options.seed, Path(folder))
    print(", ".join(f"{count} {what}" for what, count in counts.items()))
    sys.exit(bool(counts["lost"] or counts["orphans"]))


if __name__ == "__main__":
    main()
