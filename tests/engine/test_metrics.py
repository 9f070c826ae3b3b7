"""Any metric of torchmetrics is scored, logged by its parts and kept; what cannot be scored is refused at the start."""

import io
import json
import re

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, f1_score, recall_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassF1Score, MulticlassROC
from torchmetrics.wrappers import ClasswiseWrapper

from tests.pages import section
from trainer.config.metrics import with_shape
from trainer.engine.metrics import direction, numbers_by_name
from trainer.engine.step import StepOutput
from trainer.engine.task import Scores, Task
from trainer.log.pictures import matrix_picture
from trainer.log.validations import main_scores, read_validations
from trainer.lr import ConfigError
from trainer.run import evaluate, fit
from trainer.sweep.search.rules import objectives

F = "torchmetrics.classification"
SMALL = (
    *("data.batch_size=32", "model.hidden=[16]", "trainer.duration=12", "trainer.validate=6", "callbacks=none"),
    *("trainer.keep=0", "optimizer.lr=1e-2"),
)
CONFUSION = f"+task.metrics.confusion._target_={F}.MulticlassConfusionMatrix"
RECALL = (f"+task.metrics.recall._target_={F}.MulticlassRecall", "+task.metrics.recall.average=none")
BOTH = (
    "+task.metrics.f1s={_target_: torchmetrics.MetricCollection, prefix: f1_, metrics: {"
    f"micro: {{_target_: {F}.MulticlassF1Score, average: micro}}, macro: {{_target_: {F}.MulticlassF1Score}}}}}}"
)


@pytest.fixture
def ended(assembled):
    """A run with a vector, a matrix and a collection, watched by one entry of the collection."""
    run = assembled(*SMALL, CONFUSION, *RECALL, BOTH, "task.monitor=f1s/f1_macro")
    fit(run)
    return run


def test_vectors_matrices_and_collections_are_logged_kept_and_right(ended):
    net, source = ended.module.net.eval(), ended.data.splits.val
    with torch.no_grad():
        found, true = net(source.inputs).argmax(1).numpy(), source.targets.numpy()
    last = read_validations(ended.folder)[-1]
    assert last["arrays"]["val/confusion"] == confusion_matrix(true, found, labels=range(10)).tolist()
    recalls = [last[f"val/recall/{i}"] for i in range(10)]
    assert recalls == pytest.approx(recall_score(true, found, average=None, labels=range(10), zero_division=0))
    for average in ("micro", "macro"):
        expected = f1_score(true, found, average=average, zero_division=0)
        assert last[f"val/f1s/f1_{average}"] == pytest.approx(expected, rel=1e-6)
    best = ended.checkpointing.best
    assert ended.checkpointing.mode == "max"
    assert best["value"] == max(line["val/f1s/f1_macro"] for line in read_validations(ended.folder))
    assert torch.tensor(best["arrays"]["val/confusion"]).sum() == len(true)
    for logger in ended.trainer.loggers:
        logger.save()
    events = EventAccumulator(str(ended.folder), size_guidance={"scalars": 0}).Reload()
    assert [point.value for point in events.Scalars("val/recall/3")] == pytest.approx(
        [line["val/recall/3"] for line in read_validations(ended.folder)]
    )
    assert [image.step for image in events.Images("val/confusion")] == [5, 11]


def test_scores_of_the_test_and_their_directions_are_in_the_result(ended, capsys):
    from trainer.config.run_summary import write_result

    outcome = {"status": "completed", "test": evaluate(ended)}
    write_result(ended, outcome, 1.0)
    result = json.loads((ended.folder / "result.json").read_text())
    assert sorted(result["arrays"]) == ["test/confusion", "val/confusion"]
    assert "arrays" not in result["best"]
    assert {"loss": "min", "f1s/f1_macro": "max", "recall/0": "max"}.items() <= {
        name.partition("/")[2]: better for name, better in result["directions"].items()
    }.items()
    assert "recall" not in capsys.readouterr().out, "ten numbers fit no line"


