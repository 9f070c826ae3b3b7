"""Data of any kind by config: data sets with a collate function, loaders, Lightning's data modules."""

import json

import datasets
import pytest
import pytorch_lightning
import torch

from data.lightning import LightningData
from data.loaders import Loaders
from tests.data import own_sets
from tests.distributed import worlds
from tests.engine import equality
from trainer.checkpoint.io import checkpoint_path
from trainer.config.run_summary import format_run, summary_of_run
from trainer.lr import ConfigError
from trainer.run import evaluate, fit
from trainer.tools.trained.batches import batches_of

OWN = "tests.data.own_sets"
RUN = (
    *(f"model._target_={OWN}.Mixed", "model.hidden=[8]"),
    *(
        "~task.loss",
        "~task.metrics.accuracy",
        "task.monitor=loss",
        "task.mode=min",
        "allow=[tests,datasets]",
        "logger=none",
    ),
    *("trainer.duration=12", "trainer.validate=6", "optimizer.lr=0.05", "trainer.keep=0", "data.batch_size=8"),
    "data.shape={classes:3}",
)


def step(name):
    return f"+task.step={{_target_:{OWN}.{name},_partial_:true}}"


ROWS = (
    "data=dataset",
    f"data.train={{_target_:{OWN}.Rows,noise:0.3}}",
    f"data.val={{_target_:{OWN}.Rows,count:21,begin:1000}}",
)
RECORDS = (
    *("data=dataset", f"data.train={{_target_:{OWN}.Records,noise:0.3}}", step("record_step")),
    f"data.val={{_target_:{OWN}.Records,count:21,begin:1000}}",
    f"data.collate_fn={{_target_:{OWN}.padded,_partial_:true,pad:-7}}",
)


def weights(run):
    return torch.cat([parameter.detach().flatten() for parameter in run.module.net.parameters()])


def losses(run):
    return [json.loads(line)["val/loss"] for line in (run.folder / "validations.jsonl").read_text().splitlines()]


@pytest.mark.sample(1)
@pytest.mark.parametrize("words", [(*ROWS, step("row_step")), RECORDS], ids=["rows", "records"])
def test_triples_and_batches_by_name_train_are_scored_and_resume_to_the_same_bits(assembled, words):
    whole = assembled(*RUN, *words, "data.num_workers=0", "trainer.checkpoint=1")
    fit(whole)
    others = [
        assembled(*RUN, *words, "data.num_workers=1", "data.eval_batch_size=5", folder="one"),
        assembled(*RUN, *words, folder="on", resumed=checkpoint_path(whole.checkpointing.folder, 7)),
    ]
    for other in others:
        fit(other)
        assert torch.equal(weights(whole), weights(other))
        assert losses(other)[-1] == pytest.approx(losses(whole)[-1], rel=1e-6)
    assert losses(whole)[0] < 1.2


def test_the_loss_of_a_validation_is_that_of_all_its_rows(assembled):
    run = assembled(*RUN, *ROWS, step("row_step"), "trainer.precision=64-true")
    fit(run)
    rows = [own_sets.Rows(21, begin=1000)[i] for i in range(21)]
    numbers, kinds, targets = torch.utils.data.default_collate(rows)
    with torch.no_grad():
        expected = own_sets.row_step(run.module.net.eval(), (numbers.double(), kinds, targets), t=0).loss.item()
    assert losses(run)[-1] == pytest.approx(expected, rel=1e-12)


def test_loaders_and_lightning_modules_train_as_their_data_sets_do(assembled):
    plain = assembled(*RUN, *ROWS, step("row_step"))
    train = f"data.train={{_target_:{OWN}.train_loader,batch_size:8,noise:0.3,num_workers:1}}"
    loaders = assembled(
        *RUN,
        "data=loaders",
        train,
        f"data.val={{_target_:{OWN}.val_loader,_partial_:true}}",
        step("row_step"),
        folder="l",
    )
    lightning = assembled(
        *RUN, "data=lightning", f"data.module={{_target_:{OWN}.LitRows,noise:0.3}}", step("row_step"), folder="m"
    )
    for run in (plain, loaders, lightning):
        fit(run)
        assert torch.equal(weights(run), weights(plain))
    assert losses(lightning) == pytest.approx(losses(loaders), rel=1e-6)
    assert [run.data.eval_batch_size for run in (plain, loaders, lightning)] == [32, 7, 4]
    assert lightning.data.module.calls == ["prepare_data", "fit", "test", "prepare_data"]
    assert evaluate(lightning)["loss"] > 0
    rows = dict(format_run(summary_of_run(loaders.resolved)))
    assert (
        rows["order"]
        == "a permutation of 64 samples, new in each epoch, by data.seed=0; the loader's own order is not used"
    )


