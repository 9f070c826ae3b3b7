"""Where the batch grows in place of a falling rate: the policy, the length, and where chunks of updates end."""

from collections.abc import Callable, Mapping, Sequence

from trainer.config.adascale_config import is_adascale
from trainer.config.instantiate import expect, instantiate, refusing
from trainer.config.settings import CurveSettings
from trainer.lr import ConfigError, Growth, Horizon, LRPolicy, grown

Ends = int | Callable[[int], int]
"""An interval in updates, or a function that gives the next end after update `t`."""


def with_growing_batch(curve: CurveSettings, policy: LRPolicy, length: Horizon) -> tuple[LRPolicy, Horizon]:
    """The policy and the length of a run, made on the clock of its starting batch, on the clock that it trains by."""
    if not curve.batch_schedule:
        return policy, length
    if policy.own:
        raise ConfigError(
            f"batch_schedule: group {next(iter(policy.own))} has a schedule of its own, and all groups have one batch: "
            "leave group_schedule out, or take batch_schedule=none."
        )
    if is_adascale(curve.scaling):
        raise ConfigError(
            "batch_schedule beside scaling=adascale: both change what an update counts: take one of them."
        )
    rule = instantiate(curve.batch_schedule, "batch_schedule", curve.allow)
    with refusing("batch_schedule"):
        growth = expect("batch_schedule", rule(length, policy.schedule), Growth)
    return grown(policy, growth, length.batch_size), length.grown(growth)


def format_batches(batches: Sequence[Mapping[str, float]]) -> list[str]:
    """The line of the table at the start: from which update on an update has how many samples, where that changes."""
    return [", ".join(f"{part['batch']} from update {part['update']}" for part in batches[1:])] if batches else []


def interval(length: Horizon, duration: int | float | str, name: str) -> Ends:
    """The interval that `duration` is in updates; where the batch grows, what gives its next end after an update."""
    every = length.reference.updates(duration, name, least=1)
    return (lambda t: length.growth.next(every, t)) if length.growth.grows else every


def snapshot_updates(length: Horizon, durations: Sequence[int | str]) -> list[int]:
    """The updates of `trainer.snapshots`, in their order: within the run, and before its end."""
    found = sorted({length.updates(one, "trainer.snapshots", least=1) for one in durations})
    if found and found[-1] >= length.total:
        raise ConfigError(f"trainer.snapshots={found[-1]} is not before the end of the run of {length.total} updates.")
    return found


def snapshot_ends(snapshots: Sequence[int], total: int) -> tuple[Ends, ...]:
    """Where chunks end, so that the run may be kept there."""
    return (lambda t: next((at for at in snapshots if at > t), total),) if snapshots else ()


def chunk_ends(length: Horizon, longest: int) -> tuple[Ends, ...]:
    """Where chunks end, so that one of larger batches has fewer than `longest` updates and needs no more memory."""
    growth = length.growth
    return (lambda t: t + max(1, longest // growth.ratio(t)),) if growth.grows else ()
