"""Each example learns, goes on to the same bits, is cut without a difference, and can be swept and examined."""

import json
import os
from contextlib import nullcontext, suppress

import pytest
import torch

from tests.distributed import worlds
from tests.examples.projects import ALL, Example, assembled, inside
from trainer.checkpoint.io import checkpoints_in
from trainer.lr import ConfigError
from trainer.run import fit
from trainer.tools import doctor
from trainer.tools.range_test import command as range_test

CUT = (
    "trainer.precision=64-true",
    "trainer.duration=12",
    "trainer.validate=12",
    "warmup=linear",
    "warmup.duration=3",
    "logger=none",
)
LONE = [example for example in ALL if example.cuts]
each = pytest.mark.parametrize("example", ALL, ids=lambda example: example.name)


def weights(run):
    return {name: value.detach().clone() for name, value in run.module.net.state_dict().items()}


@pytest.mark.sample(10)
@each
def test_it_learns_and_goes_on_from_any_update_to_the_same_bits(example: Example, place, tmp_path, all_cases):
    """From five updates with --all-cases, otherwise from one in the middle."""
    with inside(place(example)):
        whole = assembled(example, tmp_path / "whole", "trainer.keep=0")
        every = max(1, whole.module.horizon.total // 6)
        whole = assembled(example, tmp_path / "whole", "trainer.keep=0", checkpoint=every)
        fit(whole)
        scores = whole.checkpointing.best["scores"]
        assert example.learned(scores), scores
        expected, points = weights(whole), checkpoints_in(whole.folder / "checkpoints")[:5]
        assert len(points) == 5
        for point in points if all_cases else points[2:3]:
            resumed = assembled(example, tmp_path / point.stem, "trainer.keep=0", resumed=point)
            fit(resumed)
            found = weights(resumed)
            assert all(torch.equal(found[name], expected[name]) for name in expected), point.stem


def cut_all(rank, world, folder, places):
    for example in LONE:
        if example.name not in places:
            continue
        with inside(places[example.name]):
            run = assembled(example, folder / example.name, *CUT, f"trainer.devices={world}", "trainer.strategy=ddp")
            fit(run)
        torch.save(weights(run), folder / f"{example.name}.{rank}.pt")


@pytest.fixture(scope="module")
def world(tmp_path_factory, place, request):
    """The examples that are compared, trained by two processes one after the other."""
    compared = test_two_processes_train_what_two_micro_batches_do.__name__
    examples = [item.callspec.params["example"] for item in request.session.items if item.originalname == compared]
    seconds = 120 + 60 * len(examples)

    def train(folder):
        places = {example.name: place(example) for example in examples}
        assert worlds.run(2, cut_all, 2, folder, places, seconds=seconds) == [0, 0]

    return worlds.once(tmp_path_factory, "examples", train, seconds + 300)


@pytest.mark.sample(5)
@pytest.mark.slow
@pytest.mark.parametrize("example", LONE, ids=lambda example: example.name)
def test_two_processes_train_what_two_micro_batches_do(example: Example, world, place, tmp_path):
    with inside(place(example)):
        run = assembled(example, tmp_path / "run", *CUT, "trainer.accumulate=2")
        fit(run)
    for rank in (0, 1):
        other = torch.load(world / f"{example.name}.{rank}.pt")
        for name, value in weights(run).items():
            torch.testing.assert_close(other[name], value, rtol=0, atol=1e-12)


@pytest.mark.sample(2)
@pytest.mark.slow
@each
def test_two_rates_are_swept_and_the_range_test_reads_its_loss(example: Example, place, tmp_path, capsys):
    short = (
        "trainer.duration=20",
        "trainer.validate=10",
        "warmup=linear",
        "warmup.duration=2",
        "trainer.accelerator=cpu",
    )
    where = ("name=sweep", f"hydra.sweep.dir={tmp_path}/sweep", "hydra.launcher.fork=true")
    rates = f"{example.rates[0]},{example.rates[1].partition('=')[2]}"
    driver = worlds.Script(
        worlds.ROOT / "train.py", ["-m", *example.words, *where, *short, rates], place(example), dict(os.environ)
    )
    _, err = driver.communicate()
    assert driver.returncode == 0, err
    for job in (0, 1):
        assert json.loads((tmp_path / f"sweep/{job}/result.json").read_text())["status"] == "completed"
    options = ("trainer.accelerator=cpu", *example.range, "--seeds=1", f"--out={tmp_path}/range")
    with inside(place(example)):
        with suppress(ConfigError) if example.bounded else nullcontext():
            range_test.main([*example.words, *options])
        doctor.main([str(tmp_path / "sweep")])
    assert (tmp_path / "range.json").exists()
    assert "sweep/0" in capsys.readouterr().out
