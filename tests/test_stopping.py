"""Real processes and real signals: from the first import to the last write nothing is lost and nothing hangs."""

import json
import os
import pty
import select
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from tests.distributed import worlds
from trainer.checkpoint.io import checkpoints_in, read
from trainer.distributed.launch.restart_limit import RECORD

ROOT = Path(__file__).parent.parent
TRAIN = ROOT / "train.py"
RUN = (
    *("data=synthetic", "data.batch_size=8", "data.eval_batch_size=16", "model.hidden=[16]", "optimizer=sgd"),
    *("trainer.duration=24", "trainer.validate=8", "trainer.steps_per_execution=2", "trainer.threads=1", "name=run"),
    *("trainer.accelerator=cpu", "callbacks=none", "allow=[tests]"),
)
TWO = ("trainer=ddp", "trainer.devices=2")
USR1, USR2, TERM, INT = signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT


@pytest.fixture
def start(tmp_path, interruptible):
    """Start a run in a folder of its own; what is left of it at the end of the test is killed.

    It is forked from a process that has imported everything, but where it shall be `fresh`.
    """
    begun = []

    def popen(*words, folder="mine", fresh=False, short=RUN, **environment):
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        env = os.environ | {"PYTHONPATH": str(ROOT), "CADENCE_RUN_ID": ""} | environment
        begun.append(
            subprocess.Popen(
                [sys.executable, str(TRAIN), *short, *words],
                cwd=place, env=env, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                start_new_session=True,
            )
            if fresh else worlds.Script(TRAIN, [*short, *words], place, env)
        )  # fmt: skip
        return begun[-1]

    yield popen
    for process in begun:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture
def start_two(start):
    """Start both ranks of a run by hand, as srun would."""

    def both(*words, folder="mine"):
        port = str(worlds.free_port())
        place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "CADENCE_RUN_ID": "run"}
        return [start(*TWO, *words, folder=folder, RANK=rank, LOCAL_RANK=rank, **place) for rank in "01"]

    return both


def ended(process, code):
    _, err = process.communicate(timeout=400)
    assert process.returncode == code, err
    return err


def send(hook, signum, nth=1, ranks="null"):
    values = {"_target_": "tests.distributed.signalling.Send", "hook": hook, "signum": int(signum), "nth": nth}
    return [f"+callbacks.send.{key}={value}" for key, value in {**values, "ranks": ranks}.items()]


def result(folder):
    return json.loads((folder / "outputs/run/result.json").read_text())


def last(folder):
    return read(checkpoints_in(folder / "outputs/run/checkpoints")[-1])


def until(condition, meanwhile=lambda: None):
    for _ in range(2400):
        if condition():
            return
        meanwhile()
        time.sleep(0.05)
    raise AssertionError("it never happened")


def catches(process, signum):
    """Whether the process has a handler for the signal."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    mask = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))
    return bool(mask >> (signum - 1) & 1)


def test_a_signal_during_the_imports_ends_the_process_at_once_with_its_code(start, tmp_path):
    processes = [(signum, start(folder=str(int(signum)), fresh=True)) for signum in (TERM, INT)]
    for signum, process in processes:
        until(lambda process=process: catches(process, USR2))  # Python itself catches SIGINT
        process.send_signal(signum)
    for signum, process in processes:
        told = ended(process, 128 + signum)
        assert told.startswith("interrupted by SIG")
        assert told.endswith(" before the first update; there was nothing to save\n")
        assert told.count("\n") == 1
        assert not list((tmp_path / str(int(signum))).iterdir())


@pytest.mark.slow
def test_one_process_stopped_in_training_validation_and_test_goes_on_with_the_same_bits(start, tmp_path):
    whole = start(folder="whole")
    words = [*RUN, *send("on_train_batch_start", USR1, 3)]
    err = ended(start(*words[len(RUN) :]), 128 + USR1)
    assert (
        err.strip().splitlines()[-1]
        == f"interrupted by SIGUSR1 at update 6; go on with: python {TRAIN} {shlex.join(words)} resume=auto"
    )
    told = result(tmp_path / "mine")
    assert (told["status"], told["updates"]) == ("interrupted", 6)
    ended(start("resume=auto", *send("on_validation_batch_end", TERM, 2)), 128 + TERM)
    assert last(tmp_path / "mine")["cadence"]["updates"] == 8
    ended(start("resume=auto", *send("on_test_start", USR2)), 0)
    ended(whole, 0)
    folders = [tmp_path / name for name in ("whole", "mine")]
    assert [result(folder)["status"] for folder in folders] == ["completed"] * 2
    assert result(folders[0])["best"] == result(folders[1])["best"]
    assert result(folders[0])["test"] == result(folders[1])["test"]
    weights = [last(folder)["state_dict"] for folder in folders]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.slow
def test_a_signal_to_one_rank_of_two_stops_both_and_they_go_on_with_the_same_bits(start, start_two, tmp_path):
    """First rank 1 is a child of rank 0, by Lightning's launcher; then both are started by hand."""
    ended(start(*TWO, *send("on_train_batch_start", INT, 2, ranks="[1]")), 128 + INT)
    for words, code in (
        (("resume=auto", *send("on_validation_batch_end", USR1, 1, ranks="[0]")), 128 + USR1),
        (("resume=auto", *send("on_test_start", TERM, 1, ranks="[1]")), 0),
    ):
        for rank in start_two(*words):
            ended(rank, code)
    for rank in start_two(folder="whole"):
        ended(rank, 0)
    folders = [tmp_path / name for name in ("whole", "mine")]
    assert result(folders[0])["best"] == result(folders[1])["best"]
    weights = [last(folder)["state_dict"] for folder in folders]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert last(folders[1])["cadence"]["updates"] == 24


