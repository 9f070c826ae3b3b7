"""A checkpoint says who wrote it, is refused in another format, and is read from its file once."""

import json
import subprocess

import pytest
import torch

from trainer.checkpoint.io import BEST, FORMAT, AtomicCheckpointIO, checkpoints_in, read
from trainer.cli.version import ROOT, git_commit, version
from trainer.config.run_summary import write_result
from trainer.lr import ConfigError
from trainer.run import fit

SMALL = ("data=synthetic", "model.hidden=[4]", "data.batch_size=8", "trainer.duration=4", "trainer.validate=4")


@pytest.fixture
def saved(tmp_path):
    """A file with a weight and a moment of it, as our plugin saves them."""
    path = tmp_path / "update-00000001.ckpt"
    state = {"state_dict": {"w": torch.arange(9.0)}, "optimizer_states": [{"exp_avg": torch.arange(9.0) / 7}]}
    AtomicCheckpointIO().save_checkpoint({"cadence": {"updates": 1}, **state}, path)
    return path


def test_every_checkpoint_and_the_result_carry_the_version_and_the_commit(assembled):
    run = assembled(*SMALL, "warmup=none", "trainer.snapshots=[2]", "trainer.keep=1")
    fit(run)
    write_result(run, {"status": "completed", "test": {}}, 1.0)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    folder = run.checkpointing.folder
    paths = [folder / BEST, *checkpoints_in(folder), *checkpoints_in(folder / "at-00000002")]
    assert len(paths) == 3
    for path in paths:
        found = read(path)["cadence"]
        assert (found["format"], found["version"], found["commit"]) == (FORMAT, "0.1.0", head.stdout.strip())
    result = json.loads((run.folder / "result.json").read_text())
    assert result["versions"]["cadence"] == "0.1.0"
    assert result["versions"]["commit"] == head.stdout.strip()


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ({"format": FORMAT + 1, "version": "9.9"}, "has checkpoint format 3, .* wrote it \\(a newer Cadence, 9.9\\)"),
        ({"format": 0, "version": "0.0.1"}, "has checkpoint format 0, .* wrote it \\(an older Cadence, 0.0.1\\)"),
        ({}, "has no checkpoint format number, .* reads format 2: .* wrote it \\(an older Cadence\\), or start a new"),
    ],
)
def test_an_older_and_a_newer_format_are_refused_in_one_line(tmp_path, written, says):
    torch.save({"cadence": {"updates": 1, **written}}, tmp_path / "other.ckpt")
    with pytest.raises(ConfigError, match=says) as refusal:
        read(tmp_path / "other.ckpt")
    assert "\n" not in str(refusal.value)


def test_saving_leaves_the_checkpoint_of_the_run_as_it_is(tmp_path):
    checkpoint = {"cadence": {"updates": 1}}
    AtomicCheckpointIO().save_checkpoint(checkpoint, tmp_path / "a.ckpt")
    assert checkpoint == {"cadence": {"updates": 1}}
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


def test_a_checkpoint_that_was_handed_over_is_not_read_again(saved):
    plugin, checkpoint = AtomicCheckpointIO(), read(saved)
    plugin.preload(saved, checkpoint)
    saved.unlink()
    loaded = plugin.load_checkpoint(saved)
    assert torch.equal(loaded["state_dict"]["w"], torch.arange(9.0))
    assert torch.equal(loaded["optimizer_states"][0]["exp_avg"], torch.arange(9.0) / 7)
    with pytest.raises(ConfigError, match="does not exist"):
        plugin.load_checkpoint(saved)


def test_what_stays_in_use_while_a_run_trains_does_not_change_with_its_file(saved):
    loaded = AtomicCheckpointIO().load_checkpoint(saved)
    with saved.open("r+b") as file:
        file.write(bytes(saved.stat().st_size))
    assert torch.equal(loaded["optimizer_states"][0]["exp_avg"], torch.arange(9.0) / 7)


def test_the_commit_is_read_as_git_says_it(tmp_path):
    def git(*arguments, folder=tmp_path / "clone"):
        identity = ("-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    clone = tmp_path / "clone"
    clone.mkdir()
    assert git_commit(clone) is None, "no checkout"
    git("init", "-q", "-b", "main")
    assert git_commit(clone) is None, "no commit yet"
    git("commit", "-q", "--allow-empty", "-m", "one")
    first = git("rev-parse", "HEAD")
    assert git_commit(clone) == first
    git("commit", "-q", "--allow-empty", "-m", "two")
    git("pack-refs", "--all")
    assert git_commit(clone) == git("rev-parse", "HEAD") != first
    git("worktree", "add", "-q", "-b", "other", str(tmp_path / "tree"), first)
    assert git_commit(tmp_path / "tree") == first
    git("checkout", "-q", "--detach", first)
    assert git_commit(clone) == first
    (clone / "inside").mkdir()
    assert git_commit(clone / "inside") is None, "a package that is installed inside another project's checkout"


def test_a_clone_that_is_not_installed_knows_its_version(monkeypatch):
    from importlib import metadata

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    version.cache_clear()
    try:
        assert version()["cadence"] == "0.1.0"
    finally:
        version.cache_clear()
