"""Real processes and real signals: from the first import to the last write nothing is lost and nothing hangs."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from trainer.checkpoint import history, read

ROOT = Path(__file__).parent.parent
RUN = (
    *("data=synthetic", "data.batch_size=8", "data.eval_batch_size=16", "model.hidden=[16]", "optimizer=sgd"),
    *("trainer.duration=24", "trainer.validate=8", "trainer.updates_per_call=2", "trainer.threads=1", "name=run"),
    *("trainer.accelerator=cpu", "callbacks=none", "allow=[tests]"),
)
TWO = ("trainer=ddp", "trainer.devices=2")
USR1, USR2, TERM = signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM


@pytest.fixture
def start(python, tmp_path):
    """Start a run in a folder of its own; what is left of it at the end of the test is killed."""
    begun = []

    def popen(*words, folder="mine", **environment):
        (tmp_path / folder).mkdir(exist_ok=True)
        env = os.environ | {"PYTHONPATH": str(ROOT), "CADENCE_STAMP": ""} | environment
        begun.append(
            subprocess.Popen(
                [python, str(ROOT / "train.py"), *RUN, *words],
                cwd=tmp_path / folder, env=env, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                start_new_session=True,
            )
        )  # fmt: skip
        return begun[-1]

    yield popen
    for process in begun:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def ended(process, code):
    _, err = process.communicate(timeout=400)
    assert process.returncode == code, err
    return err


def send(hook, signum, nth=1, ranks="null"):
    values = {"_target_": "tests.trainer.signalling.Send", "hook": hook, "signum": int(signum), "nth": nth}
    return [f"+callbacks.send.{key}={value}" for key, value in {**values, "ranks": ranks}.items()]


def result(folder):
    return json.loads((folder / "outputs/run/result.json").read_text())


def last(folder):
    return read(history(folder / "outputs/run/checkpoints")[-1])


def until(condition):
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it never happened")


def catches(process, signum):
    """Whether the process has a handler for the signal."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    mask = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))
    return bool(mask >> (signum - 1) & 1)


def test_a_signal_during_the_imports_ends_the_process_at_once_with_its_code(start):
    processes = [(signum, start(folder=str(int(signum)))) for signum in (USR1, TERM)]
    for signum, process in processes:
        until(lambda process=process, signum=signum: catches(process, signum))
        process.send_signal(signum)
    for signum, process in processes:
        assert "Traceback" not in ended(process, 128 + signum)


@pytest.mark.slow
def test_one_process_stopped_in_training_validation_and_test_goes_on_with_the_same_bits(start, tmp_path):
    whole = start(folder="whole")
    err = ended(start(*send("on_train_batch_start", USR1, 3)), 128 + USR1)
    assert err.strip().splitlines()[-1] == "stopped by SIGUSR1 at update 6; go on with resume=auto"
    told = result(tmp_path / "mine")
    assert (told["status"], told["updates"]) == ("stopped", 6)
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
def test_a_signal_to_one_rank_of_two_stops_both_and_they_go_on_with_the_same_bits(start, tmp_path):
    stops = [
        send("on_train_batch_start", TERM, 2, ranks="[1]"),
        send("on_validation_batch_end", USR1, 1, ranks="[0]"),
        send("on_test_start", TERM, 1, ranks="[1]"),
    ]
    for i, (words, signum) in enumerate(zip(stops, (TERM, USR1, 0))):
        ended(start(*TWO, *words, *(["resume=auto"] if i else [])), 128 + signum if signum else 0)
    ended(start(*TWO, folder="whole"), 0)
    folders = [tmp_path / name for name in ("whole", "mine")]
    assert result(folders[0])["best"] == result(folders[1])["best"]
    weights = [last(folder)["state_dict"] for folder in folders]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert last(folders[1])["cadence"]["updates"] == 24


@pytest.mark.slow
def test_signals_after_the_result_change_no_exit_code(start, tmp_path):
    process = start()
    until(lambda: (tmp_path / "mine/outputs/run/result.json").exists())
    while process.poll() is None:
        process.send_signal(USR1)
        time.sleep(0.01)
    assert process.returncode == 0


def test_a_second_sigterm_ends_a_process_that_waits_where_no_handler_of_python_runs(python):
    lines = [
        "import ctypes; from trainer import signals; signals.watch(); signals.hold()",
        "libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)",
        "libc.pthread_mutex_lock(mutex); print('here', flush=True); libc.pthread_mutex_lock(mutex)",
    ]
    process = subprocess.Popen([python, "-c", "\n".join(lines)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "here\n"
    process.terminate()
    process.terminate()  # passed on by a launcher: the same wish
    time.sleep(2.5)
    assert process.poll() is None
    process.terminate()
    assert process.wait(timeout=20) == 143


@pytest.mark.slow
def test_a_requeued_job_goes_on_with_its_own_run_though_nothing_says_resume(start, tmp_path):
    job = {"SLURM_JOB_ID": "7", "CADENCE_NO_REQUEUE": "1"}
    ended(start(*send("on_train_batch_start", USR1, 3), **job), 128 + USR1)
    assert "resumed at update 6" in ended(start(**job, SLURM_RESTART_COUNT="1"), 0)
    assert result(tmp_path / "mine")["status"] == "completed"
    assert (tmp_path / "mine/outputs/run/config-until-6.yaml").exists()
