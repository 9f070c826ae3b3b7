"""What the trainer asks of a data set: size, loaders, refusals; and the sets that are made without files."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer

from data import digits as reader
from data.digits import Digits
from data.module import DataModule
from data.stream import Loop
from data.synthetic import Synthetic


def followed(module: DataModule, t: int = 0, accumulate: int = 1) -> DataModule:
    module.setup()
    module.follow(
        lambda: t, Loop(total=100, validation_interval=5, pauses=(), steps_per_execution=2, accumulate=accumulate)
    )
    return module


def synthetic(**changes: object) -> Synthetic:
    sizes = {"samples": 64, "val_samples": 10, "test_samples": 7}
    return Synthetic(**{"kind": "classification", "features": 5, "classes": 3, "batch_size": 8, **sizes, **changes})


def refused(message: str, make: object) -> None:
    with pytest.raises(ValueError, match=message) as error:
        make()  # type: ignore[operator]
    assert "\n" not in str(error.value)


def test_digits_are_split_without_overlap_and_scaled_to_one() -> None:
    module = Digits(batch_size=64, samples=1257)
    module.setup()
    parts = [split.inputs for split in module.splits]
    assert [len(part) for part in parts] == [1257, 180, 360]
    from sklearn.datasets import load_digits

    whole = torch.from_numpy(load_digits().images).float().div(16).flatten(1)
    joined = torch.cat(parts).flatten(1)
    assert joined.shape == whole.shape
    assert torch.equal(joined.sum(0), whole.sum(0))
    assert (joined.min(), joined.max()) == (0, 1)
    assert module.shape == {"in_features": 64, "in_channels": 1, "classes": 10}


def test_the_file_of_the_digits_is_what_scikit_learn_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    table = reader._table()
    monkeypatch.setattr(reader, "find_spec", lambda name: None)  # as with a version that has the file elsewhere
    assert torch.equal(reader._table(), table)


def test_the_split_does_not_depend_on_the_seed_of_the_run() -> None:
    first, second = Digits(batch_size=8, seed=0), Digits(batch_size=8, seed=1)
    first.setup()
    second.setup()
    assert torch.equal(first.splits.test.inputs, second.splits.test.inputs)
    orders = [next(iter(followed(module).train_dataloader()))[0][0].batch[1] for module in (first, second)]
    assert not torch.equal(*orders)


def test_setup_reads_once() -> None:
    module = Digits(batch_size=8)
    module.setup("fit")
    splits = module.splits
    module.setup("test")
    assert module.splits is splits
    assert module.train_samples == 1257


def test_a_wrong_declared_size_is_refused_with_both_numbers() -> None:
    refused(r"data.samples=1200, .* 1257 .* correct it", Digits(batch_size=8, samples=1200).setup)


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"batch_size": "8"},
        {"samples": -1},
        {"seed": -1},
        {"eval_batch_size": 0},
        {"tokens_per_sample": 0},
    ],
)
def test_a_number_out_of_range_is_refused_by_its_name(wrong: dict) -> None:
    refused(f"data.{next(iter(wrong))}=", lambda: Digits(**{"batch_size": 8, **wrong}))


def test_a_global_batch_above_the_samples_is_refused_with_both_numbers() -> None:
    refused(r"64 training samples .* 72", followed(synthetic(), accumulate=9).train_dataloader)


def test_the_training_loader_needs_a_clock() -> None:
    module = synthetic()
    module.setup()
    with pytest.raises(RuntimeError, match="follow"):
        module.train_dataloader()


def test_a_rank_of_an_attached_trainer_gets_its_own_slices() -> None:
    whole = [micro.batch[0] for micro in next(iter(followed(synthetic(), accumulate=2).train_dataloader()))[0]]
    for rank in range(2):
        module = followed(synthetic())
        strategy = SimpleNamespace(root_device=torch.device("cpu"))
        module.trainer = SimpleNamespace(world_size=2, global_rank=rank, strategy=strategy)  # type: ignore[assignment]
        assert torch.equal(next(iter(module.train_dataloader()))[0][0].batch[0], whole[rank])
        assert sum(len(inputs) for inputs, _ in module.val_dataloader()) == 5


def test_a_set_without_a_held_out_part_has_no_loader_for_it() -> None:
    module = followed(synthetic(val_samples=0, test_samples=0))
    assert module.val_dataloader() == module.test_dataloader() == []


def test_a_regression_has_one_float_target_and_a_classification_uses_every_class() -> None:
    regression = followed(synthetic(kind="regression", classes=1)).splits.train
    assert regression.targets.shape == (64, 1)
    assert regression.targets.dtype == torch.float32
    classes = followed(synthetic()).splits.train.targets
    assert classes.dtype == torch.int64
    assert set(classes.tolist()) == {0, 1, 2}


def test_synthetic_data_is_the_same_for_every_seed_of_the_run() -> None:
    first, second = followed(synthetic(seed=0)).splits, followed(synthetic(seed=9)).splits
    assert all(torch.equal(a.inputs, b.inputs) and torch.equal(a.targets, b.targets) for a, b in zip(first, second))


@pytest.mark.parametrize("wrong", [{"kind": "ranking"}, {"classes": 1}, {"kind": "regression"}, {"features": 0}])
def test_a_task_that_cannot_be_made_is_refused(wrong: dict) -> None:
    refused("data.", lambda: synthetic(**wrong))


class Recorder(LightningModule):
    """Counts updates and keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.automatic_optimization = False
        self.updates, self.seeds, self.validated = 0, [], []

    def training_step(self, chunk: list, index: int) -> None:
        self.updates += len(chunk)
        self.seeds += [micro.seed for update in chunk for micro in update]

    def validation_step(self, batch: list, index: int) -> None:
        self.validated.append((self.updates, len(batch[0])))

    def configure_optimizers(self) -> None:
        return None


