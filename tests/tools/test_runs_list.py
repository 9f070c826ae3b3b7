"""The list holds every run with its state and scores, whoever made its folder, and finds what it is asked for."""

import csv
import io
import json
import os
import re
import resource
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import ROOT
from tests.tools.runs_listed import copies, train
from tests.tools.runs_on_disk import write_run
from trainer.cli.plain_yaml import yaml_text
from trainer.distributed.launch.folder_lock import FolderLock
from trainer.engine.guard import Diverged
from trainer.log.validations import append_validation
from trainer.lr import ConfigError
from trainer.tools.run_folders import is_number
from trainer.tools.runs.command import main
from trainer.tools.runs.conditions import MISSING, Condition, best_first, read_condition, sorted_by, value_of
from trainer.tools.runs.listed import _OVERRIDE, ListedRun, flat_values, list_runs
from trainer.tools.runs.table import as_csv, cut, format_runs, one_line

STEERS = "\x1b]0;title\x07\x9b2J\u202e\n\r\t"
HEAVY = {"torch", "pytorch_lightning", "matplotlib", "numpy", "scipy", "pandas", "tensorboard", "google.protobuf"}
TYPED = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)


def listed(capsys, *words):
    capsys.readouterr()
    main([str(word) for word in words])
    return capsys.readouterr().out


def as_objects(capsys, *words):
    return json.loads(listed(capsys, *words, "--json"))


def with_config(config):
    """A run of which only the config is known."""
    run = ListedRun("run", Path("run"), "completed", "", (), {}, (), 0, "")
    run.__dict__.update(plan={}, scores={}, planned_tree=config, written_tree={})
    return run


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    """Runs in every state below `outputs`, in the working folder."""
    monkeypatch.chdir(tmp_path)
    for i, lr in enumerate((0.01, 0.1, 1.0)):
        write_run(
            tmp_path / "outputs" / "grid" / str(i),
            [f"optimizer.lr={lr}", "schedule=cosine"],
            {"val/loss": 0.5 + i, "val/accuracy": 0.5 + 0.1 * i},
        )
    for name in ("failed", "interrupted"):
        folder = write_run(tmp_path / "outputs" / name, ["optimizer.lr=3"], status=name, events=False)
        result = json.loads((folder / "result.json").read_text())
        (folder / "result.json").write_text(json.dumps({**result, "updates": 7, "error": f"{name} by hand"}))
    for name in ("killed", "alive", "empty"):
        folder = write_run(tmp_path / "outputs" / name, ["optimizer.lr=4"], events=False)
        (folder / "result.json").unlink()
        (folder / ".lock").write_text("{}")
    append_validation(tmp_path / "outputs" / "alive", 12, {"val/loss": 0.7})
    (tmp_path / "outputs" / "empty" / "result.json").write_text('{"status": "comp')
    return tmp_path / "outputs"


def test_a_run_is_listed_with_its_state_however_it_ended(outputs, capsys):
    with FolderLock(outputs / "alive") as lock:
        assert lock.acquired()
        text = listed(capsys)
        found = {run["run"]: run for run in as_objects(capsys, "outputs")}
    states = {name.removeprefix("outputs/"): run["state"] for name, run in found.items()}
    assert states == {
        **{f"grid/{i}": "completed" for i in range(3)},
        **{"failed": "failed", "interrupted": "interrupted", "killed": "unfinished", "empty": "unfinished"},
        "alive": "running",
    }
    assert re.search(r"outputs/failed +failed .* 7/40 .*optimizer.lr=3: failed by hand", text)
    assert re.search(r"outputs/alive +running +0.7 +12/40", text)
    assert "half-written" in re.search(r"outputs/empty .*", text)[0]
    assert "no result.json" in re.search(r"outputs/killed .*", text)[0]
    assert text.splitlines()[-1].startswith("8 runs: 3 completed, 2 unfinished, ")
    assert found["outputs/grid/1"]["metrics"] == {"val/loss": 1.5, "val/accuracy": 0.6}
    assert (found["outputs/alive"]["updates"], found["outputs/alive"]["metrics"]) == (12, {"val/loss": 0.7})
    assert not (outputs / "alive" / ".lock").exists()
    assert (outputs / "killed" / ".lock").read_text() == "{}"


