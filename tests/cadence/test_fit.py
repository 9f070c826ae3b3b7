"""`cadence.fit` trains the run of the command, to the same bits, and leaves its process as it was."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

import cadence
from trainer.distributed.launch import signals
from trainer.distributed.launch.folder_lock import LOCK, FolderLock
from trainer.lr import ConfigError

ROOT = Path(__file__).parents[2]
SMALL = (
    *("data=synthetic", "data.samples=128", "data.val_samples=32", "data.test_samples=48", "data.batch_size=16"),
    *("model.hidden=[8]", "trainer.duration=16", "trainer.validate=8", "trainer.accelerator=cpu", "callbacks=none"),
    "trainer.threads=1",
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def same(one, other):
    return all(torch.equal(value, other.net.state_dict()[name]) for name, value in one.net.state_dict().items())


def test_it_trains_as_the_command_does_also_after_another_run_and_inside_an_event_loop(folder):
    async def cell(*words):
        return cadence.fit(*SMALL, *words)

    first = asyncio.run(cell("name=first"))
    other = asyncio.run(cell("name=other", "seed=3", "trainer.deterministic=true", "trainer.precision=64-true"))
    again = asyncio.run(cell("name=again"))
    command = [sys.executable, "-m", "cadence", "train", *SMALL, "name=command"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=120)
    known = cadence.load("outputs/command")
    assert not same(first, other)
    assert same(first, again)
    assert same(first, known)
    assert first.result["test"] == known.result["test"]
    files = [sorted(path.name.split(".")[0] for path in run.folder.rglob("*")) for run in (first, known)]
    assert files[0] == files[1]
    assert first.config == {**known.config, "name": "first"}
    plans = [json.loads((run.folder / "plan.json").read_text()) for run in (first, known)]
    assert {**plans[0], "curve_history": 0} == {**plans[1], "curve_history": 0}
    assert OmegaConf.load(first.folder / "overrides.yaml") == [*SMALL, "name=first"]


def test_the_process_is_left_as_it_was(capsys):
    torch.manual_seed(5)
    before = (torch.get_rng_state(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    seeds, filters = os.environ.get("PL_GLOBAL_SEED"), list(warnings.filters)
    cadence.fit(*SMALL, "trainer.deterministic=true", "name=a")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before[1:]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == handlers
    assert os.environ.get("PL_GLOBAL_SEED") == seeds
    assert warnings.filters == filters


def test_a_folder_that_another_run_holds_is_refused_and_a_run_frees_its_own_also_with_a_stray_rank(monkeypatch, capfd):
    orphan = Path("outputs/a/.tmp-1-1@another@result.json")  # of a host that is gone, in a folder that nobody holds
    orphan.parent.mkdir(parents=True)
    orphan.touch()
    monkeypatch.setenv("RANK", "1")
    with FolderLock(Path("outputs/a")) as lock:
        lock.acquire()
        with pytest.raises(ConfigError, match="outputs/a belongs to a run that still runs: process"):
            cadence.fit(*SMALL, "name=a")
    run = cadence.fit(*SMALL, "name=a")
    assert "RANK=1 in the environment: ignored" in capfd.readouterr().err
    assert os.environ["RANK"] == "1"
    assert list(run.folder.glob("events.out.tfevents*"))
    assert not (run.folder / LOCK).exists()
    assert not orphan.exists()


def test_two_runs_without_a_name_have_two_folders_and_one_that_is_there_is_refused():
    runs = [cadence.fit(SMALL) for _ in range(2)]
    assert runs[0].folder != runs[1].folder
    cadence.fit(*SMALL, "name=there")
    with pytest.raises(ConfigError, match="resume=auto"):
        cadence.fit(*SMALL, "name=there")
    words = ["trainer.duration=24" if word.startswith("trainer.duration") else word for word in SMALL]
    longer = cadence.fit(words, "name=there", "resume=auto", "resume.policy=override")
    assert longer.result["updates"] == 24


def test_a_composed_config_and_options_of_a_users_folder_work(compose, folder):
    (folder / "conf" / "model").mkdir(parents=True)
    (folder / "conf" / "model" / "mine.yaml").write_text("_target_: models.mlp.MLP\n_partial_: true\nhidden: [5]\n")
    words = [word for word in SMALL if not word.startswith("model")]
    mine = cadence.fit(*words, "model=mine", "name=mine", config_dir=folder / "conf")
    assert mine.config.model.hidden == [5]
    assert json.loads((mine.folder / "plan.json").read_text())["program"][2:] == ["--config-dir", str(folder / "conf")]
    given = cadence.fit(compose(*SMALL, "name=given", "seed=4"))
    assert given.config.seed == 4
    assert given.folder == folder / "outputs" / "given"


def test_a_class_that_a_notebook_has_defined_is_trained(monkeypatch, folder):
    class Net(torch.nn.Linear):
        def __init__(self, in_features, classes):
            super().__init__(in_features, classes)

    Net.__module__ = "__main__"
    monkeypatch.setattr(sys.modules["__main__"], "Net", Net, raising=False)
    words = [word for word in SMALL if not word.startswith("model")]
    (folder / "model").mkdir()
    (folder / "model" / "cell.yaml").write_text("_target_: __main__.Net\n_partial_: true\n")
    run = cadence.fit(*words, "model=cell", "allow=[__main__]", "name=cell", config_dir=folder)
    assert isinstance(run.net, Net)


def test_several_processes_are_refused_with_the_command_to_type():
    with pytest.raises(ConfigError, match=r"2 processes: .*cadence train .*trainer.devices=2.*cadence.load\('"):
        cadence.fit(*SMALL, "trainer=ddp", "trainer.devices=2", "name=two")
    assert not Path("outputs").exists()


def test_a_mistake_is_one_line_and_leaves_no_folder():
    with pytest.raises(ConfigError, match="did you mean cosine"):
        cadence.fit(*SMALL, "schedule=cosin")
    with pytest.raises(ConfigError, match=r"model.hiden"):
        cadence.fit(*SMALL, "+model.hiden=[1]")
    assert not Path("outputs").exists()


def test_ctrl_c_reaches_the_caller_as_itself(monkeypatch):
    from trainer.engine.module import Module

    def interrupted(*given):
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(Module, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cadence.fit(*SMALL, "name=stopped")
    assert signal.getsignal(signal.SIGINT) is before


SEND = ("+callbacks.send._target_=tests.distributed.signalling.Send", "+callbacks.send.hook=on_train_batch_start")


def test_ctrl_c_saves_the_run_then_reaches_the_caller_and_the_run_goes_on_to_the_same_bits(capsys, interruptible):
    words = (*SMALL, "trainer.steps_per_execution=2", "trainer.checkpoint=4", "allow=[tests]", "trainer.duration=15")
    words = tuple(word for word in words if word != "trainer.duration=16")
    whole = cadence.fit(*words, "name=whole")
    before = [signal.getsignal(number) for number in signals.SIGNALS]
    for nth in (3, 2):
        send = (*SEND, f"+callbacks.send.signum={int(signal.SIGINT)}", f"+callbacks.send.nth={nth}")
        with pytest.raises(KeyboardInterrupt):
            cadence.fit(*words, *send, "name=cut", "resume=auto")
        assert [signal.getsignal(number) for number in signals.SIGNALS] == before
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("interrupted by")]
    assert [line.partition("; ")[0] for line in told] == [
        f"interrupted by SIGINT (Ctrl-C) at update {t}" for t in (6, 10)
    ]
    assert told[0].endswith("'name=cut', 'resume=auto')")
    assert "go on with: cadence.fit('data=synthetic', " in told[0]
    assert not signals.received()
    assert json.loads(Path("outputs/cut/result.json").read_text())["status"] == "interrupted"
    assert same(cadence.fit(*words, "name=cut", "resume=auto"), whole)


def test_a_second_ctrl_c_does_not_wait_for_the_update(monkeypatch, interruptible):
    from trainer.engine.module import Module

    def hangs(*given):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError

    monkeypatch.setattr(Module, "training_step", hangs)
    with pytest.raises(KeyboardInterrupt):
        cadence.fit(*SMALL, "name=twice")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_in_another_thread_and_beside_handlers_of_the_caller_no_handler_is_set(monkeypatch):
    seen, own = [], lambda *given: None
    monkeypatch.setattr(
        "cadence.fitting.run_in", lambda *given: seen.append(list(map(signal.getsignal, signals.SIGNALS)))
    )
    monkeypatch.setattr("cadence.fitting.load", lambda *given, **options: None)
    before = list(map(signal.getsignal, signals.SIGNALS))
    thread = threading.Thread(target=lambda: cadence.fit(*SMALL, "name=aside"))
    thread.start()
    thread.join()
    assert seen == [before]
    signal.signal(signal.SIGTERM, own)
    cadence.fit(*SMALL, "name=beside")
    found = dict(zip(signals.SIGNALS, seen[1]))
    assert found[signal.SIGTERM] is own
    assert found[signal.SIGUSR1] is signals._handle


def test_batches_by_name_go_through_the_step_of_the_run(folder):
    for group, name in (("data", "Rows"), ("model", "Net")):
        (folder / group).mkdir()
        more = "batch_size: 16\nsamples: 64\ntokens_per_sample: null\n" if group == "data" else ""
        (folder / group / "named.yaml").write_text(f"_target_: tests.cadence.by_name.{name}\n{more}")
    words = ("data=named", "model=named", "task=model", "allow=[tests]", "warmup=none", "trainer.duration=8")
    run = cadence.fit(*words, *SMALL[-3:], "name=named", config_dir=folder)
    assert run.test() == run.result["test"]
    (batch,) = run.data.test_dataloader()
    with torch.no_grad():
        expected = run.net(batch["x"]).logits
    assert torch.equal(run.predict("test"), expected)
    assert torch.equal(run.predict({"x": batch["x"]}), expected)
    assert torch.allclose(run.predict(batch, batch_size=5), expected, atol=1e-6)
    assert run.test(batch, batch_size=5)["loss"] == pytest.approx(run.test()["loss"], rel=1e-5)


def test_a_data_set_is_collated_as_in_the_run(folder):
    from tests.cadence.by_name import Pairs

    (folder / "model").mkdir()
    (folder / "model" / "named.yaml").write_text("_target_: tests.cadence.by_name.Net\n")
    of = "{_target_: tests.cadence.by_name.Pairs, begin: %d, end: %d}"
    data = ("data=dataset", f"data.train={of % (0, 64)}", f"data.val={of % (64, 80)}", f"data.test={of % (80, 96)}")
    collate = "data.collate_fn={_target_: tests.cadence.by_name.collate, _partial_: true}"
    words = (*data, collate, "data.batch_size=16", "model=named", "task=model", "allow=[tests]", "warmup=none")
    run = cadence.fit(*words, "trainer.duration=8", *SMALL[-3:], "name=set", config_dir=folder)
    assert torch.equal(run.predict(Pairs(80, 96)), run.predict("test"))
    assert run.test(Pairs(80, 96)) == pytest.approx(run.result["test"], rel=1e-5)
    assert run.predict("train").shape == (64, 2)
