"""A user's mistake is one line and exit code 2, a failed run one line and 1: scripts and people rely on both."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra

from trainer.cli.hydra_internals import VERSION_BASE
from trainer.cli.messages import user_error_message
from trainer.cli.run_cli import run_cli
from trainer.distributed.launch.launcher import PARENT
from trainer.distributed.launch.signals import Ended, Interrupted
from trainer.lr import ConfigError
from trainer.sweep.summary import SweepFailed

ROOT = Path(__file__).parents[2]
BY_HAND = {"WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}

CONFIG = """
defaults:
  - optimizer: sgd
  - task: ???
  - _self_
  - experiment: null
seed: 0
half: ${whole}
path: ???
act: none
hydra: {run: {dir: out}, output_subdir: null, job_logging: {root: {handlers: [console]}}}
"""

PROGRAM = """
import os, sys
import hydra
from trainer.cli.hydra_internals import VERSION_BASE
from trainer.cli.run_cli import run_cli
from trainer.lr import ConfigError
from trainer.distributed.launch.signals import Ended, Interrupted

@hydra.main(**VERSION_BASE, config_path="conf", config_name="train")
def main(cfg):
    if cfg.act == "refuse":
        raise ConfigError("lr=-1 must be above zero")
    if cfg.act == "raise":
        raise RuntimeError("the loss\\n  is not finite")
    if cfg.act == "interrupt":
        raise KeyboardInterrupt
    if cfg.act == "read":
        cfg.path
    if cfg.act == "resolve":
        cfg.half
    if cfg.act.startswith("exit"):
        sys.exit({"exit": None, "exit 0": 0, "exit 7": 7}[cfg.act])

