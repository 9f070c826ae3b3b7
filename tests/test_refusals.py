"""A user's mistake costs one line and exit code 2: no traceback, no file, no repair, no silence. Many are made here."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import hydra
import pytest
import torch
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from torch import Tensor
from torchmetrics import Metric

from cadence.train import train
from trainer.cli.hydra_internals import VERSION_BASE
from trainer.cli.run_cli import run_cli
from trainer.config.instantiate import fits

ROOT = Path(__file__).parent.parent
BASE = (
    *("trainer.duration=40", "trainer.validate=40", "trainer.threads=1", "trainer.accelerator=cpu"),
    *("callbacks=none", "data.batch_size=64", "model.hidden=[8]", "name=refused"),
)
GROUPS = ("data", "model", "task", "optimizer", "scaling", "warmup", "schedule", "trainer", "logger", "callbacks")
TEXT = "data=text model=gpt task=language_modelling data.context=16 model.width=16"
no_gpu = pytest.mark.skipif(torch.accelerator.is_available(), reason="this machine has a GPU")

MISSPELT = [
    ("sed=1", "sed=1: there is no key sed, did you mean seed?"),
    ("lr=1", "lr=1: the learning rate at its peak is optimizer.lr=1"),
    ("optimizer.lrr=1", "did you mean optimizer.lr?"),
    ("schedule.flor=1", "did you mean schedule.floor?"),
    ("warmup.duratio=1", "did you mean warmup.duration?"),
    ("task.loss.label_smooting=1", "did you mean task.loss.label_smoothing?"),
    ("callbacks.progress.refresh=1", "keys of callbacks: none"),
    ("+trainer.lightning.benchmrk=1", "did you mean benchmark?"),
    ("+task.loss.foo=1", "task.loss.foo is not known to CrossEntropyLoss"),
    ("+task.metrics.accuracy.foo=1", "task.metrics.accuracy: Unexpected keyword arguments: `foo`"),
    ("+task.metrics.foo=1", "'foo': 1"),
    ("+callbacks.foo.x=1", "callbacks.foo={'x': 1} names no class"),
    ("+callbacks.foo=null", "leave it out with ~callbacks.foo"),
    ("+foo.bar=1", "foo is not a key of the config"),
    ("+hydra.foo.bar=1", "hydra.foo.bar is not known to Hydra"),
    ("+hydra.job.naem=1", "did you mean name?"),
    ("~optimizer", "optimizer is not set"),
    ("~optimizer.lr", "optimizer.lr is not set"),
    ("~trainer.devices", "trainer.devices is not set"),
    ("~task.loss", "task.loss is not set"),
    ("~schedule._partial_", "schedule.horizon is not set, and cosine needs it: add _partial_: true"),
]
COMMANDS = [
    ("seed", "cannot read the override 'seed'"),
    ("seed=[1", "cannot read the override 'seed=[1'"),
    ("schedule=[a,b]", "schedule=[a,b]: schedule takes one option: give one, or compare them"),
    ("warmup=[linear,none]", "warmup=[linear,none]: warmup takes one option"),
    ("~task.loss +task.step.penalty=1", "task.step has no _target_: name its class or function"),
    ("~task.loss +task.step=steps.own", "task.step='steps.own' cannot be called: name a function"),
    ("experiment=mine", "for your own add --config-dir FOLDER"),
    ("seed=1,2", "seed=1,2 has several values: add -m for a sweep"),
    ("optimizer=null", "cannot choose callbacks=none name=refused optimizer=null"),
    ("optimizer=[1,2]", "optimizer=[1,2]"),
    ("seed=1 seed=2", "seed=1 and seed=2 set the same key"),
    ("optimizer=sgd optimizer=adam", "optimizer=sgd and optimizer=adam"),
    ("+data=digits", "data appears more than once"),
    ("--no-such-flag", "unrecognized arguments: --no-such-flag"),
    *((f"{flag}=file", "a run is not made again from a stored job") for flag in ("--experimental-rerun", "--exper")),
    ("optimizer.lr=${nope}", "optimizer.lr: Interpolation key 'nope' not found"),
    *((f"name={value}", f"name={value} cannot name the run's folder") for value in ("..", "")),
    ("allow=os", "allow=os is not a list"),
    ("warmup_mode=x", "warmup_mode='x'"),
    ("name=[1,2]", "name=[1, 2] cannot name the run's folder"),
    *((f"compat.ramp={value}", "compat.ramp=") for value in ("[]", "{}", "null")),
    *((f"compat.shift={value}", "compat.shift=") for value in ("[]", "{}", "null", "true", "0.5")),
    *((f"resume.policy={value}", "is not known: choose one of continue") for value in ("[]", "{}", "5")),
    ("hydra.run.dir=", "hydra.run.dir= is not a folder"),
    ("hydra.run.dir={inputs}/a_file/run", "{inputs}/a_file/run: Not a directory"),
    ("hydra/launcher=lsf -m seed=1,2", "hydra/launcher=lsf: no such option"),
    ("-m seed=1,2 hydra.launcher.jobs=0", "hydra.launcher.jobs=0"),
]
NUMBERS = [
    *((f"optimizer.lr={value}", "optimizer") for value in ("nan", "-1", "0", "1e39", "true", "abc", "")),
    *((f"optimizer.weight_decay={value}", "weight_decay") for value in ("inf", "-1", "true")),
    ("optimizer.betas=[0.9,0.99,0.999]", "optimizer.betas=[0.9, 0.99, 0.999]"),
    ("optimizer.betas=[0.9,nan]", "optimizer.betas.1=nan"),
    ("optimizer.fused=maybe", "optimizer.fused='maybe'"),
    *((f"optimizer=sgd optimizer.momentum={value}", "momentum") for value in ("nan", "1")),
    *((f"optimizer=momentum optimizer.dampening={value}", "dampening") for value in ("-0.5", "1.5")),
    ("trainer.timeout=1e20", "trainer.timeout=1e+20 is out of range"),
    ("trainer.max_time=90", "trainer.max_time=90 is not a time: write 11h30m, 90m, 3600s or 1d12h"),
    ("optimizer=sgd optimizer.nesterov=3", "optimizer.nesterov=3"),
    *((f"schedule.floor={value}", "floor") for value in ("-1", "2")),
    *((f"schedule=step schedule.gamma={value}", "gamma") for value in ("0", "2")),
    ("schedule=step schedule.every=1000", "lint unreached: the change of the schedule at update 1000 is never reached"),
    ("schedule=wsd schedule.decay=200%", "decay=200% is 80 updates, but the schedule has 40"),
    ("schedule=wsd schedule.shape=[1]", "schedule.shape=[1]"),
    ("warmup.duration=40", "the warm-up of 40 updates leaves none of the run of 40"),
    *((f"warmup.duration={value}", "duration") for value in ("-1", "null", "5epochs", "1.5")),
    ("warmup.duration='3 tokens'", "counts tokens, and this data has none"),
    *((f"trainer.duration={value}", "trainer.duration=") for value in ("0", "10%", "inf", "999999999")),
    ("trainer.validate=0", "trainer.validate=0"),
    *((f"trainer.checkpoint={value}", "trainer.checkpoint=") for value in ("0", "false")),
    *((f"data.batch_size={value}", "data.batch_size=") for value in ("0", "nan", "64.0", "true")),
    ("data.batch_size=100000", "the global batch of 100000 is larger than the 1257 training samples"),
    (f"data.batch_size=1{'0' * 400}", "data.batch_size=10000"),
    ("data.samples=1000", "data.samples=1000, but the data holds 1257"),
    ("data.tokens_per_sample=x trainer.duration='10 tokens'", "data.tokens_per_sample='x'"),
    *((f"trainer.accumulate={value}", "trainer.accumulate=") for value in ("0", "2.0", "null")),
    ("trainer.accumulate=100000", "the global batch of 6400000"),
    *((f"trainer.devices={value}", "trainer.devices=") for value in ("auto", "-1", "0", "[0,1]")),
    ("trainer.nodes=2", "trainer.nodes=2, but nothing has started the others"),
    *((f"seed={value}", "seed=") for value in ("-1", "1099511627776", "x")),
    *((f"trainer.{name}=0", f"trainer.{name}=0") for name in ("log_every", "steps_per_execution", "clip", "threads")),
    ("trainer.clip=inf", "trainer.clip=inf"),
    ("trainer.threads=1000000", "trainer.threads=1000000 is out of range"),
    ("scaling=linear", "scaling.base_batch_size is not set"),
    ("scaling=sqrt scaling.base_batch_size=0", "scaling.base_batch_size=0"),
    ("scaling.base_batch_size=x", "scaling.base_batch_size='x'"),
]
CHOICES = [
    pytest.param("trainer.accelerator=gpu", "trainer.accelerator=gpu, but PyTorch finds no GPU", marks=no_gpu),
    pytest.param("trainer.accelerator=auto trainer.precision=16-mixed", "16-mixed needs a GPU", marks=no_gpu),
    ("trainer.precision=16-mixed", "trainer.precision=16-mixed needs a GPU"),
    ("trainer.precision=32", "trainer.precision=32"),
    ("trainer.strategy=deepspeed", "trainer.strategy='deepspeed'"),
    ("trainer.compile=1", "trainer.compile=1 "),
    ("trainer.lightning=3", "trainer.lightning=3"),
    ("+trainer.lightning.max_epochs=3", "trainer.lightning.max_epochs is decided elsewhere"),
    ("+trainer.lightning.detect_anomaly=x", "trainer.lightning.detect_anomaly='x' does not fit Trainer"),
    ("+trainer.lightning.profiler=x", "trainer: MisconfigurationException"),
    ("logger.tensorboard.flush_seconds=x", "logger.tensorboard.flush_seconds='x'"),
    ("callbacks=early_stopping callbacks.early_stopping.monitor=x", "EarlyStopping.monitor=x is not computed"),
    ("model.hidden=[x]", "model.hidden=['x'] does not fit MLP: give a list, each a whole number"),
    ("model.dropout=1", "model.dropout=1"),
    ("+model.in_features=3", "model.in_features=3 is known from the data, 64"),
    ("model=gpt", "models.gpt.GPT needs vocab_size, but data.digits.Digits knows only"),
    ("model=resnet9 data=synthetic", "needs in_channels"),
    ("data=synthetic_regression", "task.loss: the cross entropy over the 1 class of this data is always 0"),
    ("task.monitor=x", "task.monitor=x is not computed"),
    ("task.metrics.accuracy=x", "task.metrics.accuracy='x' is not a metric"),
    ("task.loss=foo", "task.loss='foo'"),
    ("task.loss.label_smoothing=2", "task.loss.label_smoothing=2"),
    ("resume.path=nowhere.ckpt", "resume.path=nowhere.ckpt does not exist"),
    ("resume.path={inputs}/empty_folder", "empty_folder holds no checkpoint"),
    ("resume.path={inputs}/a_file", "a_file is damaged: it does not end with its checksum"),
    ("resume.path={inputs}/foreign.ckpt", "foreign.ckpt"),
]
DATA = [
    ("data=text", "data.path is not set: add data.path=VALUE to the command line."),
    (f"{TEXT} data.path=nowhere.txt", "data.path=nowhere.txt is not a file"),
    (f"{TEXT} data.path={{inputs}}/empty_folder", "empty_folder is not a file"),
    (f"{TEXT} data.path={{inputs}}/empty.txt", "empty.txt is empty"),
    (f"{TEXT} data.path={{inputs}}/latin.txt", "latin.txt is not UTF-8 text (byte 3)"),
    (f"{TEXT} data.path={{inputs}}/a_file", "data.context=16 needs at least 32 characters to train on"),
    (f"{TEXT} data.path={{inputs}}/words.txt data.val_fraction=0.001", "data.val_fraction leaves 2 characters"),
    (f"{TEXT} data.path={{inputs}}/words.txt data.val_fraction=1", "data.val_fraction=1"),
    (f"{TEXT} data.path={{inputs}}/words.txt model.heads=3", "model.width=16 must be a multiple of model.heads=3"),
    (f"{TEXT} data.path={{inputs}}/words.txt model.layers=x", "model.layers='x' does not fit GPT: give a whole number"),
    ("data=cifar10 model=resnet9 data.path=/nowhere", "data.path=/nowhere lacks /nowhere/train.parquet"),
    ("data=cifar10 model=resnet9 data.path={inputs}/empty_folder", "empty_folder lacks"),
    ("data=cifar10 model=resnet9 data.path={inputs}/other_columns", "with the columns img and label"),
    ("data=cifar10 model=resnet9 data.path={inputs}/no_parquet", "no_parquet cannot be read as CIFAR-10"),
]
OUTSIDE = (
    "os.system subprocess.run builtins.eval torch.load torch.hub.load torch.nn.functional.torch.load shutil.rmtree "
    "pathlib.Path.write_text trainer.checkpoint.os.system data.cifar10.Path torch.optim.Adam.__init__ trap.Net torch"
).split()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that no run can use."""
    from datasets import Dataset

    folder = tmp_path_factory.mktemp("inputs")
    for name in ("empty_folder", "other_columns", "no_parquet"):
        (folder / name).mkdir()
    for split in ("train", "test"):
        (folder / "no_parquet" / f"{split}.parquet").write_text("no parquet")
        Dataset.from_dict({"a": [1], "b": [2]}).to_parquet(folder / "other_columns" / f"{split}.parquet")
    (folder / "empty.txt").write_text("")
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    (folder / "a_file").write_text("too short")
    (folder / "words.txt").write_text("the quick brown fox jumps over the lazy dog. " * 60)
    torch.save({"cadence": {}}, folder / "foreign.ckpt")
    return folder


