"""What a report makes of a set of runs: what varies, which are repeats, heat maps, findings with their commands."""

import json
import math
import shutil

import pytest

from tests.tools.runs_on_disk import all_findings, loss, page_of, write_run, write_sweep
from trainer.tools.report import command as report
from trainer.tools.report.figures import rates_figure
from trainer.tools.report.png import draw
from trainer.tools.report.response import heat_map_of_batch, heat_map_of_momentum, rate_curves
from trainer.tools.report.runs import find_runs
from trainer.tools.report.study import Study


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return write_sweep(tmp_path_factory.mktemp("outputs") / "sweep")


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
    assert "lr × global batch" in page_of(tmp_path)


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


def test_a_command_that_extends_the_grid_repeats_other_values_as_they_were_typed(tmp_path):
    decays = [f"0.0{i}2345678e0" for i in range(1, 10)]
    for i, (lr, decay) in enumerate((lr, decay) for lr in ("1e-3", "3e-3", "1e-2") for decay in decays):
        words = [f"optimizer.lr={lr}", f"optimizer.weight_decay={decay}", "+model.norm=null"]
        write_run(tmp_path / str(i), words, {"val/loss": loss(float(lr)) + float(decay)}, events=False)
    (one,) = (f for f in all_findings(tmp_path) if f.command and f.curve == "")
    typed = f"optimizer.lr=0.03,0.1 optimizer.weight_decay={','.join(decays)} +model.norm=null"
    assert one.command == f"cadence train -m {typed}"


def test_an_edge_comes_with_the_command_that_extends_the_grid(tmp_path):
    write_sweep(tmp_path, rates=(0.001, 0.003, 0.01, 0.03), schedules=("cosine",), more=("model.hidden=[8,8]",))
    (one,) = (f for f in all_findings(tmp_path) if f.kind == "edge")
    assert one.command == "cadence train -m optimizer.lr=0.1,0.3 schedule=cosine seed=0,1 'model.hidden=[8,8]'"
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


def test_folds_are_repeats_as_seeds_are_with_a_mean_and_its_interval(tmp_path):
    scores = {("cosine", fold): 0.8 + 0.01 * fold for fold in range(5)}
    scores |= {("linear", fold): 0.79 + 0.01 * fold for fold in range(5)}
    for i, ((schedule, fold), value) in enumerate(scores.items()):
        words = [f"schedule={schedule}", "data.folds=5", f"data.fold={fold}"]
        write_run(tmp_path / str(i), words, {"val/accuracy": value}, events=False)
    study = Study(find_runs(tmp_path), "val/accuracy")
    assert (study.settings, study.repeated) == (["schedule"], "folds")
    best, other = study.configurations
    deviation = 0.01 * math.sqrt(2.5)
    reach = 2.7764 * deviation / math.sqrt(5)  # Student's t with 4 degrees of freedom, from a printed table
    assert (best.repeats.n, dict(best.values)) == (5, {"schedule": "cosine"})
    assert best.repeats.mean == pytest.approx(0.82)
    assert (best.repeats.low, best.repeats.high) == pytest.approx((0.82 - reach, 0.82 + reach), rel=1e-4)
    assert other.repeats.mean == pytest.approx(0.81)
    (one,) = [one for one in all_findings(tmp_path) if one.kind == "compare"]
    assert "better by 0.01" in one.text
    assert "5 folds" in one.text


def test_seeds_and_folds_repeat_a_configuration_together(tmp_path):
    for i, (seed, fold) in enumerate((seed, fold) for seed in range(2) for fold in range(3)):
        write_run(tmp_path / str(i), [f"seed={seed}", f"data.fold={fold}"], {"val/loss": 1.0 + i}, events=False)
    study = Study(find_runs(tmp_path))
    assert (study.settings, study.repeated) == ([], "seeds and folds")
    assert study.configurations[0].repeats.n == 6


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


def test_the_parabola_is_not_drawn_far_below_the_runs_beside_a_rate_that_breaks(tmp_path):
    for lr, value in [(0.003, 0.9), (0.01, 0.5), (0.03, 0.4), (0.1, 0.35), (0.3, 5.0)]:
        for seed in (0, 1, 2):
            words = [f"optimizer.lr={lr}", f"seed={seed}"]
            write_run(tmp_path / f"{lr}-{seed}", words, {"val/loss": value * (1 + 0.01 * seed)}, events=False)
    study = Study(find_runs(tmp_path))
    (curve,) = rate_curves(study)
    assert min(map(curve.fit.cost, (0.03, 0.05, 0.1))) < -0.2
    figure = rates_figure(study, [curve])
    (drawn,) = (trace["y"] for trace in figure["data"] if trace.get("line", {}).get("dash") == "dot")
    shown = [value for value in drawn if value is not None]
    assert 0 < len(shown) < len(drawn)
    assert min(shown) > 0.35 - 0.5
    assert draw(figure) is not None
