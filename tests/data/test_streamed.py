"""Data sets that are streamed: batches in their own order, and a resume to the same bits from any update."""

import multiprocessing
from itertools import islice

import datasets
import pytest
import torch
from datasets.distributed import split_dataset_by_node

from data.dataset import Datasets
from data.order import Layout, Order
from data.reader import SampleError
from data.stream import Loop
from data.streamed import Position, Streamed, is_streamed
from data.streamed_loader import StreamedLoader
from data.tree import fingerprint
from tests.data import own_sets
from tests.data.own_sets import Counting, CountingInSilence, Flow, NoState, Shuffled
from tests.data.test_dataset import OWN, RUN, step, weights
from tests.distributed import worlds
from tests.engine import equality
from trainer.checkpoint.io import checkpoint_path, read
from trainer.lr import ConfigError
from trainer.run import fit
from trainer.tools.range_test.sweep import sweep

CPU = torch.device("cpu")


START = Position()


def taken(source, count, start=START, batch_size=4, seed=1):
    return list(islice(source.batches(batch_size, seed, start, CPU), count))


def prints(found):
    return [fingerprint(batch) for batch, _ in found]


def hugging(count=50, buffer=0):
    """An iterable set of `datasets`, in shards, with noise from torch's generator."""
    plain = datasets.Dataset.from_dict({"x": [float(i) for i in range(count)]}).to_iterable_dataset(num_shards=5)
    return (plain.shuffle(seed=0, buffer_size=buffer) if buffer else plain).map(noisy)  # threads shuffle


def noisy(row):
    return {"x": row["x"], "noise": torch.rand(()).item()}


SETS = {
    "state": lambda: Streamed(Flow(noise=1.0)),
    "reread": lambda: Streamed(NoState(noise=1.0), reread=True),
    "datasets": lambda: Streamed(hugging()),
    "buffer": lambda: Streamed(hugging(buffer=7), reread=True),
}


@pytest.mark.parametrize("kind", SETS)
def test_reading_goes_on_from_any_place_to_the_same_bits_with_and_without_a_worker(kind):
    whole = taken(SETS[kind](), 30)
    assert [position.epoch for _, position in whole] == [0] * 12 + [1] * 12 + [2] * 6, "50 samples are 12 batches of 4"
    for begun in (0, 1, 5, 11, 12, 20):
        source = SETS[kind]()
        source.num_workers = begun % 2 if kind in ("state", "reread") else 0
        start = whole[begun - 1][1] if begun else Position()
        assert prints(taken(source, 30 - begun, start)) == prints(whole)[begun:]
        source.num_workers = 0
        assert prints(taken(source, 2)) == prints(whole)[:2], "the same object may begin anew"


@pytest.mark.parametrize("kind", ["datasets", "buffer"])
def test_a_worker_reads_a_set_of_datasets_on_from_where_a_worker_stopped(kind):
    source = SETS[kind]()
    source.num_workers = 1
    whole = taken(source, 20)
    for begun in (3, 14):
        assert prints(taken(source, 20 - begun, whole[begun - 1][1])) == prints(whole)[begun:]
    with pytest.raises(ValueError, match="data.num_workers=0, but the checkpoint was made with 1"):
        taken(SETS[kind](), 1, whole[2][1])


def test_batches_come_in_the_order_given_and_a_pass_has_its_own_seeds():
    found = taken(SETS["datasets"](), 24)
    assert torch.cat([batch["x"] for batch, _ in found[:12]]).tolist() == list(range(48))
    first, second = (torch.cat([batch["noise"] for batch, _ in found[i : i + 12]]) for i in (0, 12))
    assert not (first == second).any()
    assert not torch.equal(first[:4], taken(SETS["datasets"](), 1, seed=2)[0][0]["noise"])
    before = torch.get_rng_state()
    taken(SETS["state"](), 3)
    assert torch.equal(before, torch.get_rng_state())


