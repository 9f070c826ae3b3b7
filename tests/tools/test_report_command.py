"""A report must hold every run, say what it left out, work on any folder of runs, and let no string of a run act."""

import csv
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pandas
import pytest
import yaml

from tests.tools.runs_on_disk import curves_of, data_of, loss, page_of, sections, write_run, write_sweep
from trainer.log.eventfile import EventFile, float32
from trainer.lr import ConfigError
from trainer.tools.report import command as report
from trainer.tools.report.runs import find_runs, read_curves

HOSTILE = "</script><script>alert(1)</script>"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return write_sweep(tmp_path_factory.mktemp("outputs") / "sweep")


def test_the_command_writes_page_pictures_and_tables_and_says_what_it_found(sweep, tmp_path, capsys):
    report.main([str(sweep), "--out", str(tmp_path / "out")])
    text = capsys.readouterr().out
    assert "20 of 20 runs" in text
    assert "best val/loss 0.502 ± 0.002 over 2 seeds, 95 % interval 0.47659 to 0.52741: lr 0.1, schedule cosine" in text
    assert "cadence train optimizer.lr=0.1 schedule=cosine seed=0" in text
    written = {path.name for path in (tmp_path / "out").iterdir()}
    pictures = {"rates.png", "curves.png", "parallel.png", "importance.png"}
    assert written == {"report.html", "results.csv", "results.parquet", *pictures}
    whole = (tmp_path / "out" / "report.html").read_text()
    assert len(whole) > 2_000_000  # the library is in it
    assert not re.search(r'(src|href)="(https?:)?//', whole.replace(whole[whole.index("<script>") :], ""))


def test_the_page_holds_every_run_with_its_links_curves_and_commands(sweep, tmp_path):
    html = page_of(sweep, out=tmp_path / "a" / "b")
    runs = data_of(html)["runs"]
    assert [run["name"] for run in runs] == [str(i) for i in range(20)]
    assert len(re.findall(r"<tr data-run=", html)) == 20
    for run in runs:
        assert (tmp_path / "a" / "b" / run["href"]).resolve() == sweep / run["name"]
        assert run["board"] == f"tensorboard --logdir {sweep / run['name']}"
        curves = curves_of(run)
        assert curves["training loss"][0] == list(range(40))
        assert curves["learning rate"][1] == pytest.approx([0.1] * 40)
        assert curves["val/loss"] == [[39], [1.0]]


def test_sections_appear_only_where_the_sweep_varies_what_they_need(sweep, tmp_path):
    drawn = {
        "findings-section",
        "rates-section",
        "curves-section",
        "parallel-section",
        "importance-section",
        "runs-section",
    }
    assert sections(page_of(sweep)) == drawn
    one = write_run(tmp_path / "one", ["optimizer.lr=0.1"], {"val/loss": 0.5}, events=False)
    assert sections(page_of(one)) == {"runs-section"}
    assert "<p>one</p>" in page_of(one)
    for i, (batch, lr) in enumerate((b, r) for b in (16, 64) for r in (0.1, 0.2, 0.4)):
        words = [f"data.batch_size={batch}", f"optimizer.lr={lr}", f"optimizer.momentum={0.5 if lr > 0.1 else 0.9}"]
        write_run(tmp_path / "grid" / str(i), words, {"val/loss": loss(lr / batch * 16)})
    assert {"batch-section", "momentum-section"} < sections(page_of(tmp_path / "grid"))
    assert "importance-section" not in sections(page_of(tmp_path / "grid"))  # six runs


def test_a_run_that_is_called_report_is_a_run(tmp_path):
    write_run(tmp_path / "report", [], {"val/loss": 1.0})
    write_run(tmp_path / "läuft, größer", [], {"val/loss": 2.0})
    report.main([str(tmp_path)])
    assert [run.name for run in find_runs(tmp_path)] == ["läuft, größer", "report"]
    html = (tmp_path / "report" / "report.html").read_text()
    assert 'href="../l%C3%A4uft%2C%20gr%C3%B6%C3%9Fer/"' in html