def test_a_result_of_another_program_is_not_said_to_be_missing(outputs, capsys):
    (outputs / "foreign").mkdir()
    (outputs / "foreign" / "result.json").write_text('{"status": "done"}')
    assert re.search(r"outputs/foreign +unfinished .* result.json has no status that is known", listed(capsys))


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--where", "optimizer.lr>0.05", "--where", "state=completed"], ["grid/1", "grid/2"]),
        (["--where", "schedule=cosine", "--where", "optimizer.lr!=0.1"], ["grid/0", "grid/2"]),
        (["--where", "val/loss<=1.5"], ["alive", "grid/0", "grid/1"]),
        (["--where", "optimizer.momentum = 0.9", "--where", "error=failed by hand"], ["failed"]),
        (["--where", "updates<10"], ["failed", "interrupted"]),
        (["--where", "written>2020-01-31", "--where", "run=outputs/grid/0"], ["grid/0"]),
        (["--where", "written<2020-01-31T10"], []),
        (["--sort", "val/loss", "--reverse", "--limit", "2"], ["grid/2", "grid/1"]),
        (["--sort", "val/loss", "--where", "state=completed"], ["grid/0", "grid/1", "grid/2"]),
        (["--best", "val/accuracy"], ["grid/2"]),
        (["--best", "val/loss", "--limit", "2"], ["grid/0", "grid/1"]),
        (["--best", "val/loss", "--mode", "max"], ["grid/2"]),
        (["--where", "val/loss>100"], []),
        (["--best", "val/loss", "--where", "val/loss>100"], []),
    ],
    ids=lambda value: " ".join(value),
)
def test_runs_are_chosen_and_ordered(outputs, capsys, words, names):
    found = [run["run"].removeprefix("outputs/") for run in as_objects(capsys, "outputs", *words)]
    assert found == names
    table = listed(capsys, "outputs", *words)
    assert [line.split()[0].removeprefix("outputs/") for line in table.splitlines()[1:-2]] == names
    assert len(list(csv.reader(io.StringIO(listed(capsys, "outputs", *words, "--csv"))))) == len(names) + 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere"], "nowhere is not a folder"),
        (["outputs/grid/0/checkpoints"], "is not a folder"),
        (["outputs", "--where", "optimizer.lr"], "is not a condition: write a key, one of"),
        (["outputs", "--where", "optimizer.lr>high"], "compares with 'high', which is no number"),
        (["outputs", "--where", "lr>0.1"], "none of 8 runs has a value of lr: did you mean optimizer.lr"),
        (["outputs", "--sort", "val/los"], "did you mean val/loss"),
        (["outputs", "--best", "test/loss"], "did you mean val/loss"),
        (["outputs", "--best", "val/loss", "--sort", "updates"], "leave one out"),
        (["outputs", "--limit", "0"], "--limit=0 lists nothing"),
        (["show", "outputs/grid"], "outputs/grid holds 3 runs: name one of them"),
        (["diff", "outputs/grid/0", "outputs/none"], "outputs/none is not a folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_told_in_one_line(outputs, words, says):
    with pytest.raises(ConfigError, match=re.escape(says)) as refusal:
        main(words)
    assert "\n" not in str(refusal.value)


def test_a_metric_of_no_known_direction_needs_a_mode(tmp_path):
    write_run(tmp_path / "a", [], {"val/oddity": 1.0})
    with pytest.raises(ConfigError, match="give --mode min or --mode max"):
        best_first("val/oddity", list_runs([tmp_path]))
    assert best_first("val/oddity", list_runs([tmp_path]), "max")[0].scores == {"val/oddity": 1.0}


def test_trained_runs_are_listed_with_the_config_that_they_had(compose, tmp_path, capsys):
    first = train(compose, tmp_path / "first", "optimizer.weight_decay=0.25")
    with pytest.raises(Diverged):
        train(compose, tmp_path / "bad", "optimizer=sgd", "optimizer.lr=1e30", "lint.ignore=[huge-lr]")
    saved = first / "checkpoints" / "update-00000008.ckpt"
    train(compose, tmp_path / "second", "optimizer.weight_decay=0.5", f"resume.path='{saved}'")
    runs = {run.folder.name: run for run in list_runs([tmp_path])}
    assert {name: run.state for name, run in runs.items()} == {
        **{"bad": "failed", "first": "completed", "second": "completed"},
    }
    assert "Diverged" in runs["bad"].error
    assert (runs["first"].updates, runs["first"].total, runs["first"].watched) == (16, 16, "val/loss")
    planned, written = map(flat_values, (runs["first"].planned_tree, runs["first"].written_tree))
    assert planned["data.seed"] == planned["seed"]
    assert written == {key: value for key, value in planned.items() if key in written}
    assert all(runs["first"].setting(key, MISSING) == value for key, value in planned.items())
    assert not runs["second"].planned_tree  # its history has the config of the first
    decays = {name: value_of(run, "optimizer.weight_decay") for name, run in runs.items() if name != "bad"}
    assert decays == {"first": 0.25, "second": 0.5}
    assert [run["run"] for run in as_objects(capsys, tmp_path, "--where", "optimizer.weight_decay>0.3")] == [
        str(tmp_path / "second")
    ]
    used = subprocess.run(["du", "-sB1", str(first)], capture_output=True, text=True, check=True).stdout.split()[0]
    assert 0 <= int(used) - runs["first"].size <= 8192  # du also counts the folder itself
    shutil.copytree(tmp_path / "first", tmp_path / "elsewhere" / "copied")
    (copied,) = list_runs([tmp_path / "elsewhere"])
    assert (copied.state, copied.scores, copied.config) == ("completed", runs["first"].scores, runs["first"].config)


@pytest.mark.slow
def test_a_thousand_runs_are_listed_in_a_second_without_torch(compose, tmp_path, python):
    root = copies(train(compose, tmp_path / "first"), tmp_path / "many", 1000)
    code = "import sys, cadence.__main__ as main; main.run('runs', sys.argv[1:]); print(*sorted(sys.modules))"
    words = [str(root), "--where", "optimizer.lr>0.2005", "--sort", "val/loss"]
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [python, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, timeout=100, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    *lines, modules = done.stdout.splitlines()
    assert lines[1].split()[0] == str(root / "299")
    assert lines[-1].startswith("800 of 1000 runs: 800 completed; ")
    assert not HEAVY & set(modules.split())
    assert min(seconds) < 1.5, seconds  # of the processor: 0.7 s, of which 0.4 s are imports


def test_names_and_values_of_a_foreign_folder_do_not_steer_the_terminal(tmp_path, capsys):
    for number in range(2):
        words = [f"optimizer.lr=0.{number + 1}", f"optimizer.kind='{STEERS}'"]
        folder = write_run(tmp_path / f"{number}{STEERS}", words, {"val/loss": 1.0, f"val/{STEERS}": 2.0})
        result = json.loads((folder / "result.json").read_text())
        result["versions"] = {STEERS: STEERS}
        result["best"] = {"metric": f"val/{STEERS}", "update": 3}
        (folder / "result.json").write_text(json.dumps({**result, "status": "failed", "error": STEERS}))
    one, other = sorted(tmp_path.iterdir())
    for words in ([tmp_path], [tmp_path, "--csv"], [tmp_path, "--json"], ["show", one], ["diff", one, other]):
        main([str(word) for word in words])
    main(["rm", str(one), "--yes"])
    printed = "".join(capsys.readouterr())
    assert "?]0;title" in printed
    assert not set(STEERS) & set(printed) - set("]0;title2J\n")


def test_what_is_no_file_a_loop_of_links_and_odd_values_end_nothing(tmp_path, capsys):
    names = ("result.json", "plan.json", "overrides.yaml", "config.yaml", "validations.jsonl", ".lock", "job.log")
    for name in names:
        folder = write_run(tmp_path / f"pipe-{name}", [], {"val/loss": 1.0}, events=False)
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
        (folder / "loop").symlink_to(tmp_path)
    odd = write_run(tmp_path / "odd", [], events=False)
    huge, deep = f"1{'0' * 400}", f"{'[' * 900}{']' * 900}"
    (odd / "result.json").write_text(
        f'{{"status": ["x"], "metrics": {{"val/loss": {huge}, "a": NaN}}, "best": {deep}, "updates": Infinity, '
        f'"total_updates": {huge}, "seconds": "x", "versions": [1]}}'
    )
    (odd / "plan.json").write_text(f'{{"curve_history": [{{"config": {{"a": {deep}}}}}], "curve": 3, "changes": 4}}')
    (odd / "validations.jsonl").write_text(f'{{"update": Infinity}}\n{deep}\n{{"update": 3, "val/loss": true}}\n')
    (odd / "checkpoints").write_text("no folder")
    found = {run["run"]: run for run in as_objects(capsys, tmp_path)}
    assert len(found) == len(names) + 1
    for words in ([tmp_path], [tmp_path, "--csv"], [tmp_path, "--sort", "optimizer.lr"], ["show", odd]):
        listed(capsys, *words)
    listed(capsys, "diff", odd, tmp_path / "pipe-plan.json")
    assert found[str(odd)]["state"] == "unfinished"


def test_a_csv_has_one_row_for_each_run_and_no_formula(tmp_path, capsys):
    for number, text in enumerate(("=1+1", "a,b", 'a"b', "@x", "-1e-3", "a\nb")):
        folder = write_run(tmp_path / str(number), [], {"val/loss": -1.0, "=x": 1.0})
        (folder / "overrides.yaml").write_text(yaml.safe_dump([f"model={text}"]))
    head, *rows = csv.reader(io.StringIO(listed(capsys, tmp_path, "--csv")))
    assert [len(row) for row in rows] == [len(head)] * 6
    assert [row[head.index("val/loss")] for row in rows] == ["-1.0"] * 6
    assert "'=x" in head
    assert [row[head.index("model")] for row in rows] == ["'=1+1", "a,b", 'a"b', "'@x", "-1e-3", "a b"]


def test_jobs_of_a_sweep_without_a_folder_are_listed_where_they_failed(tmp_path, capsys):
    write_run(tmp_path / "s" / "0", ["optimizer.lr=1"], {"val/loss": 1.0})
    jobs = [
        {"number": 0, "folder": "/old/s/0", "status": "completed"},
        {"number": 1, "folder": "/old/s/1", "status": "failed", "error": "no memory", "overrides": ["optimizer.lr=2"]},
        {"number": 2, "folder": "/old/s/2", "status": "waiting"},
        {"number": 3, "folder": "/old/s/3", "status": "completed"},
    ]
    (tmp_path / "s" / "sweep.json").write_text(json.dumps({"jobs": jobs}))
    assert [(run["state"], run["error"]) for run in as_objects(capsys, tmp_path)] == [
        ("completed", ""),
        ("failed", "no memory"),
    ]


def test_a_reader_that_leaves_early_is_no_error(tmp_path, python):
    for number in range(300):
        write_run(tmp_path / f"{number}-{'x' * 200}", [], {"val/loss": 1.0}, events=False)
    script = f"{python} -m cadence runs {tmp_path} | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")


@given(st.lists(st.tuples(TYPED, TYPED), max_size=4))
def test_overrides_are_read_as_yaml_reads_them(pairs):
    for text in (yaml_text([f"{key}={value}" for key, value in pairs]), *(f"- {key}={value}" for key, value in pairs)):
        for line in text.splitlines():
            if found := _OVERRIDE.fullmatch(line):
                assert yaml.safe_load(line) == [found[1]]


@given(st.text())
def test_a_cell_is_one_line_that_steers_nothing(text):
    cell = one_line(text)
    assert len(cell.splitlines()) <= 1
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", cell)
    assert len(cut(cell, 20)) <= 20


@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["<", "<=", ">=", "=", "!="]),
)
def test_a_condition_holds_as_the_numbers_compare(found, value, sign):
    run = with_config({"optimizer": {"lr": found}})
    compared = {"<": found < value, "<=": found <= value, ">=": found >= value, "=": found == value}
    expected = compared.get(sign, found != value)
    assert read_condition(f"optimizer.lr {sign} {value!r}").holds(run) == expected
    assert value_of(run, "optimizer.momentum") is MISSING
    assert not Condition("optimizer.momentum", sign, value).holds(run)


