"""A user's LightningModule trains as it is, to the bits of Lightning's own trainer."""

import copy
import importlib.util
import json

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader, IterableDataset

from tests.distributed import worlds
from tests.engine import equality
from tests.pages import overrides_of
from trainer.checkpoint.io import checkpoint_path, checkpoints_in, read
from trainer.log.scalars import scalars
from trainer.lr import ConfigError
from trainer.run import evaluate, fit
from trainer.tools.range_test.sweep import sweep

MODULES = "model._target_=tests.engine.lightning_modules."
FOREIGN = "model._target_=tests.engine.foreign_modules.Autoencoder"
TASK = ("task=lightning", "model=own", "allow=[tests]", "schedule=constant")
SGD = ("optimizer=momentum", "optimizer.lr=0.01", "optimizer.weight_decay=0")
LIT = (*TASK, *SGD, "data.batch_size=32", "trainer.duration=2ep", "logger=none", "trainer.keep=0")
needs_lightning = pytest.mark.skipif(not importlib.util.find_spec("lightning"), reason="lightning is not installed")


@needs_lightning
def test_the_module_of_the_page_learns_by_its_command(assembled, tmp_path, monkeypatch):
    words = overrides_of("lightning.md", "lit.py", tmp_path, monkeypatch)
    run = assembled(*words, "logger=none", "trainer.duration=5ep")
    fit(run)
    assert run.checkpointing.best["scores"]["val/acc"] > 0.9


@needs_lightning
def test_lines_of_the_other_package_about_the_machine_are_not_shown(assembled, caplog):
    fit(assembled(*LIT, FOREIGN, "trainer.duration=2"))
    assert not [record for record in caplog.records if "lightning" in record.name]


class Epochs(IterableDataset):
    """Batches in epochs: each pass gives the next ones."""

    def __init__(self, batches, length):
        self.batches, self.length, self.at = batches, length, 0

    def __iter__(self):
        while self.at < len(self.batches):
            self.at += 1
            yield self.batches[self.at - 1]
            if self.at % self.length == 0:
                return


def stock(run, optimizer, pl="pytorch_lightning"):
    """The net and the trainer of a run as Lightning trains it, on the run's batches and with its seeds."""
    pl = importlib.import_module(pl)
    net = copy.deepcopy(run.module.net)
    for name in ("log", "optimizers", "lr_schedulers", "manual_backward"):
        net.__dict__.pop(name, None)
    if optimizer is not None:
        net.configure_optimizers = lambda: optimizer(net.parameters())
    micros = [micro for chunk in run.data.train_dataloader() for update in chunk for micro in update]
    seeds, accumulate = iter([micro.seed for micro in micros]), run.resolved.settings.trainer.accumulate

    class Seeds(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            torch.manual_seed(next(seeds))

    horizon = run.resolved.horizon
    length = horizon.updates_per_epoch * accumulate
    end = {"max_steps": horizon.total, "max_epochs": -1}
    if not net.automatic_optimization:  # its steps are those of all optimizers
        end = {"max_steps": -1, "max_epochs": round(horizon.epochs)}
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = pl.Trainer(
        **{"accelerator": "cpu", "limit_train_batches": length, **end},
        **{"num_sanity_val_steps": 0, "callbacks": [Seeds()], "accumulate_grad_batches": accumulate},
        **dict.fromkeys(quiet, False),
    )
    train = DataLoader(Epochs([micro.batch for micro in micros], length), batch_size=None)
    trainer.fit(net, train, DataLoader(list(run.data.val_dataloader()), batch_size=None))
    return net, trainer


def trained_by_lightning(assembled, optimizer, *words, pl="pytorch_lightning"):
    """What `stock` gives for a run of these words; its data gives all batches in one go."""
    return stock(assembled(*words, "trainer.validate=1000", folder="stock"), optimizer, pl)


def same(mine, theirs):
    mine, theirs = mine.state_dict(), theirs.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in mine.items())


def momentum(parameters):
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9, fused=True)


