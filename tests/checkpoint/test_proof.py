"""A damaged checkpoint is never loaded, an older one takes its place and is told, and nothing finite is lost."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LambdaCallback

from tests.checkpoint.corrupt import corrupt
from trainer.checkpoint.checkpointing import describe_newest
from trainer.checkpoint.finite import nonfinite
from trainer.checkpoint.io import BEST, DamagedCheckpoint, checkpoint_path, checkpoints_in, read
from trainer.checkpoint.weights import read_weights
from trainer.cli.command import COMMAND
from trainer.config.components import _claims
from trainer.distributed.launch.time_limit import TimeLimit
from trainer.engine.update import Diverged
from trainer.files.atomic import remove_orphans, replaced, write_text
from trainer.lr import ConfigError
from trainer.resume.resume_point import candidates, newest_good, put_aside
from trainer.run import begin, evaluate, fit

SMALL = (
    *("data=synthetic", "data.samples=64", "data.val_samples=32", "data.batch_size=8", "model.hidden=[4]"),
    *("trainer.duration=12", "trainer.validate=4", "trainer.steps_per_execution=2", "warmup=none", "logger=none"),
)


@pytest.fixture
def run(assembled):
    """A run of 12 updates at its end, validated after each 4."""
    made = assembled(*SMALL)
    fit(made)
    return made


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_corruptions_of_all_kinds_are_never_loaded_and_the_older_checkpoint_takes_their_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    counts = corrupt(35, seed=1, train=35)
    assert counts["points"] == counts["taken back and told"] == 35
    assert counts["loaded"] == 0
    assert counts["trained on"] == counts["to the same bits"] == 1


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_kill_at_any_system_call_of_a_save_loses_nothing_and_leaves_nothing(tmp_path):
    command = [sys.executable, Path(__file__).parent / "kill_saves.py", "--points", "10"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert "10 kills, 0 lost" in done.stdout, done.stdout + done.stderr
    assert done.stdout.endswith("0 orphans\n")


@pytest.mark.sample(0)
@pytest.mark.slow
def test_a_run_that_is_killed_at_any_moment_ends_with_the_same_bits(tmp_path):
    command = [sys.executable, Path(__file__).parent / "kill_runs.py", "--points", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert re.search(r"1 runs, [12] kills, 1 same bits, 0 failed, 0 orphans", done.stdout), done.stdout + done.stderr


def test_a_checkpoint_stays_an_archive_that_torch_and_zip_read(run):
    path = checkpoints_in(run.checkpointing.folder)[-1]
    assert zipfile.ZipFile(path).testzip() is None
    for mapped in (True, False):
        plain = torch.load(path, weights_only=True, mmap=mapped)
        assert all(torch.equal(value, plain["state_dict"][name]) for name, value in read(path)["state_dict"].items())


def test_auto_takes_the_older_checkpoint_and_puts_the_damaged_one_aside(run, assembled, capsys):
    folder = run.checkpointing.folder
    older, newest = checkpoints_in(folder)
    flip(newest)
    point = newest_good(candidates("auto", run.folder), run.folder)
    assert point.path == older
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "update-00000012.ckpt is left out: its bytes do not fit" in told
    assert f"goes on from {older}" in told
    resumed = assembled(*SMALL, "trainer.duration=16", "resume.policy=stretch", folder="other", resumed=older)
    assert _claims(resumed.resolved)["the checkpoint"] == older.name, "all ranks must have taken the same one"
    put_aside(point)
    assert [path.name for path in checkpoints_in(folder)] == [older.name]
    assert (folder / "update-00000012.ckpt.damaged").exists()


def test_where_all_are_damaged_the_run_does_not_start_again(run):
    for path in checkpoints_in(run.checkpointing.folder):
        flip(path)
    with pytest.raises(ConfigError, match="all checkpoints in .* are damaged .*put back a copy of one") as refused:
        newest_good(candidates("auto", run.folder), run.folder)
    assert "\n" not in str(refused.value)
    checkpoints_in(run.checkpointing.folder)[0].unlink()
    with pytest.raises(ConfigError, match="is damaged: .* There is no good one beside it"):
        newest_good(candidates("auto", run.folder), run.folder)


def test_a_named_file_that_is_damaged_names_the_newest_good_one_and_a_missing_one_is_missing(run):
    older, newest = checkpoints_in(run.checkpointing.folder)
    newest.write_bytes(newest.read_bytes()[:-9])
    with pytest.raises(DamagedCheckpoint, match=f"was cut short .*The newest good one beside it is {older}"):
        read(newest)
    with pytest.raises(ConfigError, match="resume.path=nowhere.ckpt does not exist"):
        read("nowhere.ckpt")


def test_a_damaged_best_checkpoint_is_refused_and_a_missing_one_is_told(run, assembled, capsys):
    best, newest = run.checkpointing.folder / BEST, checkpoints_in(run.checkpointing.folder)[-1]
    score = run.checkpointing.best["value"]
    flip(best)
    says = f"best.ckpt is damaged: .*The best so far \\(val/loss {score:.6g} at update .*remove it to go on without"
    with pytest.raises(ConfigError, match=says):
        evaluate(run)
    with pytest.raises(ConfigError, match="init.path=.*best.ckpt is damaged"):
        read_weights(run.folder)
    again = assembled(*SMALL, "trainer.duration=16", "resume.policy=stretch", folder="again", resumed=newest)
    with pytest.raises(ConfigError, match=says):
        fit(again)
    inside = assembled(*SMALL, "trainer.duration=16", "resume.policy=stretch", folder=run.folder.name, resumed=newest)
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=says):
        begin(inside, [], COMMAND, TimeLimit())
    assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before
    best.unlink()
    again = assembled(*SMALL, "trainer.duration=16", "resume.policy=stretch", folder="again", resumed=newest)
    fit(again)
    assert "is not there any more: the best is chosen anew from here on" in capsys.readouterr().err
    assert again.checkpointing.best["update"] == 16


@pytest.mark.parametrize("part", ["weight", "moment", "average"])
def test_a_state_that_is_not_finite_is_never_saved_and_the_good_checkpoint_is_named(assembled, part):
    run = assembled(*SMALL, "optimizer=adamw", "average=ema", "trainer.keep=1")

    class Plant(pl.Callback):
        def on_validation_start(self, trainer, module):
            if module.clock.t == 8:
                weight = next(module.net.parameters())
                state = trainer.optimizers[0].state[weight]
                target = {"weight": weight.data, "moment": state["exp_avg"], "average": None}[part]
                (next(iter(module.averaging.mean.values())) if target is None else target).view(-1)[0] = torch.inf

    run.trainer.callbacks.insert(0, Plant())
    with pytest.raises(
        Diverged, match="after update 7 .*not finite: the run stops, and this state is not saved"
    ) as bad:
        fit(run)
    (good,) = checkpoints_in(run.checkpointing.folder)
    assert good == checkpoint_path(run.checkpointing.folder, 4)
    assert read(run.checkpointing.folder / BEST)["cadence"]["updates"] == 4
    assert f"The newest checkpoint is {good}." in str(run.checkpointing.final_error(bad.value))


def test_what_is_not_finite_by_design_is_saved(assembled):
    run = assembled(*SMALL)
    run.module.net.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    fit(run)
    assert checkpoints_in(run.checkpointing.folder)[-1].name == "update-00000012.ckpt"


def test_while_scores_are_not_finite_the_newest_checkpoint_from_before_stays(assembled):
    run = assembled(*SMALL, "trainer.keep=1", "trainer.duration=16")
    save, kept = run.checkpointing._after_interval, []

    def planted(trainer, module):
        if 8 <= module.clock.t <= 12:
            trainer.callback_metrics["val/loss"].fill_(torch.nan)

    def after(trainer, module):
        save(trainer, module)
        kept.append([int(path.stem[-8:]) for path in checkpoints_in(run.checkpointing.folder)])

    run.trainer.callbacks.append(LambdaCallback(on_validation_end=planted))
    run.checkpointing._after_interval = after
    fit(run)
    assert kept == [[4], [4, 8], [4, 12], [16]]
    assert run.checkpointing.best["update"] in (4, 16)


def test_large_numbers_are_finite_and_the_tensors_that_are_not_are_named():
    large = {"half": torch.full((9,), 6e4).half(), "single": torch.full((9,), 3e38)}
    large["double"] = torch.full((1,), 1e300, dtype=torch.float64)
    assert nonfinite(large | {"none": torch.zeros(0), "scalar": torch.tensor(1.0)}) == []
    assert nonfinite(large | {"bad": torch.tensor([1.0, torch.nan])}) == ["bad"]


def test_a_newest_checkpoint_that_is_damaged_is_not_named_as_the_one_to_go_on_from(run, tmp_path):
    older, newest = checkpoints_in(run.checkpointing.folder)
    flip(newest)
    assert describe_newest(run.checkpointing.folder) == f"The newest checkpoint is {older}."
    assert describe_newest(tmp_path) == f"There is no checkpoint in {tmp_path}."


def test_temporary_files_of_ended_processes_are_removed_and_those_of_living_ones_stay(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from trainer.files.atomic import replaced\n"
        "with replaced(Path(sys.argv[1])) as path: path.touch(); os._exit(9)"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code, tmp_path / "a.json"], cwd=root, check=False)
    (ended,) = tmp_path.iterdir()
    with replaced(tmp_path / "b.json") as own:
        own.touch()
        assert not ended.exists()
        reused = own.with_name(own.name.replace(f"-{own.name.split('-')[2].split('@')[0]}@", "-7@"))
        other = own.with_name(own.name.replace("@", "@another-host-of-", 1))
        for path in (reused, other):
            path.touch()
        remove_orphans(tmp_path)
        assert own.exists()
        assert other.exists()
        assert not reused.exists(), "the number was given to another process since"
        remove_orphans(tmp_path, owned=True)
        assert own.exists()
        assert not other.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["b.json"]


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path):
    write_text(tmp_path / "a.json", "old")
    with pytest.raises(OSError, match="planted"), replaced(tmp_path / "a.json") as temporary:
        _fail(temporary)
    assert (tmp_path / "a.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def _fail(temporary):
    temporary.write_text("new")
    raise OSError("planted")
