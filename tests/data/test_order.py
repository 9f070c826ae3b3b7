"""The order of the samples must be a function of (seed, t, slice) alone: every layout and restart relies on it."""

import pytest
import torch

from data.order import Layout, Order, mix, permutation

SAMPLES, SEED = 101, 7


def ranks(world: int, accumulate: int, batch_size: int = 4) -> list[Order]:
    return [Order(SAMPLES, SEED, Layout(batch_size, accumulate, world, rank)) for rank in range(world)]


def slices_of_update(orders: list[Order], t: int) -> dict[int, tuple[int, list[int]]]:
    """For each slice of the global batch: its seed and its samples."""
    return {
        order.layout.slice_of(micro): (order.micro_seed(t, micro), order.pick(t, micro).indices.tolist())
        for order in orders
        for micro in range(order.layout.accumulate)
    }


def test_mix_is_splitmix64_on_one_number() -> None:
    assert mix(0) == 0xE220A8397B1DCDAF >> 1
    assert mix(1234567) == 6457827717110365317 >> 1


def test_a_seed_is_the_hash_of_position_and_slice() -> None:
    orders = [Order(SAMPLES, seed, Layout(4, 2, 2, rank)) for rank in range(2) for seed in (SEED, 2**65 + 3)]
    for order in orders:
        for t in (0, 255, 256, 10**9):
            slices = [order.layout.slice_of(micro) for micro in range(2)]
            expected = [mix(order.seed, t, number) for number in slices]
            assert [order.micro_seed(t, micro) for micro in range(2)] == expected


def test_mix_tells_coordinates_apart_by_value_and_place() -> None:
    coordinates = [(a, b) for a in range(40) for b in range(40)]
    assert len({mix(0, *pair) for pair in coordinates} | {mix(0, a) for a in range(40)}) == 1640
    assert all(0 <= mix(-1, *pair) < 2**63 for pair in coordinates)


def test_an_epoch_takes_no_sample_twice_and_leaves_only_the_remainder_out() -> None:
    orders = ranks(world=2, accumulate=2)
    assert orders[0].updates_per_epoch == 6
    for epoch in range(3):
        updates = range(epoch * 6, epoch * 6 + 6)
        seen = [i for t in updates for _, indices in slices_of_update(orders, t).values() for i in indices]
        assert len(set(seen)) == len(seen) == 96
        assert set(seen) < set(range(SAMPLES))


def test_each_epoch_and_each_seed_has_its_own_permutation() -> None:
    orders = [permutation(50, seed, epoch).tolist() for seed in range(3) for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == 9
    assert all(sorted(order) == list(range(50)) for order in orders)


@pytest.mark.parametrize(("world", "accumulate"), [(4, 1), (2, 2), (1, 4)])
def test_every_layout_of_a_global_batch_takes_the_same_slices_with_the_same_seeds(world: int, accumulate: int) -> None:
    reference = Order(SAMPLES, SEED, Layout(16))
    for t in range(14):
        found = slices_of_update(ranks(world, accumulate), t)
        joined = [i for number in range(4) for i in found[number][1]]
        assert joined == reference.pick(t, 0).indices.tolist()
        assert [found[number][0] for number in range(4)] == [mix(SEED, t, number) for number in range(4)]


def test_the_ranks_of_one_micro_batch_take_neighbouring_slices() -> None:
    layouts = [Layout(4, accumulate=2, world=3, rank=rank) for rank in range(3)]
    assert [[layout.slice_of(micro) for layout in layouts] for micro in range(2)] == [[0, 1, 2], [3, 4, 5]]


def test_a_fresh_order_continues_at_any_update_as_one_that_came_from_the_start() -> None:
    travelled = [pick.indices.tolist() for pick in ranks(1, 2)[0].picks(0, 40)]
    for t in range(40):
        fresh = [pick.indices.tolist() for pick in ranks(1, 2)[0].picks(t, 40)]
        assert fresh == travelled[2 * t :]


def test_the_permutation_of_an_epoch_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def counted(samples: int, seed: int, epoch: int) -> torch.Tensor:
        made.append(epoch)
        return permutation(samples, seed, epoch)

    monkeypatch.setattr("data.order.permutation", counted)
    list(ranks(1, 1)[0].picks(0, 75))
    assert made == [0, 1, 2]


@pytest.mark.parametrize(
    ("layout", "named"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 2.0}, "batch_size=2.0"),
        ({"batch_size": True}, "batch_size=True"),
        ({"batch_size": 2, "accumulate": 0}, "accumulate=0"),
        ({"batch_size": 2, "world": 2, "rank": 2}, "rank=2"),
    ],
)
def test_a_layout_that_makes_no_sense_is_refused_in_one_line(layout: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named) as error:
        Layout(**layout)
    assert "\n" not in str(error.value)


