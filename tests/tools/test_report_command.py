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

from trainer.log.eventfile import EventFile, float32
from trainer.lr import ConfigError
from trainer.tools.report import command as report
from trainer.tools.report import findings
from trainer.tools.report.build import build_view
from trainer.tools.report.page import page
from trainer.tools.report.response import heat_map_of_batch, heat_map_of_momentum, rate_curves
from trainer.tools.report.runs import find_runs, read_curves, scalars
from trainer.tools.report.study import Study

HOSTILE = "</script><script>alert(1)</script>"
LIBRARY = "// plotly"


def write_run(folder, overrides, metrics=None, status="completed", events=True, batch=None, **config):
    """A run's folder, as `train.py` leaves it."""
    folder.mkdir(parents=True)
    flat = {"optimizer": {"lr": 0.1, "momentum": 0.9}, "data": {"batch_size": 32}, "seed": 0, "name": folder.name}
    for word in overrides:
        key, _, value = word.lstrip("+").partition("=")
        room, dot, name = key.partition(".")
        value = yaml.safe_load(value) if value[:1] != "'" else value
        if dot:
            flat[room] = {**flat.get(room, {}), name: value}
        elif key == "seed":
            flat[key] = value
    (folder / "config.yaml").write_text(yaml.safe_dump({**flat, **config}))
    (folder / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
    plan = {"total_updates": 40, "global_batch": batch or flat["data"]["batch_size"], "scaling": "none"}
    (folder / "plan.json").write_text(json.dumps(plan))
    best = {"metric": "val/loss", "value": None, "update": 40}
    done = {"updates": 40, "total_updates": 40, "seconds": 1.5, "folder": f"/elsewhere/{folder.name}"}
    result = {"status": status, "metrics": metrics or {}, "best": best, **done}
    (folder / "result.json").write_text(json.dumps(result))
    if events:
        log = EventFile(folder)
        for t in range(40):
            log.write_scalars(("train/loss", "lr/decay"), t, 0.0, float32([2 - t / 40, 0.1]))
        log.write_scalars(("val/loss",), 39, 0.0, float32([1.0]))
        log.close()
    return folder


def loss(lr, seed=0, shift=0.0):
    from math import log10

    return 0.5 + 0.2 * (log10(lr) + 1) ** 2 + 0.004 * seed + shift


def write_sweep(root, rates=(0.01, 0.03, 0.1, 0.3, 1.0), schedules=("cosine", "linear"), seeds=(0, 1), more=()):
    """A sweep over rates, schedules and seeds."""
    numbers = iter(range(1000))
    for lr in rates:
        for schedule in schedules:
            for seed in seeds:
                words = [f"optimizer.lr={lr}", f"schedule={schedule}", f"seed={seed}", *more]
                value = loss(lr, seed, 0.01 * (schedule == "linear"))
                write_run(root / str(next(numbers)), words, {"val/loss": value, "val/accuracy": 1 - value / 2})
    return root


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return write_sweep(tmp_path_factory.mktemp("outputs") / "sweep")


def shown(folder, metric=None, out=None, library=LIBRARY):
    study = Study(find_runs(folder), metric)
    return page(build_view(study, folder, out or folder / "report", 0.05), library)


def all_findings(folder):
    study = Study(find_runs(folder))
    return findings.find_all(study, rate_curves(study))


def curves_of(run):
    """The curves of a run on the page, by the title of their axis."""
    titles = {
        key[0] + key[5:]: axis["title"]["text"] for key, axis in run["curves"]["layout"].items() if "yaxis" in key
    }
    return {titles[trace["yaxis"]]: [trace["x"], trace["y"]] for trace in run["curves"]["data"]}


def sections(html):
    return set(re.findall(r'<section id="([a-z-]+)"', html))


def told(html):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)[1])


