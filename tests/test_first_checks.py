"""The commands of the page on what to try before a long training."""

import json
import os
import re
import shlex
from pathlib import Path

import pytest

from tests.distributed import worlds
from tests.pages import DOCS
from trainer.log.scalars import scalars
from trainer.measure.update_profile import TRACE

ROOT = Path(__file__).parents[1]
BLOCK = (DOCS / "first_checks.md").read_text().split("```bash\n")[1].partition("```")[0]
COMMANDS = [shlex.split(line, comments=True)[2:] for line in BLOCK.splitlines()]
ON_CPU = ("trainer.accelerator=cpu", "trainer.threads=1")


def typed(words, folder):
    """Run `cadence train WORDS` in a folder, and give what it printed."""
    process = worlds.Script(ROOT / "train.py", [*words, *ON_CPU], folder, os.environ | {"CADENCE_RUN_ID": ""})
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-2000:]
    return out


@pytest.mark.slow
def test_the_commands_of_the_page_do_what_it_says(tmp_path):
    dry, jobs, debug, overfit, profile = COMMANDS
    assert "nothing was trained" in typed(dry, tmp_path)
    assert [line.split(":")[1] for line in typed(jobs, tmp_path).splitlines()] == [" ready"] * 2
    assert list(tmp_path.iterdir()) == []
    typed(debug, tmp_path)
    folder = tmp_path / "outputs/try"
    result = json.loads((folder / "result.json").read_text())
    assert (result["updates"], result["status"]) == (2, "completed")
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {
        *("best.ckpt", "update-00000001.ckpt", "update-00000002.ckpt")
    }
    assert [json.loads(line)["update"] for line in (folder / "validations.jsonl").read_text().splitlines()] == [1, 2]
    assert result["test"].keys() == {"loss", "accuracy"}
    train, *_ = (line for line in typed(overfit, tmp_path).splitlines() if line.startswith("train"))
    assert re.fullmatch(r"train    loss \d\.?\d*e-\d+ on the batches that it overfits", train)
    assert scalars(tmp_path / "outputs/one", ("train/loss",))["train/loss"][-1][1] < 1e-3
    assert "an update" in typed(profile, tmp_path)
    assert (tmp_path / "outputs/speed" / TRACE).exists()


@pytest.mark.slow
def test_a_quiet_run_prints_its_result_and_no_table_and_no_progress(tmp_path):
    words = [*COMMANDS[2][:1], "trainer.quiet=true", "name=quiet", *ON_CPU]
    process = worlds.Script(ROOT / "train.py", words, tmp_path, os.environ | {"CADENCE_RUN_ID": ""})
    out, err = process.communicate(timeout=300)
    assert [line.split()[0] for line in out.splitlines()][:4] == ["best", "test", "updates", "folder"]
    assert err == ""
