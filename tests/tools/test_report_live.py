"""`cadence report FOLDER --watch` renews its page while runs go on, and ends with them."""

import json
import re
import threading
import time

import pytest

from tests.tools.runs_on_disk import write_run, write_sweep
from trainer.distributed.launch.folder_lock import FolderLock
from trainer.lr import ConfigError
from trainer.tools.report import command as report
from trainer.tools.report import live_page


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(live_page, "EVERY", 1)
    monkeypatch.setattr(live_page, "SHARE", 0)


def waited(path, text, seconds=60):
    """The page, as soon as it has this text."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if path.exists() and text in (page := path.read_text()):
            return page
        time.sleep(0.05)
    raise AssertionError(f"{path} has no {text!r} after {seconds} s")


def test_the_page_follows_the_sweep_and_stops_reloading_when_it_is_over(quick, tmp_path, capsys):
    root = tmp_path / "sweep"
    jobs = [{"number": 0, "overrides": ["optimizer.lr=0.1"], "status": "running", "folder": str(root / "0")}]
    root.mkdir()
    (root / "sweep.json").write_text(json.dumps({"jobs": jobs}))
    with FolderLock(root, "a sweep") as lock:
        lock.acquire()
        command = threading.Thread(target=report.main, args=([str(root), "--watch"],))
        command.start()
        page = root / "report" / "report.html"
        assert 'http-equiv="refresh"' in waited(page, "wait for one to complete")
        write_run(root / "0", ["optimizer.lr=0.1"], {"val/loss": 0.5})
        assert 'data-reload="1"' in waited(page, "1 of 1 runs")
        write_run(root / "1", ["optimizer.lr=0.2"], {"val/loss": 0.4})
        waited(page, "2 of 2 runs")
        assert not list(page.parent.glob("*.png"))
    command.join(60)
    assert not command.is_alive()
    assert "data-reload=" not in page.read_text().partition("<script")[0]
    assert (page.parent / "results.csv").exists()
    assert not list(page.parent.glob(".tmp*"))
    assert "open it in a browser" in capsys.readouterr().out


def test_without_a_run_that_goes_on_the_page_is_written_once(tmp_path, capsys):
    with pytest.raises(ConfigError, match="is not a folder"):
        report.main([str(tmp_path / "missing"), "--watch"])
    assert not capsys.readouterr().out
    report.main([str(write_sweep(tmp_path / "sweep")), "--watch"])
    assert "data-reload=" not in (tmp_path / "sweep/report/report.html").read_text().partition("<script")[0]


def test_ctrl_c_ends_the_watch_with_a_last_page(quick, tmp_path, monkeypatch):
    def pressed(folder, seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(live_page, "_sleep", pressed)
    root = write_sweep(tmp_path / "sweep")
    with FolderLock(root, "a sweep") as lock:
        lock.acquire()
        report.main([str(root), "--watch"])
    assert "data-reload=" not in (root / "report/report.html").read_text().partition("<script")[0]


def test_a_folder_that_is_none_is_refused_and_not_made(tmp_path):
    with pytest.raises(ConfigError, match="is not a folder"):
        report.main([str(tmp_path / "nothing"), "--watch"])
    assert list(tmp_path.iterdir()) == []


def test_the_best_number_has_its_metric_beside_it(tmp_path):
    report.main([str(write_sweep(tmp_path / "sweep")), "--metric", "val/accuracy"])
    text = (tmp_path / "sweep/report/report.html").read_text()
    assert re.search(r'<p class="value"><span class="metric">val/accuracy</span> 0\.\d+', text)
