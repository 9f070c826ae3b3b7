"""All measurements on one GPU, in at most eight minutes, and one table at the end.

    python benchmarks/gpu.py --cifar FOLDER/cifar10 --text FOLDER/tinyshakespeare/input.txt
    python benchmarks/gpu.py --device cpu --tiny          # a rehearsal without a GPU: the figures say nothing

An update of ResNet-9 and of a GPT in Cadence, eager, compiled and in bf16, beside a bare loop; replayed as a CUDA
graph, beside a bare loop as it is and one that is replayed, too; how often a run whose rate or batch changes compiles
anew; many rates trained as one; one process with DDP, over NCCL; with --cifar, ResNet-9 on CIFAR-10 to 94 %; with
--text, nanoGPT's setting for a GPU to a validation loss of 1.47; the other modes of torch.compile. Each part has a
limit of time, and parts for which no time is left are told.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.compared import Line, keep, show_lines  # noqa: E402
from benchmarks.report import machine  # noqa: E402
from trainer.cli.run_cli import run_cli  # noqa: E402
from trainer.lr import ConfigError  # noqa: E402

EAGER = "trainer.compile=false"
KINDS = {
    "eager": [EAGER],
    "compiled": [],
    "compiled, bf16": ["trainer.precision=bf16-mixed"],
}
MODES = ("reduce-overhead", "max-autotune-no-cudagraphs", "max-autotune")
OF_MODE = """
import json, sys
from benchmarks.compiled import of_mode
mode, blocks, block, *more = sys.argv[1:]
print(json.dumps(of_mode(mode, int(blocks), int(block), more)))
"""
NANOGPT = (
    *("experiment=shakespeare_char", "data.batch_size=64", "data.context=256", "model.layers=6", "model.heads=6"),
    *("model.width=384", "model.dropout=0.2", "optimizer.betas=[0.9,0.99]", "trainer.duration=5000"),
    *("trainer.validate=250", "trainer.compile=true"),
)
CIFAR = ("experiment=cifar10_resnet", "trainer.compile=true")


@dataclass
class Session:
    """What was asked for, when it must end, and what has been found."""

    options: argparse.Namespace
    begun: float = field(default_factory=time.monotonic)
    lines: list[Line] = field(default_factory=list)
    results: dict[str, str] = field(default_factory=dict)

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.options.minutes * 60 - (time.monotonic() - self.begun)

    @property
    def device(self) -> list[str]:
        """The overrides for the device."""
        return [f"trainer.accelerator={self.options.device}"]

    @property
    def blocks(self) -> tuple[int, int]:
        """How many blocks of updates are timed, and how many updates each has."""
        return (3, 5) if self.options.tiny else (9, 50)

    def train(self, name: str, words: list[str], metric: str, aim: str) -> None:
        """A run of `cadence train` in a process of its own; keeps its best score and the time it took."""
        words = list({word.partition("=")[0]: word for word in words}.values())  # of a key, the last
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "cadence.train", *words, *self.device, "name=run", "callbacks=none"]
            path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
            begun = time.monotonic()
            done = self.run(command, folder, {"PYTHONPATH": path})
            seconds = time.monotonic() - begun
            if done is None:
                self.results[name] = "not finished in the time that was left"
                return
            result: dict[str, Any] = json.loads(Path(folder, "outputs/run/result.json").read_text(encoding="utf-8"))
        score = result["metrics"].get(metric)
        self.results[name] = f"{metric} {score:.4f} (aim {aim}), {seconds:.0f} s with its start"

    def run(self, command: list[str], folder: str, more: dict[str, str]) -> str | None:
        """What a command writes; None where the time was over. RuntimeError where it fails."""
        limit = max(self.left, 1.0)
        try:
            done = subprocess.run(
                command, cwd=folder, env={**os.environ, **more}, capture_output=True, text=True, timeout=limit
            )
        except subprocess.TimeoutExpired:
            return None
        if done.returncode:
            raise RuntimeError(" ".join(done.stderr.strip().splitlines()[-1:]) or f"left with {done.returncode}")
        return done.stdout


def updates(session: Session) -> None:
    """An update of each net in Cadence, eager and compiled, beside a bare loop."""
    from benchmarks.compiled import NETS, speed_up

    blocks, block = session.blocks
    for name, words in NETS.items():
        for more in KINDS.values():
            session.lines.append(speed_up(name, words, blocks, block, [*session.device, *more]))


def graphs(session: Session) -> None:
    """An update of each net that is replayed as a CUDA graph."""
    from benchmarks.graphs import replayed

    session.lines += replayed(*session.blocks, session.device)


def compilations(session: Session) -> None:
    """How often a run compiles anew while its rate or batch changes."""
    from benchmarks.compiled import RATES, recompiled

    for name, words in RATES.items():
        session.results[f"compiled anew, {name}"] = str(recompiled(words, session.device))


def stacked(session: Session) -> None:
    """Jobs per minute of runs that train as one."""
    count = "4" if session.options.tiny else "64"
    command = [
        sys.executable,
        str(ROOT / "benchmarks/stacked.py"),
        "--device",
        session.options.device,
        "--no-processes",
    ]
    command += ["--count", count, "--few", "2", "--optimizers", "adamw"]
    said = session.run(command, str(ROOT), {})
    session.results["jobs per minute: stacked fits, lone fits, stacked jobs, lone jobs; ratios"] = (
        "not finished in the time that was left" if said is None else said.strip().splitlines()[-1]
    )


def one_process(session: Session) -> None:
    """A run with DDP on one device: over NCCL on a GPU."""
    session.train(
        "DDP on one device", ["trainer.strategy=ddp", "trainer.duration=20", "trainer.validate=20"], "val/loss", "none"
    )


def cifar(session: Session) -> None:
    """ResNet-9 on CIFAR-10."""
    if session.options.cifar is None:
        session.results["CIFAR-10"] = "left out: --cifar names no folder"
        return
    tiny = ["model.width=4", "trainer.duration=2", "trainer.validate=2", EAGER] if session.options.tiny else []
    words = [*CIFAR, f"data.path={session.options.cifar.resolve()}", *tiny]
    session.train("CIFAR-10", words, "val/accuracy", "0.94")


def nanogpt(session: Session) -> None:
    """nanoGPT's setting for Shakespeare's characters on a GPU."""
    if session.options.text is None:
        session.results["nanoGPT"] = "left out: --text names no file"
        return
    tiny = [
        "data.context=16",
        "model.layers=1",
        "trainer.duration=20",
        "trainer.validate=20",
        "warmup.duration=2",
        EAGER,
    ]
    words = [*NANOGPT, f"data.path={session.options.text.resolve()}", *(tiny if session.options.tiny else [])]
    session.train("nanoGPT", words, "val/loss", "1.47")


def modes(session: Session) -> None:
    """The modes of `torch.compile`, each in a process of its own, which can be ended."""
    for mode in MODES:
        command = [sys.executable, "-c", OF_MODE, mode, *map(str, session.blocks), *session.device]
        said = session.run(command, str(ROOT), {"PYTHONPATH": str(ROOT)})
        if said is None:
            session.results[f"compiled with {mode}"] = "not finished in the time that was left"
            continue
        found = json.loads(said.strip().splitlines()[-1])
        session.lines.append(found["line"])
        session.results[f"compiled anew with {mode}, warm-up and cosine"] = str(found["anew"])


PARTS: dict[str, Callable[[Session], None]] = {
    "updates": updates,
    "graphs": graphs,
    "compilations": compilations,
    "stacked": stacked,
    "ddp": one_process,
    "cifar": cifar,
    "nanogpt": nanogpt,
    "modes": modes,
}


def main(arguments: list[str] | None = None) -> None:
    """Run the parts while there is time, and show what was found."""
    options = parse(arguments)
    import torch

    if options.device == "gpu" and not torch.cuda.is_available():
        raise ConfigError("there is no GPU that torch can use: rehearse with --device cpu --tiny.")
    session = Session(options)
    for name in options.only:
        if session.left < 20:
            session.results[name] = "left out: no time was left"
            continue
        print(f"{name}, after {time.monotonic() - session.begun:.0f} s", flush=True)
        try:
            PARTS[name](session)
        except Exception as error:  # the others are measured all the same
            session.results[name] = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    used = torch.cuda.get_device_name() if options.device == "gpu" else "the CPU, a rehearsal"
    if session.lines:
        show_lines(session.lines, f"On {used}.")
    for name, result in session.results.items():
        print(f"{name}: {result}")
    print(f"{time.monotonic() - session.begun:.0f} s in all, on {used}")
    keep(options.out, {"lines": session.lines, "results": session.results, "device": used, "machine": machine(1)})


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="gpu", choices=("gpu", "cpu"))
    parser.add_argument("--tiny", action="store_true", help="small nets and few updates, to rehearse")
    parser.add_argument("--minutes", type=float, default=8.0, help="the limit of all parts together")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="some of the parts")
    parser.add_argument("--cifar", type=Path, help="a folder with train.parquet and test.parquet")
    parser.add_argument("--text", type=Path, help="Shakespeare's text, for nanoGPT's setting")
    parser.add_argument("--out", type=Path, help="a JSON file for the numbers")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(run_cli(main))