def test_the_command_writes_page_pictures_and_tables_and_says_what_it_found(sweep, tmp_path, capsys):
    report.main([str(sweep), "--out", str(tmp_path / "out")])
    text = capsys.readouterr().out
    assert "20 of 20 runs" in text
    assert "best val/loss 0.502 ± 0.002 over 2 seeds: lr 0.1, schedule cosine" in text
    assert "python train.py optimizer.lr=0.1 schedule=cosine seed=0" in text
    written = {path.name for path in (tmp_path / "out").iterdir()}
    pictures = {"rates.png", "curves.png", "parallel.png", "importance.png"}
    assert written == {"report.html", "results.csv", "results.parquet", *pictures}
    whole = (tmp_path / "out" / "report.html").read_text()
    assert len(whole) > 2_000_000  # the library is in it
    assert not re.search(r'(src|href)="(https?:)?//', whole.replace(whole[whole.index("<script>") :], ""))


def test_the_page_holds_every_run_with_its_links_curves_and_commands(sweep, tmp_path):
    html = shown(sweep, out=tmp_path / "a" / "b")
    runs = told(html)["runs"]
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
    assert sections(shown(sweep)) == drawn
    one = write_run(tmp_path / "one", ["optimizer.lr=0.1"], {"val/loss": 0.5}, events=False)
    assert sections(shown(one)) == {"runs-section"}
    assert "<p>one</p>" in shown(one)
    for i, (batch, lr) in enumerate((b, r) for b in (16, 64) for r in (0.1, 0.2, 0.4)):
        words = [f"data.batch_size={batch}", f"optimizer.lr={lr}", f"optimizer.momentum={0.5 if lr > 0.1 else 0.9}"]
        write_run(tmp_path / "grid" / str(i), words, {"val/loss": loss(lr / batch * 16)})
    assert {"batch-section", "momentum-section"} < sections(shown(tmp_path / "grid"))
    assert "importance-section" not in sections(shown(tmp_path / "grid"))  # six runs


def test_the_rules_start_at_the_best_rate_of_the_smallest_batch(tmp_path):
    for i, (batch, lr) in enumerate((b, r) for b in (16, 64, 256) for r in (0.1, 0.2, 0.4)):
        write_run(tmp_path / str(i), [f"data.batch_size={batch}", f"optimizer.lr={lr}"], {"val/loss": abs(lr - 0.2)})
    heat = heat_map_of_batch(Study(find_runs(tmp_path)))
    assert [rate for rate, _ in heat.linear] == pytest.approx([0.2, 0.8, 3.2])
    assert [rate for rate, _ in heat.sqrt] == pytest.approx([0.2, 0.4, 0.8])
    assert [batch for _, batch in heat.sqrt] == [16, 64, 256]


def grid_of_batches(root, ways, rates=(0.1, 0.2, 0.4)):
    """Runs of every rate under each of the ways to a batch: words, the global batch, the best rate."""
    for number, ((words, batch, best), lr) in enumerate((way, lr) for way in ways for lr in rates):
        words = [f"optimizer.lr={lr}", *words.split()]
        write_run(root / str(number), words, {"val/loss": 0.1 + abs(lr - best)}, events=False, batch=batch)
    return heat_map_of_batch(Study(find_runs(root)))


