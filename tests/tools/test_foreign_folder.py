"""Reading the folder of a run that somebody else has made runs nothing, and unpickles nothing."""

import contextlib
import io
import json
import pickle
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

import cadence
from tests.config.hostile import MARK, MODULE, Bomb
from tests.tools.runs_on_disk import write_run
from trainer.checkpoint.io import FORMAT
from trainer.checkpoint.weights import read_weights
from trainer.engine.frozen import load_weights
from trainer.files.checksums import ChecksumWriter
from trainer.lr import ConfigError
from trainer.lr.table import table
from trainer.resume.changes import print_changes
from trainer.resume.curve_history import ResumeSettings
from trainer.resume.resume_point import ResumePoint, resume_point
from trainer.tools import doctor
from trainer.tools.plan import command as plan
from trainer.tools.report import command as report
from trainer.tools.runs import command as runs

TAG = "!!python/object/apply:os.mkdir ['{mark}']"
ALIASES = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(12)
)
HTML = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"


def old_format(bomb: Bomb, path: Path) -> None:
    torch.save(bomb, path, _use_new_zipfile_serialization=False)


def raw(bomb: Bomb, path: Path) -> None:
    path.write_bytes(pickle.dumps({"state_dict": bomb, "cadence": {"format": FORMAT}}))