@given(st.lists(st.one_of(st.integers(), st.floats(allow_nan=False), st.text(), st.booleans(), st.none()), max_size=8))
def test_an_order_keeps_every_run(values):
    runs = [with_config({} if value is None else {"a": {"b": value}}) for value in values]
    for reverse in (False, True):
        ordered = sorted_by("a.b", runs, reverse)
        assert sorted(map(id, ordered)) == sorted(map(id, runs))
        numbers = [value for run in ordered if is_number(value := run.setting("a.b", None))]
        assert numbers == sorted(numbers, reverse=reverse)


@pytest.mark.parametrize(("width", "left"), [(None, 7), (120, 7), (90, 6), (80, 5), (20, 5)])
def test_a_narrow_terminal_shows_the_settings_before_time_and_disk(tmp_path, width, left):
    write_run(tmp_path / "a", ["optimizer.lr=0.1"], {"val/loss": 1.0}, events=False)
    (run,) = [replace(run, name="outputs/grid/first") for run in list_runs([tmp_path])]
    head, row, *_ = format_runs([run], [], 1, width)
    assert max(len(head), len(row)) <= (width or 1000)
    if width != 20:
        assert len(head.split()) == left
        assert row.endswith("optimizer.lr=0.1")


def test_settings_of_few_runs_come_first(tmp_path):
    for name, words in {"a": ["seed=1"], "b": ["model=mine", "seed=1", "lr=1"], "c": ["model=mine", "lr=2"]}.items():
        write_run(tmp_path / name, words, {"val/loss": 1.0}, events=False)
    lines = format_runs(list_runs([tmp_path]), [], 3)
    assert [line.split("  ")[-1] for line in lines[1:4]] == ["seed=1", "lr=1 model=mine seed=1", "lr=2 model=mine"]


def test_the_trainings_of_a_tune_are_listed_where_it_is_named(tmp_path, capsys, monkeypatch):
    for name in ("outputs/a", "outputs/tune-1/x", "outputs/tune-1/y"):
        write_run(tmp_path / name, ["seed=1"], {"val/loss": 1.0}, events=False)
    (tmp_path / "outputs/tune-1/tune.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    lines = listed(capsys).splitlines()
    assert [line.split()[0] for line in lines if line.startswith("outputs")] == ["outputs/a"]
    assert lines[-1] == "2 runs in outputs/tune-1: name it to list them"
    assert [one["run"] for one in as_objects(capsys, "outputs")] == ["outputs/a"]
    assert len(as_objects(capsys, "outputs/tune-1")) == len(as_objects(capsys, "outputs/tune-1/x")) + 1 == 2
    shutil.rmtree(tmp_path / "outputs/a")
    assert len(as_objects(capsys)) == 2


def test_an_empty_list_has_a_head(capsys):
    assert as_csv([]) == "run,state"