def arguments(words: str, folder: Path) -> list[str]:
    """What follows `train.py` on the command line: a base that `words` override, and a folder for the run."""
    given = shlex.split(words)
    keys = {word.lstrip("+~").partition("=")[0] for word in given}
    dropped = {"model.hidden"} if keys & {"model"} else set()
    base = [word for word in BASE if word.partition("=")[0] not in keys | dropped]
    places = [f"{key}={folder}" for key in ("hydra.run.dir", "hydra.sweep.dir") if key not in keys]
    flags = [word for word in given if word.startswith("-")]
    return [*flags, *base, *places, *(word for word in given if word not in flags)]


def enter(words: str, folder: Path) -> int:
    """The exit code of `python train.py WORDS`, made in this process through the real front door.

    Hydra composes the config once only to learn its mode; that is left out here, for it takes half of the time.
    """
    GlobalHydra.instance().clear()
    main = hydra.main(**VERSION_BASE, config_path=str(ROOT / "conf"), config_name="train")(train.__wrapped__)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train.py", *arguments(words, folder)])
        patch.setattr(Hydra, "get_mode", lambda *_, **__: None)
        patch.chdir(folder.parent)
        return run_cli(main)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, byte by byte."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Asserts that a command is refused in one line that says `told`, and that it writes nothing anywhere."""

    def check(words: str, told: str, folder: Path = tmp_path / "run") -> None:
        before = contents(tmp_path), contents(folder)
        capsys.readouterr()
        code, err = enter(words, folder), capsys.readouterr().err
        assert (code, len(err.splitlines())) == (2, 1), err
        assert told in err
        assert "Traceback" not in err
        assert (contents(tmp_path), contents(folder)) == before

    return check