def test_a_global_batch_above_the_data_is_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match=r"101 training samples .* 128") as error:
        Order(SAMPLES, SEED, Layout(32, accumulate=2, world=2))
    assert "\n" not in str(error.value)


GROWING = ((0, 1), (5, 3), (9, 4))
"""Updates 0 to 4 take one reference update each, 5 to 8 three, the later ones four: 5, 8, 11, 14, 17, 21, …"""


def growing(world: int, accumulate: int) -> list[Order]:
    return [
        Order(SAMPLES, SEED, Layout(16 // world // accumulate, accumulate, world, rank), stages=GROWING)
        for rank in range(world)
    ]


def seen_by(orders: list[Order], t: int) -> list[tuple[int, list[int], int]]:
    """(epoch, samples, seed) of each slice of update `t`, in the order of the slices of the updates it stands for."""
    layout = orders[0].layout
    found = {}
    for order in orders:
        for micro in range(order.micro_batches(t)):
            update, rest = divmod(micro, layout.accumulate)
            pick = order.pick(t, micro)
            found[update, order.layout.slice_of(rest)] = (pick.epoch, pick.indices.tolist(), order.micro_seed(t, micro))
    return [found[place] for place in sorted(found)]


def test_a_batch_that_grows_takes_the_same_slices_in_the_same_order_with_the_same_seeds() -> None:
    plain = [Order(SAMPLES, SEED, Layout(16))]
    expected = [one for t in range(37) for one in seen_by(plain, t)]
    found = [seen_by(growing(1, 1), t) for t in range(14)]
    assert [len(slices) for slices in found] == [1] * 5 + [3] * 4 + [4] * 5
    assert [one for slices in found for one in slices] == expected


@pytest.mark.parametrize(("world", "accumulate"), [(4, 1), (2, 2), (1, 4)])
def test_a_batch_that_grows_is_the_same_set_in_every_layout(world: int, accumulate: int) -> None:
    for t in range(14):
        whole, parts = seen_by(growing(1, 1), t), seen_by(growing(world, accumulate), t)
        assert [i for _, indices, _ in parts for i in indices] == [i for _, indices, _ in whole for i in indices]
        assert [seed for _, _, seed in parts] == [seed for _, _, seed in seen_by(growing(1, 4), t)]


def test_a_batch_that_grows_takes_no_sample_twice_in_an_epoch_and_leaves_no_more_out() -> None:
    by_epoch: dict[int, list[int]] = {}
    for t in range(14):
        for epoch, indices, _ in seen_by(growing(1, 1), t):
            by_epoch.setdefault(epoch, []).extend(indices)
    assert list(by_epoch) == list(range(7))
    for epoch in range(6):
        assert len(set(by_epoch[epoch])) == len(by_epoch[epoch]) == 96


def test_picks_of_a_batch_that_grows_go_on_at_any_update() -> None:
    order, whole = growing(1, 2)[0], [pick.indices.tolist() for pick in growing(1, 2)[0].picks(0, 14)]
    counts = [order.micro_batches(t) for t in range(14)]
    for t in range(14):
        assert [pick.indices.tolist() for pick in growing(1, 2)[0].picks(t, 14)] == whole[sum(counts[:t]) :]


@pytest.mark.parametrize("stages", [(), ((1, 1),), ((0, 1), (0, 2)), ((0, 0),), ((0, 1), (4, 2.0)), ((0, 1), (4, -1))])
def test_stages_that_make_no_sense_are_refused_in_one_line(stages: tuple) -> None:
    with pytest.raises(ValueError, match=r"stages=|ratio=") as error:
        Order(SAMPLES, SEED, Layout(4), stages=stages)
    assert "\n" not in str(error.value)