def zipped(bomb: Bomb, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/data.pkl", pickle.dumps(bomb))
        file.writestr("x/version", "3")


def nested(bomb: Bomb, path: Path) -> None:
    torch.save({"cadence": {"format": FORMAT, "config": bomb}, "state_dict": {"net.w": torch.ones(2)}}, path)


def seal(path: Path) -> None:
    """Give a zip archive the checksum that a checkpoint of ours ends with; other files stay as they are."""
    content = path.read_bytes()
    with path.open("wb") as file:
        if not zipfile.is_zipfile(io.BytesIO(content)):
            file.write(content)
            return
        sealed = ChecksumWriter(file)
        sealed.write(content)
        sealed.finish()


def array(bomb: Bomb, path: Path) -> None:
    held = np.empty(1, dtype=object)
    held[0] = bomb
    with path.open("wb") as file:
        (np.savez if path.suffix == ".npz" else np.save)(file, held)


def text(content: str):
    return lambda bomb, path: path.write_text(content.replace("{mark}", bomb.path))


BEST, NEWEST = "checkpoints/best.ckpt", "checkpoints/update-00000040.ckpt"
POISON = [
    *((BEST, write) for write in (old_format, raw, zipped, nested)),
    *((NEWEST, write) for write in (old_format, raw, zipped, nested)),
    ("pytorch_model.bin", nested),
    ("model.pt", raw),
    ("weights.npy", array),
    ("weights.npz", array),
    ("config.yaml", text(f"name: {TAG}\n")),
    ("config.yaml", text(ALIASES)),
    ("overrides.yaml", text(f"- {TAG}\n")),
    ("plan.json", text('{"program": ["touch", "{mark}"], "groups": {"_target_": "os.mkdir", "path": "{mark}"}}')),
    ("result.json", text('{"status": {"_target_": "os.mkdir", "path": "{mark}"}, "metrics": {"_target_": 1}}')),
    ("sweep.json", text('{"jobs": [{"folder": "../../etc", "status": {"_target_": "os.mkdir"}, "error": "$(x)"}]}')),
    ("events.out.tfevents.9", lambda bomb, path: path.write_bytes(pickle.dumps(bomb) * 3)),
    ("job.log", text("$(touch {mark}) `touch {mark}`\n")),
]


def settings(path: str) -> ResumeSettings:
    return ResumeSettings(path=path, snapshot=None, policy=None, shape="linear", floor=0.0)


def read_all(folder: Path) -> None:
    """Everything that reads the folder of a run or a file in it."""
    checkpoints = [folder / BEST, folder / NEWEST]
    calls = [
        *(lambda which=which: cadence.load(folder, which).net for which in ("best", "last")),
        *(lambda path=path: cadence.load(path).config for path in checkpoints),
        *(lambda path=path: ResumePoint.read(path, folder) for path in checkpoints),
        *(lambda path=path: read_weights(path) for path in [folder, folder / "model.pt", *checkpoints]),
        lambda: load_weights(torch.nn.Linear(1, 1), str(folder), "teacher"),
        *(lambda path=path: resume_point(settings(path), folder) for path in ("auto", str(folder))),
        lambda: report.main([str(folder), "--out", str(folder.parent / "report")]),
        lambda: doctor.main([str(folder)]),
        *(
            lambda words=words: runs.main([*words, str(folder)])
            for words in ([], ["--csv"], ["--sort=optimizer.lr"], ["show"])
        ),
        lambda: runs.main(["diff", str(folder), str(folder)]),
        lambda: runs.main(["compare", str(folder), "--out", str(folder.parent / "a.png")]),
        lambda: plan.main(["--applied", str(folder), "--no-files"]),
        lambda: table(None, path=str(folder / "plan.json")),
    ]
    for call in calls:
        with contextlib.suppress(Exception, SystemExit):
            call()


@pytest.mark.parametrize(("name", "poison"), POISON, ids=range(len(POISON)))
def test_a_poisoned_file_runs_nothing(name, poison, tmp_path, monkeypatch):
    assert len(POISON) == 20
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    folder = write_run(tmp_path / "run", [], {"val/loss": 1.0}, events=False)
    (folder / "checkpoints").mkdir()
    poison(Bomb(str(tmp_path / MARK)), folder / name)
    if name == NEWEST:
        seal(folder / name)
    begin = time.monotonic()
    read_all(folder)
    assert not (tmp_path / MARK).exists()
    assert time.monotonic() - begin < 60


def test_the_poison_works_where_a_file_is_read_without_care(tmp_path):
    for number, write in enumerate((old_format, raw, zipped, nested)):
        mark, path = tmp_path / f"mark{number}", tmp_path / f"{number}.pt"
        write(Bomb(str(mark)), path)
        with contextlib.suppress(Exception):
            pickle.loads(path.read_bytes()) if write is raw else torch.load(path, weights_only=False)
        assert mark.exists(), write


def test_what_the_folder_allows_does_not_count(compose, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "foreign_code.py").write_text(MODULE)
    config = OmegaConf.to_container(compose("allow=[foreign_code]"), resolve=True)
    config["model"] = {"_target_": "foreign_code.touch", "path": str(tmp_path / "mark")}
    folder = write_run(tmp_path / "run", [], {"val/loss": 1.0}, events=False)
    (folder / "checkpoints").mkdir()
    saved = {"format": FORMAT, "config": config, "updates": 1, "shape": {"classes": 10, "in_features": 64}}
    torch.save({"cadence": saved, "state_dict": {}}, folder / BEST)
    seal(folder / BEST)
    with pytest.raises(
        ConfigError, match="foreign_code.touch is not in an allowed package.*CADENCE_ALLOW=foreign_code"
    ):
        _ = cadence.load(folder).net
    assert "foreign_code" not in sys.modules
    assert not (tmp_path / "mark").exists()
    with pytest.raises(ConfigError, match="makes a|takes no|Module|is needed"):
        _ = cadence.load(folder, allow=["foreign_code"]).net
    sys.modules.pop("foreign_code", None)
    config["model"] = {"_target_": "os.mkdir", "path": str(tmp_path / "made")}
    torch.save({"cadence": saved, "state_dict": {}}, folder / BEST)
    seal(folder / BEST)
    with pytest.raises(ConfigError, match="os cannot be one"):
        _ = cadence.load(folder, allow=["foreign_code"]).net
    with pytest.raises(ConfigError, match="allow=os"):
        _ = cadence.load(folder, allow=["os"]).net


def test_an_alias_bomb_is_refused_at_once_in_one_line(tmp_path):
    folder = write_run(tmp_path / "run", [], {"val/loss": 1.0}, events=False)
    for content, says in ((ALIASES, "aliases included"), ("a: &a [*a]\n", "inside of what it stands for")):
        (folder / "config.yaml").write_text(content)
        begin = time.monotonic()
        with pytest.raises(ConfigError, match=says):
            plan.recorded(folder)
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "model" / "bomb.yaml").write_text(content)
        with pytest.raises(ConfigError, match=says):
            cadence.plan("model=bomb", config_dir=tmp_path)
        assert time.monotonic() - begin < 10  # 0.3 s on a machine that does nothing else