def test_the_task_of_the_page_scores_what_it_says(assembled, tmp_path):
    (code,) = re.findall(r"```yaml\n(.*?)```", section("steps.md", "Metrics"), re.DOTALL)
    (tmp_path / "conf" / "task").mkdir(parents=True)
    (tmp_path / "conf" / "task" / "balanced.yaml").write_text(code)
    run = assembled(*SMALL, f"hydra.searchpath=[file://{tmp_path}/conf]", "task=balanced", "logger=none")
    fit(run)
    scores = read_validations(run.folder)[-1]
    vector = {f"val/recall/{i}" for i in range(10)}
    assert scores.keys() == vector | {"update", "val/loss", "val/accuracy", "val/both/f1", "val/both/kappa", "arrays"}
    assert run.checkpointing.monitor == "val/both/f1"
    assert run.checkpointing.mode == "max"


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_the_batch_that_is_scored_first_changes_no_bit_of_the_training(assembled, monkeypatch, norm):
    words = (*SMALL, CONFUSION, *RECALL, BOTH, f"model.norm={norm}", "model.dropout=0.2", "logger=none")
    ends = []
    for rehearsed in (True, False):
        if not rehearsed:
            monkeypatch.setattr("trainer.engine.module.rehearse", lambda trainer, module: None)
        run = assembled(*words, folder=f"run{rehearsed}")
        fit(run)
        ends.append((run.module.state_dict(), torch.get_rng_state(), read_validations(run.folder)))
    assert all(torch.equal(value, ends[1][0][name]) for name, value in ends[0][0].items())
    assert torch.equal(ends[0][1], ends[1][1])
    assert ends[0][2] == ends[1][2]


class Counts(nn.Module):
    """A net that keeps things at each forward pass, as some nets cache what they have computed."""

    def __init__(self, in_features: int, classes: int, **ignored: object) -> None:
        super().__init__()
        self.layer, self.calls, self.seen = nn.Linear(in_features, classes), 0, []
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, inputs):
        if not hasattr(self, "cache"):
            self.cache = torch.full((), float(len(inputs)))
        self.calls += 1
        self.seen.append(len(inputs))
        self.passes += 1
        return self.layer(inputs.flatten(1)) + 0 * self.cache


def test_what_a_net_has_kept_of_the_first_scored_batch_is_forgotten(assembled):
    run = assembled(*SMALL, "model._target_=tests.engine.test_metrics.Counts", "allow=[tests]", "logger=none")
    states = []
    step = run.module._modules.pop("step")
    run.module.step = lambda net, batch, *, t: (
        states.append((net.training, net.calls, list(net.seen), net.passes.item(), hasattr(net, "cache"))),
        step(net, batch, t=t),
    )[1]
    fit(run)
    assert states[0] == (False, 0, [], 0.0, False)
    assert states[1] == (True, 0, [], 0.0, False)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            (f"+task.metrics.top._target_={F}.MulticlassAccuracy", "+task.metrics.top.num_classes=5"),
            "num_classes=5, but",
        ),
        (
            ("+task.metrics.m._target_=torchmetrics.regression.MeanSquaredError",),
            "task.metrics.m: Predictions and targ",
        ),
        (
            ("task=regression",),
            "a val batch cannot be scored, before the first update: Using a target size",
        ),
        (
            ("task=language_modelling",),
            "a val batch cannot be scored, before the first update: For 1D input, 1D target must",
        ),
        (
            ("task.monitor=recall", *RECALL),
            "task.monitor=val/recall is 10 numbers, and one must decide: .* val/recall/0",
        ),
        (("task.monitor=confusion", "task.mode=max", CONFUSION), "task.monitor=val/confusion is no single number"),
        (("task.monitor=confusion", CONFUSION), "does not say whether higher is better: give task.mode=min or"),
        (
            ("task.monitor=recall/x", *RECALL),
            "task.monitor=val/recall/x is not computed: choose one of val/loss, val/acc",
        ),
        (("task.monitor=accuracy", "task.mode=min"), "task.mode=min with .* of which higher is better: set max"),
        (("task.mode=max",), "task.mode=max with task.monitor=loss, of which lower is better: set min"),
        (("plateau=count", "plateau.monitor=val/accuracy"), "PlateauControl.mode=min with .*val/accuracy, of which hi"),
        (
            (
                *("callbacks=early_stopping", "callbacks.early_stopping.monitor=val/accuracy"),
                "callbacks.early_stopping.mode=min",
            ),
            "EarlyStopping.mode=min with EarlyStopping.monitor=val/accuracy, of which higher",
        ),
        ((f"+task.metrics.roc._target_={F}.MulticlassROC",), "give its metric fixed ones, thresholds=100"),
        (("+task.metrics.loss._target_=torchmetrics.MeanMetric",), "task.metrics.loss: loss is the name of a loss"),
    ],
)
def test_what_cannot_be_scored_or_watched_is_refused_before_the_first_update(assembled, words, told):
    run = None

    def train():
        nonlocal run
        run = assembled(*SMALL, *words)
        fit(run)

    with pytest.raises(ConfigError, match=told):
        train()
    assert run is None or run.module.clock.t == 0