def test_a_pass_has_its_own_order_where_the_state_holds_the_epoch():
    found = taken(Streamed(Shuffled(12)), 9)
    passes = [torch.cat([batch for batch, _ in found[i : i + 3]]).tolist() for i in (0, 3, 6)]
    assert passes == [torch.randperm(12, generator=torch.Generator().manual_seed(e)).tolist() for e in range(3)]
    for done in range(1, 8):
        onward = taken(Streamed(Shuffled(12)), 9 - done, found[done - 1][1])
        assert prints(onward) == prints(found[done:])


@pytest.mark.parametrize("reread", [False, True])
def test_a_set_that_counts_its_passes_itself_is_read_as_in_a_plain_loop_and_on_from_any_place(reread):
    plain = Counting()
    wanted = [list(plain) for _ in range(3)]
    assert not torch.equal(torch.stack(wanted[0]), torch.stack(wanted[1]))
    whole = taken(Streamed(Counting(), reread=reread), 36)
    for i, (batch, position) in enumerate(whole):
        assert torch.equal(batch, torch.stack(wanted[i // 12][i % 12 * 4 :][:4])), position
    for begun in (1, 11, 12, 13, 24, 30):
        source = Streamed(Counting(), begun % 2, reread=reread)
        assert prints(taken(source, 36 - begun, whole[begun - 1][1])) == prints(whole)[begun:], begun


def test_a_pass_that_cannot_be_read_again_is_refused():
    whole = taken(Streamed(CountingInSilence(), reread=True), 20)
    again = Streamed(CountingInSilence(), reread=True)
    assert prints(taken(again, 2, whole[9][1])) == prints(whole)[10:12], "in the first pass the order is the same"
    with pytest.raises(
        SampleError, match="gives other samples in pass 1 than before the checkpoint.*give it set_epoch"
    ):
        taken(Streamed(CountingInSilence(), reread=True), 1, whole[14][1])


def test_two_ranks_read_no_sample_twice_or_are_refused():
    parts = [Streamed(hugging()).of_rank(rank, 2) for rank in range(2)]
    seen = [{x for batch, _ in taken(part, 6) for x in batch["x"].tolist()} for part in parts]
    assert not seen[0] & seen[1]
    assert len(seen[0] | seen[1]) == 48
    already = Streamed(split_dataset_by_node(hugging(), 1, 2))
    assert already.of_rank(1, 2) is already
    assert Streamed(Flow(), sharded=True).of_rank(1, 2).sharded
    with pytest.raises(ValueError, match="data.train: Flow would give all 2 processes the same samples.*data.sharded"):
        Streamed(Flow()).of_rank(0, 2)


def test_what_cannot_be_read_on_is_refused():
    middle = Position(0, 8, None)
    with pytest.raises(
        ValueError, match="NoState cannot go on after 8 samples, because it has no state_dict: set data.r"
    ):
        taken(Streamed(NoState()), 1, middle)
    shuffled = Streamed(hugging(buffer=7))
    with pytest.raises(ValueError, match="because its shuffle buffer is in no state"):
        taken(shuffled, 1, taken(shuffled, 2)[1][1])
    with pytest.raises(ValueError, match="data.num_workers=2: a set that is streamed has one order: give 0 or 1"):
        Streamed(Flow(), 2)
    with pytest.raises(ValueError, match="object is no data set"):
        Streamed(object())


@pytest.mark.parametrize("workers", [0, 1])
def test_a_set_smaller_than_a_batch_and_a_broken_sample_stop_the_run_in_one_line(workers):
    with pytest.raises(SampleError) as error:
        taken(Streamed(Flow(3), workers), 1)
    assert str(error.value).startswith("data: Flow gives 3 samples in pass 0, and a batch has 4: lower data.batch_size")

    def broken():
        yield from [torch.zeros(1), torch.zeros(1)]
        raise OSError("no more")

    class Broken(NoState):
        def __iter__(self):
            return broken()

    with pytest.raises(SampleError) as error:
        taken(Streamed(Broken(), workers), 1)
    assert str(error.value) == "data: sample 2 in pass 0 of Broken cannot be read: OSError: no more"


def test_the_loader_knows_the_place_of_every_update_while_it_runs_ahead():
    clock, source = [3], Streamed(Flow())
    order = Order(8, 0, Layout(4, 2))

    def read_from(position):
        return source.batches(4, 1, position, CPU)

    loop = Loop(total=12, validation_interval=4, steps_per_execution=3, accumulate=2)
    loader = StreamedLoader(read_from, Position(0, 8, {"at": 8}), order, lambda: clock[0], loop)
    (chunk,) = list(loader)
    assert [batch.batch[0][0, 0].item() for batch in chunk[0]] == [own_sets.Rows()[i][0][0].item() for i in (8, 12)]
    assert [loader.position(t).read for t in (3, 4)] == [8, 16]
    clock[0] = 4
    ahead = iter(loader)
    next(ahead)
    assert [loader.position(t).read for t in (4, 5, 6, 7)] == [16, 24, 32, 40]
    clock[0] = 5
    assert len(list(loader)) == 1, "another iteration begins where the clock is"
    assert [loader.position(t).read for t in (5, 8)] == [24, 48]
    clock[0] = 2
    with pytest.raises(RuntimeError, match="update 2 was read before, and a set that is streamed cannot go back"):
        next(iter(loader))


def test_what_is_streamed():
    assert is_streamed(Flow())
    assert is_streamed(hugging())
    assert is_streamed(iter([1]))
    assert not is_streamed([1, 2])
    assert not is_streamed(own_sets.Rows())
    assert not is_streamed(datasets.Dataset.from_dict({"x": [1]}))


FLOW = ("data=dataset", f"data.train={{_target_:{OWN}.Flow,noise:0.5}}", step("row_step"))


@pytest.mark.sample(1)
@pytest.mark.parametrize("kind", ["state", "reread", "loader"])
def test_a_run_on_a_stream_resumes_to_the_same_bits_from_any_update(assembled, kind, all_cases):
    """18 updates of two batches of 8, in passes of 50 samples; checkpoints between and at validations."""
    words = {
        "state": FLOW,
        "reread": (*FLOW[:1], f"data.train={{_target_:{OWN}.NoState,noise:0.5}}", "data.reread=true", FLOW[2]),
        "loader": ("data=loaders", f"data.train={{_target_:{OWN}.flow_loader,batch_size:8}}", FLOW[2]),
    }[kind]
    words = (
        *(*RUN, *words, "trainer.duration=18", "trainer.validate=6", "trainer.accumulate=2", "trainer.checkpoint=1"),
        *(
            "trainer.steps_per_execution=4",
            f"data.val={{_target_:{OWN}.{'val_loader' if kind == 'loader' else 'Rows'}}}",
        ),
    )
    whole = assembled(*words)
    fit(whole)
    for start in {"state": (1, 6, 11) if all_cases else (11,), "reread": (7,), "loader": (16,)}[kind]:
        path = checkpoint_path(whole.checkpointing.folder, start)
        resumed = assembled(*words, folder=f"from{start}", resumed=path)
        fit(resumed)
        assert torch.equal(weights(resumed), weights(whole)), start
    assert read(path)[type(whole.data).__qualname__]["positions"][0]["read"] == start * 16 % 48 or 48
    assert whole.data.order_note == "as the data gives them"


def test_a_validation_set_that_is_streamed_is_scored_as_a_whole():
    data = Datasets(train=Flow(), val=Flow(21), test=hugging(7), batch_size=4, eval_batch_size=5)
    data.setup()
    assert sum(len(batch[0]) for batch in data.val_dataloader()) == 21
    assert [len(data.splits.val), len(data.splits.test), data.train_samples] == [21, 7, None]
    parts = Datasets(train=Flow(), val=Flow(21), sharded=True, batch_size=4)
    parts.setup()
    parts.check_run(1, None)
    with pytest.raises(ValueError, match="data.val is streamed in parts"):
        parts.check_run(2, None)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("trainer.duration=2ep",), "trainer.duration=2ep counts epochs, and data.samples is not known: set it"),
        (("trainer.validate=1ep",), "trainer.validate=1ep counts epochs, and data.samples is not known: set it"),
        (("trainer.devices=2",), "data.train: Flow would give all 2 processes the same samples"),
        (("trainer.overfit=1",), "trainer.overfit=1 takes samples by their index, and Flow is streamed: leave it out"),
    ],
)
def test_a_length_or_a_part_that_is_not_known_is_refused(assembled, words, told):
    with pytest.raises(ConfigError, match=told):
        assembled(*RUN, *FLOW, *words)


