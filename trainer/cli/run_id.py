"""The run id: the one name that all ranks and all restarts of a run agree on, so that they share one folder.

Decided in this order; the first that applies wins:

1. `CADENCE_RUN_ID`, set by whoever starts the run.
2. Under torchrun, the store of its agent: the first rank proposes (4 or 5), all ranks and restarts follow.
3. The id of rank 0, for the ranks that Lightning starts from it.
4. Under Slurm, the job, the array task, the step and the command: a requeued run finds its old folder, and two
   different commands in one allocation get two folders.
5. The clock to the second and six random hex digits: `20261121-034449-3f9a1c`.
"""

import hashlib
import os
import secrets
import sys
import time

from trainer.cli.environment import register_environment
from trainer.cli.hydra_internals import register_resolver
from trainer.distributed.launch.launcher import rank, started_by
from trainer.lr import ConfigError

VARIABLE = "CADENCE_RUN_ID"
OF_RANK_ZERO = "CADENCE_RUN_ID_OF_RANK_ZERO"
STORE_SECONDS = 60

_decided: list[str] = []


def register_run_id() -> None:
    """Make `${run_id:}` known to OmegaConf, and what `${oc.env:…}` gives to `environment`; call it first of all."""
    register_environment()
    register_resolver("run_id", run_id, use_cache=True)


def run_id() -> str:
    """The run id of this process: decided at the first call, the same ever after."""
    if not _decided:
        _decided.append(_decide())
        os.environ[OF_RANK_ZERO] = _decided[0]
    return _decided[0]


def renew_run_id() -> None:
    """Give the next run of this process an id of its own; one that the environment names stays."""
    if _decided and VARIABLE not in os.environ:
        _decided[:] = [_clock()]
        os.environ[OF_RANK_ZERO] = _decided[0]


def forget_run_id() -> None:
    """Have the next run of this process decide its id anew, as the environment then says."""
    _decided.clear()


def _decide() -> str:
    env = os.environ
    if given := env.get(VARIABLE):
        return _folder_name(given)
    if env.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        return _agreed(_slurm() or _clock())
    if started_by() == "cadence" and OF_RANK_ZERO in env:
        return env[OF_RANK_ZERO]
    if started_by() in ("hand", "nodes") and not _slurm():
        raise ConfigError(
            f"rank {rank()} cannot know the run folder of the others: "
            f"set {VARIABLE} to one name for all ranks, or start them with torchrun or srun"
        )
    return _slurm() or _clock()


def _folder_name(given: str) -> str:
    if "/" in given or not given.strip(". "):
        raise ConfigError(f"{VARIABLE}={given!r} cannot name the run folder: give one plain name, without '/'")
    return given


def _agreed(proposal: str) -> str:
    """The first proposal that reached the store of the torchrun agent."""
    from datetime import timedelta

    from torch.distributed import TCPStore

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(host, port, is_master=False, timeout=timedelta(seconds=STORE_SECONDS))
    return str(store.compare_set("cadence/run_id", "", proposal).decode())


def _slurm() -> str:
    """`slurm-<job>[_<task>][.<step>]-<command>`, or nothing outside Slurm."""
    env = os.environ
    if "SLURM_JOB_ID" not in env:
        return ""
    job = env.get("SLURM_ARRAY_JOB_ID", env["SLURM_JOB_ID"])
    task = f"_{env['SLURM_ARRAY_TASK_ID']}" if "SLURM_ARRAY_TASK_ID" in env else ""
    step = f".{env['SLURM_STEP_ID']}" if "SLURM_STEP_ID" in env else ""
    command = hashlib.sha256("\0".join(sys.argv).encode()).hexdigest()[:6]
    return f"slurm-{job}{task}{step}-{command}"


def _clock() -> str:
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