@pytest.mark.parametrize(
    ("ways", "batches"),
    [
        ([("trainer.accumulate=1", 32, 0.1), ("trainer.accumulate=4", 128, 0.2)], (32, 128)),
        ([("trainer=cpu", 32, 0.1), ("trainer=ddp trainer.devices=2", 64, 0.2)], (32, 64)),
        ([("trainer=torchrun", 64, 0.1), ("trainer=torchrun", 256, 0.2)], (64, 256)),
        ([("data.batch_size=8 trainer.accumulate=all", 1440, 0.1), ("data.batch_size=8", 8, 0.2)], (8, 1440)),
        ([("data.batch_size=32", 64, 0.1), ("data.batch_size=64", 128, 0.2)], (64, 128)),
    ],
)
def test_the_batch_of_the_map_is_the_global_one_however_it_came_about(tmp_path, ways, batches):
    heat = grid_of_batches(tmp_path, ways)
    assert (heat.name, heat.ys, heat.others) == ("global batch", batches, ())
    ordered = sorted(ways, key=lambda way: way[1])
    for _, batch, best in ordered:
        column = {rate: cell.repeats.mean for (rate, at), cell in heat.cells.items() if at == batch}
        assert min(column, key=column.get) == best
    first = ordered[0]
    kappa = ordered[1][1] / first[1]
    assert [rate for rate, _ in heat.linear] == pytest.approx([first[2], first[2] * kappa])
    assert heat.sqrt[1][0] == pytest.approx(first[2] * kappa**0.5)
    assert "lr × global batch" in shown(tmp_path)


def test_ways_to_the_same_batch_share_a_row_with_the_best_of_them(tmp_path):
    ways = [
        ("data.batch_size=32 trainer.accumulate=2", 64, 0.1),
        ("data.batch_size=64 trainer.accumulate=1", 64, 0.4),
        ("data.batch_size=128 trainer.accumulate=1", 128, 0.2),
    ]
    heat = grid_of_batches(tmp_path, ways)
    assert heat.ys == (64, 128)
    assert heat.others == ("batch_size", "accumulate")
    assert [heat.cells[rate, 64].repeats.mean for rate in (0.1, 0.4)] == [0.1, 0.1]


def test_a_run_without_a_plan_stands_at_the_batch_of_those_like_it_and_else_in_proportion(tmp_path):
    for batch in (32, 64, 128):
        for lr in (0.1, 0.2, 0.4):
            folder = tmp_path / f"{batch}-{lr}"
            write_run(folder, [f"data.batch_size={batch}", f"optimizer.lr={lr}"], {"val/loss": lr}, batch=2 * batch)
    for name in ("64-0.4", "128-0.1", "128-0.2", "128-0.4"):
        (tmp_path / name / "plan.json").unlink()
        (tmp_path / name / "result.json").write_text(json.dumps({"status": "failed", "error": "out of memory"}))
    heat = heat_map_of_batch(Study(find_runs(tmp_path)))
    assert heat.ys == (64, 128, 256)
    assert heat.failed == {(0.4, 128), (0.1, 256), (0.2, 256), (0.4, 256)}


def test_runs_under_processes_that_the_environment_decided_are_no_repeats_of_each_other(tmp_path):
    for i, batch in enumerate((64, 256)):
        write_run(tmp_path / str(i), ["trainer=torchrun"], {"val/loss": 1.0 + i}, batch=batch)
    study = Study(find_runs(tmp_path))
    assert study.varied == ["global batch"]
    assert [cell.repeats.n for cell in study.configurations] == [1, 1]


def test_the_same_run_twice_is_no_second_seed(tmp_path):
    write_sweep(tmp_path / "a", schedules=("cosine",), seeds=(0,))
    write_sweep(tmp_path / "b", schedules=("cosine",), seeds=(0,))
    write_run(tmp_path / "more", ["optimizer.lr=0.1", "schedule=cosine", "seed=0"], {"val/loss": loss(0.1) + 0.3})
    study = Study(find_runs(tmp_path))
    best = study.configurations[0].repeats
    assert (best.n, best.std) == (1, None)
    assert "6 runs are the same as another under the same seed" in all_findings(tmp_path)[0].text
    means = dict(rate_curves(study)[0].means)
    assert (means[0.1].n, means[0.1].mean) == (1, pytest.approx(loss(0.1) + 0.1))