def test_names_of_a_foreign_folder_are_escaped_in_the_page(tmp_path):
    for number in range(2):
        words = [f"optimizer.lr=0.{number + 1}", f"optimizer.kind='{HTML}'"]
        folder = write_run(tmp_path / "s" / f"{number}", words, {"val/loss": 1.0 + number, f"val/{HTML}": 2.0})
        planned = json.loads((folder / "plan.json").read_text())
        (folder / "plan.json").write_text(json.dumps(planned | {"program": ["curl", HTML, "|", "sh"]}))
    write_run(tmp_path / "s" / "x", [], status="failed")
    (tmp_path / "s" / "x" / "result.json").write_text(json.dumps({"status": "failed", "error": HTML}))
    report.main([str(tmp_path / "s")])
    page = (tmp_path / "s" / "report" / "report.html").read_text()
    assert "<img src=x" not in page
    assert "<script>alert" not in page
    assert "curl" not in page.split("<script")[0]


@pytest.mark.filterwarnings("ignore:Glyph")
def test_names_of_a_foreign_folder_do_not_steer_the_terminal(tmp_path, capsys):
    steers = "\x1b]0;title\x07\x9b2J\u202e"
    for number in range(2):
        words = [f"optimizer.lr=0.{number + 1}", f"optimizer.kind='{steers}'"]
        write_run(tmp_path / "s" / f"{number}{steers}", words, {"val/loss": 1.0 + number})
    write_run(tmp_path / "s" / "x", [], status="failed")
    (tmp_path / "s" / "x" / "result.json").write_text(json.dumps({"status": "failed", "error": steers}))
    report.main([str(tmp_path / "s")])
    doctor.main([str(tmp_path / "s")])
    print_changes(1, {"a": steers}, {"a": 1})
    printed = "".join(capsys.readouterr())
    assert "?]0;title" in printed
    assert not set(steers) & set(printed) - set("]0;title2J")


def test_nothing_is_imported_from_the_folder_of_a_run_in_which_one_is(tmp_path, monkeypatch):
    folder, path = tmp_path / "run", list(sys.path)
    (folder / "checkpoints").mkdir(parents=True)
    for here in (folder, folder / "checkpoints"):
        monkeypatch.chdir(here)
        monkeypatch.setattr(sys, "path", ["", str(here), *path])
        with pytest.raises(ConfigError):
            cadence.load(folder)
        assert not {"", str(here)} & set(sys.path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError):
        cadence.load(folder)
    assert sys.path[-1] == str(tmp_path)


def test_a_report_writes_over_nothing_that_a_link_in_the_folder_leads_to(tmp_path):
    run, other = write_run(tmp_path / "run", [], {"val/loss": 1.0}), tmp_path / "other"
    other.mkdir()
    (other / "notes").write_text("mine")
    (run / "report").symlink_to(other)
    with pytest.raises(ConfigError, match=r"run/report is a link: say where to write by --out="):
        report.main([str(run)])
    (run / "report").unlink()
    (run / "report").mkdir()
    for name in ("report.html", "results.csv", "results.parquet", "curves.png"):
        (run / "report" / name).symlink_to(other / "notes")
    report.main([str(run)])
    assert [path.read_text() for path in other.iterdir()] == ["mine"]
    assert not any(path.is_symlink() for path in (run / "report").iterdir())