LONG = ("trainer.duration=1000000", "trainer.validate=1000000", "trainer.checkpoint=10")


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_reaches_the_workers_too_and_the_run_says_how_to_go_on(start, tmp_path):
    replaced = ("data=", "trainer.duration", "trainer.validate", "name")
    words = [word for word in RUN if not word.startswith(replaced)]
    samples = [f"data.{name}={{_target_:tests.data.test_seeds.Flipped}}" for name in ("train", "val")]
    place = ("data=dataset", *samples, "data.shape={in_features:5,classes:2}", "data.num_workers=2", *LONG)
    process = start(*place, short=words)
    until(lambda: list(tmp_path.glob("mine/outputs/*/checkpoints/update-*.ckpt")))
    os.killpg(process.pid, INT)
    told = ended(process, 130)
    (folder,) = (tmp_path / "mine/outputs").iterdir()
    newest = checkpoints_in(folder / "checkpoints")[-1]
    update, notice = int(newest.stem.removeprefix("update-")), "press Ctrl-C again to end at once"
    command = shlex.join(["python", str(TRAIN), *words, *place, f"name={folder.name}", "resume=auto"])
    lines = [line for line in told.splitlines() if line and not line.startswith("update ")]
    assert lines[0].endswith(notice)
    assert lines[1:] == [f"interrupted by SIGINT (Ctrl-C) at update {update}; go on with: {command}"]
    found = json.loads((folder / "result.json").read_text())
    assert (found["status"], found["updates"], found["error"]) == ("interrupted", update, lines[1].partition(";")[0])


@pytest.mark.slow
def test_a_run_whose_terminal_is_closed_is_saved(tmp_path):
    words = [word for word in RUN if not word.startswith(("trainer.duration", "trainer.validate", "callbacks"))]
    pid, master = pty.fork()
    if not pid:
        os.chdir(tmp_path)
        os.environ["PYTHONPATH"] = str(ROOT)
        os.execv(sys.executable, [sys.executable, str(TRAIN), *words, *LONG])
    until(lambda: list(tmp_path.glob("outputs/run/checkpoints/update-*.ckpt")), lambda: read_screen(master))
    os.close(master)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP
    found = json.loads((tmp_path / "outputs/run/result.json").read_text())
    assert found["status"] == "interrupted"
    assert found["error"] == f"interrupted by SIGHUP at update {found['updates']}"
    assert read(Path(found["checkpoint"]))["cadence"]["updates"] == found["updates"]


def read_screen(master):
    """Read what a terminal shows, so that its program need not wait."""
    while select.select([master], [], [], 0)[0]:
        os.read(master, 1 << 16)


@pytest.mark.slow
def test_signals_after_the_result_change_no_exit_code(start, tmp_path):
    process = start(fresh=True)
    until(lambda: (tmp_path / "mine/outputs/run/result.json").exists())
    while process.poll() is None:
        process.send_signal(USR1)
        time.sleep(0.01)
    assert process.returncode == 0


