"""One global batch is one training, however many processes and micro-batches it is cut into."""

from functools import partial

import pytest
import torch

from tests.distributed import worlds
from tests.engine import equality
from tests.engine.equality import NORMED, OPTIMIZERS, UPDATES, splits, train, train_all, train_more


@pytest.fixture(scope="module")
def folder(tmp_path_factory, request):
    """The runs that are looked at, of all worlds, side by side: starting processes is what takes the time."""
    looked_at = {item.callspec.params.get("name") for item in request.session.items if hasattr(item, "callspec")}
    names = [name for name in OPTIMIZERS if name in looked_at | {"momentum"}]
    return worlds.once(tmp_path_factory, "equality", partial(fill, names))


def fill(names, place):
    """Run every world."""
    started = worlds.start(4, train_all, 4, place, names) + worlds.start(2, train_all, 2, place, names)
    started += worlds.start(2, train_more, 2, place)
    for world in (1, 2, 3):
        started += worlds.start(world, equality.score, world, place)
    train_all(0, 1, place, names)
    torch.save(train(place / "alone", 1, 1, *NORMED), place / "alone.pt")
    for process in started:
        process.join(300)
    assert [process.exitcode for process in started] == [0] * len(started)


def apart(one, other):
    return (one["weights"] - other["weights"]).abs().max().item()


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_cut_of_the_global_batch_ends_with_the_same_weights_and_logs_the_same_rates(folder, name):
    alone = torch.load(folder / f"{name}-1x1.0.pt")
    assert alone["weights"].dtype == torch.float64
    assert len({tuple(rates) for rates in alone["rates"]}) > 10
    for world in (1, 2, 4):
        for accumulate in splits(world):
            for rank in range(world):
                run = torch.load(folder / f"{name}-{world}x{accumulate}.{rank}.pt")
                assert apart(run, alone) <= 1e-12
                assert run["rates"] == alone["rates"]
                assert run["logged"] == alone["logged"] or rank
    assert [len(points) for points in alone["logged"].values()] == [UPDATES] * len(alone["logged"]) != []


@pytest.mark.slow
@pytest.mark.parametrize("bug", ["own_shuffle", "times_world", "no_division"])
def test_the_bugs_of_peers_make_a_difference_that_is_seen(folder, bug):
    alone, wrong = torch.load(folder / "momentum-1x1.0.pt"), torch.load(folder / f"{bug}.0.pt")
    assert apart(wrong, alone) > 1e-3


@pytest.mark.slow
def test_batch_norm_sees_the_micro_batch_unless_it_is_synchronised(folder):
    alone = torch.load(folder / "alone.pt")
    assert apart(torch.load(folder / "norm.0.pt"), alone) > 1e-3
    together = torch.load(folder / "sync_norm.0.pt")
    assert apart(together, alone) < 1e-9
    assert together["scores"]["val/loss"] == pytest.approx(alone["scores"]["val/loss"], abs=1e-6)


@pytest.mark.slow
def test_gradients_are_exchanged_on_the_last_micro_batch_of_four_and_on_no_other(folder):
    assert torch.load(folder / "exchanges.0.pt") == [1] * UPDATES == torch.load(folder / "exchanges.1.pt")


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2, 3])
def test_each_sample_of_an_odd_split_is_scored_once_on_any_number_of_processes(folder, world):
    alone = torch.load(folder / "score1.0.pt")
    ranks = [torch.load(folder / f"score{world}.{rank}.pt") for rank in range(world)]
    assert sum(sum(rank["samples"]) for rank in ranks) == 43 + 41
    assert {len(rank["samples"]) for rank in ranks} == {len(ranks[0]["samples"])}
    for rank in ranks:
        assert set(rank["scores"]) == {"val/loss", "val/accuracy", "test/loss", "test/accuracy"}
        for name, value in alone["scores"].items():
            assert rank["scores"][name] == pytest.approx(value, abs=1e-6)
        assert rank["scores"]["test/accuracy"] == alone["scores"]["test/accuracy"]
