"""The plan as a person runs it: the table, the sketch, the files, and a line where something is missing."""

import csv
import json
import subprocess
from pathlib import Path

import pytest

from trainer.config.settings import settings_of
from trainer.lr import ConfigError
from trainer.lr.backoff import Backoff
from trainer.lr.trace import Values
from trainer.tools.plan import command as plan
from trainer.tools.plan import files, tables
from trainer.tools.plan.files import decimate, draw

SCRIPT = Path(__file__).parents[2] / "scripts" / "plan.py"
PNG = b"\x89PNG"


@pytest.fixture
def shown(tmp_path, monkeypatch, capsys):
    """What the command prints, run in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        plan.main(list(words))
        return capsys.readouterr().out

    return run


def row(text, *words):
    """The cells of the first line that begins with these words."""
    lines = (line.split() for line in text.splitlines())
    return next(cells for cells in lines if cells[: len(words)] == list(words))


def test_help_shows_examples_to_copy(python):
    told = subprocess.run([python, SCRIPT, "--help"], capture_output=True, text=True)
    assert told.returncode == 0
    assert told.stdout.count("\n    cadence plan ") >= 4


def test_the_table_has_the_rate_momentum_and_decay_of_each_group_and_their_areas(shown):
    text = shown("optimizer=nesterov", "schedule=linear", "--updates", "100", "--no-files")
    assert "T = 100 updates of 32 samples, 39 an epoch; warm-up W = 0; peak 0.1 at update 0" in text
    assert row(text, "decay", "lr") == ["decay", "lr", "0.1", "0.1", "0.001", "5.05"]
    assert row(text, "momentum") == ["momentum", "0.9", "0.9", "0.9"]
    assert row(text, "weight_decay") == ["weight_decay", "0.0005", "0.0005", "0.0005", "0.002525"]
    assert row(text, "no_decay", "lr")[-1] == "5.05"
    assert "lint  nothing found" in text
    assert not list(Path().iterdir())


def test_a_value_that_changes_is_told_at_the_start_at_the_peak_and_at_the_end(shown):
    text = shown("warmup=linear", "hyper_schedule=momentum_mirrored", "--updates", "100", "--no-files")
    assert row(text, "momentum")[1:] == ["0.93", "0.85", "0.94997"]
    assert "betas-overwritten: hyper_schedule.momentum takes" in text
    run = shown(
        "hyper_schedule=label_smoothing_linear", "task.loss.label_smoothing=0.1", "--updates", "100", "--no-files"
    )
    assert row(run, "run", "label_smoothing")[2:] == ["0.1", "0.096", "0.001"]


def test_milestones_and_a_sketch_for_each_schedule_are_shown(shown):
    text = shown(
        *("schedule=multi_step", "warmup=linear", "+group_schedule.no_decay=constant"),
        *("--updates", "200", "--no-files"),
    )
    assert row(text, "10")[1:] == ["warm-up", "ends"]
    assert row(text, "110")[1:] == ["jump", "(decay)"]
    assert text.count("└") == 2
    assert [line.strip() for line in text.splitlines() if line.strip() in ("decay", "no_decay")] == [
        "decay",
        "no_decay",
    ]


def test_it_fits_80_columns_and_shows_only_factors_that_are_not_1(shown):
    text = shown("schedule=wsd", "warmup=linear", "--updates", "200", "--no-files")
    assert row(text, "update")[1:] == ["lr", "base_lr", "warmup", "schedule"]
    assert max(map(len, text.splitlines()[1:])) <= 80
    scaled = shown("scaling=sqrt", "scaling.base_batch_size=64", "--updates", "200", "--no-files")
    assert row(scaled, "update")[1:] == ["lr", "base_lr", "scale", "warmup", "schedule"]


def test_findings_are_told_by_name_with_what_becomes_of_them(shown):
    chosen = ("schedule=multi_step", "schedule.milestones=[50,300]", "schedule.gamma=0.5", "--updates", "100")
    text = shown(*chosen, "--no-files")
    assert row(text, "refused")[1] == "unreached:"
    assert row(text, "warning")[1] == "last-lr:"
    assert row(shown(*chosen, "lint.ignore=[unreached]", "--no-files"), "ignored")[1] == "unreached:"
    with pytest.raises(ConfigError, match="did you mean unreached"):
        shown(*chosen, "lint.ignore=[unreachd]", "--no-files")


def test_the_files_hold_the_curve(shown):
    text = shown("hyper_schedule=weight_decay_tied", "warmup=linear", "--updates", "40", "--csv", "--out", "deep/it")
    assert text.rstrip().endswith("deep/it.png  deep/it.json  deep/it.csv")
    assert Path("deep/it.png").read_bytes().startswith(PNG)
    numbers = json.loads(Path("deep/it.json").read_text())
    with Path("deep/it.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["update", "lr/decay", "lr/no_decay", "weight_decay/decay", "weight_decay/no_decay"]
    assert [float(line["lr/decay"]) for line in rows] == numbers["lr"]
    assert [int(line["update"]) for line in rows] == list(range(40))
    assert numbers["total_updates"] == 40
    assert numbers["curves"]["decay"]["decay_area"] == pytest.approx(
        sum(float(line["lr/decay"]) * float(line["weight_decay/decay"]) for line in rows)
    )


def test_a_place_that_cannot_be_written_is_refused(shown):
    Path("file").write_text("")
    with pytest.raises(ConfigError, match=r"file/plan\.json cannot be written"):
        shown("--out", "file/plan")


def test_several_policies_are_compared_on_top_of_common_overrides(shown):
    text = shown(
        *("optimizer=sgd", "--updates", "100", "--out", "both", "--csv"),
        *("--compare", "schedule=linear", "schedule=constant trainer.duration=50 optimizer.lr=0.2"),
    )
    assert row(text, "1") == ["1", "100", "0", "0.1", "0.1", "0", "0.001", "5.05", "0.002525", "nothing"]
    assert row(text, "2")[1:5] == ["100", "0", "0.2", "0.2"]
    assert "2  schedule=constant trainer.duration=50 optimizer.lr=0.2" in text
    numbers = json.loads(Path("both.json").read_text())
    assert [len(told["lr"]) for told in numbers.values()] == [100, 100]
    assert Path("both.png").read_bytes().startswith(PNG)
    assert len(Path("both.csv").read_text().splitlines()) == 101


def test_runs_of_different_lengths_can_be_compared(shown):
    text = shown("--csv", "--out", "both", "--compare", "trainer.duration=10", "trainer.duration=20 schedule=linear")
    assert [row(text, name)[1] for name in ("1", "2")] == ["10", "20"]
    last = Path("both.csv").read_text().splitlines()[-1].split(",")
    assert (last[0], last[1]) == ("19", "")


def test_where_only_the_data_knows_the_length_a_line_says_what_to_give(shown):
    with pytest.raises(
        ConfigError, match=r"^trainer.duration=20ep counts epochs, .*: give --updates N, or data.samples.$"
    ):
        shown("data.samples=null", "--no-files")
    assert "T = 300 updates" in shown("data.samples=null", "--updates", "300", "--no-files")


def test_of_several_policies_the_one_that_is_refused_is_named(shown):
    with pytest.raises(ConfigError, match=r"^--compare schedule=wsd: trainer.duration=20ep counts epochs, "):
        shown("--no-files", "data.samples=null", "--compare", "schedule=wsd", "data.samples=1000")


def test_with_updates_data_that_is_not_there_is_not_asked_for(shown):
    text = shown("experiment=shakespeare_char", "--updates", "3000", "--no-files")
    assert "T = 3000 updates of 12 samples; warm-up W = 100; peak 0.001" in text
    with pytest.raises(ConfigError, match=r"warmup\.duration|duration=2ep counts epochs"):
        shown("experiment=shakespeare_char", "warmup.duration=2ep", "--updates", "3000", "--no-files")


@pytest.mark.parametrize("updates", ["0", "-5"])
def test_a_length_that_is_none_is_refused(shown, updates):
    with pytest.raises(ConfigError, match=f"--updates={updates} "):
        shown("--updates", updates)


def test_a_folder_of_no_run_is_refused_and_so_are_other_settings_beside_one(shown):
    with pytest.raises(ConfigError, match="is not the folder of a run"):
        shown("--applied", "nowhere")
    for more in (["optimizer=sgd"], ["--updates", "5"], ["--compare", "optimizer=sgd"]):
        with pytest.raises(ConfigError, match="takes the config of that run"):
            shown("--applied", "nowhere", *more)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- 1", "is not the config of a run"),
        ("a: [", "config.yaml cannot be read"),
        ("schedule_batch: {}", "schedule_batch is not a key of the config"),
    ],
)
def test_the_config_of_a_run_that_is_none_is_refused(shown, tmp_path, text, told):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=told):
        shown("--applied", str(tmp_path), "--no-files")


@pytest.mark.parametrize("history", [[3], "x", [{"until": 3}], [{}, {}], {"a": 1}])
def test_a_changed_curve_history_of_a_run_is_refused(compose, tmp_path, history):
    groups = [{"name": "decay", "lr_mult": 1.0, "weight_decay": 0.0, "schedule": None}]
    (tmp_path / "plan.json").write_text(json.dumps({"groups": groups, "curve_history": history}))
    settings = settings_of(compose("data=synthetic", "data.batch_size=8", "trainer.duration=20"))
    with pytest.raises(ConfigError, match="curve_history in plan.json cannot be read"):
        plan.planned(settings, *plan.facts_of_run(tmp_path))


def test_a_long_curve_is_drawn_by_its_lowest_and_highest_points():
    values = Values("d", [1.0 + (t % 7) / 10 for t in range(100_000)])
    values[54_321] = 9.0
    places, drawn = decimate(values, columns=100)
    assert len(places) <= 202
    assert places == sorted(places)
    assert (places[0], places[-1]) == (0, 99_999)
    assert drawn == [values[t] for t in places]
    assert 54_321 in places
    assert (min(drawn), max(drawn)) == (1.0, 9.0)
    assert decimate(values[:150], columns=100) == (list(range(150)), list(values[:150]))


def test_the_plan_of_a_million_updates_with_its_files_imports_no_torch(python, tmp_path):
    words = ("schedule=hard_restarts", "warmup=linear", "--updates", "1000000", "--csv")
    code = "from trainer.tools.plan import command; command.main(sys.argv[1:]); assert 'torch' not in sys.modules"
    done = subprocess.run(
        [python, "-c", f"import sys; sys.path.insert(0, {str(SCRIPT.parents[1])!r}); {code}", *words],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    with (tmp_path / "outputs/plan.csv").open() as file:
        assert sum(1 for _ in file) == 1_000_001


def test_a_batch_that_grows_is_shown_in_the_table_the_numbers_and_the_picture(shown):
    words = ("optimizer=momentum", "schedule=multi_step", "batch_schedule=grow", "batch_schedule.max_batch_size=512")
    text = shown(*words)
    assert "T = 422 updates of 32 to 512 samples" in text
    assert row(text, "run", "batch_size")[2:] == ["32", "32", "512"]
    assert "        32  from update 0, epoch 0, schedule 1\n       320  from update 390, epoch 10, schedule 1\n" in text
    assert "large-batch: the batch grows to 512 samples" in text
    told = json.loads(Path("outputs/plan.json").read_text())
    assert [part["batch"] for part in told["batches"]] == [32, 320, 512]
    assert len(told["lr"]) == 422


def test_a_batch_that_grows_is_drawn_beside_one_that_stays(shown, monkeypatch):
    drawn = []
    monkeypatch.setattr(files, "_draw_curves", lambda panel, curves: drawn.append(list(curves)) or [])
    shown(
        "schedule=multi_step",
        "--compare",
        "batch_schedule=none",
        "batch_schedule=grow batch_schedule.max_batch_size=64",
    )
    stays, grows = (list(values) for _, values in drawn[1])
    assert set(stays) == {32.0}
    assert sorted(set(grows)) == [32.0, 64.0]


def test_the_plan_of_a_run_that_was_rolled_back_has_the_factors_that_it_used(compose, tmp_path):
    made = plan.planned(settings_of(compose("data=synthetic", "trainer.duration=200", "schedule=constant")))
    back = [Backoff(100, 0.5, 40), Backoff(120, 0.25, 0)]
    lines = tables.format_factors(made, back)
    backoffs = {int(line.split()[0]): float(line.split()[-1]) for line in lines[1:]}
    assert [backoffs[t] for t in (0, 100, 120, 199)] == [1.0, 0.5, 0.25, 0.25]
    assert float(lines[-1].split()[1]) == pytest.approx(0.25 * made.policy.lr(199), rel=1e-5)
    assert tables.format_rollbacks(back) == [
        "",
        "  rollback  to update 100: from there on backoff 0.5, back at 1 after 40 updates",
        "  rollback  to update 120: from there on backoff 0.25",
    ]
    drawn = draw({"planned": made}, {"lr": [(0, 0.1)], "loss": [(0, 1.0)]}, back)
    assert [text.get_text() for text in drawn.axes[0].get_legend().get_texts()] == ["planned", "applied", "rollback"]