def test_no_string_of_a_run_acts_on_the_page(tmp_path):
    for i, word in enumerate((HOSTILE, "'\"><img src=x onerror=alert(1)>", "a&b")):
        words = [f"optimizer.lr={10**-i}", f"model={word}"]
        write_run(
            tmp_path / f"r{i} {'<b>' if i else ''}",
            words,
            {"val/loss": 1.0 + i, f"val/{HOSTILE[9:]}".replace("/", "_"): 1.0},
        )
    write_run(tmp_path / "bad", [f"model={HOSTILE}"], status="failed")
    result = tmp_path / "bad" / "result.json"
    result.write_text(json.dumps({"status": "failed", "error": f"RuntimeError: {HOSTILE}"}))
    html = page_of(tmp_path)
    head = html.split('<script type="application/json"')[0]
    assert "<script" not in head
    assert "<img" not in head
    assert "<b>" not in head.replace("<b>failed</b>", "")
    assert "&lt;script&gt;alert(1)" in head
    assert html.count("</script>") == 3
    assert "<" not in re.search(r'id="data">(.*?)</script>', html, re.S)[1]
    assert {run["name"] for run in data_of(html)["runs"]} == {"r0 ", "r1 <b>", "r2 <b>", "bad"}
    assert not re.search(r"<(script|img)", json.dumps(data_of(html)["figures"]))


def test_runs_copied_from_elsewhere_give_the_same_page(sweep, tmp_path):
    jobs = [{"number": i, "folder": f"/old/place/outputs/sweep/{i}", "status": "completed"} for i in range(20)]
    for place in ("a", "b"):
        shutil.copytree(sweep, tmp_path / place / "sweep", ignore=shutil.ignore_patterns("report"))
    (tmp_path / "a" / "sweep" / "sweep.json").write_text(json.dumps({"jobs": jobs}))
    pages = [page_of(tmp_path / place / "sweep").replace(str(tmp_path / place), "") for place in ("a", "b")]
    assert pages[0] == pages[1]


def test_failed_half_written_and_unfinished_runs_are_left_out_and_named(tmp_path, capsys):
    write_sweep(tmp_path / "s", schedules=("cosine",), seeds=(0,))
    (tmp_path / "s" / "1" / "result.json").write_text('{"status": "comp')
    (tmp_path / "s" / "3" / "result.json").unlink()
    nan = json.loads((tmp_path / "s" / "4" / "result.json").read_text())
    (tmp_path / "s" / "4" / "result.json").write_text(json.dumps({**nan, "metrics": {"val/loss": None}}))
    lost = {
        "number": 5,
        "folder": "/old/s/5",
        "status": "failed",
        "error": "killed by SIGKILL, last line: oh",
        "overrides": ["optimizer.lr=3"],
    }
    late = {"number": 2, "folder": "/old/s/2", "status": "failed", "error": "exit code 1: after the end"}
    (tmp_path / "s" / "sweep.json").write_text(json.dumps({"jobs": [lost, late, "rubbish", {"folder": 3}]}))
    report.main([str(tmp_path / "s")])
    assert "1 of 6 runs, left out: 2 unfinished, 2 failed, 1 val/loss is not finite" in capsys.readouterr().out
    table = pandas.read_parquet(tmp_path / "s" / "report" / "results.parquet").set_index("run")
    assert table.loc["2", "val/loss"] == loss(0.1)  # a result that is there is kept, and its status says the rest
    assert table.loc["2", "status"] == "failed"
    html = (tmp_path / "s" / "report" / "report.html").read_text().split("<script")[0]
    for words in ("half-written", "killed by SIGKILL, last line: oh", "after the end", "no result.json", "lr 3"):
        assert words in html


def test_jobs_that_were_refused_before_they_had_a_folder_are_failed_and_of_no_other_task(tmp_path, capsys):
    for i, lr in enumerate((0.01, 0.1)):
        words = [f"optimizer.lr={lr}"]
        write_run(tmp_path / "s" / str(i), words, {"val/loss": loss(lr)}, data={"_target_": "data.digits.Digits"})
    refused = {"status": "failed", "error": "exit code 2: optimizer.lr=-1 must be above zero"}
    jobs = [{**refused, "folder": f"/old/s/{i}", "overrides": ["optimizer.lr=-1", f"seed={i}"]} for i in (2, 3, 4)]
    (tmp_path / "s" / "sweep.json").write_text(json.dumps({"jobs": jobs}))
    report.main([str(tmp_path / "s")])
    assert "2 of 5 runs, left out: 3 failed\n" in capsys.readouterr().out
    html = (tmp_path / "s" / "report" / "report.html").read_text().split("<script")[0]
    assert "optimizer.lr=-1 must be above zero" in html


