"""Damages a run's newest checkpoint in many ways, reads it by every way there is, and goes on from the older one.

    python tests/checkpoint/corrupt.py --points 840

Flips of one bit and of several, blocks of zeros and of garbage, blocks that change places, files cut short and files
that go on: each is drawn at random. Nobody may load the file, and `auto` must take the older one. At every `--train`-th
point the run goes on to its end, which must be that of the undisturbed run to the bit.
"""

import argparse
import contextlib
import io
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)] * (str(ROOT) not in sys.path)

from cadence.fitting import fit  # noqa: E402
from trainer.checkpoint.io import checkpoint_path, read  # noqa: E402
from trainer.checkpoint.weights import read_weights  # noqa: E402
from trainer.engine.frozen import load_weights  # noqa: E402
from trainer.lr import ConfigError  # noqa: E402
from trainer.resume.resume_point import candidates, newest_good  # noqa: E402
from trainer.tools.trained.loading import load  # noqa: E402

WORDS = (
    *("data=synthetic", "data.samples=256", "data.val_samples=32", "data.test_samples=0", "data.batch_size=16"),
    *("model.hidden=[64]", "model.dropout=0.2", "trainer.duration=60", "trainer.validate=20", "trainer.keep=0"),
    *("trainer.accelerator=cpu", "callbacks=none", "trainer.threads=1", "schedule=cosine_warmup", "logger=none"),
)
Damage = Callable[[bytearray, random.Random], bytearray]


def flip(data: bytearray, draw: random.Random, bits: int = 1) -> bytearray:
    for _ in range(bits):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return data


def block(data: bytearray, draw: random.Random, garbage: bool) -> bytearray:
    size = draw.choice((16, 512, 4096))
    start = draw.randrange(max(1, len(data) - size))
    data[start : start + size] = draw.randbytes(size) if garbage else bytes(size)
    return data


def exchanged(data: bytearray, draw: random.Random) -> bytearray:
    one, other = draw.randrange(len(data) // 1024), draw.randrange(len(data) // 1024)
    parts = [data[i * 1024 : (i + 1) * 1024] for i in range(-(-len(data) // 1024))]
    parts[one], parts[other] = parts[other], parts[one]
    return bytearray(b"".join(parts))


KINDS: dict[str, Damage] = {
    "one bit": flip,
    "several bits": lambda data, draw: flip(data, draw, draw.randint(2, 9)),
    "zeros": lambda data, draw: block(data, draw, garbage=False),
    "garbage": lambda data, draw: block(data, draw, garbage=True),
    "exchanged": exchanged,
    "cut short": lambda data, draw: data[: draw.randrange(len(data))],
    "goes on": lambda data, draw: data + draw.randbytes(draw.randint(1, 100)),
}


def readers(path: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    yield "resume", lambda: read(path)
    yield "load", lambda: load(path)
    yield "init", lambda: read_weights(path)
    yield "teacher", lambda: load_weights(torch.nn.Linear(1, 1), str(path), "teacher")


def corrupt(points: int, seed: int, train: int) -> Counter[str]:
    """The counts of what `points` corruptions led to; in a working folder of its own."""
    draw, counts = random.Random(seed), Counter()
    with contextlib.redirect_stdout(io.StringIO()):
        fit(*WORDS, "name=whole", which="last")
    whole = Path("outputs", "whole", "checkpoints")
    for point in range(points):
        kind = list(KINDS)[point % len(KINDS)]
        folder = Path("outputs", f"point-{point}")
        _damaged_copy(whole, folder, KINDS[kind], draw)
        newest = checkpoint_path(folder / "checkpoints", 40)
        for name, reader in readers(newest):
            with contextlib.suppress(ConfigError):
                reader()
                counts["loaded"] += 1
                print(f"{kind}, seed {seed}, point {point}: {name} loads it", flush=True)
        with contextlib.redirect_stderr(io.StringIO()) as said:
            taken = newest_good(candidates("auto", folder), folder)
        older = taken.path == checkpoint_path(folder / "checkpoints", 20) and same(taken.path, whole / taken.path.name)
        counts["taken back and told"] += older and "update-00000040.ckpt is left out" in said.getvalue()
        if point % train == 0:
            counts["trained on"] += 1
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                fit(*WORDS, f"name=point-{point}", "resume=auto", which="last")
            last = "update-00000060.ckpt"
            counts["to the same bits"] += same(folder / "checkpoints" / last, whole / last)
        shutil.rmtree(folder)
        counts["points"] += 1
    return counts


def _damaged_copy(whole: Path, folder: Path, damage: Damage, draw: random.Random) -> None:
    """A run's folder as it is after 40 updates, with its newest checkpoint damaged."""
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(parents=True)
    for update in (20, 40):
        shutil.copyfile(checkpoint_path(whole, update), checkpoint_path(checkpoints, update))
    newest = checkpoint_path(checkpoints, 40)
    good = newest.read_bytes()
    while (bad := bytes(damage(bytearray(good), draw))) == good:
        pass
    newest.write_bytes(bad)


def same(one: Path, other: Path) -> bool:
    """Whether two checkpoints have the same weights and the same optimizer state."""
    first, second = read(one), read(other)
    states = zip(first["optimizer_states"][0]["state"].values(), second["optimizer_states"][0]["state"].values())
    pairs = [(state[key], twin[key]) for state, twin in states for key in twin]
    pairs += [(first["state_dict"][name], value) for name, value in second["state_dict"].items()]
    return all(torch.equal(a, b) for a, b in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=840)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=int, default=100, metavar="N", help="go on to the end at every N-th point")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        counts = corrupt(options.points, options.seed, options.train)
        os.chdir("/")
    found = ("points", "loaded", "taken back and told", "trained on", "to the same bits")
    print(", ".join(f"{counts[what]} {what}" for what in found))
    good = counts["taken back and told"] == counts["points"] and counts["trained on"] == counts["to the same bits"]
    sys.exit(bool(counts["loaded"] or not good))


if __name__ == "__main__":
    main()
