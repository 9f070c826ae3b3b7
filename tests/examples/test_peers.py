"""The counterparts of the examples in other tools train, log, validate and go on; the page has their lines."""

import importlib.util
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.examples import count_lines, template
from tests.examples.projects import ALL, inside

SHORT = {"limit_train_batches": 2, "limit_val_batches": 1, "limit_test_batches": 1, "enable_progress_bar": False}
FEW = {"max_steps": 4, "disable_tqdm": True}
PEERS = [(example, path) for example in ALL for path in sorted((example.folder / "peers").glob("*.*"))]

pytestmark = pytest.mark.filterwarnings("ignore")  # of the other tools


def started(path, folder, resume=None):
    """Train a counterpart for a few steps."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "peers"]:
        del sys.modules[name]  # every example has such a package
    if path.suffix == ".yaml":
        template.main(path, folder, resume, **SHORT)
        return
    spec = importlib.util.spec_from_file_location(f"{path.stem}_of_{path.parent.parent.name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(str(folder), resume, **(SHORT if path.stem == "lightning" else FEW))


def tags(folder):
    """What the event files in a folder hold, by tag."""
    files = folder.rglob("events.out.tfevents*")
    return {tag for file in files for tag in EventAccumulator(str(file)).Reload().Tags()["scalars"]}


@pytest.mark.sample(10)
@pytest.mark.parametrize(("example", "path"), PEERS, ids=[f"{one.name}-{path.stem}" for one, path in PEERS])
def test_a_counterpart_trains_logs_validates_and_goes_on(example, path: Path, place, tmp_path):
    with inside(place(example)):
        started(path, tmp_path)
        logged = tags(tmp_path)
        assert any("lr" in tag or "learning_rate" in tag for tag in logged)
        assert any(tag.startswith(("val", "eval")) for tag in logged)
        checkpoints = [*tmp_path.rglob("last.ckpt"), *tmp_path.rglob("checkpoint-*")]
        assert checkpoints
        started(path, tmp_path, str(max(checkpoints, key=lambda checkpoint: checkpoint.stat().st_mtime)))


def test_the_page_has_the_lines_of_today():
    assert count_lines.PAGE.read_text() == count_lines.page(), "run python -m tests.examples.count_lines"


def test_lines_are_counted_without_comments_docstrings_and_blank_ones(tmp_path):
    file = tmp_path / "one.py"
    code = '"""Doc."""\nimport os  # why\n\n\ndef f(a):\n    """Doc\n    more."""\n    # no\n'
    file.write_text(f"{code}    return {{\n        a\n    }}\n")
    assert count_lines.python_lines(file) == 5
    assert count_lines.python_lines(file, without="f") == 0


def test_code_that_a_counterpart_imports_counts_on_both_sides(tmp_path):
    (tmp_path / "own.py").write_text("A = 1\nB = 2\n\n\ndef f():\n    return A\n\n\ndef g():\n    return B\n")
    peer = tmp_path / "peer.py"
    peer.write_text("from own import f\n")
    assert count_lines.shared_lines(tmp_path, peer) == 3
