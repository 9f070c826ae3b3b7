"""Starting from weights: every kind of file, names that fit or do not, tied weights, precisions, resume."""

import json

import pytest
import torch
from torch import nn

from models.gpt import GPT
from models.mlp import MLP
from trainer.checkpoint.io import checkpoint_path, read
from trainer.checkpoint.weights import load_weights, read_weights
from trainer.config.run_summary import format_run, summary_of_run
from trainer.lr import ConfigError
from trainer.run import fit

safetensors = pytest.importorskip("safetensors.torch")
SMALL = (
    *("model.hidden=[8]", "data=synthetic", "data.samples=64", "data.batch_size=8", "data.val_samples=16"),
    *("logger=none", "trainer.duration=20", "trainer.validate=10", "trainer.keep=0", "lint.ignore=[unreached]"),
)


def donor(hidden=(3,), seed=7):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MLP(4, 2, hidden)


def state(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def sharded(folder, weights):
    """A folder as Hugging Face writes it: shards, and an index."""
    names = list(weights)
    parts = {"model-1.safetensors": names[:2], "model-2.safetensors": names[2:]}
    for file, inside in parts.items():
        safetensors.save_file({name: weights[name] for name in inside}, folder / file)
    index = {"weight_map": {name: file for file, inside in parts.items() for name in inside}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


KINDS = {
    "state_dict": lambda folder, weights: torch.save(weights, folder / "w.pt") or folder / "w.pt",
    "old_zip": lambda folder, weights: (
        torch.save(weights, folder / "w.pth", _use_new_zipfile_serialization=False) or folder / "w.pth"
    ),
    "nested": lambda folder, weights: torch.save({"model": weights, "epoch": 3}, folder / "w.pt") or folder / "w.pt",
    "safetensors": lambda folder, weights: (
        safetensors.save_file(weights, folder / "w.safetensors") or folder / "w.safetensors"
    ),
    "folder": lambda folder, weights: safetensors.save_file(weights, folder / "model.safetensors") or folder,
    "shards": sharded,
    "lightning": lambda folder, weights: (
        torch.save(
            {
                "state_dict": {f"model.{name}": value for name, value in weights.items()},
                "pytorch-lightning_version": "2",
            },
            folder / "l.ckpt",
        )
        or folder / "l.ckpt"
    ),
    "compiled": lambda folder, weights: (
        torch.save({f"module._orig_mod.{name}": value for name, value in weights.items()}, folder / "c.pt")
        or folder / "c.pt"
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_file_gives_its_weights_to_the_bit(tmp_path, kind):
    weights, net = state(donor()), donor(seed=1)
    loaded = load_weights(net, str(KINDS[kind](tmp_path, weights)), {}, strict=True)
    assert same(state(net), weights)
    assert (loaded.tensors, loaded.missing, loaded.left_over) == (4, [], [])
    assert loaded.prefix == {"lightning": "model.", "compiled": "module._orig_mod."}.get(kind, "")


def test_the_best_checkpoint_of_a_run_gives_the_averaged_weights_that_were_scored(assembled):
    first = assembled(*SMALL, "average=ema", folder="first")
    fit(first)
    scored = first.checkpointing.best_checkpoint()["state_dict"]
    newest = checkpoint_path(first.folder / "checkpoints", 20)
    trained = {name[4:]: value for name, value in read(newest)["state_dict"].items() if name.startswith("net.")}
    assert not torch.equal(scored["net.layers.1.weight"], trained["layers.1.weight"]), "the average is another"
    second = assembled(*SMALL, f"init.path={first.folder}", folder="second")
    for name, value in second.module.net.state_dict().items():
        assert torch.equal(value, scored[f"net.{name}"])
    rows = dict(format_run(summary_of_run(second.resolved)))
    assert rows["weights"] == f"4 tensors from {first.folder}"
    training = assembled(*SMALL, f"init.path={newest}", folder="third")
    assert same(state(training.module.net), trained)


# Names.


def test_starts_of_names_are_renamed_and_left_out(tmp_path):
    weights = {f"encoder.{name}": value for name, value in state(donor()).items()} | {"fc.weight": torch.ones(5, 5)}
    torch.save(weights, tmp_path / "w.pt")
    net = nn.ModuleDict({"body": donor(seed=1)})
    loaded = load_weights(net, str(tmp_path / "w.pt"), {"encoder": "body", "fc": None}, strict=True)
    assert same(state(net["body"]), state(donor()))
    assert loaded.tensors == 4
    torch.save(state(donor()), tmp_path / "plain.pt")
    load_weights(net := nn.ModuleDict({"body": donor(seed=2)}), str(tmp_path / "plain.pt"), {"": "body"}, strict=True)
    assert same(state(net["body"]), state(donor()))
    with pytest.raises(ConfigError, match=r"init\.rename: no name in .* begins with decoder: it has 5: encoder"):
        load_weights(net, str(tmp_path / "w.pt"), {"decoder": "body"}, strict=True)
    with pytest.raises(ConfigError, match="gives two tensors .* the name x"):
        load_weights(net, str(tmp_path / "plain.pt"), {"layers.1.weight": "x", "layers.1.bias": "x"}, strict=True)


def test_what_is_missing_and_left_over_is_refused_or_told(tmp_path):
    weights = state(donor())
    weights["extra.weight"] = weights.pop("layers.1.bias")
    torch.save(weights, tmp_path / "w.pt")
    net = donor(seed=1)
    before = state(net)
    with pytest.raises(
        ConfigError, match=r"missing in the file: 1: layers\.1\.bias; left over in it: 1: extra\.weight"
    ):
        load_weights(net, str(tmp_path / "w.pt"), {}, strict=True)
    assert same(state(net), before), "a refusal loads nothing"
    loaded = load_weights(net, str(tmp_path / "w.pt"), {}, strict=False)
    assert torch.equal(net.layers[1].bias, before["layers.1.bias"])
    assert [text for _, text in loaded.table()] == [
        f"3 tensors from {tmp_path / 'w.pt'}",
        "missing in the file, so as initialised: 1: layers.1.bias",
        "left over in the file: 1: extra.weight",
    ]


def test_tied_weights_count_as_there_and_may_not_have_two_values(tmp_path):
    make = lambda: GPT(7, 4, layers=1, heads=1, width=4)  # noqa: E731
    weights = state(make())
    once = {name: value for name, value in weights.items() if name != "head.weight"}
    safetensors.save_file(once, tmp_path / "once.safetensors")
    net = make()
    loaded = load_weights(net, str(tmp_path / "once.safetensors"), {}, strict=True)
    assert loaded.missing == []
    assert net.head.weight is net.tokens.weight
    assert torch.equal(net.head.weight, weights["head.weight"])
    torch.save({**weights, "head.weight": weights["head.weight"] + 1}, tmp_path / "two.pt")
    with pytest.raises(ConfigError, match=r"tokens\.weight and head\.weight are one tensor in the model and two"):
        load_weights(make(), str(tmp_path / "two.pt"), {}, strict=True)


# What is refused.


def other_shape(folder):
    torch.save(state(MLP(4, 3, (3,))), folder / "w.pt")
    return folder / "w.pt"


def quantised(folder):
    torch.save({name: value.to(torch.int8) for name, value in state(donor()).items()}, folder / "w.pt")
    return folder / "w.pt"


def whole_module(folder):
    torch.save(donor(), folder / "w.pt")
    return folder / "w.pt"


def numbers(folder):
    torch.save({"epoch": 3, "loss": 0.5}, folder / "w.pt")
    return folder / "w.pt"


def foreign(folder):
    torch.save({"a": torch.ones(2)}, folder / "w.pt")
    return folder / "w.pt"


def text(folder):
    (folder / "w.safetensors").write_text("no weights")
    return folder / "w.safetensors"


def lacking_shard(folder):
    (sharded(folder, state(donor())) / "model-2.safetensors").unlink()
    return folder


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            other_shape,
            r"layers\.4\.weight and 1 more has shape \[3, 3\] in the file and \[2, 3\] in the model: leave it out with "
            r"init\.rename=\{layers\.4: null\} init\.strict=false",
        ),
        (quantised, "torch.int8 in the file and torch.float32 in the model"),
        (whole_module, "holds more than plain weights"),
        (numbers, "holds a dict of 2: epoch, loss, no weights by name"),
        (foreign, r"no tensor fits\. The file has 1: a, and the model 4: layers"),
        (text, "cannot be read"),
        (lacking_shard, r"names model-2\.safetensors, which is not beside it"),
        (lambda folder: folder, "holds none of checkpoints/best.ckpt"),
        (lambda folder: folder / "nowhere.pt", "does not exist"),
    ],
)
def test_what_gives_no_weights_is_refused_in_one_line(tmp_path, make, told):
    with pytest.raises(ConfigError, match=told) as refused:
        load_weights(MLP(4, 2, (3,)), str(make(tmp_path)), {}, strict=True)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("prefix", "rename", "start"),
    [("", {"fc": "layers.4"}, "fc"), ("", {"": "layers"}, "4"), ("model.", {}, "model.layers.4")],
)
def test_a_tensor_of_another_shape_is_left_out_by_its_name_in_the_file(tmp_path, prefix, rename, start):
    back = {new: old for old, new in rename.items()}
    given = state(MLP(4, 3, (3,)))
    for new, old in back.items():
        given = {
            f"{old}.{n.removeprefix(f'{new}.')}".strip(".") if f"{n}.".startswith(f"{new}.") else n: v
            for n, v in given.items()
        }
    torch.save({f"{prefix}{name}": value for name, value in given.items()}, tmp_path / "w.pt")
    with pytest.raises(ConfigError, match="leave it out with") as refused:
        load_weights(MLP(4, 2, (3,)), str(tmp_path / "w.pt"), rename, strict=False)
    assert f"init.rename={{{start}: null}}" in str(refused.value)
    rest = {old: new for old, new in rename.items() if old != start}
    loaded = load_weights(MLP(4, 2, (3,)), str(tmp_path / "w.pt"), {start: None, **rest}, strict=False)
    assert loaded.missing == ["layers.4.weight", "layers.4.bias"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("init.strict=1",), r"init\.strict=1"),
        (("init.path=3",), r"init\.path=3 is not a path"),
        (("init.rename=[a]",), r"init\.rename=\['a'\] does not map names"),
        (("init.rename={a:[1]}",), r"init\.rename=\{'a': \[1\]\} does not map names"),
        (("+init.pth=x",), r"init\.pth is not known: did you mean path"),
        (("freeze=body.*",), r"freeze=body\.\* is not a list"),
        (("freeze=[nothing.*]",), r"freeze: 'nothing\.\*' fits no parameter of MLP"),
        (("freeze=['*']",), r"freeze=\['\*'\] leaves nothing to train"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line(assembled, words, told):
    with pytest.raises(ConfigError, match=told):
        assembled(*SMALL, *words)


# Precisions and resume.


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "32-true"])
def test_weights_keep_the_precision_of_the_run(assembled, tmp_path, precision):
    own = state(assembled(*SMALL, folder="own").module.net)
    fine = {name: torch.rand_like(value, dtype=torch.float64) for name, value in own.items()}
    torch.save(fine, tmp_path / "fine.pt")
    run = assembled(*SMALL, f"init.path={tmp_path / 'fine.pt'}", f"trainer.precision={precision}")
    run.trainer.precision_plugin.convert_module(run.module)
    kind = {"64-true": torch.float64, "bf16-true": torch.bfloat16, "32-true": torch.float32}[precision]
    for name, value in run.module.net.state_dict().items():
        assert value.dtype == kind
        through = fine[name] if precision == "64-true" else fine[name].float()
        assert torch.equal(value, through.to(kind))


def test_a_resumed_run_takes_the_weights_of_its_checkpoint_and_names_another_init(assembled, tmp_path, capsys):
    torch.save({name: value + 1 for name, value in state(assembled(*SMALL).module.net).items()}, tmp_path / "w.pt")
    words = (*SMALL, f"init.path={tmp_path / 'w.pt'}")
    whole = assembled(*words, folder="whole")
    fit(whole)
    half = checkpoint_path(whole.folder / "checkpoints", 10)
    (tmp_path / "w.pt").unlink()
    resumed = assembled(*words, "init.strict=false", folder="resumed", resumed=half)
    fit(resumed)
    assert same(state(resumed.module.net), state(whole.module.net))
    said = capsys.readouterr().err
    assert "init.strict=False (before: True) is not read, the weights come from the checkpoint" in said


def test_reading_runs_no_code_of_the_file(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "written"), "w"))

    torch.save({"a": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ConfigError, match="holds more than plain weights"):
        read_weights(tmp_path / "evil.pt")
    assert not (tmp_path / "written").exists()
