"""Every sampling is a pure function of (samples, seed, epoch), keeps the order's promises, and draws as it says."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from data.order import Layout, Order, permutation
from data.sampling import SAMPLINGS, balanced, bucketed, sample_weights, weighted

SAMPLES = 103
LABELS = torch.tensor([0] * 80 + [1] * 20 + [4] * 3)[
    torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(1))
]
LENGTHS = torch.randint(1, 500, (SAMPLES,), generator=torch.Generator().manual_seed(2))
WEIGHTS = torch.rand(SAMPLES, generator=torch.Generator().manual_seed(3)) * (LENGTHS % 3 != 0)
EVERY: dict[str, Callable[[int, int, int], Tensor]] = {
    "weighted": partial(weighted, weights=WEIGHTS),
    "balanced": partial(balanced, labels=LABELS),
    "bucketed": partial(bucketed, lengths=LENGTHS, batch_size=16, batches_per_bucket=2),
}
each = pytest.mark.parametrize("sampling", EVERY.values(), ids=EVERY)


def test_every_shipped_sampling_is_tested_here() -> None:
    assert {*EVERY, "permutation"} == SAMPLINGS.keys()


@each
def test_a_sampling_is_a_pure_function_and_differs_between_epochs_and_seeds(sampling: Callable) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    found = {(seed, epoch): sampling(SAMPLES, seed, epoch) for seed in range(3) for epoch in range(3)}
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(sampling(SAMPLES, *at), indices) for at, indices in found.items())
    assert len({tuple(indices.tolist()) for indices in found.values()}) == 9
    for indices in found.values():
        assert (indices.dtype, tuple(indices.shape)) == (torch.int64, (SAMPLES,))
        assert 0 <= indices.min() <= indices.max() < SAMPLES


@each
@pytest.mark.parametrize(("world", "accumulate"), [(4, 1), (2, 2), (1, 4)])
@pytest.mark.parametrize("stages", [((0, 1),), ((0, 1), (3, 2), (8, 4))])
def test_four_micro_batches_on_one_rank_are_those_of_four_ranks(
    sampling: Callable, world: int, accumulate: int, stages: tuple
) -> None:
    def samples_of(world: int, accumulate: int, t: int) -> list[tuple[int, list[int]]]:
        found = {}
        for rank in range(world):
            layout = Layout(16 // world // accumulate, accumulate, world, rank)
            order = Order(SAMPLES, 7, layout, stages=stages, sampling=sampling)
            for micro in range(order.micro_batches(t)):
                pick = order.pick(t, micro)
                found[micro // accumulate, layout.slice_of(micro % accumulate)] = (pick.epoch, pick.indices.tolist())
        return [found[place] for place in sorted(found)]

    for t in (0, 1, 5, 6, 9, 13):
        whole, parts = samples_of(1, 1, t), samples_of(world, accumulate, t)
        assert [i for _, indices in whole for i in indices] == [i for _, indices in parts for i in indices]


@each
def test_a_fresh_order_continues_at_any_update(sampling: Callable) -> None:
    def order() -> Order:
        return Order(SAMPLES, 7, Layout(8, 2), sampling=sampling)

    whole = [pick.indices.tolist() for pick in order().picks(0, 20)]
    for t in range(20):
        assert [pick.indices.tolist() for pick in order().picks(t, 20)] == whole[2 * t :]


def test_an_order_without_a_sampling_is_the_permutation() -> None:
    named, plain = (Order(SAMPLES, 7, Layout(16), sampling=one) for one in (permutation, None))
    assert all(torch.equal(a.indices, b.indices) for a, b in zip(named.picks(0, 14), plain.picks(0, 14), strict=True))


@pytest.mark.parametrize(
    ("sampling", "told"),
    [
        (lambda samples, seed, epoch: torch.arange(95), r"torch.int64 of shape \(95,\) for epoch 0: .* least 96"),
        (lambda samples, seed, epoch: torch.rand(samples), "torch.float32"),
        (lambda samples, seed, epoch: torch.arange(samples)[:, None], r"shape \(103, 1\)"),
        (lambda samples, seed, epoch: torch.arange(samples) + 1, "outside 0 to 102"),
        (lambda samples, seed, epoch: torch.arange(samples) - 1, "outside 0 to 102"),
    ],
)
def test_an_order_that_a_sampling_may_not_give_is_refused(sampling: Callable, told: str) -> None:
    with pytest.raises(ValueError, match=f"data.sampling gives .*{told}"):
        Order(SAMPLES, 7, Layout(16), sampling=sampling).pick(0, 0)


def test_weighted_draws_follow_the_weights_and_never_take_a_weight_of_zero() -> None:
    drawn = torch.cat([weighted(SAMPLES, 5, epoch, weights=WEIGHTS) for epoch in range(2000)])
    counts = drawn.bincount(minlength=SAMPLES).double()
    expected = WEIGHTS.double() / WEIGHTS.double().sum() * len(drawn)
    assert (counts[WEIGHTS == 0] == 0).all()
    above = expected > 0
    statistic = ((counts - expected)[above] ** 2 / expected[above]).sum().item()
    freedom = int(above.sum()) - 1
    assert abs(statistic - freedom) < 4 * (2 * freedom) ** 0.5  # chi-squared: mean f, variance 2f
    theirs = torch.multinomial(WEIGHTS.double(), len(drawn), replacement=True).bincount(minlength=SAMPLES)
    assert ((counts - theirs).abs() <= 6 * (2 * expected).sqrt()).all()


def test_weighted_takes_the_only_sample_that_has_a_weight_also_at_the_ends() -> None:
    for one in (0, SAMPLES - 1):
        weights = torch.zeros(SAMPLES)
        weights[one] = 1e-30
        assert weighted(SAMPLES, 0, 0, weights=weights).tolist() == [one] * SAMPLES


@pytest.mark.parametrize(("drawn", "found"), [(0.0, 2), (1 - 2**-53, 4)])
def test_the_ends_of_the_draw_fall_on_samples_that_have_a_weight(monkeypatch, drawn: float, found: int) -> None:
    monkeypatch.setattr(torch, "rand", lambda count, **_: torch.full((count,), drawn, dtype=torch.float64))
    weights = torch.tensor([0.0, 0, 0.1, 0.3, 0.7, 0])
    assert weighted(6, 0, 0, weights=weights).tolist() == [found] * 6


@pytest.mark.parametrize(("weights", "share"), [(None, [1, 1, 1]), ([1, 2, 0], [1, 2, 0]), ([5, 3, 7], [5, 3, 7])])
def test_balanced_takes_each_class_as_often_as_it_should_and_its_samples_evenly(weights: list, share: list) -> None:
    for epoch in range(5):
        drawn = balanced(SAMPLES, 5, epoch, labels=LABELS, weights=weights)
        for label, part in zip((0, 1, 4), share):
            found = drawn[LABELS[drawn] == label]
            assert abs(len(found) - SAMPLES * part / sum(share)) < 1
            times = found.bincount(minlength=SAMPLES)[label == LABELS]
            assert times.max() - times.min() <= 1


def test_balanced_gives_the_remainder_to_every_class_in_turn_and_mixes_the_classes() -> None:
    drawn = [LABELS[balanced(SAMPLES, 5, epoch, labels=LABELS)] for epoch in range(60)]
    largest = torch.stack([labels.bincount(minlength=5)[[0, 1, 4]] for labels in drawn]).argmax(1).bincount(minlength=3)
    assert largest.min() > 8
    first = torch.stack(drawn)[:, :50].flatten().bincount(minlength=5)[[0, 1, 4]] / 3000
    assert (first - 1 / 3).abs().max() < 0.05


def test_bucketed_takes_each_sample_once_in_batches_of_similar_length_in_random_order() -> None:
    lengths = torch.randint(1, 1000, (6400,), generator=torch.Generator().manual_seed(0))
    drawn = bucketed(6400, 5, 0, lengths=lengths, batch_size=32)
    assert sorted(drawn.tolist()) == list(range(6400))
    batches = lengths[drawn].view(-1, 32)
    plain = lengths[permutation(6400, 5, 0)].view(-1, 32)
    padding = [(of.max(1).values[:, None] - of).sum().item() for of in (batches, plain)]
    assert padding[0] < 0.05 * padding[1]
    longest = batches.max(1).values.double()
    assert torch.corrcoef(torch.stack([longest[:-1], longest[1:]]))[0, 1].abs() < 0.2


def test_what_does_not_fill_a_batch_comes_last() -> None:
    drawn = bucketed(SAMPLES, 5, 0, lengths=LENGTHS, batch_size=16, batches_per_bucket=2)
    order = permutation(SAMPLES, 5, 0)
    assert sorted(drawn.tolist()) == list(range(SAMPLES))
    assert set(drawn[96:].tolist()) == set(order[96:].tolist())


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        (torch.ones(4), r"shape \(4,\) for 5 samples"),
        (torch.ones(5, 1), r"shape \(5, 1\)"),
        (torch.tensor([1.0, 1, -1, 1, 1]), r"-1.0 at 2"),
        (torch.tensor([1.0, 1, 1, float("nan"), 1]), "nan at 3"),
        (torch.zeros(5), "all 0"),
    ],
)
def test_weights_that_cannot_be_are_refused_with_their_place(weights: Tensor, told: str) -> None:
    with pytest.raises(ValueError, match=told) as error:
        weighted(5, 0, 0, weights=weights)
    assert "\n" not in str(error.value)
    if len(weights) == 5 and weights.dim() == 1:
        with pytest.raises(ValueError, match=told):
            balanced(5, 0, 0, labels=torch.arange(5), weights=weights)


def test_weights_are_read_from_files_of_numbers(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", np.array([1.0, 2.0]))
    (tmp_path / "w.txt").write_text("1\n2\n")
    for given in ([1, 2], str(tmp_path / "w.npy"), str(tmp_path / "w.txt")):
        assert sample_weights(given).tolist() == [1, 2]
    (tmp_path / "bad.txt").write_text("1\nx\n")
    for name in ("bad.txt", "none.npy"):
        with pytest.raises((ValueError, FileNotFoundError), match=f"data.sampling.weights=.*{name}") as error:
            sample_weights(str(tmp_path / name))
        assert "\n" not in str(error.value)
