"""A loaded run predicts and scores as it did in training, and refuses what it cannot do in one line."""

import json
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset, TensorDataset

from trainer import run as whole_run
from trainer.checkpoint.io import BEST, AtomicCheckpointIO, read
from trainer.cli.command import COMMAND
from trainer.config.settings import settings_of
from trainer.engine.step import StepOutput
from trainer.lr import ConfigError
from trainer.tools.trained.loading import load

SYNTHETIC = (
    *("data=synthetic", "data.samples=128", "data.val_samples=40", "data.test_samples=56", "data.batch_size=16"),
    *("model.hidden=[8]", "trainer.duration=16", "trainer.validate=4", "optimizer.lr=0.05", "data.eval_batch_size=24"),
)
REGRESSION = ("data=synthetic_regression", "task=regression", "model.hidden=[8]", "trainer.duration=16", "logger=none")


@pytest.fixture
def train(compose, tmp_path):
    """Train a run by its overrides, as the command does; its folder."""

    def make(*overrides, name="run"):
        whole_run.run_in(
            tmp_path / name, settings_of(compose(*overrides, "trainer.checkpoint=16")), list(overrides), COMMAND
        )
        return tmp_path / name

    return make


@pytest.mark.parametrize(
    "words",
    [
        SYNTHETIC,
        (*SYNTHETIC, "task.loss.label_smoothing=0.1", "task.loss.weight=[1,2,3,4,5,6,7,8,9,10]"),
        (*SYNTHETIC, "+task.loss.ignore_index=3"),
        (*SYNTHETIC, "trainer.precision=64-true"),
        (*SYNTHETIC, "trainer.precision=bf16-mixed"),
        (*SYNTHETIC, "average=ema", "model.norm=batch"),
        (*SYNTHETIC, "+task.metrics.f1={_target_: torchmetrics.classification.MulticlassF1Score, average: none}"),
        REGRESSION,
    ],
    ids=[
        "plain",
        "class weights",
        "ignored class",
        "float64",
        "bfloat16",
        "averaged",
        "a score by class",
        "regression",
    ],
)
def test_its_test_is_that_of_the_result_and_its_predictions_those_that_were_scored(train, monkeypatch, words):
    seen, evaluate = [], whole_run.evaluate

    def watched(parts):
        parts.module.net.register_forward_hook(lambda net, inputs, outputs: seen.append(outputs.clone()))
        return evaluate(parts)

    monkeypatch.setattr(whole_run, "evaluate", watched)
    run = load(train(*words))
    recorded = run.result
    assert run.test() == run.test("test") == recorded["test"]
    scores = {name.removeprefix("val/"): value for name, value in recorded["best"]["scores"].items()}
    assert run.test("val") == scores
    outputs = run.predict("test")
    assert torch.equal(outputs, torch.cat([one.float() if one.dtype == torch.bfloat16 else one for one in seen]))
    assert not outputs.requires_grad
    assert not run.net.training
    saved = read(run.folder / "checkpoints" / BEST)["state_dict"]
    assert all(torch.equal(value, saved[f"net.{name}"]) for name, value in run.net.state_dict().items())


class Pairs(Dataset):
    def __init__(self, inputs, targets):
        self.inputs, self.targets = inputs, targets

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        return self.inputs[index], self.targets[index]


def test_the_same_samples_in_any_form_give_the_same_outputs_and_scores(train):
    run = load(train(*SYNTHETIC))
    inputs, targets = map(torch.cat, zip(*run.data.test_dataloader()))
    pairs, expected = Pairs(inputs, targets), run.predict("test")
    forms = {
        "inputs": inputs,
        "a pair": (inputs, targets),
        "a data set": pairs,
        "a loader of pairs": DataLoader(pairs, batch_size=11),
        "a loader of inputs": DataLoader(TensorDataset(inputs), batch_size=11),
        "a list of batches": [(inputs[:30], targets[:30]), (inputs[30:], targets[30:])],
        "a generator": (inputs[i : i + 7] for i in range(0, 56, 7)),
        "a data module": run.data,
    }
    for name, form in forms.items():
        assert torch.allclose(run.predict(form), expected, atol=1e-6), name
    assert torch.allclose(run.predict(inputs, batch_size=5), expected, atol=1e-6)
    for name in ("a pair", "a data set", "a loader of pairs", "a list of batches", "a data module"):
        assert run.test(forms[name]) == pytest.approx(run.result["test"], rel=1e-5), name
        assert run.test() == run.result["test"], name
    assert run.predict("train").shape == (128, 10)
    assert run.test("train").keys() == {"loss", "accuracy"}


