"""What several tests of the commands share."""

import json
from pathlib import Path

import pytest

from trainer.tools.tune import command as tune


@pytest.fixture
def tuned(tmp_path, monkeypatch, capsys):
    """What the command prints, and its numbers, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        folder = [] if "--out" in words else ["--out", "tuned"]
        tune.main([*words, *folder])
        return capsys.readouterr().out, json.loads(Path((*words, *folder)[-1], tune.TUNE).read_text())

    return run
