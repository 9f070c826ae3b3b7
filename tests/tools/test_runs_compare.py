"""One run is shown, and several are compared, by what their folders hold."""

import json
import re
import shlex

import pytest

from tests.pages import DOCS
from tests.tools.runs_listed import train
from tests.tools.runs_on_disk import write_run
from trainer.distributed.launch.folder_lock import FolderLock
from trainer.lr import ConfigError
from trainer.tools.runs.command import main


@pytest.fixture
def two(compose, tmp_path, monkeypatch):
    """Two trained runs in the working folder, of which the second has twice the rate."""
    monkeypatch.chdir(tmp_path)
    train(compose, tmp_path / "outputs" / "first", "optimizer.lr=0.01", "warmup=none", "schedule=constant")
    train(compose, tmp_path / "outputs" / "grid" / "0", "optimizer.lr=0.02", "warmup=none", "schedule=constant")
    return tmp_path / "outputs"


def test_two_runs_are_shown_told_apart_and_drawn(two, capsys):
    main(["show", "outputs/first"])
    text = capsys.readouterr().out
    result = json.loads((two / "first" / "result.json").read_text())
    assert re.search(r"^state +completed$", text, re.MULTILINE)
    assert f"val/loss {result['metrics']['val/loss']:.5g}" in text
    assert re.search(r"^updates +16 of 16 in ", text, re.MULTILINE)
    assert "base 0.01, peak 0.01" in text
    assert re.search(r"^again +cadence train data=synthetic .*optimizer.lr=0.01", text, re.MULTILINE)
    assert "update-00000016.ckpt" in text
    main(["diff", "outputs/first", "outputs/grid"])
    text = capsys.readouterr().out
    assert re.search(r"^optimizer.lr +0.01 +0.02$", text, re.MULTILINE)
    assert len(re.findall(r"^optimizer|^schedule|^data|^trainer", text, re.MULTILINE)) == 1
    assert "learning rate: differs from update 0 on" in text
    assert "train/loss: differs from update 1 on" in text
    assert re.search(r"val/loss: differs from update \d+ on", text)
    main(["diff", "outputs/first", "outputs/first"])
    text = capsys.readouterr().out
    assert "configs: they are the same" in text
    assert "learning rate: the same at all 16 updates" in text
    main(["compare", "outputs/first", "outputs/grid", "--out", "both.png"])
    assert capsys.readouterr().out == "both.png: 2 runs\n"
    assert (two.parent / "both.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match="exists"):
        main(["compare", "outputs/first", "--out", "both.png"])


def test_files_of_another_program_are_no_run(tmp_path):
    for name in ("config.yaml", "result.json"):
        (tmp_path / name).write_text('{"status": "ready"}')
        with pytest.raises(ConfigError, match="holds no run: its config.yaml or result.json is of another program"):
            main(["show", str(tmp_path)])


def test_a_resume_that_has_changed_a_run_is_told_by_each_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    edits = [{"update": 20, "changed": {"optimizer.lr": [0.1, 0.2]}}]
    for name, more in (("fresh", []), ("edited", ["resume.path=other", "resume.policy=stretch"])):
        folder = write_run(tmp_path / "runs" / name, ["optimizer.lr=0.2", *more], {"val/loss": 0.6})
        planned = json.loads((folder / "plan.json").read_text())
        changes = {"changes": [{"policy": "stretch", "update": 20}], "edits": edits} if more else {}
        (folder / "plan.json").write_text(json.dumps(planned | changes))
    told = "stretch at update 20, optimizer.lr 0.1 → 0.2 at update 20"
    main(["diff", "runs/fresh", "runs/edited"])
    assert f"configs: they are the same\nresumed: first no change; second {told}\n" in capsys.readouterr().out
    main(["show", "runs/edited"])
    assert f" # was resumed: {told}. This command trains another run" in capsys.readouterr().out
    main(["runs"])
    lines = capsys.readouterr().out.splitlines()
    assert [f"resumed: {told}" in line for line in lines if line.startswith("runs/")] == [True, False]
    main(["runs", "--csv"])
    assert f'"{told}"' in capsys.readouterr().out
    main(["compare", "runs", "--out", "both.png"])
    assert f"runs/edited: was resumed: {told}" in capsys.readouterr().out


def test_each_command_of_the_page_runs(two, monkeypatch, capsys):
    monkeypatch.setattr("subprocess.call", lambda words: 0)  # the server of TensorBoard would not end
    (commands,) = re.findall(r"```bash\n(.*?)```", (DOCS / "listing.md").read_text(), re.DOTALL)
    for line in commands.splitlines():
        program, name, *words = shlex.split(line, comments=True)
        assert (program, name) == ("cadence", "runs")
        main(words)
    assert not (two / "first").exists()
    assert (two.parent / "compare.png").exists()


def test_a_run_that_goes_on_is_shown_with_its_process(tmp_path, capsys):
    folder = write_run(tmp_path / "a", [], events=False)
    with FolderLock(folder) as lock:
        lock.acquire()
        main(["show", str(folder)])
    assert "running, as process " in capsys.readouterr().out


def test_runs_without_logs_or_of_another_task_are_named(tmp_path, capsys):
    for i, path in enumerate(("here", "here", "there")):
        write_run(tmp_path / str(i), [], {"val/loss": 1.0}, data={"path": path})
    write_run(tmp_path / "silent", [], {"val/loss": 1.0}, events=False, data={"path": "here"})
    main(["compare", str(tmp_path), "--out", str(tmp_path / "a.png")])
    text = capsys.readouterr().out
    assert f"no log, left out: {tmp_path / 'silent'}" in text
    assert f"{tmp_path / '2'}: its scores do not compare: it is of another task (data.path there and not here)" in text
    main(["diff", str(tmp_path / "0"), str(tmp_path / "silent")])
    assert "train/loss: the second has no log of it" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="none of 1 runs has a TensorBoard log"):
        main(["compare", str(tmp_path / "silent"), "--out", str(tmp_path / "b.png")])
    with pytest.raises(ConfigError, match=r"choose one of \.png"):
        main(["compare", str(tmp_path), "--out", str(tmp_path / "b.pdf")])
    assert not (tmp_path / "b.png").exists()


def test_too_many_runs_for_a_picture_are_refused(tmp_path):
    for i in range(65):
        write_run(tmp_path / str(i), [], {"val/loss": 1.0}, events=False)
    with pytest.raises(ConfigError, match="65 runs do not fit one picture: name at most 64"):
        main(["compare", str(tmp_path), "--out", str(tmp_path / "a.png")])


def test_a_key_that_a_config_lacks_is_not_set_and_null_is_a_value(tmp_path, capsys):
    write_run(tmp_path / "a", ["optimizer.lr=0.001"], guard={"limit": None})
    write_run(tmp_path / "b", ["model.width=3", "optimizer.lr=0.0031622776601683794"], guard={"limit": 2})
    main(["diff", str(tmp_path / "a"), str(tmp_path / "b")])
    text = capsys.readouterr().out
    assert re.search(r"^optimizer.lr +0.001 +0.00316228$", text, re.MULTILINE)
    assert re.search(r"^guard.limit +null +2$", text, re.MULTILINE)
    assert re.search(r"^model.width +\(not set\) +3$", text, re.MULTILINE)
