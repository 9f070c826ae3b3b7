"""The stream must end where the trainer needs control, and give the same batches however it is cut or restarted."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch

from data.augment import Augment
from data.order import Layout, Order, Pick
from data.source import Memory, Workers
from data.stream import Chunk, Loop, MicroBatch, Stream

IMAGES = torch.randn(50, 2, 6, 6, generator=torch.Generator().manual_seed(0))


def stream(t: int = 0, steps_per_execution: int = 3, layout: Layout | None = None, **run: object) -> Stream:
    settings = {"total": 40, "validation_interval": 10, "pauses": (), **run}
    order = Order(50, 5, layout or Layout(4))
    source = Memory((IMAGES, torch.arange(50)))
    loop = Loop(steps_per_execution=steps_per_execution, **settings)
    return Stream(source, order, lambda: t, loop, Augment(crop=1, flip=True, cutout=2))


def flat(chunks: list) -> list[MicroBatch]:
    return [micro for chunk in chunks for update in chunk for micro in update]


def same(ours: list[MicroBatch], theirs: list[MicroBatch]) -> bool:
    return len(ours) == len(theirs) and all(
        a.seed == b.seed and all(map(torch.equal, a.batch, b.batch)) for a, b in zip(ours, theirs)
    )


def whole_run(**settings: object) -> list[MicroBatch]:
    return [micro for t in range(0, 40, 10) for micro in flat(list(stream(t, **settings)))]


@pytest.mark.parametrize(
    ("t", "settings", "sizes"),
    [
        (0, {}, [3, 3, 3, 1]),
        (7, {}, [3]),
        (10, {}, [3, 3, 3, 1]),
        (30, {"total": 34}, [3, 1]),
        (0, {"steps_per_execution": 99}, [10]),
        (0, {"steps_per_execution": 99, "pauses": (4,)}, [4, 4, 2]),
        (2, {"steps_per_execution": 3, "pauses": (4, 5)}, [2, 1, 3, 2]),
        (40, {}, []),
        (45, {}, []),
    ],
)
def test_chunks_end_at_intervals_pauses_and_the_most_updates_per_call(t: int, settings: dict, sizes: list[int]) -> None:
    assert [len(chunk) for chunk in stream(t, **settings)] == sizes


@pytest.mark.parametrize(("numbers", "at_once"), [(4, 5), (2**15, 3), (2**18, 1)])
def test_updates_of_a_chunk_are_cut_when_their_turn_comes_small_ones_some_at_a_time(numbers: int, at_once: int) -> None:
    cut: list[int] = []

    class Watched(Memory):
        def batches(self, picks: Iterable[Pick]) -> Iterator[Any]:
            for batch in super().batches(picks):
                cut.append(int(batch[1][0]))
                yield batch

    source = Watched((torch.rand(12, numbers), torch.arange(12)))
    chunk = next(iter(Stream(source, Order(12, 5, Layout(2)), lambda: 0, Loop(5, 5, steps_per_execution=5))))
    assert (cut, len(chunk)) == ([], 5)
    seen = []
    for update in chunk:
        seen.append(int(update[0].batch[1][0]))
        assert len(cut) == min(5, -(-len(seen) // at_once) * at_once)
    assert cut == seen
    assert same(flat([chunk]), flat([chunk]))


def test_samples_that_are_changed_or_looked_at_are_cut_before_the_step_whose_precision_is_another() -> None:
    order, pair, changed = Order(12, 5, Layout(2)), (torch.rand(12, 4), torch.arange(12)), lambda one, *seed: one
    plain, whole = Loop(6, 6, steps_per_execution=6), Loop(6, 6, steps_per_execution=6, whole=True)
    (late,) = Stream(Memory(pair), order, lambda: 0, plain)
    assert isinstance(late, Chunk)
    for source, loop, augment in (
        (Memory(pair), whole, None),
        (Memory(pair), plain, changed),
        (Memory(pair, changed), plain, None),
    ):
        (chunk,) = Stream(source, order, lambda: 0, loop, augment)
        assert isinstance(chunk, list)
        assert same(flat([chunk]), flat([late]))


def test_sparse_samples_in_memory_are_cut_too() -> None:
    rows = torch.eye(6)
    source = Memory((rows.to_sparse(), torch.arange(6)), lambda batch: (batch[0].to_dense(), batch[1]))
    found = flat(list(Stream(source, Order(6, 0, Layout(2)), lambda: 0, Loop(3, 3))))
    assert sorted(int(label) for micro in found for label in micro.batch[1]) == [*range(6)]
    assert all(torch.equal(micro.batch[0], rows[micro.batch[1]]) for micro in found)


def test_no_chunk_steps_over_a_multiple_of_any_interval() -> None:
    loop = Loop(total=97, validation_interval=12, pauses=(5, 9), steps_per_execution=4)
    edges, t = [0], 0
    while t < 97:
        edges += [stop for _, stop in loop.chunks(t, loop.next_validation(t))]
        t = edges[-1]
    assert all(0 < stop - start <= 4 for start, stop in pairwise(edges))
    assert {multiple for every in (12, 5, 9) for multiple in range(0, 97, every)} | {97} <= set(edges)


@pytest.mark.parametrize(
    ("seconds", "sizes"),
    [
        (0.0001, [10, 10, 20, 40, 50, 50, 20]),
        (0.004, [10, 10, 20, 25, 25, 25, 25, 25, 25, 10]),
        (0.03, [10] * 20),
        (None, [10, 10, 20, 25, *[10] * 13, 5]),
    ],
)
def test_chunks_of_quick_updates_grow_until_they_take_a_tenth_of_a_second(monkeypatch, seconds, sizes) -> None:
    """None: the first 40 updates are quick, all others slow."""
    now = 0.0
    monkeypatch.setattr("data.stream.time.perf_counter", lambda: now)
    found = []
    for start, stop in Loop(total=200, validation_interval=200, steps_per_execution=10, longest=50).chunks(0, 200):
        found.append(stop - start)
        now += (stop - start) * (seconds or (0.004 if stop <= 40 else 1.0))
    assert found == sizes


@pytest.mark.parametrize("steps_per_execution", [1, 2, 7, 100])
def test_the_batches_do_not_depend_on_how_many_updates_a_chunk_has(steps_per_execution: int) -> None:
    assert same(whole_run(steps_per_execution=steps_per_execution), whole_run(steps_per_execution=3))


@pytest.mark.parametrize("t", range(0, 40, 3))
def test_a_restart_at_any_update_gives_the_same_indices_seeds_and_pixels(t: int) -> None:
    whole = whole_run()
    assert same(flat(list(stream(t))), whole[t : (t // 10 + 1) * 10])


@pytest.mark.parametrize(("world", "accumulate"), [(4, 1), (2, 2), (1, 4)])
def test_every_layout_sees_the_same_pixels_in_the_same_slices(world: int, accumulate: int) -> None:
    def slices(world: int, accumulate: int) -> list[MicroBatch]:
        layouts = [Layout(3, accumulate, world, rank) for rank in range(world)]
        updates = [[update for chunk in stream(3, layout=layout) for update in chunk] for layout in layouts]
        return [own[t][micro] for t in range(7) for micro in range(accumulate) for own in updates]

    assert same(slices(world, accumulate), slices(4, 1))


def test_a_batch_is_the_augmented_samples_of_its_own_seed() -> None:
    augment, (first, second, *_) = Augment(crop=1, flip=True, cutout=2), whole_run()
    for micro in (first, second):
        inputs, targets = micro.batch
        assert torch.equal(inputs, augment(IMAGES[targets], micro.seed))
    assert first.seed != second.seed


def test_two_micro_batches_of_the_run_never_share_a_seed() -> None:
    seeds = [micro.seed for micro in whole_run(layout=Layout(4, accumulate=3))]
    assert len(set(seeds)) == len(seeds) == 120


def test_iterating_draws_nothing_before_the_first_chunk_is_asked_for() -> None:
    clock = [0]
    source = Memory((IMAGES, torch.arange(50)))
    loader = Stream(source, Order(50, 5, Layout(4)), lambda: clock[0], Loop(40, 10))
    waiting = iter(loader)
    clock[0] = 8
    assert len(list(waiting)) == 2
    assert not hasattr(loader, "__len__")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_workers_and_memory_give_the_same_batches_between_all_validations(num_workers: int) -> None:
    clock = [0]
    pairs = torch.utils.data.TensorDataset(IMAGES, torch.arange(50))
    loader = stream()
    loader.clock = lambda: clock[0]
    loader.source = Workers(pairs, num_workers)
    next(abandoned := iter(loader))
    for start in (0, 10, 27):
        clock[0] = start
        assert same(flat(list(loader)), flat(list(stream(start))))
    clock[0] = 10
    next(newest := iter(loader))
    with pytest.raises(RuntimeError, match="newer iteration"):
        next(abandoned)
    assert same(flat(list(newest)), flat(list(stream(10))[1:]))


def test_workers_leave_the_global_random_state_alone() -> None:
    loader = stream()
    loader.source = Workers(torch.utils.data.TensorDataset(IMAGES, torch.arange(50)), 0)
    before = torch.get_rng_state()
    list(loader)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    "wrong", [{"total": 0}, {"validation_interval": 0}, {"steps_per_execution": 0}, {"pauses": (0,)}]
)
def test_a_run_without_updates_is_refused_in_one_line(wrong: dict) -> None:
    with pytest.raises(ValueError, match="at least 1") as error:
        stream(**wrong)
    assert "\n" not in str(error.value)


def test_intervals_and_pauses_may_end_where_functions_say() -> None:
    ends = [4, 9, 11, 13, 20]

    def later(t: int) -> int:
        return next((end for end in ends if end > t), 99)

    whole = [
        len(chunk)
        for t in (0, 4, 9, 11, 13, 20)
        for chunk in stream(t, validation_interval=later, steps_per_execution=99)
    ]
    assert whole == [4, 5, 2, 2, 7, 20]
    assert [len(chunk) for chunk in stream(0, validation_interval=20, pauses=(later,), steps_per_execution=3)] == [
        3,
        1,
        3,
        2,
        2,
        2,
        3,
        3,
        1,
    ]
    assert [len(chunk) for chunk in stream(10, validation_interval=later, steps_per_execution=3)] == [1]


def test_an_update_of_a_batch_that_grows_has_the_micro_batches_of_the_updates_it_stands_for() -> None:
    grown = stream(0, layout=Layout(4, accumulate=2))
    grown.order = Order(50, 5, Layout(4, accumulate=2), stages=[(0, 1), (2, 3), (4, 4)])
    updates = [update for chunk in grown for update in chunk]
    assert [len(update) for update in updates[:6]] == [2, 2, 6, 6, 8, 8]
    plain = whole_run(layout=Layout(4, accumulate=2))
    assert same([micro for update in updates[:6] for micro in update], plain[:32])
