"""A stand-in for Slurm on one machine: `sbatch`, `srun`, `squeue` and `scancel` by the name under which it is started.

It runs SLOTS jobs at once and keeps what it knows in the folder SLURM_STAND_IN: for each job its script, the process
group of what runs, and `ended` once it is over. sbatch refuses every job where there is a file `refuse`, and squeue
fails as often as the number in the file `failures` says.
"""

import fcntl
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

SLOTS = 2
HOME = Path(os.environ["SLURM_STAND_IN"])


def install(folder: Path) -> dict[str, str]:
    """Put the programs into a folder; the environment in which they are found."""
    programs = folder / "bin"
    programs.mkdir(parents=True)
    for name in ("sbatch", "srun", "squeue", "scancel"):
        (programs / name).write_text(
            f"#!{sys.executable}\nimport runpy\nrunpy.run_path({__file__!r}, run_name='{name}')\n"
        )
        (programs / name).chmod(0o755)
    return {"PATH": f"{programs}:{os.environ['PATH']}", "SLURM_STAND_IN": str(folder)}


def jobs() -> list[Path]:
    return sorted(HOME.glob("job-*"), key=lambda job: int(job.name[4:]))


def sbatch(script: str) -> None:
    if (HOME / "refuse").exists():
        sys.exit("sbatch: error: invalid partition specified: nowhere")
    job = HOME / f"job-{len(jobs()) + 1}"
    job.mkdir()
    number = job.name[4:]
    (job / "script").write_text(Path(script).read_text().replace("%j", number))
    subprocess.Popen(
        [sys.executable, "-c", f"import runpy; runpy.run_path({__file__!r}, run_name='start')", str(job)],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    print(f"Submitted batch job {number}")


def start(folder: str) -> None:
    """Wait for a slot, then run the script of a job to its end."""
    job, slot = Path(folder), None
    while slot is None:
        if (job / "cancelled").exists():
            break
        slot = free_slot()
        time.sleep(0.1)
    else:
        step = {"SLURM_JOB_ID": job.name[4:], "SLURM_JOB_NODELIST": "here", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}
        step |= {"SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_NUM_NODES": "1", "SLURM_STEP_NUM_TASKS": "1"}
        run = subprocess.Popen(["bash", str(job / "script")], env=os.environ | step, start_new_session=True)
        (job / "group").write_text(str(run.pid))
        run.wait()
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
    (job / "ended").touch()


def free_slot() -> int | None:
    for number in range(SLOTS):
        slot = os.open(HOME / f"slot-{number}", os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(slot, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(slot)
        else:
            return slot
    return None


def srun(*words: str) -> None:
    """Run the command behind the options, which begins with the path of an interpreter."""
    command = list(words[[word.startswith("/") and "python" in word for word in words].index(True) :])
    os.execv(command[0], command)


def squeue() -> None:
    failures = HOME / "failures"
    if failures.exists() and (left := int(failures.read_text())):
        failures.write_text(str(left - 1))
        sys.exit("Unable to contact slurm controller")
    for job in jobs():
        if not (job / "ended").exists():
            print(job.name[4:], "RUNNING" if (job / "group").exists() else "PENDING")


def scancel(*words: str) -> None:
    job = HOME / f"job-{words[-1]}"
    named = [word.removeprefix("--signal=") for word in words if word.startswith("--signal=")]
    if named or (job / "group").exists():
        signum = getattr(signal, f"SIG{named[0]}") if named else signal.SIGTERM
        with suppress(OSError):
            signal_steps(int((job / "group").read_text()), signum)
    (job / "cancelled").touch()


def signal_steps(group: int, signum: int) -> None:
    """Signal what a batch script has started, and not the script itself."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[2]) == group and int(stat.parent.name) != group:
                os.kill(int(stat.parent.name), signum)


if __name__ in ("sbatch", "start", "srun", "squeue", "scancel"):
    globals()[__name__](*[word for word in sys.argv[1:] if __name__ != "squeue"])