@pytest.mark.parametrize(("words", "told"), [*MISSPELT, *COMMANDS, *NUMBERS, *CHOICES, *DATA])
def test_a_mistake_is_one_line_and_writes_nothing(
    refused: Callable[..., None], inputs: Path, words: str, told: str
) -> None:
    refused(words.replace("{inputs}", str(inputs)), told.replace("{inputs}", str(inputs)))


@pytest.mark.parametrize("group", [*GROUPS, "experiment"])
def test_an_unknown_option_is_answered_with_all_that_are_known(refused: Callable[..., None], group: str) -> None:
    known = ", ".join(sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml")))
    refused(f"{group}=nonesuch", f"{group}=nonesuch: no such option; options of {group}: {known}")


@pytest.mark.parametrize("key", [*(f"+{group}.nonesuch" for group in GROUPS), "+nonesuch", "++optimizer.nonesuch"])
def test_a_key_that_nothing_reads_cannot_be_added(refused: Callable[..., None], key: str) -> None:
    refused(f"{key}=1", key.lstrip("+"))


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of the user's own with a model; the path that it creates when it is imported."""
    sprung = tmp_path / "sprung"
    source = f"import pathlib, models.mlp\npathlib.Path({str(sprung)!r}).touch()\nclass Net(models.mlp.MLP): pass\n"
    (tmp_path / "trap.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "trap", raising=False)
    return sprung


@pytest.mark.parametrize("target", OUTSIDE)
def test_a_target_outside_the_allowed_packages_is_neither_imported_nor_called(
    refused: Callable[..., None], trap: Path, target: str
) -> None:
    refused(f"model._target_={target} '+model.command=touch {trap}'", f"model._target_={target}")
    assert "trap" not in sys.modules


@pytest.mark.parametrize("place", ["+model.extra", "+callbacks.extra", "+task.metrics.extra", "+data.augment"])
def test_a_target_is_refused_wherever_it_stands(refused: Callable[..., None], trap: Path, place: str) -> None:
    refused(f"'{place}={{_target_: os.system, command: touch {trap}}}'", f"{place[1:]}._target_=os.system")


def test_a_package_that_the_user_allows_by_name_works(tmp_path: Path, trap: Path) -> None:
    assert enter("model._target_=trap.Net allow=[trap] trainer.duration=20", tmp_path / "run") == 0
    assert trap.exists()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that has ended well."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert enter("", folder) == 0
    assert json.loads((folder / "result.json").read_text())["status"] == "completed"
    return folder


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("", "holds a run already: give another name, or go on with resume=auto"),
        ("resume.path={inputs}/foreign.ckpt", "holds a run already"),
        ("resume=auto", "has all 40 updates of this run: lengthen trainer.duration"),
        ("resume=auto trainer.duration=80 data.batch_size=32", "another curve (global batch 64 → 32): resume.policy="),
        ("resume=auto trainer.duration=80 model.hidden=[9]", "it is of another model"),
        ("resume=auto trainer.duration=80 optimizer=sgd", "has the state of torch.optim.AdamW, not of torch.optim.SGD"),
        ("resume=auto trainer.duration=80 optimizer.weight_decay=0", "parameter groups of [2, 2] tensors"),
        ("resume=auto trainer.duration=80 optimizer.lr=-1", "optimizer.lr=-1 must be above zero"),
    ],
)
def test_a_mistake_leaves_an_existing_run_as_it_was_to_the_byte(
    refused: Callable[..., None], finished: Path, inputs: Path, words: str, told: str
) -> None:
    refused(words.replace("{inputs}", str(inputs)), told, finished)


