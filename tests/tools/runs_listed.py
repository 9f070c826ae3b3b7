"""Folders of runs to list: made by training, and many copies of one that differ in a few numbers."""

import json
import re

from tests.tools.test_trained_commands import WORDS
from trainer.cli.command import COMMAND
from trainer.config.settings import settings_of
from trainer.run import run_in


def train(compose, folder, *words):
    """A run in a folder; it raises what training raises."""
    words = [*WORDS, *words]
    run_in(folder, settings_of(compose(*words)), words, COMMAND)
    return folder


def copies(run, root, count):
    """So many runs that differ from a trained one in rate, seed and scores: number i has the rate 0.001 · (i + 1)."""
    files = {name: (run / name).read_text() for name in ("config.yaml", "plan.json", "result.json")}
    scores = (run / "validations.jsonl").read_text()
    for i in range(count):
        rate, folder = 0.001 * (i + 1), root / str(i)
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints" / "best.ckpt").write_bytes(b"x" * 5000)
        (folder / "events.out.tfevents.1.host.1").write_bytes(b"x" * 20000)
        (folder / "validations.jsonl").write_text(scores)
        config = re.sub(r"(?m)^  lr: .*$", f"  lr: {rate}", files["config.yaml"])
        (folder / "config.yaml").write_text(config)
        plan = json.loads(files["plan.json"])
        plan["curve_history"][0]["config"]["optimizer"]["lr"] = rate
        (folder / "plan.json").write_text(json.dumps(plan, indent=2) + "\n")
        result = json.loads(files["result.json"])
        result["metrics"]["val/loss"] = abs(rate - 0.3) + 0.5
        (folder / "result.json").write_text(json.dumps(result, indent=2) + "\n")
        words = [*WORDS, f"optimizer.lr={rate}", f"seed={i % 3}", "name=many"]
        (folder / "overrides.yaml").write_text("".join(f"- {word}\n" for word in words))
    return root