@pytest.mark.sample(3)
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("name", ["Classifier", "Autoencoder", pytest.param("foreign", marks=needs_lightning)])
def test_weights_and_scores_are_those_of_lightnings_own_trainer(assembled, name, accumulate):
    target = FOREIGN if name == "foreign" else f"{MODULES}{name}"
    words = (*LIT, target, f"trainer.accumulate={accumulate}")
    pl = "lightning.pytorch" if name == "foreign" else "pytorch_lightning"
    net, trainer = trained_by_lightning(assembled, momentum, *words, pl=pl)
    run = assembled(*words)
    fit(run)
    assert same(run.module.net, net)
    ours, theirs = run.module.net.trainer.callback_metrics, trainer.callback_metrics
    expected = {"val_loss", "val_rebuilt", "val_acc", "weights", "mean_loss"} if name == "Classifier" else set()
    for score in expected:
        assert ours[score].item() == pytest.approx(theirs[score].item(), rel=1e-5), score
    for score in ("train/accuracy", "train/accuracy_epoch") if expected else ():
        assert ours[score].item() == pytest.approx(theirs[score].item())


def test_what_the_module_logs_is_in_the_log_and_decides_the_best_checkpoint(assembled):
    words = [word for word in LIT if word != "logger=none"]
    run = assembled(*words, f"{MODULES}Classifier", "task.monitor=val_acc", "task.mode=max", "trainer.duration=90")
    fit(run)
    tested = evaluate(run)
    for logger in run.trainer.loggers:
        logger.save()
    events = EventAccumulator(str(run.folder), size_guidance={"scalars": 0}).Reload()
    points = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    for name in ("loss", "logged_loss", "rebuilt", "head_gradient", "accuracy"):
        assert [point.step for point in points[f"train/{name}"]] == list(range(90)), name
    assert [point.value for point in points["train/logged_loss"]] == [point.value for point in points["train/loss"]]
    assert [point.step for point in points["train/mean_loss"]] == [38, 77, 89]
    losses = [point.value for point in points["train/loss"]]
    means = [sum(losses[a:b]) / (b - a) for a, b in ((0, 39), (39, 78), (78, 90))]
    assert [point.value for point in points["train/mean_loss"]] == pytest.approx(means)
    lines = [json.loads(line) for line in (run.folder / "validations.jsonl").read_text().splitlines()]
    assert all(
        line.keys() == {"update", *(f"val/{name}" for name in ("loss", "rebuilt", "acc", "weights"))} for line in lines
    )
    assert run.checkpointing.best["value"] == max(line["val/acc"] for line in lines)
    assert tested.keys() == {"loss"}


@pytest.mark.parametrize("name", ["Classifier", "Autoencoder"])
def test_a_run_that_is_resumed_within_an_epoch_or_at_its_end_has_the_same_bits(assembled, name):
    words = (*LIT, f"{MODULES}{name}", "trainer.checkpoint=13", "average=ema")
    whole = assembled(*words)
    fit(whole)
    ends = read(checkpoint_path(whole.checkpointing.folder, 78))["state_dict"]
    for t in (13, 39, 52):
        resumed = assembled(*words, folder=f"from{t}", resumed=checkpoint_path(whole.checkpointing.folder, t))
        fit(resumed)
        again = read(checkpoint_path(resumed.checkpointing.folder, 78))["state_dict"]
        assert all(torch.equal(value, again[key]) for key, value in ends.items()), t


def test_a_range_test_leaves_the_module_as_it_was(assembled):
    run = assembled(*LIT, f"{MODULES}Autoencoder")
    before = copy.deepcopy(run.module.net.state_dict())
    losses = [sweep(run, "lr", [1e-3, 1e-2], kind).losses for kind in ("train", "val")]
    assert all(0 < loss < 1 for row in losses for loss in row)
    assert all(torch.equal(value, before[name]) for name, value in run.module.net.state_dict().items())


DIGITS = (*TASK, *SGD, "warmup=linear", f"{MODULES}Classifier")


def train_two(rank, world, folder):
    torch.save(equality.train(folder / "two", world, 1, *DIGITS), folder / f"{rank}.pt")


