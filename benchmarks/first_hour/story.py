"""The first hour with a tool: what a user writes and types from the first training to predictions, timed.

    python benchmarks/first_hour/story.py cadence FOLDER        # also lightning, trainer, template

FOLDER becomes the project: the files that a user of the tool writes are copied to it, beside a CSV file. For
`template` it is a clone of lightning-hydra-template with its requirements installed. Each command of commands.txt is
then run by bash; FOLDER/story has its output, and story.json with the seconds and the exit codes.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

HERE = Path(__file__).parent
CSV = HERE.parents[1] / "examples" / "tabular" / "flats.csv"
UNTIMED = ("tensorboard ",)


def prepare(tool: str, folder: Path) -> int:
    """Copies the user's files and the table to the folder; the lines that the user has written."""
    written = [path for path in sorted((HERE / tool).rglob("*")) if path.suffix in (".py", ".yaml")]
    for path in written:
        target = folder / path.relative_to(HERE / tool)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    head, *rows = CSV.read_text().splitlines()
    (folder / CSV.name).write_text("\n".join([head, *rows]) + "\n")
    without = [line.rpartition(",")[0] for line in (head, *rows[:20])]
    (folder / "new.csv").write_text("\n".join(without) + "\n")
    return sum(count_lines(path) for path in written)


def count_lines(path: Path) -> int:
    """Lines of a file without blank ones and comments."""
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in path.read_text().splitlines())


def hear_ctrl_c() -> None:
    """Undo that a shell lets what it starts in the background ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run(command: str, exports: list[str], folder: Path, log: Path) -> dict[str, object]:
    """Runs a command of the story in the folder. Its time is that of the clock and of the processor, in seconds.

    `ctrl-c GLOB COMMAND` gets SIGINT two seconds after a file that fits the pattern is there.
    """
    typed, pattern = command, None
    if command.startswith("ctrl-c "):
        _, pattern, typed = command.split(maxsplit=2)
        typed = f"exec {typed}"
    start, before = time.monotonic(), os.times()
    with log.open("w") as out:
        words = ["bash", "-c", "\n".join([*exports, typed])]
        process = subprocess.Popen(
            words, cwd=folder, stdout=out, stderr=out, stdin=subprocess.DEVNULL, preexec_fn=hear_ctrl_c
        )
        while pattern and process.poll() is None:
            if any(folder.glob(pattern)):
                time.sleep(2)
                process.send_signal(signal.SIGINT)
                pattern = None
            time.sleep(0.05)
        code = process.wait()
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    seconds = time.monotonic() - start
    return {"command": command, "seconds": round(seconds, 1), "cpu": round(cpu, 1), "exit": code, "log": log.name}


def story(tool: str, folder: Path) -> dict[str, object]:
    """All commands of a tool's story in their order."""
    folder.mkdir(parents=True, exist_ok=True)
    written, steps, exports = prepare(tool, folder), [], []
    (folder / "story").mkdir(exist_ok=True)
    step = ""
    for line in (HERE / tool / "commands.txt").read_text().splitlines():
        if line.startswith("#"):
            step = line.removeprefix("# ")
        elif line.startswith("export "):
            exports.append(line)
        elif not line.startswith(UNTIMED):
            log = folder / "story" / f"{len(steps):02}.txt"
            steps.append({"step": step, **run(line, exports, folder, log)})
            print(
                "{seconds:7} s, {cpu:6} s of the processor, exit {exit}, {step}: {command}".format(**steps[-1]),
                flush=True,
            )
    return {"tool": tool, "lines": written, "commands": len(steps), "steps": steps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool", choices=sorted(path.parent.name for path in HERE.glob("*/commands.txt")))
    parser.add_argument("folder", type=Path, help="the project that is made")
    options = parser.parse_args()
    tool, folder = options.tool, options.folder.resolve()
    found = story(tool, folder)
    (folder / "story" / "story.json").write_text(json.dumps(found, indent=2))
    print(f"{tool}: {found['lines']} lines written, {found['commands']} commands")


if __name__ == "__main__":
    main()
