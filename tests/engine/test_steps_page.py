"""The page on steps holds: its code runs by its command. Its other sections are tested with what they show."""

import pytest
import torch

from tests.pages import overrides_of
from trainer.run import fit

PAGE = "steps.md"
SMALL = (
    *("model.hidden=[16]", "data.batch_size=16", "logger=none", "trainer.duration=60", "trainer.validate=30"),
    *("trainer.accumulate=2", "optimizer.lr=1e-2"),
)


@pytest.fixture
def command(tmp_path, monkeypatch):
    """The overrides of the page's command, with the page's code where Python finds it."""
    return overrides_of(PAGE, "steps.py", tmp_path, monkeypatch)


def test_the_step_of_the_page_learns_and_is_scored_by_the_metrics_of_the_task(assembled, command):
    run = assembled(*SMALL, *command)
    logs = []
    add = run.module.metric_buffer.add
    run.module.metric_buffer.add = lambda *given: (logs.append(given[-1]), add(*given))
    fit(run)
    scores = run.checkpointing.best["scores"]
    assert scores["val/loss"] < 1.5
    assert 0.5 < scores["val/accuracy"] < 0.95  # it never learns class 0
    assert len(logs) == 60
    assert all(0 < row["entropy"] < torch.tensor(10.0).log() + 1e-6 for row in logs)
    assert run.module.step.keywords == {"penalty": 0.05}