def test_a_sweep_in_one_process_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert enter("-m hydra/launcher=basic seed=1,2", tmp_path / "sweep") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("hydra/launcher: BasicLauncher runs jobs inside processes of its own")
    assert "take hydra/launcher=process" in line
    assert not contents(tmp_path)


def test_a_run_that_fails_has_code_1_one_line_a_result_and_its_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    folder, told = tmp_path / "run", "Diverged: update 1 has loss nan"
    assert enter("optimizer=sgd optimizer.lr=1e30 lint.ignore=[huge-lr]", folder) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert line.endswith("(traceback in run/error.log)")
    assert "Traceback" in (folder / "error.log").read_text()
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "failed"
    assert told in result["error"]
    (log,) = folder.glob("events.out.tfevents.*")
    events = [event for event in EventFileLoader(str(log)).Load() if event.HasField("summary")]
    logged = [event.step for event in events for value in event.summary.value if value.tag == "train/loss"]
    assert logged == list(range(result["updates"]))
    assert not list(folder.glob("checkpoints/*"))


def test_what_is_no_mistake_is_accepted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "data.eval_batch_size=${data.batch_size} optimizer.lr=1 optimizer.fused=null resume.path=null optimizer={} "
    words += "hyper_schedule=[weight_decay_tied] +trainer.lightning.benchmark=false +hydra.job.env_set.LANG=C"
    assert (enter(words, tmp_path / "run"), capsys.readouterr().err) == (0, "")


