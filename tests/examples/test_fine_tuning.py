"""Each way of fine-tuning in the example's README learns."""

from pathlib import Path

import pytest

from tests.examples.projects import Example, composed_of, home, inside
from trainer.run import assemble, fit

TUNING = Example("fine_tuning", "val/accuracy", 0.85, higher=True)


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    return home(TUNING, tmp_path_factory.mktemp("projects"))


@pytest.mark.parametrize("words", TUNING.trained[2:], ids=lambda words: words[-1])
def test_each_way_learns_more_than_a_net_from_the_start(words, place, tmp_path):
    with inside(place):
        run = assemble(composed_of(words), tmp_path / "run")
        fit(run)
    assert TUNING.learned(run.checkpointing.best["scores"])


def test_a_net_from_the_start_learns_less(place, tmp_path):
    words = [*TUNING.words, "groups=default", "init.path=null", "init.rename=null"]
    assert words[-3:] == (Path(place) / "README.md").read_text().rpartition("(`")[2].partition("`)")[0].split()
    with inside(place):
        run = assemble(composed_of(words), tmp_path / "run")
        fit(run)
    assert not TUNING.learned(run.checkpointing.best["scores"])