def test_a_pair_of_unequal_parts_is_not_cut_short(train):
    run = load(train(*SYNTHETIC))
    inputs = next(iter(run.data.test_dataloader()))[0]
    for data in ([inputs[:3], inputs[3:8]], (inputs[:3], torch.zeros(2))):
        with pytest.raises(
            ConfigError, match="with tensors of 3, [25] rows, which is no pair .* give several batches one"
        ):
            run.predict(data)
    with pytest.raises(ConfigError, match="data is a list with 3 parts, which is no pair"):
        run.predict([inputs, inputs, inputs])
    assert torch.equal(run.predict(iter([inputs[:3], inputs[3:8]])), run.predict(inputs[:8]))


class ForPredictions(LightningDataModule):
    def __init__(self, inputs):
        super().__init__()
        self.inputs = inputs

    def setup(self, stage):
        self.stage = stage

    def test_dataloader(self):
        pytest.fail("these are other samples")

    def predict_dataloader(self):
        assert self.stage == "predict"
        return DataLoader(TensorDataset(self.inputs), batch_size=5)


def test_predictions_are_for_the_samples_that_a_data_module_names_and_in_their_order(train):
    run = load(train(*SYNTHETIC))
    inputs = next(iter(run.data.test_dataloader()))[0]
    assert torch.allclose(run.predict(ForPredictions(inputs)), run.predict(inputs), atol=1e-6)
    with pytest.raises(ConfigError, match="the DataLoader shuffles, .* set shuffle=False"):
        run.predict(DataLoader(TensorDataset(inputs), batch_size=5, shuffle=True))


def test_scores_of_uneven_batches_are_means_over_their_weights(train):
    run = load(train(*SYNTHETIC, "task.loss.weight=[1,2,3,4,5,6,7,8,9,10]", "task.loss.label_smoothing=0"))
    inputs, targets = map(torch.cat, zip(*run.data.test_dataloader()))
    weight = torch.arange(1.0, 11.0)
    with torch.no_grad():
        right = torch.nn.functional.cross_entropy(run.net(inputs).double(), targets, weight.double()).item()
    for size in (1, 9, 56):
        assert run.test((inputs, targets), batch_size=size)["loss"] == pytest.approx(right, rel=1e-6)


def test_the_last_weights_are_those_of_the_last_checkpoint_and_the_history_is_the_log(train):
    folder = train(*SYNTHETIC)
    run = load(folder, "last")
    saved = read(folder / "checkpoints" / "update-00000016.ckpt")["state_dict"]
    assert run.updates == 16
    assert all(torch.equal(value, saved[f"net.{name}"]) for name, value in run.net.state_dict().items())
    assert load(folder / "checkpoints" / "update-00000016.ckpt").updates == 16
    history = run.history
    assert history.updates == list(range(16))
    assert list(history.lrs) == ["decay", "no_decay"]
    assert len(history.losses) == len(history.lrs["decay"]) == 16
    assert [one["update"] for one in history.validations] == [4, 8, 12, 16]
    assert run.config.optimizer.lr == 0.05
    assert run.folder == folder


def test_loading_neither_reads_the_data_nor_moves_the_generator(train, monkeypatch):
    run = load(train(*SYNTHETIC))
    monkeypatch.setattr("trainer.tools.trained.loading.read_data", None)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    in_features = run._saved["shape"]["in_features"]
    assert run.predict(torch.zeros(3, in_features)).shape == (3, 10)
    assert torch.equal(torch.get_rng_state(), before)


class Named(torch.nn.Linear):
    """A net that takes its inputs by name and gives its own loss, as those of transformers do."""

    def forward(self, x, labels=None):
        logits = super().forward(x)
        loss = None if labels is None else torch.nn.functional.cross_entropy(logits, labels)
        return SimpleNamespace(logits=logits, loss=loss)


def test_outputs_come_from_the_step_of_the_run():
    from trainer.engine.step import ModelStep, PairStep
    from trainer.tools.trained.prediction import joined, outputs_of

    net, named, x = torch.nn.Linear(2, 2), Named(2, 2), torch.randn(3, 2)
    pair, by_name = PairStep(torch.nn.CrossEntropyLoss()), ModelStep()
    labels = torch.full((3,), -1)  # targets that are not known do not matter
    assert torch.equal(outputs_of(net, pair, (x, labels), 0), net(x))
    for batch in ({"x": x}, {"x": x, "labels": labels.abs()}):
        assert torch.equal(outputs_of(named, by_name, batch, 0), named(x).logits)

    def own(net, batch, *, t):
        return StepOutput(x.sum(), outputs={"twice": 2 * net(batch["x"]), "t": t})

    assert torch.equal(outputs_of(net, own, {"x": x}, 7)["twice"], 2 * net(x))
    assert torch.equal(outputs_of(net, own, x, 7), net(x))
    with pytest.raises(ConfigError, match=r"task.step gives no outputs"):
        outputs_of(net, lambda net, batch, t: StepOutput(x.sum()), {"x": x}, 0)
    both = joined([{"a": x, "b": (x[:1],)}, {"a": x, "b": (x[:2],)}])
    assert torch.equal(both["a"], torch.cat([x, x]))
    assert both["b"][0].shape == (3, 2)
    with pytest.raises(ConfigError, match=r"shapes \(2,\) and \(3,\)"):
        joined([torch.zeros(1, 2), torch.zeros(1, 3)])