@pytest.mark.parametrize("bad", ["nan", "inf", "-0.1", "0", "much"])
def test_a_job_that_failed_for_its_rate_hides_the_rates_of_the_others_from_nobody(tmp_path, bad):
    write_sweep(tmp_path, schedules=("cosine",), seeds=(0,))
    write_run(tmp_path / "9", [f"optimizer.lr={bad}", "schedule=cosine"], status="failed", events=False)
    study = Study(find_runs(tmp_path))
    assert study.lr == "optimizer.lr"
    (curve,) = rate_curves(study)
    assert [rate for rate, _ in curve.means] == [0.01, 0.03, 0.1, 0.3, 1.0]
    report.main([str(tmp_path)])
    assert (tmp_path / "report" / "rates.png").exists()


def test_a_run_that_is_called_report_is_a_run(tmp_path):
    write_run(tmp_path / "report", [], {"val/loss": 1.0})
    write_run(tmp_path / "läuft, größer", [], {"val/loss": 2.0})
    report.main([str(tmp_path)])
    assert [run.name for run in find_runs(tmp_path)] == ["läuft, größer", "report"]
    html = (tmp_path / "report" / "report.html").read_text()
    assert 'href="../l%C3%A4uft%2C%20gr%C3%B6%C3%9Fer/"' in html


def test_a_command_that_extends_the_grid_repeats_other_values_as_they_were_typed(tmp_path):
    decays = [f"0.0{i}2345678e0" for i in range(1, 10)]
    for i, (lr, decay) in enumerate((lr, decay) for lr in ("1e-3", "3e-3", "1e-2") for decay in decays):
        words = [f"optimizer.lr={lr}", f"optimizer.weight_decay={decay}", "+model.norm=null"]
        write_run(tmp_path / str(i), words, {"val/loss": loss(float(lr)) + float(decay)}, events=False)
    (one,) = (f for f in all_findings(tmp_path) if f.command and f.curve == "")
    typed = f"optimizer.lr=0.03,0.1 optimizer.weight_decay={','.join(decays)} +model.norm=null"
    assert one.command == f"python train.py -m {typed}"


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
    html = shown(tmp_path)
    head = html.split('<script type="application/json"')[0]
    assert "<script" not in head
    assert "<img" not in head
    assert "<b>" not in head.replace("<b>failed</b>", "")
    assert "&lt;script&gt;alert(1)" in head
    assert html.count("</script>") == 3
    assert "<" not in re.search(r'id="data">(.*?)</script>', html, re.S)[1]
    assert {run["name"] for run in told(html)["runs"]} == {"r0 ", "r1 <b>", "r2 <b>", "bad"}
    assert not re.search(r"<(script|img)", json.dumps(told(html)["figures"]))


def test_runs_copied_from_elsewhere_give_the_same_page(sweep, tmp_path):
    jobs = [{"number": i, "folder": f"/old/place/outputs/sweep/{i}", "status": "completed"} for i in range(20)]
    for place in ("a", "b"):
        shutil.copytree(sweep, tmp_path / place / "sweep", ignore=shutil.ignore_patterns("report"))
    (tmp_path / "a" / "sweep" / "sweep.json").write_text(json.dumps({"jobs": jobs}))
    pages = [shown(tmp_path / place / "sweep").replace(str(tmp_path / place), "") for place in ("a", "b")]
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


@pytest.mark.parametrize("number", range(6))
def test_csv_and_parquet_hold_what_the_results_hold(sweep, tmp_path, number):
    if number == 0:
        report.main([str(sweep), "--out", str(sweep.parent / "tables")])
    with (sweep.parent / "tables" / "results.csv").open(newline="") as file:
        row = list(csv.DictReader(file))[number]
    table = pandas.read_parquet(sweep.parent / "tables" / "results.parquet").iloc[number]
    result = json.loads((sweep / str(number) / "result.json").read_text())
    config = yaml.safe_load((sweep / str(number) / "config.yaml").read_text())
    for metric, value in result["metrics"].items():
        assert float(row[metric]) == value == table[metric]
    assert float(row["optimizer.lr"]) == config["optimizer"]["lr"] == table["optimizer.lr"]
    assert int(row["seed"]) == config["seed"] == table["seed"]
    assert (row["run"], row["status"], int(row["updates"])) == (str(number), "completed", 40)
    assert (table["run"], table["status"], table["updates"], table["seconds"]) == (str(number), "completed", 40, 1.5)