def test_a_callback_that_would_watch_nothing_is_refused(assembled):
    run = assembled(*SMALL, "callbacks=early_stopping")
    run.data._splits = run.data.splits._replace(val=None)
    with pytest.raises(ConfigError, match="EarlyStopping.monitor=val/loss, but the run never validates: leave it out"):
        fit(run)
    assert run.module.clock.t == 0


def test_without_validation_data_the_test_data_is_scored_first(assembled):
    run = assembled(*SMALL, "+task.metrics.m._target_=torchmetrics.regression.MeanSquaredError")
    run.data._splits = run.data.splits._replace(val=None)
    with pytest.raises(ConfigError, match="task.metrics.m: Predictions"):
        fit(run)
    assert run.module.clock.t == 0


def test_an_error_in_the_code_of_a_user_keeps_its_traceback(assembled):
    run = assembled(*SMALL)
    del run.module.step
    run.module.step = lambda net, batch, *, t: StepOutput(net(batch[0]).mean(), outputs={}["logits"])
    with pytest.raises(KeyError, match="logits"):
        fit(run)


def test_metrics_are_given_the_numbers_of_the_data():
    shape = {"in_features": 3, "classes": 4}

    def filled(shape=shape, **metrics):
        return with_shape({"metrics": metrics}, shape, [])["metrics"]

    f1 = {"_target_": f"{F}.MulticlassF1Score"}
    assert filled(f1=f1)["f1"]["num_classes"] == 4
    assert filled(f1={**f1, "num_classes": 4})["f1"]["num_classes"] == 4
    assert filled({"vocab_size": 7}, f1=f1)["f1"]["num_classes"] == 7
    assert filled({"classes": 1}, f1=f1)["f1"] == filled({}, f1=f1)["f1"] == f1
    assert filled(a={"_target_": "torchmetrics.Accuracy"})["a"]["task"] == "multiclass"
    labels = filled({"labels": 3}, a={"_target_": "torchmetrics.Accuracy"})["a"]
    assert (labels["task"], labels["num_labels"]) == ("multilabel", 3)
    both = filled(c={"_target_": "torchmetrics.MetricCollection", "metrics": [f1, f1]})["c"]["metrics"]
    assert [one["num_classes"] for one in both] == [4, 4]
    heads = {"_target_": "torchmetrics.wrappers.MultitaskWrapper", "task_metrics": {"a": {**f1, "num_classes": 9}}}
    assert filled(heads=heads)["heads"] == heads
    with pytest.raises(ConfigError, match="task.metrics.c.metrics.0.num_classes=3, but the data has classes=4: leave"):
        filled(c={"_target_": "torchmetrics.MetricCollection", "metrics": [{**f1, "num_classes": 3}]})


def test_classes_have_their_names_where_the_data_gives_them():
    names = ("cat", "dog", "cow")
    metrics = {"f1": MulticlassF1Score(3, average="none"), "m": MulticlassConfusionMatrix(3)}
    scores = Scores(Task(nn.CrossEntropyLoss(), metrics, class_names=names))
    batch = torch.eye(3), torch.tensor([0, 1, 1])
    scores.update(StepOutput(torch.tensor(1.0), None, outputs=batch[0], targets=batch[1]), batch)
    assert scores.compute() == pytest.approx({"loss": 1.0, "f1/cat": 1.0, "f1/dog": 2 / 3, "f1/cow": 0.0})
    assert scores.arrays == {"m": [[1, 0, 0], [0, 1, 1], [0, 0, 0]]}


