"""Jobs per minute of 16 short runs on digits, for each way to start them:

    python benchmarks/sweep.py               2 at once; --jobs 16, --only fork fresh

bare: `python train.py` by hand, 2 at a time. fresh, fork: the process launcher without and with hydra.launcher.fork.
in-process, joblib: Hydra's own multirun and its joblib launcher with the same training. train.py refuses both: they run
several jobs in one process, where one crash ends the others and trainer=ddp is not possible.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHORT = (
    *("trainer.duration=100", "trainer.validate=50", "trainer.accelerator=cpu", "trainer.threads=1"),
    *("model.hidden=[16]", "callbacks=none", "logger=none"),
)
INSIDE = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
import hydra
from hydra.core.hydra_config import HydraConfig
from trainer.cli.hydra_internals import VERSION_BASE
from trainer.cli.run_id import register_run_id
register_run_id()

@hydra.main(config_path={str(ROOT / "conf")!r}, config_name="train", **VERSION_BASE)
def main(cfg):
    from trainer.run import assemble, evaluate, fit
    assembly = assemble(cfg, Path(HydraConfig.get().runtime.output_dir))
    fit(assembly)
    evaluate(assembly)
    Path(HydraConfig.get().runtime.output_dir, "result.json").write_text("done")

main()
"""
ENGINES = ("bare", "fresh", "fork", "in-process", "joblib")


def main() -> None:
    """Measure each engine and print its jobs per minute, and the ratio to fresh interpreters."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=ENGINES, default=ENGINES)
    given = parser.parse_args()
    rates: dict[str, list[float]] = {engine: [] for engine in given.only}
    for _ in range(given.rounds):
        for engine in given.only:
            with tempfile.TemporaryDirectory() as folder:
                begun = time.perf_counter()
                _sweep(engine, given.jobs, Path(folder))
                rates[engine].append(60 * given.jobs / (time.perf_counter() - begun))
                if (done := len(list(Path(folder).rglob("result.json")))) != given.jobs:
                    sys.exit(f"{engine}: {done} of {given.jobs} jobs have a result")
            print(f"{engine:12} {rates[engine][-1]:6.2f} jobs per minute", file=sys.stderr, flush=True)
    base = max(rates.get("fresh", [0.0]))
    for engine, per_round in rates.items():
        ratio = f"{max(per_round) / base:5.2f} x fresh" if base else ""
        print(f"{engine:12} {min(per_round):6.2f} to {max(per_round):6.2f} jobs per minute  {ratio}")


def _sweep(engine: str, jobs: int, folder: Path) -> None:
    seeds = ",".join(map(str, range(jobs)))
    train = str(ROOT / "train.py")
    launcher = {
        "fresh": [train, "-m", "hydra.launcher.jobs=2"],
        "fork": [train, "-m", "hydra.launcher.jobs=2", "hydra.launcher.fork=true"],
        "in-process": ["inside.py", "-m", "hydra/launcher=basic"],
        "joblib": ["inside.py", "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    }
    (folder / "inside.py").write_text(INSIDE)
    if engine == "bare":
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda seed: _run([train, f"seed={seed}", f"name=run{seed}", *SHORT], folder), range(jobs)))
    else:
        _run([*launcher[engine], f"seed={seeds}", "name=s", *SHORT], folder)


def _run(words: list[str], folder: Path) -> None:
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words)}: exit code {done.returncode}: {done.stderr[-2000:]}")


if __name__ == "__main__":
    main()
