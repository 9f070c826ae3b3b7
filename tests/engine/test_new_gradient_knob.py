"""The example in CONTRIBUTING holds: with its edits of three files a run has a new step with gradients."""

import filecmp
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).parents[2]
PARTS = ("conf", "data", "hydra_plugins", "models", "tests", "trainer", "cadence", "train.py", "pyproject.toml")
LIMIT = 1e-6
WORDS = (
    *("data=synthetic", "data.samples=80", "data.batch_size=8", "data.val_samples=8", "model.hidden=[8]", "name=run"),
    *(
        "optimizer=sgd",
        "groups=all",
        "trainer.accelerator=cpu",
        "trainer.duration=10",
        "trainer.validate=10",
        "measure=norms",
    ),
)


def edits() -> dict[str, list[tuple[str, str]]]:
    """The edits of the example by file: what stands there before, and after."""
    (diff,) = re.findall(r"```diff\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    found = {}
    for part in diff.split("--- ")[1:]:
        name, _, body = part.partition("\n")
        hunks = [hunk.splitlines() for hunk in body.split("@@\n")[1:]]
        found[name] = [tuple(_side(hunk, signs) for signs in ((" ", "-"), (" ", "+"))) for hunk in hunks]
    return found


def _side(hunk: list[str], signs: tuple[str, str]) -> str:
    return "".join(f"{line[1:]}\n" for line in hunk if line.startswith(signs))


def apply(tree: Path) -> None:
    """Make the edits in a copy of the project; each place must be there exactly once."""
    for name, hunks in edits().items():
        path = tree / name
        text = path.read_text() if path.exists() else ""
        for before, after in hunks:
            assert text.count(before) == 1 or not (before or text), f"{name} has not once: {before}"
            text = text.replace(before, after) if before else after
        path.write_text(text)


def changed(one: filecmp.dircmp) -> list[str]:
    """The files that differ between two trees, or are in one of them alone."""
    here = [*one.diff_files, *one.left_only, *one.right_only]
    return here + [f"{name}/{file}" for name, below in one.subdirs.items() for file in changed(below)]


def run(tree: Path, *words: str) -> str:
    done = subprocess.run([sys.executable, *words], cwd=tree, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """The project as it is, and with the edits of the example."""
    trees = [tmp_path_factory.mktemp(name) for name in ("plain", "edited")]
    for tree in trees:
        for name in PARTS:
            if (source := ROOT / name).is_dir():
                shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.exists():
                shutil.copy(source, tree / name)
    apply(trees[1])
    return trees


def test_the_example_edits_three_files(copies):
    files = changed(filecmp.dircmp(*copies))
    assert sorted(files) == sorted(edits())
    assert len(files) == 3


@pytest.mark.slow
def test_a_run_with_the_new_step_trains_and_its_gradients_are_bounded(copies):
    plain, edited = copies
    shown = run(edited, "train.py", *WORDS, f"trainer.clip_value={LIMIT}")
    assert f"each number within ±{LIMIT:g} (trainer.clip_value)" in " ".join(shown.split())
    run(plain, "train.py", *WORDS)
    norms = []
    for tree in copies:
        log = EventAccumulator(str(tree / "outputs" / "run"), size_guidance={"scalars": 0}).Reload()
        norms.append([point.value for point in log.Scalars("measure/all/grad_norm")])
    assert len(norms[0]) == len(norms[1]) == 10
    bound = LIMIT * math.sqrt(1e4)  # the net has fewer numbers
    assert max(norms[1]) <= bound < min(norms[0])


@pytest.mark.slow
def test_the_test_of_the_example_passes(copies):
    assert "1 passed" in run(
        copies[1], "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/engine/test_clip_value.py"
    )