def test_what_cannot_be_loaded_is_refused(train, tmp_path):
    folder = train(*SYNTHETIC)
    for ask, says in (
        (lambda: load(tmp_path / "nothing"), "there is no such folder"),
        (lambda: load(tmp_path), "has no best.ckpt"),
        (lambda: load(folder, "worst"), "which='worst' is not known: choose best or last"),
        (lambda: load(folder, device="tpuu").net, "device='tpuu'"),
        (lambda: load(folder).predict("testing"), "not a split: choose train, val, test"),
        (lambda: load(folder).predict(3), "data is a int"),
        (lambda: load(folder).predict([]), "no samples"),
        (lambda: load(folder).test([]), "no samples"),
    ):
        with pytest.raises(ConfigError, match=says):
            ask()
    if not torch.accelerator.is_available():
        with pytest.raises(ConfigError, match="device=cuda: this machine has none"):
            load(folder, device="cuda").net  # noqa: B018
    content = torch.load(folder / "checkpoints" / BEST, weights_only=True)
    content["cadence"]["config"]["model"]["hidden"] = [9]
    AtomicCheckpointIO().save_checkpoint(content, folder / "checkpoints" / BEST)
    with pytest.raises(ConfigError, match=r"net.* with shape \[8, 32\] where the net of its config now has \[9, 32\]"):
        load(folder).net  # noqa: B018
    (folder / "checkpoints" / BEST).write_bytes(b"nothing")
    with pytest.raises(ConfigError, match=r"checkpoint=.*best.ckpt is damaged"):
        load(folder)
    (folder / "checkpoints" / BEST).unlink()
    with pytest.raises(ConfigError, match="which=last"):
        load(folder)


def test_a_run_of_several_processes_is_loaded_in_one(train, tmp_path):
    folder = train(*SYNTHETIC)
    path = folder / "checkpoints" / BEST
    content = torch.load(path, weights_only=True)
    content["cadence"]["config"]["trainer"] |= {"devices": "torchrun", "nodes": "torchrun", "strategy": "fsdp"}
    AtomicCheckpointIO().save_checkpoint(content, path)
    assert load(folder).test() == json.loads((folder / "result.json").read_text())["test"]


@pytest.fixture
def trained(train):
    return load(train(*SYNTHETIC, "model.norm=batch", "model.dropout=0.3"))


def test_exported_weights_are_those_of_the_checkpoint(trained, tmp_path):
    from safetensors.torch import load_file

    saved = {name[4:]: value for name, value in read(trained.checkpoint)["state_dict"].items() if name[:4] == "net."}
    for path, reading in (("w.pt", lambda path: torch.load(path, weights_only=True)), ("w.safetensors", load_file)):
        assert trained.export(tmp_path / path) == tmp_path / path
        found = reading(tmp_path / path)
        assert found.keys() == saved.keys()
        assert all(torch.equal(found[name], value) for name, value in saved.items())


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_an_exported_program_gives_the_outputs_of_the_net_for_any_batch(trained, tmp_path, suffix):
    inputs = next(iter(trained.data.test_dataloader()))[0]
    if suffix == ".onnx":
        for package in ("onnx", "onnxscript"):
            pytest.importorskip(package)
        runtime = pytest.importorskip("onnxruntime")
    path = trained.export(tmp_path / f"net{suffix}")
    for batch in (inputs, inputs[:5], torch.cat([inputs, inputs])):
        if suffix == ".onnx":
            session = runtime.InferenceSession(path)
            (found,) = session.run(None, {session.get_inputs()[0].name: batch.numpy()})
            found = torch.from_numpy(found)
        else:
            found = torch.export.load(path).module()(batch)
        assert torch.allclose(found, trained.predict(batch), atol=1e-6)
    assert sorted(one.name for one in tmp_path.iterdir()) == [f"net{suffix}", "run"]


class Branching(torch.nn.Linear):
    """A net that `torch.export` cannot trace."""

    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else x


class Changing(torch.nn.Linear):
    """A net whose trace is not what it computes."""

    def forward(self, x):
        return super().forward(x) * (2.0 if torch.compiler.is_exporting() else 1.0)