def test_csv_and_parquet_hold_what_the_results_hold(sweep, tmp_path):
    report.main([str(sweep), "--out", str(tmp_path)])
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    tables = pandas.read_parquet(tmp_path / "results.parquet")
    for number, row in enumerate(rows):
        table = tables.iloc[number]
        result = json.loads((sweep / str(number) / "result.json").read_text())
        config = yaml.safe_load((sweep / str(number) / "config.yaml").read_text())
        for metric, value in result["metrics"].items():
            assert float(row[metric]) == value == table[metric]
        assert float(row["optimizer.lr"]) == config["optimizer"]["lr"] == table["optimizer.lr"]
        assert int(row["seed"]) == config["seed"] == table["seed"]
        assert (row["run"], row["status"], int(row["updates"])) == (str(number), "completed", 40)
        assert (table["run"], table["status"], table["updates"], table["seconds"]) == (
            str(number),
            "completed",
            40,
            1.5,
        )
    assert len(rows) == len(tables) == 20


def test_mistakes_are_refused_in_one_line(sweep, tmp_path):
    write_run(tmp_path / "odd" / "0", [], {"val/charm": 1.0})
    write_run(tmp_path / "none" / "0", [], status="failed")
    (tmp_path / "empty").mkdir()
    cases = {
        "is not a folder": [str(tmp_path / "missing")],
        "holds no run": [str(tmp_path / "empty")],
        "none of 1 runs has a result with metrics (1 failed)": [str(tmp_path / "none")],
        "choose one of val/accuracy, val/loss": [str(sweep), "--metric", "val/f1"],
        "--best min or --best max": [str(tmp_path / "odd")],
        "--within=nan": [str(sweep), "--within", "nan"],
        "cannot be written": [str(sweep), "--out", "/proc/report"],
    }
    for words, arguments in cases.items():
        with pytest.raises(ConfigError) as refused:
            report.main(arguments)
        assert words in str(refused.value)
        assert "\n" not in str(refused.value)
    report.main([str(tmp_path / "odd"), "--best", "max"])


def test_a_long_log_becomes_few_points_with_its_ends_and_its_mean(tmp_path):
    log = EventFile(tmp_path)
    for t in range(5000):
        log.write_scalars(("train/loss", "lr/a"), t, 0.0, float32([t, t]))
    log.close()
    told = read_curves(tmp_path, "val/loss", 50)
    assert (len(told["loss"]), len(told["lr"])) == (50, 50)
    assert told["lr"][0] == (0, 0.0)
    assert told["lr"][-1] == (4999, 4999.0)
    assert told["loss"][0][1] == pytest.approx(49.5)


CLICK = """<script>
const row = document.querySelector('tr[data-run="7"]');
row.click();
const box = row.nextElementSibling;
document.title = [row.getAttribute("aria-expanded"), box.querySelectorAll(".figure .scatterlayer .trace").length,
  box.querySelector("a").getAttribute("href"), document.querySelectorAll("#rates .trace").length].join(" ");
</script>"""


@pytest.mark.browser
@pytest.mark.slow
def test_in_a_browser_the_page_loads_without_an_error_and_a_click_on_a_row_shows_its_curves(sweep, tmp_path):
    browser = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    if browser is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    report.main([str(sweep), "--out", str(tmp_path)])
    whole = (tmp_path / "report.html").read_text()
    (tmp_path / "clicked.html").write_text(whole.replace("</body>", f"{CLICK}</body>"))
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    options = [
        "--headless=new",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--virtual-time-budget=5000",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    clicked = Path(tmp_path / "clicked.html").as_uri()
    done = subprocess.run(
        [browser, *options, *sandbox, "--dump-dom", clicked], capture_output=True, text=True, timeout=180
    )
    assert "<title>true 3 ../sweep/7/ " in done.stdout.replace(os.path.relpath(sweep.parent, tmp_path) + "/", "../"), (
        done.stderr[-2000:]
    )
    assert "CONSOLE" not in done.stderr, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