@pytest.mark.parametrize(("signum", "seconds"), [(TERM, 2.0), (INT, 0.5)])
def test_a_second_signal_ends_a_process_that_waits_where_no_handler_of_python_runs(
    python, interruptible, signum, seconds
):
    lines = [
        "import ctypes; from trainer.distributed.launch import signals; signals.handle_signals(); signals.defer()",
        "libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)",
        "libc.pthread_mutex_lock(mutex); print('here', flush=True); libc.pthread_mutex_lock(mutex)",
    ]
    process = subprocess.Popen([python, "-c", "\n".join(lines)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "here\n"
    process.send_signal(signum)
    process.send_signal(signum)  # passed on by a launcher: the same wish
    time.sleep(seconds + 0.4)
    assert process.poll() is None
    process.send_signal(signum)
    assert process.wait(timeout=20) == 128 + signum


def test_a_worker_that_a_run_has_forked_ends_at_a_signal_as_its_parent_expects(python):
    lines = [
        "import os, signal, time; from trainer.distributed.launch import signals",
        "signals.handle_signals(); signals.defer()",
        "if not (pid := os.fork()): time.sleep(60); os._exit(0)",
        "time.sleep(0.5); os.kill(pid, signal.SIGTERM); end = time.monotonic() + 20",
        "while not (ended := os.waitpid(pid, os.WNOHANG))[0] and time.monotonic() < end: time.sleep(0.01)",
        "print(ended[1], signals.received()); ended[0] or os.kill(pid, signal.SIGKILL)",
    ]
    done = subprocess.run([python, "-c", "\n".join(lines)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == f"{int(TERM)} 0\n", done.stderr


@pytest.fixture
def job(tmp_path):
    """The environment of job 7 of a Slurm whose `scontrol` notes what it is asked, in the file `asked`."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/scontrol").write_text(f"#!/bin/sh\necho $@ >> {tmp_path}/asked\n")
    (tmp_path / "bin/scontrol").chmod(0o755)
    return {"SLURM_JOB_ID": "7", "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "CADENCE_NO_REQUEUE": ""}


@pytest.mark.slow
def test_a_requeued_job_goes_on_with_its_own_run_though_nothing_says_resume_and_one_in_vain_fails(start, tmp_path, job):
    vain = tmp_path / "vain/outputs/run"
    vain.mkdir(parents=True)
    (vain / RECORD).write_text(json.dumps({"job": "7", "checkpoint": "", "since": 0, "most": 3}))
    lost = start(*send("setup", USR1), folder="vain", **job, SLURM_RESTART_COUNT="2")
    told = ended(start(*send("on_train_batch_start", USR1, 3), **job), 128 + USR1)
    assert told.strip().splitlines()[-1] == "interrupted by SIGUSR1 at update 6; Slurm job 7 is requeued"
    assert "resumed at update 6" in ended(start(**job, SLURM_RESTART_COUNT="1"), 0)
    assert result(tmp_path / "mine")["status"] == "completed"
    assert (tmp_path / "mine/outputs/run/config-until-6.yaml").exists()
    assert "Slurm job 7 is given up: 3 starts in a row have made no update: " in ended(lost, 1)
    assert result(tmp_path / "vain")["status"] == "failed"
    assert (tmp_path / "asked").read_text() == "requeue 7\n"


@pytest.mark.slow
def test_torchrun_that_handles_sigusr1_waits_for_the_checkpoint_and_the_job_is_requeued(tmp_path, job):
    """Slurm sends it to all processes of a step: to the agent of torchrun, and to the ranks."""
    handled = ["--signals-to-handle", "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", *handled]
    short = [word for word in RUN if not word.startswith(("trainer.duration", "trainer.validate"))]
    long = ["trainer=torchrun", "trainer.duration=100000", "trainer.validate=100000", "trainer.checkpoint=10"]
    agent = subprocess.Popen(
        [*torchrun, str(TRAIN), *short, *long], env=os.environ | {"PYTHONPATH": str(ROOT), "CADENCE_RUN_ID": ""} | job,
        cwd=tmp_path, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    ranks = []
    try:
        until(lambda: checkpoints_in(tmp_path / "outputs/run/checkpoints"))
        ranks = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
        for pid in [agent.pid, *map(int, ranks)]:
            os.kill(pid, USR1)
        _, err = agent.communicate(timeout=200)
    finally:
        for pid in [agent.pid, *map(int, ranks)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert agent.returncode != 0
    update = last(tmp_path)["cadence"]["updates"]
    assert f"interrupted by SIGUSR1 at update {update}; Slurm job 7 is requeued" in err
    assert (tmp_path / "asked").read_text() == "requeue 7\n"


@pytest.mark.parametrize("signum", [TERM, signal.SIGHUP])
def test_a_command_that_is_no_run_ends_in_one_line_and_leaves_nothing_temporary(tmp_path, signum):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    words = ["range-test", "trainer.accelerator=cpu", "trainer.threads=1", "--updates", "100000", "--no-files"]
    command = subprocess.Popen(
        [sys.executable, "-m", "cadence", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 60
    while not any(temporary.iterdir()) and time.monotonic() < end:
        time.sleep(0.05)
    command.send_signal(signum)
    told = command.communicate(timeout=60)[1].splitlines()
    assert (command.returncode, told[-1]) == (128 + signum, f"interrupted by {signum.name}")
    assert not any(temporary.iterdir())
