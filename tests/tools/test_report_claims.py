"""An experiment's claims and plots must come out on the page as they were measured, and nothing may be mixed up."""

import json
import shutil

import pytest

from tests.tools.runs_on_disk import data_of, loss, write_run
from trainer.lr import ConfigError
from trainer.tools.report import command as report
from trainer.tools.report.build import build_report
from trainer.tools.report.claims import (
    CLAIMS,
    Claim,
    Claims,
    Plot,
    outcome,
    plot_figure,
    read_claims,
    samples_seen,
    write_claims,
)
from trainer.tools.report.runs import Run, find_runs
from trainer.tools.report.study import Study

HELD = Claim("sqrt stays close", 0.41, "at most", 0.6, True, note="mean of 2 seeds")
MISSED = Claim("linear is far", 1.5, "at least", 2.0, False)
CONTROL = Claim("a wrong rule holds", 0.1, "at least", 1.0, False, kind="control", outcome="fails, as it must")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """Two rules at three batches under two seeds, with claims and plots beside them."""
    root = tmp_path_factory.mktemp("experiment")
    number = iter(range(100))
    for rule in ("linear", "sqrt"):
        for batch in (16, 32, 64):
            for seed in (0, 1):
                words = [f"scaling={rule}", f"data.batch_size={batch}", f"seed={seed}"]
                value = loss(0.1, seed) + batch / 1000 + (0.2 if rule == "linear" else 0)
                write_run(root / str(next(number)), words, {"val/loss": value})
    plots = (
        Plot("by-batch", "Loss by batch", "global batch", "val/loss", lines="scaling", levels=[(0.6, "target")]),
        Plot("curves", "Loss", "samples", "train/loss", lines="scaling", panels="data.batch_size", where={"seed": 0}),
    )
    write_claims(root, Claims("Rules", "a paper", (HELD, MISSED, CONTROL), plots, {"cost": "none"}))
    return root


def test_claims_are_read_as_they_were_written(experiment, tmp_path):
    found = read_claims(experiment)
    assert found.claims == (HELD, MISSED, CONTROL)
    assert [plot.name for plot in found.plots] == ["by-batch", "curves"]
    assert found.more == {"cost": "none"}
    assert read_claims(tmp_path) is None
    assert [claim.is_as_it_must for claim in found.claims] == [True, False, True]
    assert [outcome(claim) for claim in found.claims] == ["holds", "does not hold", "fails, as it must"]


def test_the_page_the_pictures_and_the_terminal_show_the_claims_and_the_plots(experiment, tmp_path, capsys):
    report.main([str(experiment), "--out", str(tmp_path)])
    text = capsys.readouterr().out
    assert "holds: sqrt stays close: 0.41 (at most 0.6)" in text
    html = (tmp_path / "report.html").read_text()
    assert html.index("claims-section") < html.index("by-batch-section") < html.index("Best configuration")
    assert "2 of 3 came out as they must. a paper" in html
    assert (tmp_path / "by-batch.png").read_bytes()[:4] == b"\x89PNG"
    assert html.count('id="curves-section"') == 1  # the plot stands in place of the report's own section
    assert len(data_of(html)["figures"]["curves"]["layout"]["annotations"]) == 3  # a title for each batch


def test_a_plot_of_a_metric_has_the_mean_over_seeds_at_each_value_and_every_run(experiment):
    study = Study(find_runs(experiment))
    figure = plot_figure(study, read_claims(experiment).plots[0])
    linear, runs, sqrt, _ = figure["data"]
    assert (linear["name"], sqrt["name"]) == ("scaling linear", "scaling sqrt")
    assert linear["x"] == [16, 32, 64]
    assert linear["y"] == pytest.approx([loss(0.1, 0.5) + batch / 1000 + 0.2 for batch in (16, 32, 64)])
    assert linear["error_y"]["array"] == pytest.approx([0.004 / 2**0.5] * 3)
    assert len(runs["x"]) == len(runs["y"]) == 6
    (level,), (word,) = figure["layout"]["shapes"], figure["layout"]["annotations"]
    assert (level["y0"], level["y1"], word["y"], word["text"]) == (0.6, 0.6, 0.6, "target")
    assert figure["layout"]["xaxis"]["type"] == "log"