def test_a_stream_without_a_state_is_not_resumed_unless_it_is_read_again(assembled):
    words = (*RUN, *FLOW[:1], f"data.train={{_target_:{OWN}.NoState}}", FLOW[2])
    whole = assembled(*words)
    fit(whole)
    with pytest.raises(
        ConfigError, match="NoState cannot go on after 48 samples, because it has no state_dict"
    ) as error:
        assembled(*words, folder="on", resumed=checkpoint_path(whole.checkpointing.folder, 6))
    assert "\n" not in str(error.value)
    data = Datasets(train=Flow(), batch_size=4)
    data.setup()
    with pytest.raises(ValueError, match="the checkpoint has no position in a set that is streamed"):
        data.check_run(1, {})
    with pytest.raises(ValueError, match="the checkpoint has positions for 2 processes, and not for 1"):
        data.check_run(1, {"Datasets": {"positions": [{}, {}]}})


def test_a_declared_number_of_samples_gives_epochs(assembled):
    run = assembled(*RUN, *FLOW, "data.samples=50", "trainer.duration=2ep", "trainer.validate=1ep")
    assert (run.module.horizon.total, run.module.horizon.updates_per_epoch) == (12, 6)


def streams(rank, folder):
    """Two processes, each with its half of a set of datasets, stopped nowhere and resumed at update 7."""
    words = (
        *(word for word in RUN if not word.startswith(("data.batch_size", "trainer.duration", "logger"))),
        *("data=dataset", f"data.train={{_target_:{OWN}.hugging_rows}}", step("row_step"), "logger=none"),
        *("trainer.duration=14", "trainer.checkpoint=7", "trainer.validate=14", "warmup.duration=2"),
        f"data.collate_fn={{_target_:{OWN}.stacked,_partial_:true}}",
    )
    whole = equality.assembled(folder / "whole", 2, 1, *words)
    fit(whole)
    path = checkpoint_path(whole.checkpointing.folder, 7)
    resumed = equality.assembled(folder / "on", 2, 1, *words, f"resume.path='{path}'", resumed=path)
    fit(resumed)
    torch.save((weights(whole), weights(resumed), read(path)["Datasets"]), folder / f"{rank}.pt")