def test_a_real_process_says_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    several = ["optimizer=adamm", "seed=[1", "optimizer.lrr=1", "+data=digits", "model._target_=os.system"]
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("HYDRA_", "CADENCE_RUN_ID"))}
    started = [
        subprocess.Popen(
            [sys.executable, "train.py", *arguments(words, tmp_path / "run")],
            cwd=ROOT,
            env=clean | {"OMP_WAIT_POLICY": "PASSIVE"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for words in several
    ]
    for words, process in zip(several, started, strict=True):
        _, said = process.communicate(timeout=120)
        capsys.readouterr()
        assert (enter(words, tmp_path / "run"), capsys.readouterr().err) == (process.returncode, said)
        assert (process.returncode, len(said.splitlines())) == (2, 1)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (float, [1, 0.5], [True, None, "1", [1.0]]),
        (int, [1, -3], [True, 1.0, "1", None]),
        (bool | None, [True, None], [1, "yes"]),
        (float | Tensor, [1, 0.5], ["abc", None]),
        (tuple[float, float], [[1, 2.0]], [[1.0], [1, 2, 3], 0.9, ["a", "b"]]),
        (list[int], [[], [1]], [1, ["x"], "12", [1.5]]),
        (Literal["min", "max"], ["min"], ["x", None]),
        (Mapping[str, Metric], [{}, {"a": {"_target_": "x"}}], [{"a": 1}, {"a": None}, None, [1]]),
        (Path, ["a/path"], [3, None]),
        (torch.device | str, ["cpu"], [[1], None]),
        (Any, [1, "x", None], []),
        ("Unknown", [1, "x", None], []),
    ],
)
def test_a_value_of_a_config_fits_an_annotation_or_does_not(hint: Any, good: list[Any], bad: list[Any]) -> None:
    assert [value for value in good if not fits(value, hint)] == []
    assert [value for value in bad if fits(value, hint)] == []


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "WORLD_SIZE"])
@pytest.mark.parametrize("value", ["", "x", "-1"])
def test_a_rank_that_is_no_number_is_refused(
    refused: Callable[..., None], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    refused("seed=0", f"{name}={value!r} in the environment is not a number")
