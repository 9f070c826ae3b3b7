"""The experiments on CIFAR-10 run from end to end on a few of its images; what they show in full takes a GPU."""

import pytest
import yaml
from pyarrow import parquet

from experiments import callbacks, run
from trainer.cli.run_cli import run_cli
from trainer.run import fit
from trainer.tools.report.claims import read_claims

FEW = "data.val_samples=64 model.width=2"


@pytest.fixture
def few_images(real_data, tmp_path, monkeypatch):
    """A folder with 320 training and 100 test images, where the experiments look for the data."""
    folder = tmp_path / "data" / "cifar10"
    folder.mkdir(parents=True)
    for split, rows in (("train", 320), ("test", 100)):
        parquet.write_table(
            parquet.read_table(real_data / "cifar10" / f"{split}.parquet").slice(0, rows), folder / f"{split}.parquet"
        )
    monkeypatch.setenv(run.DATA, str(folder.parent))


@pytest.fixture
def shortened(tmp_path, monkeypatch):
    """Writes an experiment with its jobs changed by patterns, and runs it with one seed: what it found."""

    def finish(name, changes, more, base=""):
        text = (run.HERE / f"{name}.yaml").read_text()
        for words, others in changes.items():
            assert words in text
            text = text.replace(words, others)
        tree = yaml.safe_load(text)
        for sweep in tree["sweeps"]:
            given = sweep["jobs"]
            sweep["jobs"] += f" {FEW} {more}" + ("" if "scaling=none" in given else f" {base}")
            sweep["jobs"] += "" if "data.samples" in given else " data.samples=256"
            sweep["jobs"] += "" if "trainer.duration" in given else " 'trainer.duration=512 samples'"
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(tree, allow_unicode=True))
        monkeypatch.setattr(run, "HERE", tmp_path)
        code = run_cli(lambda: run.main([name, "--seeds", "1", "--jobs", "1", "--out", str(tmp_path / "out")]))
        found = read_claims(tmp_path / "out" / name)
        assert code == (0 if all(one.is_as_it_must for one in found.claims) else 1)  # it need not show anything
        assert (tmp_path / "out" / name / "report" / "accuracy.png").stat().st_size > 1000
        assert {one.kind for one in found.claims} >= {"claim", "control"}
        return found

    return finish


@pytest.mark.sample(0)
@pytest.mark.slow
def test_super_convergence_tunes_each_schedule_and_goes_on_at_its_best_peak(few_images, shortened):
    changes = {
        "duration=1312": "duration=10", "duration=3936": "duration=20", "lr=0.4,0.8,1.6,3.2": "lr=0.1,0.4",
        "lr=0.05,0.1,0.2,0.4": "lr=0.1", "lr=0.1,0.2": "lr=0.1", "=10000": "=128",
    }  # fmt: skip
    found = shortened("super_convergence", changes, "data.batch_size=32")
    [table] = found.more["tables"]
    arms = {row[0]: row[1] for row in table["rows"]}
    assert list(arms)[-3:] == ["one cycle, decay × 10", "one cycle, few images", "steps, few images"]
    assert arms["one cycle, decay × 10"] == arms["one cycle, few images"] == arms["one cycle"]
    assert arms["steps, few images"] == "0.1"
    assert found.more["cost"]["runs"] == 4 + 3


@pytest.mark.sample(0)
@pytest.mark.slow
def test_large_batches_are_made_of_micro_batches_of_the_base_batch(few_images, shortened):
    changes = {
        "=4,16,32": "=4", "=0.25,0.0625,0.03125": "=0.25", "5.556%": "25%",
        "trainer.duration=2624": "trainer.duration=32",
        "linear 256": "linear 16", " 8192'": " 64'",
    }  # fmt: skip
    found = shortened("large_batch", changes, "data.batch_size=16", "scaling.base_batch_size=16")
    [table] = found.more["tables"]
    updates = {row[0]: int(row[1]) for row in table["rows"]}
    assert {arm: made for arm, made in updates.items() if arm != "adascale 64"} == {
        "linear 16": 32, **{f"{arm} 64": 8 for arm in ("none", "sqrt", "linear", "gradual", "constant")},
    }  # fmt: skip
    assert 8 <= updates["adascale 64"] <= 32


@pytest.mark.sample(0)
@pytest.mark.slow
def test_a_set_is_scored_in_parts_as_it_is_whole(few_images, assembled, monkeypatch):
    words = ("scaling=none", "~scaling.base_batch_size", "data.batch_size=16", "data.samples=256", *FEW.split())
    parts = assembled("experiment=large_batch", *run.machine_words(run.read("large_batch")), *words,
                      "trainer.duration=40")  # fmt: skip
    fit(parts)
    seen = {}
    for size in (4096, 100, 1):
        monkeypatch.setattr(callbacks, "AT_ONCE", size)
        seen[size] = callbacks.training_loss(parts.trainer, parts.module)
    assert seen[100] == pytest.approx(seen[4096], rel=1e-5)
    assert seen[1] == pytest.approx(seen[4096], rel=1e-5)