if __name__ == "__main__":
    sys.exit(run_cli(main))
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A toy program with two optimizers."""
    for group, option in [("optimizer", "sgd"), ("optimizer", "adam"), ("experiment", "first"), ("task", "t")]:
        (tmp_path / "conf" / group).mkdir(parents=True, exist_ok=True)
        (tmp_path / "conf" / group / f"{option}.yaml").write_text("lr: 0.1\nmomentum: 0.9\nsmooth: 1\n")
    (tmp_path / "conf/train.yaml").write_text(CONFIG)
    (tmp_path / "train.py").write_text(PROGRAM)
    return tmp_path


def run(app: Path, *words: str, **env: str) -> tuple[int, list[str]]:
    """The exit code and the lines on stderr."""
    ours = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "HYDRA_FULL_ERROR")}
    done = subprocess.run(
        [sys.executable, "train.py", "task=t", *words],
        cwd=app,
        env=ours | {"PYTHONPATH": str(ROOT)} | env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("task=t optimizer=sdg", "optimizer=sdg: no such option; options of optimizer: adam, sgd"),
        (
            "task=t optimizer=adamw",
            "optimizer=adamw: no such option, did you mean adam? options of optimizer: adam, sgd",
        ),
        (
            "task=t optimizer.lrr=1",
            "optimizer.lrr=1: there is no key optimizer.lrr, did you mean optimizer.lr? keys of",
        ),
        ("task=t seeds=1", "seeds=1: there is no key seeds, did you mean seed? keys: act, experiment, half,"),
        ("task=t lr=1", "lr=1: the learning rate at its peak is optimizer.lr=1"),
        (
            "task=t smooth=1",
            "smooth=1: there is no key smooth, did you mean optimizer.smooth or task.smooth? keys: act,",
        ),
        ("task=t experimnt=first", "experimnt=first: there is no key experimnt, did you mean experiment? keys:"),
        (
            "task=t seed=1,2",
            "seed=1,2 has several values: add -m for a sweep with a job for each; a list is seed=[1,2].",
        ),
        ("task=t seed=[1", "cannot read the override 'seed=[1': no viable alternative at input '[1'"),
        ("task=t seed", "cannot read the override 'seed': write KEY=VALUE without spaces: seed=VALUE."),
        ("seed=1", "You must specify 'task', e.g, task=<OPTION> Available options: t"),
        ("task=t hydra.verbose=[1", "cannot read the override 'hydra.verbose=[1': no viable alternative at"),
        ("task=t hydra.job.chdir=often", "hydra.job.chdir=often: Value 'often' is not a valid bool"),
        ("task=t --config-name trian", "Cannot find primary config 'trian'."),
    ],
)
def test_a_mistake_in_the_command_is_one_line_with_what_was_meant(
    app: Path, words: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", *words.split()])
    main = hydra.main(**VERSION_BASE, config_path=str(app / "conf"), config_name="train")(lambda cfg: None)
    assert run_cli(main) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(told)
    assert not GlobalHydra.instance().is_initialized()


def raising(error: BaseException) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (ConfigError("lr=-1 must be\nabove zero"), 2, "lr=-1 must be above zero\n"),
        (RuntimeError("a\n b"), 1, "RuntimeError: a b (set HYDRA_FULL_ERROR=1 for the traceback)\n"),
        (SweepFailed("2 of 6 jobs failed: x"), 1, "2 of 6 jobs failed: x\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (SystemExit(0), 0, ""),
        (SystemExit(None), 0, ""),
        (SystemExit(143), 143, ""),
        (SystemExit("no\nway"), 1, "no way\n"),
    ],
)
def test_each_way_to_end_has_its_code(
    error: BaseException, code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(raising(error)) == code
    assert capsys.readouterr().err == told


def test_a_mistake_that_another_error_reports_is_still_a_mistake() -> None:
    error = RuntimeError("in a callback")
    error.__cause__ = ConfigError("warm-up longer than the run")
    assert user_error_message(error) == "warm-up longer than the run"


def test_an_error_of_a_library_that_a_signal_has_interrupted_is_told_as_the_signal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def main() -> None:
        try:
            try:
                raise Ended(signal.SIGTERM)
            finally:
                None.flags  # type: ignore[attr-defined]  # noqa: B018
        except AttributeError as error:
            raise ConfigError("defaults: it has no flags") from error

    assert run_cli(main) == 143
    assert capsys.readouterr().err == "interrupted by SIGTERM\n"


def test_an_exit_for_an_interrupt_or_sigterm_keeps_its_meaning() -> None:
    def interrupted() -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)

    assert run_cli(raising(Interrupted(signal.SIGTERM))) == 143
    assert run_cli(interrupted) == 130


def test_a_failed_run_tells_one_line_and_keeps_its_traceback_in_its_folder(app: Path) -> None:
    told = "RuntimeError: the loss is not finite (traceback in out/error.log)"
    assert run(app, "act=raise") == (1, [told])
    log = (app / "out/error.log").read_text()
    assert 'train.py", line' in log
    assert "RuntimeError: the loss" in log


def test_a_mistake_found_during_the_run_has_no_traceback(app: Path) -> None:
    assert run(app, "act=refuse") == (2, ["lr=-1 must be above zero"])
    assert not (app / "out/error.log").exists()


@pytest.mark.parametrize(
    ("act", "code", "told"),
    [
        ("interrupt", 130, "interrupted"),
        ("read", 2, "path is not set: add path=VALUE to the command line."),
        ("resolve", 2, "half: Interpolation key 'whole' not found"),
        ("exit", 1, "the run left before its end through sys.exit(None) at "),
        ("'exit 0'", 1, "the run left before its end through sys.exit(0) at "),
    ],
)
def test_a_run_that_ends_early_says_so(app: Path, act: str, code: int, told: str) -> None:
    returned, lines = run(app, f"act={act}")
    assert (returned, len(lines)) == (code, 1)
    assert lines[0].startswith(told)


def test_a_run_and_the_help_that_end_well_are_silent_and_own_codes_pass(app: Path) -> None:
    assert run(app) == (0, [])
    assert run(app, "--help") == (0, [])
    assert run(app, "act='exit 7'") == (7, [])


@pytest.mark.parametrize(("words", "code"), [("act=raise", 1), ("optimizer=sdg", 2)])
def test_the_full_error_is_shown_on_demand_and_the_codes_stay(app: Path, words: str, code: int) -> None:
    returned, lines = run(app, words, HYDRA_FULL_ERROR="1")
    assert returned == code
    assert "Traceback (most recent call last):" in lines
    assert not lines[-1].startswith(" ")


def test_one_rank_speaks_for_all_unless_it_is_not_the_first_to_fail(app: Path) -> None:
    ranks = [{**BY_HAND, "RANK": number, "LOCAL_RANK": number} for number in "012"]
    assert run(app, "act=refuse", **ranks[1]) == (2, [])
    child = {"LOCAL_RANK": "1", PARENT: f"{os.getpid()} 0"}  # of rank 0, which met no mistake
    code, lines = run(app, "act=refuse", **child)
    assert (code, len(lines)) == (2, 1)
    assert lines[0].startswith("rank 1: ")
    code, lines = run(app, "act=raise", **ranks[1])
    assert (code, len(lines)) == (1, 1)
    assert lines[0].startswith("rank 1: RuntimeError: the loss")
    assert run(app, "act=raise", **ranks[2]) == (1, [])
    assert len(re.findall(r"^rank \d,", (app / "out/error.log").read_text(), re.MULTILINE)) == 2


def test_a_variable_that_no_launcher_has_set_silences_nobody(app: Path) -> None:
    for stray in ({"RANK": "1"}, {"LOCAL_RANK": "1"}, {"SLURM_PROCID": "1"}, {"NODE_RANK": "1"}):
        code, lines = run(app, "act=refuse", **stray)
        assert (code, len(lines)) == (2, 1)


def test_the_front_door_imports_neither_torch_nor_lightning() -> None:
    asked = (
        "import sys, hydra, trainer.cli.run_cli, trainer.cli.run_id, hydra_plugins.process_launcher; "
        "print([name for name in sys.modules if name.split('.')[0] in ('torch', 'lightning', 'pytorch_lightning', "
        "'lightning_fabric', 'numpy', 'rich')])"
    )
    done = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("trains", [True, False])
def test_what_cannot_be_printed_ends_no_run_and_no_other_command_unseen(trains: bool) -> None:
    text = f"from trainer.cli.run_cli import run_cli; raise SystemExit(run_cli(lambda: print('x'), trains={trains}))"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", text], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode == 0) is trains, done.stderr


def test_a_terminal_that_lacks_a_character_fails_no_run() -> None:
    code = "from trainer.cli.run_cli import run_cli; raise SystemExit(run_cli(lambda: print('κ = 4')))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "kappa = 4\n", "")


@pytest.mark.parametrize("last", ["d", "[d]"])
def test_braces_that_a_shell_has_taken_apart_are_named(tmp_path, last):
    words = [str(ROOT / "train.py"), "init.rename=a:b", f"init.rename=c:{last}"]
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"your shell has taken the braces apart: quote them: 'init.rename={{a: b, c: {last}}}'." in done.stderr


def test_an_error_that_was_raised_from_itself_is_told() -> None:
    error = ValueError("odd")
    with pytest.raises(ValueError, match="odd"):
        raise error from error
    assert user_error_message(error) is None
