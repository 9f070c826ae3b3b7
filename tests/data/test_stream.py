"""The stream must end where the trainer needs control, and give the same batches however it is cut or restarted."""

from itertools import pairwise

import pytest
import torch

from data.augment import Augment
from data.order import Layout, Order
from data.source import Memory, Workers
from data.stream import MicroBatch, Run, Stream

IMAGES = torch.randn(50, 2, 6, 6, generator=torch.Generator().manual_seed(0))


def stream(t: int = 0, per_call: int = 3, layout: Layout | None = None, **run: object) -> Stream:
    settings = {"total": 40, "leg": 10, "pauses": (), **run}
    order = Order(50, 5, layout or Layout(4))
    source = Memory(IMAGES, torch.arange(50))
    return Stream(source, order, Run(lambda: t, per_call=per_call, **settings), Augment(crop=1, flip=True, cutout=2))


def flat(blocks: list) -> list[MicroBatch]:
    return [micro for block in blocks for update in block for micro in update]


def same(ours: list[MicroBatch], theirs: list[MicroBatch]) -> bool:
    return len(ours) == len(theirs) and all(
        a.seed == b.seed and torch.equal(a.inputs, b.inputs) and torch.equal(a.targets, b.targets)
        for a, b in zip(ours, theirs)
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
        (0, {"per_call": 99}, [10]),
        (0, {"per_call": 99, "pauses": (4,)}, [4, 4, 2]),
        (2, {"per_call": 3, "pauses": (4, 5)}, [2, 1, 3, 2]),
        (40, {}, []),
        (45, {}, []),
    ],
)
def test_blocks_end_at_legs_pauses_and_the_most_updates_per_call(t: int, settings: dict, sizes: list[int]) -> None:
    assert [len(block) for block in stream(t, **settings)] == sizes


def test_no_block_steps_over_a_multiple_of_any_interval() -> None:
    run = Run(lambda: 0, total=97, leg=12, pauses=(5, 9), per_call=4)
    edges, t = [0], 0
    while t < 97:
        edges += [stop for _, stop in run.cuts(t, run.leg_end(t))]
        t = edges[-1]
    assert all(0 < stop - start <= 4 for start, stop in pairwise(edges))
    assert {multiple for every in (12, 5, 9) for multiple in range(0, 97, every)} | {97} <= set(edges)


@pytest.mark.parametrize("per_call", [1, 2, 7, 100])
def test_the_batches_do_not_depend_on_how_many_updates_a_block_has(per_call: int) -> None:
    assert same(whole_run(per_call=per_call), whole_run(per_call=3))


@pytest.mark.parametrize("t", range(0, 40, 3))
def test_a_restart_at_any_update_gives_the_same_indices_seeds_and_pixels(t: int) -> None:
    whole = whole_run()
    assert same(flat(list(stream(t))), whole[t : (t // 10 + 1) * 10])


@pytest.mark.parametrize(("world", "accumulate"), [(4, 1), (2, 2), (1, 4)])
def test_every_layout_sees_the_same_pixels_in_the_same_slices(world: int, accumulate: int) -> None:
    def slices(world: int, accumulate: int) -> list[MicroBatch]:
        layouts = [Layout(3, accumulate, world, rank) for rank in range(world)]
        legs = [[update for block in stream(3, layout=layout) for update in block] for layout in layouts]
        return [leg[t][micro] for t in range(7) for micro in range(accumulate) for leg in legs]

    assert same(slices(world, accumulate), slices(4, 1))


def test_a_batch_is_the_augmented_samples_of_its_own_seed() -> None:
    augment, (first, second, *_) = Augment(crop=1, flip=True, cutout=2), whole_run()
    for micro in (first, second):
        assert torch.equal(micro.inputs, augment(IMAGES[micro.targets], micro.seed))
    assert first.seed != second.seed


def test_two_micro_batches_of_the_run_never_share_a_seed() -> None:
    seeds = [micro.seed for micro in whole_run(layout=Layout(4, accumulate=3))]
    assert len(set(seeds)) == len(seeds) == 120


def test_iterating_draws_nothing_before_the_first_block_is_asked_for() -> None:
    clock = [0]
    source = Memory(IMAGES, torch.arange(50))
    loader = Stream(source, Order(50, 5, Layout(4)), Run(lambda: clock[0], 40, 10))
    waiting = iter(loader)
    clock[0] = 8
    assert len(list(waiting)) == 2
    assert not hasattr(loader, "__len__")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_workers_and_memory_give_the_same_batches_leg_after_leg(num_workers: int) -> None:
    clock = [0]
    pairs = torch.utils.data.TensorDataset(IMAGES, torch.arange(50))
    loader = stream()
    loader.run = Run(lambda: clock[0], 40, 10, (), 3)
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


@pytest.mark.parametrize("wrong", [{"total": 0}, {"leg": 0}, {"per_call": 0}, {"pauses": (0,)}])
def test_a_run_without_updates_is_refused_in_one_line(wrong: dict) -> None:
    with pytest.raises(ValueError, match="at least 1") as refusal:
        stream(**wrong)
    assert "\n" not in str(refusal.value)


def test_legs_and_pauses_may_end_where_functions_say() -> None:
    ends = [4, 9, 11, 13, 20]

    def later(t: int) -> int:
        return next((end for end in ends if end > t), 99)

    whole = [len(block) for t in (0, 4, 9, 11, 13, 20) for block in stream(t, leg=later, per_call=99)]
    assert whole == [4, 5, 2, 2, 7, 20]
    assert [len(block) for block in stream(0, leg=20, pauses=(later,), per_call=3)] == [3, 1, 3, 2, 2, 2, 3, 3, 1]
    assert [len(block) for block in stream(10, leg=later, per_call=3)] == [1]


def test_an_update_of_a_batch_that_grows_has_the_micro_batches_of_the_updates_it_stands_for() -> None:
    grown = stream(0, layout=Layout(4, accumulate=2))
    grown.order = Order(50, 5, Layout(4, accumulate=2), stages=[(0, 1), (2, 3), (4, 4)])
    updates = [update for block in grown for update in block]
    assert [len(update) for update in updates[:6]] == [2, 2, 6, 6, 8, 8]
    plain = whole_run(layout=Layout(4, accumulate=2))
    assert same([micro for update in updates[:6] for micro in update], plain[:32])