@pytest.mark.parametrize(
    ("net", "says"),
    [(Branching(2, 2), "cannot be exported to .pt2"), (Changing(2, 2), "program differs from the net by")],
)
def test_a_program_that_is_not_the_net_is_refused_and_leaves_no_file(net, says, tmp_path):
    from trainer.tools.trained.exporting import export

    with pytest.raises(ConfigError, match=says):
        export(net.eval(), torch.randn(6, 2), tmp_path / "net.pt2")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_not_written_over_or_where_it_cannot_be(trained, tmp_path):
    path = trained.export(tmp_path / "w.pt")
    with pytest.raises(ConfigError, match=r"w.pt exists: name another file, or .*--force"):
        trained.export(path)
    assert trained.export(path, force=True) == path
    with pytest.raises(ConfigError, match=r"w.bin has no suffix of a format: choose one of .pt, .pth"):
        trained.export(tmp_path / "w.bin")
    with pytest.raises(ConfigError, match="there is no folder"):
        trained.export(tmp_path / "none" / "w.pt")


LIGHTNING = (
    *("task=lightning", "model=own", "allow=[tests]", "model._target_=tests.engine.lightning_modules.Classifier"),
    *("data=digits", "trainer.duration=12", "trainer.validate=6", "warmup=none", "schedule=constant"),
)


def test_a_lightning_module_is_tested_predicted_and_exported_as_it_is(train, tmp_path):
    run = load(train(*LIGHTNING), allow=["tests"])
    assert run.test() == run.result["test"]
    inputs, targets = map(torch.cat, zip(*run.data.test_dataloader()))
    with torch.no_grad():
        expected = run.net(inputs)
    assert torch.allclose(run.predict("test"), expected, atol=1e-6)
    assert torch.allclose(run.predict(inputs), expected, atol=1e-6)
    type(run.net).predict_step = lambda self, batch, batch_idx: self(batch[0]).argmax(1)
    try:
        assert torch.equal(run.predict("test"), expected.argmax(1))
    finally:
        del type(run.net).predict_step
    program = torch.export.load(run.export(tmp_path / "net.pt2")).module()
    assert torch.allclose(program(inputs), expected, atol=1e-6)
    assert torch.load(run.export(tmp_path / "net.pt")).keys() == run.net.state_dict().keys()


def test_a_split_at_random_is_that_of_the_run(train):
    own = "tests.data.own_sets"
    words = (
        "data=lightning",
        f"data.module={{_target_: {own}.SplitRows}}",
        "data.batch_size=8",
        "~task.metrics.accuracy",
    )
    step = f"+task.step={{_target_: {own}.row_step, _partial_: true}}"
    net = (f"model._target_={own}.Mixed", "model.hidden=[8]", "data.shape={classes: 3}", "~task.loss", step)
    folder = train(*words, *net, "task.monitor=loss", "task.mode=min", "trainer.duration=16", "allow=[tests]")
    torch.manual_seed(123)
    before, run = torch.get_rng_state(), load(folder, allow=["tests"])
    assert run.test() == run.result["test"]
    assert torch.equal(torch.get_rng_state(), before)


def test_other_rows_of_a_table_are_treated_as_those_of_the_run(train, tmp_path):
    def write(name, rows):
        (tmp_path / name).write_text("\n".join(["x,city,y", *rows]) + "\n")
        return f"data.path={tmp_path / name}"

    rows = [f"{x},{'ABC'[x % 3]},{'up' if x > 0 else 'down'}" for x in range(-40, 41)]
    words = ("data=table", write("own.csv", rows), "data.target=y", "data.batch_size=8", "model.hidden=[4]")
    run = load(train(*words, "trainer.duration=16"))
    own = {tuple(row.tolist()) for split in ("train", "val", "test") for row in getattr(run.data.splits, split).inputs}
    for some in (rows[50:], [row for row in rows if ",A," not in row], [*rows[50:], "50,D,up"]):
        inputs = run.other_data(
            write("other.csv", some), "data.val_fraction=0", "data.test_fraction=0"
        ).splits.train.inputs
        assert {tuple(row.tolist()) for row in inputs if row[1:].any()} <= own
        assert inputs.shape[1] == 4
    with pytest.raises(ConfigError, match="'high' is no class that the run was trained with"):
        run.other_data(write("other.csv", ["1,A,up", "2,A,high"] * 8))
    run.__dict__["_data_facts"] = SimpleNamespace(shape={}, class_names=["up", "down"])
    with pytest.raises(ConfigError, match="class down as label 0, and the run was trained with up there"):
        run.other_data(write("other.csv", rows))