def test_an_edge_comes_with_the_command_that_extends_the_grid(tmp_path):
    write_sweep(tmp_path, rates=(0.001, 0.003, 0.01, 0.03), schedules=("cosine",), more=("model.hidden=[8,8]",))
    (one,) = (f for f in all_findings(tmp_path) if f.kind == "edge")
    assert one.command == "python train.py -m optimizer.lr=0.1,0.3 schedule=cosine seed=0,1 'model.hidden=[8,8]'"
    assert "0.03, is the high end of the grid" in one.text


def test_unequal_budgets_are_said(sweep, tmp_path):
    assert not [one for one in all_findings(sweep) if "budgets" in one.text]
    shutil.copytree(sweep, tmp_path / "s")
    shutil.rmtree(tmp_path / "s" / "0")
    found = all_findings(tmp_path / "s")
    assert [one for one in found if "cosine 9 runs of 11,520 samples in all, linear 10 runs of 12,800" in one.text]


def test_keys_that_no_override_explains_are_found_in_the_configs(tmp_path):
    for i, width in enumerate((8, 16)):
        write_run(
            tmp_path / str(i), [], {"val/loss": 1.0 + i}, model={"width": width, "again": "${model.width}"}, name=str(i)
        )
    assert Study(find_runs(tmp_path)).varied == ["model.width"]


def test_a_lucky_run_with_one_seed_does_not_pass_those_with_all_seeds(tmp_path):
    write_sweep(tmp_path, schedules=("cosine",))
    write_run(tmp_path / "lucky", ["optimizer.lr=0.2", "schedule=cosine", "seed=0"], {"val/loss": 0.01})
    assert [dict(cell.values)["optimizer.lr"] for cell in Study(find_runs(tmp_path)).configurations][::5] == [0.1, 0.2]


def test_a_search_over_several_settings_gets_points_but_no_line_and_no_optimum(tmp_path):
    for i in range(30):
        words = [f"optimizer.lr={10 ** (-3 + i / 10)}", f"optimizer.momentum={0.5 + (i * 7 % 30) / 100}"]
        write_run(tmp_path / str(i), words, {"val/loss": loss(10 ** (-3 + i / 10)) + i % 3 / 10}, events=False)
    study = Study(find_runs(tmp_path))
    (curve,) = rate_curves(study)
    assert (curve.is_grid, curve.edge, curve.width, curve.fit) == (False, None, None, "other settings vary along it")
    assert not heat_map_of_momentum(study).is_grid
    assert len(curve.points) == 30


def test_accuracy_is_better_where_it_is_more(sweep):
    study = Study(find_runs(sweep), "val/accuracy")
    assert study.sign == -1
    assert dict(study.configurations[0].values)["optimizer.lr"] == 0.1


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


def test_a_log_is_read_as_tensorboard_reads_it_also_after_a_resume_and_half_written(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = EventFile(tmp_path)
    for t in range(10):
        first.write_scalars(("train/loss",), t, 0.0, float32([t]))
    first.close()
    second = EventFile(tmp_path)
    second.restart(6)
    for t in range(6, 12):
        second.write_scalars(("train/loss",), t, 0.0, float32([-t]))
    second.close()
    events = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0}).Reload().Scalars("train/loss")
    read = scalars(tmp_path, ["train/"])["train/loss"]
    assert read == [(one.step, one.value) for one in events]
    assert len(read) == 12
    with second.path.open("r+b") as file:
        file.truncate(second.path.stat().st_size - 7)
    assert scalars(tmp_path, ["train/"])["train/loss"] == read[:-1]


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
