"""Runs whose batch grows in place of a falling rate: the policy, the length, and where chunks of updates end."""

from collections.abc import Callable, Mapping, Sequence

from trainer.config.adascale_config import is_adascale
from trainer.config.instantiate import expect, instantiate, refusing
from trainer.config.settings import CurveSettings
from trainer.lr import ConfigError, Growth, Horizon, LRPolicy, grown

Ends = int | Callable[[int], int]
"""An interval in updates, or a function that gives the next end after update `t`."""


def with_growing_batch(curve: CurveSettings, policy: LRPolicy, length: Horizon) -> tuple[LRPolicy, Horizon]:
    """Policy and length in updates of the run, from those in updates of its starting batch."""
    if not curve.batch_schedule:
        return policy, length
    if policy.own:
        raise ConfigError(
            f"batch_schedule: group {next(iter(policy.own))} has its own schedule, but all groups share one batch: "
            "leave group_schedule out, or take batch_schedule=none."
        )
    if is_adascale(curve.scaling):
        raise ConfigError("batch_schedule and scaling=adascale both change what an update counts: take one of them.")
    rule = instantiate(curve.batch_schedule, "batch_schedule", curve.allow)
    with refusing("batch_schedule"):
        growth = expect("batch_schedule", rule(length, policy.schedule), Growth)
    return grown(policy, growth, length.batch_size), length.grown(growth)


def format_batches(batches: Sequence[Mapping[str, float]]) -> list[str]:
    """The line of the table at the start: each new batch size and its first update; empty where it does not grow."""
    return [", ".join(f"{part['batch']} from update {part['update']}" for part in batches[1:])] if batches else []


def interval(length: Horizon, duration: int | float | str, name: str) -> Ends:
    """`duration` as an interval in updates; where the batch grows, a function that gives its next end."""
    every = length.reference.updates(duration, name, least=1)
    return (lambda t: length.growth.next(every, t)) if length.growth.grows else every


def snapshot_updates(length: Horizon, durations: Sequence[int | str]) -> list[int]:
    """The updates of `trainer.snapshots` in order; `ConfigError` for one that is not before the end of the run."""
    found = sorted({length.updates(one, "trainer.snapshots", least=1) for one in durations})
    if found and found[-1] >= length.total:
        raise ConfigError(f"trainer.snapshots={found[-1]} is not before the end of the run of {length.total} updates.")
    return found


def snapshot_ends(snapshots: Sequence[int], total: int) -> tuple[Ends, ...]:
    """Ends of chunks at the snapshots."""
    return (lambda t: next((at for at in snapshots if at > t), total),) if snapshots else ()


def chunk_ends(length: Horizon, longest: int) -> tuple[Ends, ...]:
    """Ends of chunks where the batch grows: larger batches get fewer updates a chunk, for the same memory."""
    growth = length.growth
    return (lambda t: t + max(1, longest // growth.ratio(t)),) if growth.grows else ()
