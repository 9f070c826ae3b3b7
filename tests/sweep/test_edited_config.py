"""A sweep that goes on after a file of its config has changed says which completed job was trained with another one."""

import os
import subprocess
from pathlib import Path

from omegaconf import OmegaConf

from tests.test_stopping import ROOT, RUN
from trainer.sweep.job import Job
from trainer.sweep.sweep_resume import edits_since


def test_a_completed_job_of_an_edited_config_is_told(tmp_path: Path, python: str) -> None:
    own = tmp_path / "own" / "experiment" / "mine.yaml"
    own.parent.mkdir(parents=True)
    words = [word for word in RUN if not word.startswith("allow")]
    words += ["experiment=mine", "logger=none", "optimizer.lr=0.01", "resume=auto"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [python, "-m", "cadence", "train", "-m", *words, "--config-dir", "own"]
    told = []
    for clip in (1.0, 1.0, 0.5):
        own.write_text(f"# @package _global_\ntrainer:\n  clip: {clip}\n")
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        told.append("job 0 was completed with another config (trainer.clip: 1.0 → 0.5)" in done.stderr)
    assert told == [False, False, True]


def test_what_cannot_be_read_is_no_edit(tmp_path: Path) -> None:
    job = Job(0, [], tmp_path, [])
    config = OmegaConf.create({"a": 1, "hydra": {"b": 2}, "name": "now"})
    assert edits_since(job, config) == ""
    for text in ("a: [", "a: 1\nname: then", "5", ""):
        (tmp_path / "config.yaml").write_text(text)
        assert edits_since(job, config) == ""
    (tmp_path / "config.yaml").write_text("a: 2")
    assert edits_since(job, config) == "a: 2 → 1"
