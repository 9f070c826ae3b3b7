"""Two hosts in network namespaces of their own, joined by torchrun."""

import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, environment, until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
HOSTS = {"hostA": ("vA", "10.77.0.1"), "hostB": ("vB", "10.77.0.2")}


@pytest.fixture(scope="module")
def hosts(scripts):
    """Starts a run on both hosts; the processes by host. What is left of them is killed."""
    script, begun = str(scripts / "two_hosts.sh"), []
    env = environment(PYBIN=os.path.dirname(sys.executable))  # noqa: PTH120
    subprocess.run(["bash", script, "up"], env=env, check=True, timeout=60)

    def start(place, *words):
        running = {}
        for host, (device, address) in HOSTS.items():
            torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
            meet = ["--rdzv-backend=c10d", "--rdzv-endpoint=10.77.0.1:29600", f"--rdzv-id=t{len(begun)}"]
            train = [f"--local-addr={address}", str(ROOT / "train.py"), *place.words, "trainer=torchrun", *words]
            running[host] = subprocess.Popen(
                ["ip", "netns", "exec", host, *torchrun, *meet, *train],
                env=environment(GLOO_SOCKET_IFNAME=device), stderr=subprocess.STDOUT, start_new_session=True,
                stdout=(place.path / f"{host}.log").open("a"),
            )  # fmt: skip
        begun.append(running)
        return running

    try:
        yield start
    finally:
        for process in (process for running in begun for process in running.values()):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        subprocess.run(["bash", script, "down"], env=env, timeout=60)


def test_two_hosts_train_to_the_same_bits_as_each_other_and_as_one(hosts, place, whole):
    running = hosts(place.quick())
    assert [process.wait(timeout=200) for process in running.values()] == [0, 0]
    assert place.ends_as(whole)


def test_a_host_that_dies_ends_the_other_within_a_minute_and_the_run_goes_on(hosts, place, whole):
    running = hosts(place)
    until(lambda: len(place.checkpoints()) >= 2)
    os.killpg(running["hostB"].pid, signal.SIGKILL)
    for line in subprocess.run(["ip", "netns", "pids", "hostB"], capture_output=True, text=True).stdout.split():
        os.kill(int(line), signal.SIGKILL)
    begun = time.monotonic()
    assert running["hostA"].wait(timeout=100) != 0
    assert time.monotonic() - begun < 60
    running = hosts(place.quick(), "resume=auto")
    assert [process.wait(timeout=200) for process in running.values()] == [0, 0]
    assert place.ends_as(whole)