@pytest.mark.parametrize("package", ["pytorch_lightning", "lightning"])
def test_a_module_of_either_package_is_known_by_its_methods(package):
    """`lightning.pytorch` has another class with the same methods: a stand-in here, as it is not installed."""

    class LightningDataModule:
        def prepare_data(self):
            pass

        def setup(self, stage):
            pass

        def teardown(self, stage):
            pass

        def train_dataloader(self):
            raise RuntimeError("not implemented")

        val_dataloader = test_dataloader = train_dataloader

    LightningDataModule.__module__ = f"{package}.core.datamodule"

    class Mine(LightningDataModule):
        def train_dataloader(self):
            return own_sets.train_loader(8)

    data = LightningData(module=Mine(), batch_size=8)
    data.setup()
    assert (len(data.splits.train), data.splits.val, data.splits.test) == (64, None, None)
    with pytest.raises(ValueError, match="LightningDataModule has no train_dataloader"):
        LightningData(module=LightningDataModule(), batch_size=8).setup()


def test_functions_make_data_sets_when_the_data_is_read_and_sets_of_datasets_are_data_sets(assembled):
    rows = {"numbers": [[float(i), 1.0, 0.0, -1.0] for i in range(16)], "kinds": [[i % 5, 1] for i in range(16)]}
    plain = datasets.Dataset.from_dict({**rows, "y": [i % 3 for i in range(16)]}).with_format("torch")
    words = (*RUN, "data=dataset", "+data.train._target_=tests.data.own_sets.Rows", step("row_step"))
    run = assembled(*words, "+data.train._partial_=true", "+data.train.count=24")
    assert run.data.train_samples == 24
    from data.dataset import Datasets

    data = Datasets(train=lambda: plain, batch_size=4)
    data.setup()
    assert (data.shape, data.train_samples) == ({}, 16)
    batch = next(data.random_batches(0, 0, 4, 1)).batch
    assert {name: tuple(part.shape) for name, part in batch.items()} == {"numbers": (4, 4), "kinds": (4, 2), "y": (4,)}


def both(rank, folder):
    ended = equality.train(folder / "ranks", 2, 1, *cut_words())
    torch.save(ended["weights"], folder / f"{rank}.pt")


def cut_words():
    given = [word for word in (*RUN, *RECORDS) if not word.startswith(("data.batch_size", "trainer.duration"))]
    return [*(word for word in given if "data.num_workers" not in word), "trainer.duration=12"]


@pytest.mark.sample(0)
@pytest.mark.slow
def test_two_processes_train_batches_by_name_as_two_micro_batches_do(tmp_path):
    assert worlds.run(2, both, tmp_path) == [0, 0]
    whole = equality.train(tmp_path / "cut", 1, 2, *cut_words())
    for rank in range(2):
        assert (torch.load(tmp_path / f"{rank}.pt") - whole["weights"]).abs().max() <= 1e-12


LOADERS = ("data=loaders", f"data.val={{_target_:{OWN}.val_loader}}", step("row_step"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            (*LOADERS, f"data.train={{_target_:{OWN}.train_loader,batch_size:16}}"),
            "data.batch_size=8, but the loader of data.train has batches of 16: set data.batch_size=16",
        ),
        (
            (*LOADERS, f"data.train={{_target_:{OWN}.sampled_loader,batch_size:8}}"),
            "data.train has a WeightedRandomSampler, but the run itself orders the samples.* set data.sampling",
        ),
        ((*LOADERS, f"data.train={{_target_:{OWN}.Rows}}"), "data.train gives a Rows, but one .*DataLoader is needed"),
        (
            (*LOADERS, f"data.train={{_target_:{OWN}.train_loader,batch_size:8}}", "+data.num_workers=3"),
            "data.num_workers is that of the loader",
        ),
        (
            ("data=lightning", f"data.module={{_target_:{OWN}.AskingRows}}", step("row_step")),
            "data.module: setup of AskingRows fails .*'world_size'.*. If it asks for self.trainer: the data",
        ),
        (
            ("data=lightning", f"data.module={{_target_:{OWN}.MovingRows}}", step("row_step")),
            "data.module: MovingRows has on_after_batch_transfer, which is not called",
        ),
        (("data=lightning", f"data.module={{_target_:{OWN}.Rows}}", step("row_step")), "makes a Rows, but a Lightn"),
        (
            ("data=lightning", f"data.module={{_target_:{OWN}.LitRows}}", "+data.train=3", step("row_step")),
            "data.train is that of data.module",
        ),
        (
            (*ROWS[:1], f"data.train={{_target_:{OWN}.Flow}}", "data.sampling=balanced", step("row_step")),
            "data.sampling=balanced takes samples by their index, and Flow is streamed: leave it out",
        ),
        (
            (*ROWS[:1], f"data.train={{_target_:{OWN}.Flow}}", "data.folds=2", "data.fold=0", step("row_step")),
            "data.folds=2 takes samples by their index, and Flow is streamed: leave it out",
        ),
        ((*ROWS, "data.val.count=0", step("row_step")), "data.val has no samples: give some, or leave it out"),
        (
            (*ROWS, "+data.train.count=7", step("row_step")),
            "the global batch of 8 is larger than the 7 training samples: lower data.batch_size",
        ),
        ((*ROWS, "data.train=null", step("row_step")), "data.train is not set"),
        (("data=dataset", "data.train={_target_:torch.nn.Identity}", step("row_step")), "data"),
    ],
)
def test_data_that_cannot_be_used_is_refused_in_one_line(assembled, words, told):
    with pytest.raises(ConfigError, match=told) as error:
        assembled(*RUN, *words)
    assert "\n" not in str(error.value)


