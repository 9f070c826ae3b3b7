"""A program to sweep over in tests: its jobs start at once, and crash, hang or complete as their overrides say."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
DRIVER = """
if "hydra.mode=RUN" in sys.argv:
    job(sys.argv[1:])
    sys.exit(0)

import hydra
from trainer.cli.hydra_internals import VERSION_BASE
from trainer.cli.run_cli import run_cli
from trainer.cli.run_id import register_run_id
register_run_id()

@hydra.main(config_path="conf", config_name="train", **VERSION_BASE)
def main(cfg):
    raise AssertionError("the jobs do not come here")

sys.exit(run_cli(main))
"""
"""The end of a program: a job calls its function `job` with the overrides, and the sweep is a real one."""
PROGRAM = """
import json, os, signal, sys, time

def job(words):
    given = dict(word.lstrip("+").split("=", 1) for word in words if "=" in word)
    folder = given["hydra.run.dir"].strip("'")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "starts"), "a") as file:
        file.write(f"{os.getpid()}\\n")
    starts = len(open(os.path.join(folder, "starts")).readlines())
    time.sleep(float(given.get("sleep", 0)))
    if starts == 1 and given.get("act", "complete") != "complete":
        {
            "raise": lambda: 1 / 0,
            "code": lambda: os._exit(3),
            "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
            "term": lambda: os.kill(os.getpid(), signal.SIGTERM),
            "hang": lambda: time.sleep(600),
            "leave": lambda: sys.exit(0),
        }[given["act"]]()
        time.sleep(600)
    for step in range(int(given.get("validations", 0))):
        with open(os.path.join(folder, "validations.jsonl"), "a") as file:
            file.write(json.dumps({"update": step + 1, "val/loss": float(given.get("x", 0))}) + "\\n")
        time.sleep(1.0)
    path = os.path.join(folder, "result.json")
    with open(path + ".draft", "w") as file:
        json.dump({"status": "completed", "metrics": {"val/loss": float(given.get("x", 0))}, "pid": os.getpid()}, file)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # so that the count and the result agree
    with open(os.path.join(folder, "completions"), "a") as file:
        file.write(f"{os.getpid()}\\n")
    os.replace(path + ".draft", path)
"""
CONFIG = """
defaults:
  - _self_
  - override hydra/launcher: process
  - override hydra/sweeper: grid
name: ${run_id:}
x: 0.0
act: complete
sleep: 0.2
trainer: {devices: 1, accelerator: cpu}
task: {monitor: loss, mode: min}
resume: {path: null}
hydra:
  run: {dir: 'outputs/${name}'}
  sweep: {dir: 'outputs/${name}', subdir: '${hydra.job.num}'}
  output_subdir: null
"""


def toy(folder: Path) -> Path:
    """Write the program and its config into `folder`."""
    (folder / "conf").mkdir(parents=True)
    (folder / "train.py").write_text(PROGRAM + DRIVER)
    (folder / "conf" / "train.yaml").write_text(CONFIG)
    return folder


def driver(app: Path, *words: str) -> "subprocess.Popen[bytes]":
    """Start the driver of the sweep `s`; its output goes to driver.log."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("CADENCE_RUN_ID", "SLURM_", "HYDRA_"))}
    given = {word.partition("=")[0]: word for word in ("resume.path=auto", "hydra.launcher.jobs=4", *words)}
    command = [sys.executable, "train.py", "-m", "name=s", *given.values()]
    with (app / "driver.log").open("ab") as log:
        return subprocess.Popen(
            command, cwd=app, env=env | {"PYTHONPATH": str(ROOT)}, stdout=log, stderr=subprocess.STDOUT
        )
