"""The guide holds: its files are written into an empty folder, and its commands run there and do what it says.

Commands are forked from a process that has imported everything. Those whose numbers the page does not give are short.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.distributed import worlds
from tests.pages import DOCS
from trainer.log.validations import read_validations

PAGE = (DOCS / "own_work.md").read_text()
PROGRAM = "import sys\n\nfrom cadence.__main__ import main\n\nif __name__ == '__main__':\n    sys.exit(main())\n"
FILES = [(name, code) for name, code in re.findall(r"`([\w/.]+)`[^`]*```(?:python|yaml)\n(.*?)```", PAGE, re.DOTALL)]
WHOLE = ("first", "rates", "large")


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command in the blocks of a text."""
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
        yield from (shlex.split(line) for line in block.replace("\\\n", "").splitlines())


def shortened(words: list[str]) -> list[str]:
    """A command of the page on one thread of the CPU; runs whose numbers it does not give have 36 updates."""
    if words[0] == "python" or words[1] not in ("train", "range-test", "--nproc-per-node"):
        return words
    name = next((word.removeprefix("name=") for word in words if word.startswith("name=")), "")
    more = ["trainer.accelerator=cpu", "trainer.threads=1"]
    more += ["trainer.duration=2ep"] * (name not in ("", *WHOLE)) + ["hydra.launcher.fork=true"] * (words[2] == "-m")
    return [*words, *(word for word in more if word.partition("=")[0] not in {w.partition("=")[0] for w in words})]


class Project:
    """An empty folder in which the blocks of the page are typed in."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.said, self.exported = folder, {}, {}
        self.program = folder / "bin" / "program.py"
        for name, code in [(str(self.program), PROGRAM), *FILES]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(code)

    def type_in(self, typed: list[str]) -> None:
        """Run a command as it is on the page, and keep what it says."""
        if typed[0] == "export":
            self.exported |= dict(word.split("=") for word in typed[1:])
            return
        program, *words = shortened(typed)
        environment = os.environ | {"PYTHONPATH": str(worlds.ROOT), "OMP_NUM_THREADS": "1", "CADENCE_RUN_ID": ""}
        environment |= self.exported
        if program == "torchrun":
            command = [sys.executable, "-m", "torch.distributed.run", *words]
            pipe = subprocess.PIPE
            process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=pipe, stderr=pipe, text=True)
        else:
            path, given = (self.folder / words[0], words[1:]) if program == "python" else (self.program, words)
            process = worlds.Script(path, given, self.folder, environment)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, f"{shlex.join(typed)}\n{out[-2000:]}\n{err[-3000:]}"
        self.said[" ".join(typed)] = " ".join(out.split())

    def output(self, part: str) -> str:
        """What the only command that contains `part` has said, in single spaces."""
        (found,) = (said for command, said in self.said.items() if part in command)
        return found

    def validation(self, run: str) -> dict:
        """The last scores of a run."""
        return read_validations(self.folder / "outputs" / run)[-1]

    def weights(self, run: str, which: str = "best") -> dict[str, torch.Tensor]:
        """The weights of the best or the newest checkpoint of a run."""
        found = max((self.folder / "outputs" / run / "checkpoints").glob(f"{which}*.ckpt"))
        return torch.load(found, weights_only=False)["state_dict"]


def test_the_page_gives_its_files_by_name():
    assert [name for name, _ in FILES] == [
        *("waves.py", "conf/experiment/waves.yaml", "steps.py", "conf/task/recalls.yaml", "after.py", "loop.py"),
    ]


@pytest.mark.slow
def test_the_commands_of_the_page_do_what_it_says(tmp_path):
    project = Project(tmp_path)
    for words in commands(PAGE):
        project.type_in(words)
    table, _ = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    first = project.said[" ".join(next(words for words in commands(PAGE) if words[0] != "export"))]
    for entry in re.split(r"\n(?=\S)", table):
        assert " ".join(entry.split()) in first
    assert float(re.search(r"best loss \S+ accuracy (\S+)", first)[1]) > 0.8
    assert project.validation("first")["update"] == 270
    assert project.validation("weighted").keys() >= {f"val/recall/{label}" for label in range(3)}
    assert project.validation("both").keys() >= {"val/ce", "val/margin"}
    assert 0.002 < float(re.search(r"paste: optimizer.lr=(\S+)", project.output("range-test"))[1]) < 0.03
    assert "best val/loss" in project.output("report outputs/rates")
    assert "lr 0.03 " in project.output("report outputs/rates")
    assert "κ = 2, scale 1.41421 optimizer.lr 0.03 → 0.0424264" in project.output("name=large")
    assert (project.folder / "outputs" / "folds" / "report" / "report.html").exists()
    encoder = {name: value for name, value in project.weights("first").items() if "encoder" in name}
    assert all(torch.equal(value, project.weights("head")[name]) for name, value in encoder.items())
    assert "True" in project.output("python after.py")
    assert project.output("python loop.py") == "True"
    assert len((project.folder / "predictions.csv").read_text().splitlines()) == 401
    assert {"waves.pt", "waves.pt2"} <= {path.name for path in project.folder.iterdir()}

    one = "cadence train --config-dir conf experiment=waves name=one data.batch_size=32 trainer.accumulate=2"
    project.type_in(one.split())
    for run in ("two", "three"):
        for name, value in project.weights("one", "update").items():
            torch.testing.assert_close(project.weights(run, "update")[name], value, rtol=0, atol=1e-4)