def test_the_remainder_of_an_epoch_is_left_out_and_the_last_evaluated_batches_are_nearly_equal(assembled):
    run = assembled(*RUN, *ROWS, step("row_step"), "+data.train.count=21", "data.eval_batch_size=8")
    assert run.module.horizon.updates_per_epoch == 2
    assert [len(batch[2]) for batch in run.data.val_dataloader()] == [7, 7, 7]


def test_a_single_loader_may_be_in_a_list_and_its_worker_function_sees_the_data_set():
    seen = torch.zeros(1).share_memory_()

    def begin(worker):
        seen.fill_(len(torch.utils.data.get_worker_info().dataset))

    loader = torch.utils.data.DataLoader(own_sets.Rows(9), batch_size=3, num_workers=1, worker_init_fn=begin)
    data = Loaders(train=[loader], batch_size=3)
    data.setup()
    assert len(next(data.random_batches(0, 0, 3, 1)).batch) == 3
    assert seen.item() == 9


def test_a_loader_of_another_class_is_taken_over_where_its_batches_are_those_of_its_data_set(assembled):
    words = [
        "data=dataset",
        f"data.train={{_target_:{OWN}.Rows}}",
        f"data.val={{_target_:{OWN}.Rows,count:20,begin:1000}}",
    ]
    plain = assembled(*RUN, *words, step("row_step"))
    module = assembled(*RUN, "data=lightning", f"data.module={{_target_:{OWN}.OneSplit}}", step("row_step"), folder="m")
    for run in (plain, module):
        fit(run)
    assert torch.equal(weights(plain), weights(module))
    assert module.data.splits.test is None


@pytest.mark.parametrize("change", ["scale:2", "short:true", "batch_size:0"])
def test_a_loader_of_another_class_that_changes_or_leaves_out_samples_is_refused(assembled, change):
    train = f"data.train={{_target_:{OWN}.FastRows,{change}}}".replace("{", "{batch_size:8,", change[:5] != "batch")
    with pytest.raises(
        ConfigError, match="data.train gives a FastRows, but one .* with the same batches .* data=dataset"
    ):
        assembled(*RUN, *LOADERS, train)


@pytest.mark.parametrize("loader", [own_sets.FastRows(8), own_sets.train_loader(8)], ids=["own", "torch"])
def test_predictions_of_a_data_module_whose_loader_shuffles_are_refused(loader):
    module = own_sets.LitRows()
    module.test_dataloader = lambda: loader
    with pytest.raises(ConfigError, match=f"the {type(loader).__name__} shuffles, and predictions are in the order"):
        batches_of(module, 8, stage="predict")
    assert batches_of(module, 8) is loader


@pytest.mark.parametrize("stage", ["test", "predict"])
def test_a_data_module_without_test_data_is_refused_in_one_line(stage):
    class TrainingOnly(pytorch_lightning.LightningDataModule):
        def train_dataloader(self):
            return own_sets.train_loader(8)

    for module in (TrainingOnly(), own_sets.OneSplit()):
        with pytest.raises(ConfigError, match="this data module has no test data: give one of its loaders"):
            batches_of(module, 8, stage=stage)