@pytest.mark.slow
def test_two_processes_train_the_weights_of_two_micro_batches(tmp_path):
    assert worlds.run(2, train_two, 2, tmp_path) == [0, 0]
    cut = equality.train(tmp_path / "cut", 1, 2, *DIGITS)
    for rank in (0, 1):
        other = torch.load(tmp_path / f"{rank}.pt")
        assert (other["weights"] - cut["weights"]).abs().max() <= 1e-12
        assert other["scores"] == {name: pytest.approx(value, rel=1e-6) for name, value in cut["scores"].items()}
        assert other["scores"].keys() == {f"val/{name}" for name in ("loss", "rebuilt", "acc", "weights")}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("task=classification", f"{MODULES}Classifier"), "a LightningModule, Classifier, .* take task=lightning"),
        (("model=mlp",), "task=lightning trains a LightningModule, and model makes a MLP"),
        ((f"{MODULES}OwnLoop",), "training_step of OwnLoop takes dataloader_iter, and a run gives batches"),
        ((f"{MODULES}OwnStep",), r"OwnStep has optimizer_step, but each update .* task.step.ignore=\[optimizer_step\]"),
        ((f"{MODULES}Classifier", "task.step.ignore=[optimizer_stp]"), "did you mean optimizer_step"),
        ((f"{MODULES}Skipping",), "training_step of Skipping returns no loss for update 0"),
        ((f"{MODULES}Late",), "setup of Late adds layer.bias, and the optimizer was made before"),
        ((f"{MODULES}Classifier", "task.monitor=val_aux", "task.mode=max"), "task.monitor=aux is not logged"),
        ((f"{MODULES}Classifier", "task.monitor=val_acc"), "task.monitor=acc: .* give task.mode=min or task.mode=max"),
        (
            (f"{MODULES}Classifier", "+task.metrics.a._target_=torchmetrics.MeanMetric"),
            "task.metrics beside task=lightning",
        ),
    ],
)
def test_what_cannot_hold_is_refused_by_name(assembled, words, message):
    with pytest.raises(ConfigError, match=message):
        fit(assembled(*LIT, *words))


def test_a_part_that_is_ignored_by_name_is_not_called_and_the_table_says_so(assembled):
    from trainer.config.run_summary import format_run, summary_of_run

    run = assembled(*LIT, f"{MODULES}OwnStep", "task.step.ignore=[optimizer_step]")
    fit(run)
    rows = format_run({**summary_of_run(run.resolved), "lint": []})
    told = [text for name, text in rows[[name for name, _ in rows].index("module") :]][:3]
    assert told[0] == "optimizer_step is left out"
    assert told[1] == "configure_optimizers is not called: SGD takes its place"


def test_checkpoints_hold_what_the_module_adds_if_it_is_plain(assembled):
    run = assembled(*LIT, f"{MODULES}Counting")
    fit(run)
    path = checkpoint_path(run.checkpointing.folder, 39)
    assert read(path)["hooks"]["added"] == {"seen": 39}
    resumed = assembled(*LIT, f"{MODULES}Counting", folder="on", resumed=path)
    fit(resumed)
    assert (run.module.net.seen, resumed.module.net.seen) == (78, 78)
    run.module.net.seen = object()
    with pytest.raises(ConfigError, match=r"on_save_checkpoint of Counting adds checkpoint\['seen'\], a object"):
        run.module.hooks.state_dict(run.module.net)


def test_what_a_module_logs_by_itself_in_a_validation_is_kept_by_a_resume_at_that_update(assembled):
    words = [*(word for word in LIT if "duration" not in word and word != "logger=none"), f"{MODULES}Rehearsed"]
    words += ["callbacks=none", "trainer.validate=8", "trainer.duration=24"]
    run = assembled(*words)
    fit(run)
    before = scalars(run.folder)["by_hand"]
    assert {step for step, _ in before} == {7, 15, 23}
    for path in checkpoints_in(run.folder / "checkpoints"):
        if path.name > "update-00000016.ckpt":
            path.unlink()
    fit(assembled(*words, resumed=checkpoint_path(run.folder / "checkpoints", 16)))
    assert scalars(run.folder)["by_hand"] == before