def test_a_plot_of_a_log_has_a_line_for_each_run_over_the_samples_seen(experiment):
    study = Study(find_runs(experiment))
    figure = plot_figure(study, read_claims(experiment).plots[1])
    titles = [note["text"] for note in figure["layout"]["annotations"]]
    assert titles == ["batch_size 16", "batch_size 32", "batch_size 64"]
    lines = [(one["yaxis"], one["name"]) for one in figure["data"]]
    assert lines == [(y, name) for y in ("y", "y2", "y3") for name in ("scaling linear", "scaling sqrt")]
    assert figure["data"][2]["x"] == [32.0 * (t + 1) for t in range(40)]
    assert [one["showlegend"] for one in figure["data"]] == [True, True] + [False] * 4


def test_the_samples_seen_follow_a_batch_that_grows():
    stages = [{"update": 0, "samples": 0, "batch": 8}, {"update": 10, "samples": 80, "batch": 16}]
    run = Run(0, "", None, "completed", plan={"batches": stages})
    assert [samples_seen(run, t) for t in (0, 9, 10, 11)] == [8, 80, 96, 112]


def test_a_plot_that_would_mix_settings_or_show_nothing_is_refused(experiment):
    study = Study(find_runs(experiment))
    with pytest.raises(ConfigError, match="plot p: runs at one point differ in scaling, too"):
        plot_figure(study, Plot("p", "", "data.batch_size", "val/loss"))
    with pytest.raises(ConfigError, match="plot p: no run has val/charm and seed"):
        plot_figure(study, Plot("p", "", "seed", "val/charm"))


PLOT = {"name": "p", "title": "", "x": "seed", "y": "val/loss"}
"""A plot as a file holds it."""


def test_a_file_that_holds_no_claims_is_refused_in_one_line(experiment, tmp_path):
    plots = [{**PLOT, "y": {}}, {**PLOT, "panels": 1}, {**PLOT, "levels": [1.0]}, {**PLOT, "levels": [[[], "a"]]}]
    wrong = [json.dumps({"plots": [plot]}) for plot in plots]
    for text in ("{", '{"claims": [{"text": "x"}]}', '{"claims": [], "charm": 1}', "[]", *wrong):
        (tmp_path / CLAIMS).write_text(text)
        with pytest.raises(ConfigError, match="cannot be read as claims") as refused:
            read_claims(tmp_path)
        assert "\n" not in str(refused.value)


def test_without_optuna_the_page_says_which_extra_to_install_and_holds_the_rest(tmp_path, monkeypatch, capsys):
    import sys

    for i in range(20):
        words = [f"optimizer.lr={0.01 * (i + 1)}", f"optimizer.momentum={0.5 + (i * 7 % 20) / 50}"]
        write_run(tmp_path / str(i), words, {"val/loss": loss(0.01 * (i + 1))}, events=False)
    monkeypatch.setitem(sys.modules, "optuna", None)
    report.main([str(tmp_path)])
    assert "pip install 'optuna>=5'" in capsys.readouterr().out
    html = (tmp_path / "report" / "report.html").read_text().split("<script")[0]
    assert "pip install &#39;optuna&gt;=5&#39;" in html
    assert 'id="parallel-section"' in html
    assert not (tmp_path / "report" / "importance.png").exists()


def test_words_on_the_x_axis_lie_beside_each_other(experiment, tmp_path):
    shutil.copytree(experiment, tmp_path / "e")
    plot = {"name": "words", "title": "", "x": "scaling", "y": "updates", "lines": "data.batch_size"}
    (tmp_path / "e" / CLAIMS).write_text(json.dumps({"plots": [plot]}))
    (section,) = build_report(Study(find_runs(tmp_path / "e")), tmp_path / "e", 0.05).claims
    axis, line = section.figure["layout"]["xaxis"], section.figure["data"][0]
    assert (axis["tickvals"], axis["ticktext"]) == ([0, 1], ["linear", "sqrt"])
    assert (line["x"], line["y"]) == ([0.0, 1.0], [40.0, 40.0])