def test_lightning_runs_a_leg_an_epoch_and_validates_between_them(tmp_path: Path) -> None:
    recorder, module = Recorder(), synthetic()
    module.setup()
    module.follow(
        lambda: recorder.updates, Loop(total=12, validation_interval=5, pauses=(), steps_per_execution=2, accumulate=2)
    )
    trainer = Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
    )
    trainer.fit(recorder, datamodule=module)
    order = module.train_dataloader().order
    assert recorder.seeds == [order.micro_seed(t, micro) for t in range(12) for micro in range(2)]
    assert recorder.validated == [(5, 10), (10, 10), (12, 10)]


def digits(**changes: object) -> Digits:
    module = Digits(batch_size=8, **changes)  # type: ignore[arg-type]
    module.setup()
    return module


def test_digits_may_be_cut_otherwise_and_parts_may_be_left_out() -> None:
    usual, other = digits(), digits(split=[1437, 0, 360], split_seed=1234, samples=1437)
    assert (other.train_samples, other.splits.val, len(other.splits.test)) == (1437, None, 360)
    assert followed(other).val_dataloader() == []
    assert not torch.equal(usual.splits.test.inputs, other.splits.test.inputs)
    assert len(digits(split=[10, 5, 0]).splits.train) == 10


def test_standardized_digits_have_mean_0_in_each_pixel_and_deviation_1_over_all_of_training() -> None:
    plain, module = digits(), digits(standardize=True)
    inputs = module.splits.train.inputs.double()
    assert inputs.mean(0).abs().max() < 1e-6
    assert inputs.std().item() == pytest.approx(1, abs=1e-6)
    scale = (plain.splits.test.inputs[1] - plain.splits.test.inputs[0]) / (
        module.splits.test.inputs[1] - module.splits.test.inputs[0]
    )
    moved = scale[scale.isfinite() & (scale != 0)]
    assert moved.max().item() == pytest.approx(moved.min().item(), rel=1e-4)


def test_label_noise_is_a_share_of_the_training_labels_that_are_all_wrong_and_the_same_in_every_run() -> None:
    clean, noisy, again = digits(), digits(label_noise=0.15), digits(label_noise=0.15, seed=7)
    wrong = clean.splits.train.targets != noisy.splits.train.targets
    assert wrong.sum() == round(0.15 * 1257)
    assert torch.equal(noisy.splits.train.targets, again.splits.train.targets)
    assert torch.equal(clean.splits.train.inputs, noisy.splits.train.inputs)
    for clear, other in zip(clean.splits[1:], noisy.splits[1:]):
        assert torch.equal(clear.targets, other.targets)
    steps = (noisy.splits.train.targets - clean.splits.train.targets)[wrong] % 10
    assert set(steps.tolist()) == set(range(1, 10))  # every other class is as likely
    assert noisy.splits.train.targets.max() <= 9


def test_digits_that_are_not_there_are_refused() -> None:
    for message, changes in (
        ("data.split=", {"split": [1437, 180, 360]}),
        ("data.split=", {"split": [0, 180, 360]}),
        ("data.split=", {"split": [100, 100]}),
        ("data.split=", {"split": "abc"}),
        ("data.split=", {"split": [100, -1, 1]}),
        ("data.split=", {"split": [100.5, 1, 1]}),
        ("data.split_seed=", {"split_seed": -1}),
        ("data.label_noise=", {"label_noise": 1.0}),
        ("data.label_noise=", {"label_noise": float("nan")}),
        ("data.standardize=", {"standardize": 1}),
        ("data.standardize=", {"standardize": True, "split": [1, 1, 1]}),
    ):
        refused(message, lambda changes=changes: digits(**changes))
