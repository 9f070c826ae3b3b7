"""The experiments on CIFAR-10 run from end to end on a few of its images; what they show in full takes a GPU."""

import json

import pytest
from pyarrow import parquet

from experiments import large_batch, photographs, super_convergence, training
from trainer.cli.run_cli import run_cli

FEW = ("data.samples=256", "data.val_samples=64", "model.width=2", "trainer.steps_per_execution=1")


@pytest.fixture
def few_images(real_data, tmp_path, monkeypatch):
    """A folder with 320 training and 100 test images, where the experiments look for the data."""
    folder = tmp_path / "data" / "cifar10"
    folder.mkdir(parents=True)
    for split, rows in (("train", 320), ("test", 100)):
        parquet.write_table(
            parquet.read_table(real_data / "cifar10" / f"{split}.parquet").slice(0, rows), folder / f"{split}.parquet"
        )
    monkeypatch.setenv(photographs.FOLDER, str(folder.parent))
    plain = photographs.setting
    monkeypatch.setattr(photographs, "setting", lambda: (*plain(), *FEW))


def finished(module, folder):
    """The report; so short a run need not show anything."""
    code = run_cli(lambda: module.main(["--seeds", "1", "--jobs", "1", "--out", str(folder)]))
    report = json.loads((folder / f"{module.EXPERIMENT.name}.json").read_text())
    assert code == (0 if report["pass"] else 1)
    assert (folder / f"{module.EXPERIMENT.name}.png").stat().st_size > 1000
    assert {row["role"] for row in report["verdicts"]} >= {"claim", "control"}
    return report


@pytest.mark.slow
def test_super_convergence_tunes_each_schedule_and_goes_on_at_its_best_peak(few_images, tmp_path, monkeypatch):
    peaks = {"one cycle": (0.1, 0.4), "steps": (0.1,), "steps, three times as long": (0.1,)}
    kinds = {name: (schedule, 20) for name, (schedule, _) in super_convergence.KINDS.items()}
    for name, value in {"KINDS": kinds, "PEAKS": peaks, "FEWER": ("data.train_limit=128", "data.samples=128")}.items():
        monkeypatch.setattr(super_convergence, name, value)
    for name in ("one cycle", "steps"):
        monkeypatch.setitem(kinds, name, (kinds[name][0], 10))
    plain = photographs.setting()
    monkeypatch.setattr(photographs, "setting", lambda: (*plain, "data.batch_size=32"))
    report = finished(super_convergence, tmp_path)
    arms = [row[0] for row in report["tables"][0]["rows"]]
    best = next(name.strip("*").removeprefix("one cycle at ") for name in arms if name.startswith("**one cycle at"))
    extra = [f"one cycle decay × 10 at {best}", f"one cycle few images at {best}", "steps few images at 0.1"]
    assert arms[-3:] == extra
    assert report["cost"]["runs"] == len(arms) == 4 + 3


@pytest.mark.slow
def test_large_batches_are_made_of_micro_batches_of_the_base_batch(few_images, tmp_path, monkeypatch):
    for name, value in {"MULTIPLES": (4,), "BASE": 16, "SAMPLES": 512, "WARMUP": "25%"}.items():
        monkeypatch.setattr(large_batch, name, value)
    small = ("data.batch_size=16", "scaling.base_batch_size=16")
    plain = photographs.setting()
    monkeypatch.setattr(photographs, "setting", lambda: (*plain, *small))
    report = finished(large_batch, tmp_path)
    [errors, updates] = report["tables"]
    assert [row[0] for row in errors["rows"]] == ["16", "64"]
    assert all(errors["rows"][1])
    [[_, others, adascale]] = updates["rows"]
    assert others == "8"
    assert 8 <= int(adascale) <= 32


@pytest.mark.slow
def test_a_set_is_scored_in_parts_as_it_is_whole(few_images, monkeypatch):
    chosen = ("experiment=large_batch", "trainer.duration=256 samples", "data.batch_size=64", *photographs.setting())
    seen = {}

    def look(assembly):
        for size in (4096, 100, 1):
            monkeypatch.setattr(training, "AT_ONCE", size)
            seen[size] = training.scored(assembly, "test")
        return {}

    training.train(training.Arm("a", ("~scaling.base_batch_size", *chosen, "scaling=none"), look=look), 0)
    assert seen[100] == pytest.approx(seen[4096], rel=1e-5)
    assert seen[1] == pytest.approx(seen[4096], rel=1e-5)
