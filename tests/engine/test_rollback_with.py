"""A rollback returns all that a run has: what it does afterwards has the bits of a resume from the same checkpoint."""

import pytest
import torch

from tests.resume.resumed_cases import words_of
from tests.resume.sweep_of_points import differences
from trainer.checkpoint.io import checkpoints_in, read
from trainer.run import fit

CASES = (
    *("plateau count", "plateau trend", "growing batch and plateau", "early stopping and plateau", "average swa"),
    *("average ema recalibrated", "optimizer schedule_free_adamw", "workers", "workers and growing batch"),
    *("hyper_schedules", "measure noise", "progress and doctor"),
)


def fails_once(parts, at):
    """The run, whose net gives NaN at one update, the first time that it is made."""
    over = []

    def spoil(net, inputs, output):
        if net.training and parts.module.clock.t == at and not over:
            over.append(at)
            return output * torch.nan
        return None

    parts.module.net.register_forward_hook(spoil)
    return parts


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", CASES)
def test_a_rollback_goes_on_as_a_resume_does(assembled, name):
    words = [*words_of(name), "guard=rollback", "guard.rewarm=10", "trainer.keep=0", "trainer.checkpoint=3"]
    words = list({word.partition("=")[0]: word for word in words}.values())
    rolled = fails_once(assembled(*words), 11)
    fit(rolled)
    (segment,) = rolled.module.control.rollbacks
    points = [path for path in checkpoints_in(rolled.folder / "checkpoints") if read(path)["cadence"].get("left_out")]
    assert len(points) >= 3
    last = read(points[-1])
    for point in (points[0], points[len(points) // 2]):
        again = assembled(*words, folder=f"again-{point.stem}", resumed=point)
        fit(again)
        found = list(differences(last, read(again.folder / "checkpoints" / points[-1].name)))
        assert found == [], f"{segment} {point}"
