"""Tells Lightning the ranks of a run, as torchrun or srun gives them; nothing is guessed from the job around it."""

import os
import socket
import subprocess
import sys

from lightning_fabric.plugins.environments import ClusterEnvironment
from pytorch_lightning.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment

from trainer.distributed.launch.launcher import launcher
from trainer.lr import ConfigError

FIRST_PORT, PORTS = 15000, 10000


def environment() -> list[ClusterEnvironment]:
    """How the ranks find each other; where neither torchrun nor srun has started several, it is Lightning's own way.

    Given always: Lightning itself would ask for variables of LSF, MPI and Slurm that other programs have left.
    """
    if launcher() == "torchrun":
        return [TorchElasticEnvironment()]
    if launcher() == "slurm" and os.environ.get("SLURM_STEP_NUM_TASKS", "1") != "1":
        return [Slurm()]
    return [LightningEnvironment()]


class Slurm(SLURMEnvironment):
    """The ranks of one srun. Cadence itself requeues, and checks how many tasks there are."""

    def __init__(self) -> None:
        # Lightning asks for this variable and never uses it
        os.environ.setdefault("SLURM_NTASKS_PER_NODE", os.environ.get("SLURM_NTASKS", "1"))
        super().__init__(auto_requeue=False)

    @property
    def main_address(self) -> str:
        """`MASTER_ADDR`, or the first node of the step: its name, and its address where the name is not known."""
        if "MASTER_ADDR" not in os.environ:
            nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_NODELIST", "127.0.0.1")
            os.environ["MASTER_ADDR"] = reachable(self.resolve_root_node_address(nodes))
        return os.environ["MASTER_ADDR"]

    @property
    def main_port(self) -> int:
        """`MASTER_PORT`, or one that differs between jobs, and between the steps of a job."""
        step = int(os.environ["SLURM_JOB_ID"]) * 7 + int(os.environ["SLURM_STEP_ID"])
        return int(os.environ.setdefault("MASTER_PORT", str(FIRST_PORT + step % PORTS)))

    def world_size(self) -> int:
        return int(os.environ["SLURM_STEP_NUM_TASKS"])

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """`devices_and_nodes` has compared them already."""


def reachable(node: str) -> str:
    """The name of a node where it resolves, else the address that Slurm has for it.

    Raises:
        ConfigError: neither is known; connecting would hang.
    """
    try:
        socket.getaddrinfo(node, None)
    except OSError:
        address = _address(node)
        if os.environ.get("SLURM_PROCID", "0") == "0":
            print(f"{node}, the first node, does not resolve: its address in Slurm is {address}", file=sys.stderr)
        return address
    return node


def _address(node: str) -> str:
    try:
        done = subprocess.run(
            ["scontrol", "show", "node", "--oneliner", node], capture_output=True, text=True, timeout=20
        )
        fields = dict(field.partition("=")[::2] for field in done.stdout.split())
        socket.getaddrinfo(fields["NodeAddr"], None)
    except (OSError, KeyError, subprocess.TimeoutExpired):
        raise ConfigError(f"{node}, the first node, does not resolve here: set MASTER_ADDR to its address.") from None
    return fields["NodeAddr"]