@pytest.mark.slow
def test_two_processes_each_go_on_where_they_stopped(tmp_path):
    assert worlds.run(2, streams, tmp_path) == [0, 0]
    for rank in range(2):
        whole, resumed, saved = torch.load(tmp_path / f"{rank}.pt")
        assert torch.equal(whole, resumed)
        assert [position["read"] for position in saved["positions"]] == [56 % 24, 56 % 24]


def test_a_range_test_on_a_stream_begins_anew_each_time(assembled):
    run = assembled(*RUN, *FLOW, "data.val={_target_:" + OWN + ".Rows,count:9}")
    found = [sweep(run, "lr", [1e-3, 1e-2, 1e-1], "train").losses for _ in range(2)]
    assert found[0] == found[1]
    with pytest.raises(ValueError, match="this command takes samples by their index, and Flow is streamed"):
        next(run.data.random_batches(0, 0, 4, 1))


def test_the_worker_of_a_stream_ends_with_the_fit(assembled):
    run = assembled(*RUN, *FLOW, "data.val={_target_:" + OWN + ".Rows,count:9}", "data.num_workers=1")
    before = {child.pid for child in multiprocessing.active_children()}  # those of loaders of other tests
    fit(run)
    assert {child.pid for child in multiprocessing.active_children()} <= before