def test_numbers_of_every_shape_have_a_name():
    named = dict(numbers_by_name("a", {"b": torch.tensor(1.0), "c": torch.arange(2), "d": torch.zeros(2, 1, 2)}))
    assert named == {"a/b": 1.0, "a/c/0": 0, "a/c/1": 1, "a/d/0": [[0.0, 0.0]], "a/d/1": [[0.0, 0.0]]}
    roc = MulticlassROC(3, thresholds=5)
    roc.update(torch.eye(3), torch.arange(3))
    assert [len(numbers) for _, numbers in numbers_by_name("roc", roc.compute())] == [3, 3, 5]
    with pytest.raises(ConfigError, match="task.metrics.a gives a str"):
        list(numbers_by_name("a", "text"))


def test_names_that_meet_are_refused():
    metrics = {"f": MetricCollection({"1": MulticlassF1Score(2)}), "f/1": MulticlassF1Score(2)}
    scores = Scores(Task(nn.CrossEntropyLoss(), metrics))
    batch = torch.eye(2), torch.arange(2)
    scores.update(StepOutput(torch.tensor(1.0), None, outputs=batch[0], targets=batch[1]), batch)
    with pytest.raises(ConfigError, match="task.metrics.f/1 gives f/1, which there is already"):
        scores.compute()


def test_the_direction_of_what_a_wrapper_holds_is_found():
    from torchmetrics.regression import MeanSquaredError
    from torchmetrics.wrappers import MultitaskWrapper

    heads = MultitaskWrapper({"kind": MetricCollection([MulticlassF1Score(3)]), "size": MeanSquaredError()})
    assert direction(heads, "kind/MulticlassF1Score") == "max"
    assert direction(heads, "size") == "min"
    assert direction(heads) is None
    assert direction(ClasswiseWrapper(MulticlassF1Score(3, average=None)), "multiclassf1score_0") == "max"


def test_a_search_goes_in_the_direction_of_its_metric():
    task = {
        "monitor": "f1",
        "mode": None,
        "metrics": {"f1": {"_target_": f"{F}.MulticlassF1Score"}, "c": {"_target_": f"{F}.MulticlassConfusionMatrix"}},
    }
    assert objectives(None, None, task) == (["val/f1"], ["max"])
    assert objectives(["test/f1", "val/loss"], ["max", "min"], task) == (["test/f1", "val/loss"], ["max", "min"])
    with pytest.raises(ConfigError, match="direction=min, but the better val/f1 is the maximum: change it"):
        objectives(None, "min", task)
    with pytest.raises(ConfigError, match="val/c has no known direction"):
        objectives("val/c", None, task)


def test_a_matrix_is_drawn_with_its_largest_share_darkest():
    from PIL import Image

    image = np.asarray(Image.open(io.BytesIO(matrix_picture([[9, 1], [0, 250]]))))
    assert image.shape == (64, 64, 3)
    corners = [image[y, x].tolist() for y in (0, 32) for x in (0, 32)]
    assert corners[3] == [8, 48, 107], "all of its row"
    assert corners[2] == [255, 255, 255]
    assert corners[0][0] < corners[1][0]
    assert (image[:32, 32:] == 0).all(axis=2).any(), "its number is in it"
    assert np.asarray(Image.open(io.BytesIO(matrix_picture([[0.5, -0.25], [float("nan"), 1.0]])))).shape == (64, 64, 3)
    assert np.asarray(Image.open(io.BytesIO(matrix_picture([[1.5] * 900] * 2)))).shape == (2, 900, 3)
    assert matrix_picture([1.0, 2.0]) is None


def test_a_line_shows_few_entries_of_a_metric():
    many = {"val/loss": 1.0, **{f"val/f1/{i}": 0.0 for i in range(9)}, "val/few/a": 1.0}
    assert list(main_scores(many)) == ["val/loss", "val/few/a"]
