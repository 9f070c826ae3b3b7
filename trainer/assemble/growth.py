"""Where the batch grows in place of a falling rate: the policy, the length and the legs of the run on its own clock."""

from collections.abc import Callable, Mapping, Sequence

from omegaconf import DictConfig

from trainer.assemble.curve import TrainerSettings
from trainer.assemble.pace import chosen
from trainer.assemble.targets import build, expect, refusing
from trainer.lr import Growth, Horizon, Policy, Refusal, grown

Ends = int | Callable[[int], int]


def growing(cfg: DictConfig, policy: Policy, length: Horizon) -> tuple[Policy, Horizon]:
    """The policy and the length of a run, made on the clock of its starting batch, on the clock that it trains by."""
    if not cfg.schedule_batch:
        return policy, length
    if policy.own:
        raise Refusal(
            f"schedule_batch: group {next(iter(policy.own))} has a schedule of its own, and all groups have one batch: "
            "leave group_schedule out, or take schedule_batch=none."
        )
    if chosen(cfg.scaling):
        raise Refusal("schedule_batch beside scaling=adascale: both change what an update counts: take one of them.")
    rule = build(cfg.schedule_batch, "schedule_batch", list(cfg.allow))
    with refusing("schedule_batch"):
        growth = expect("schedule_batch", rule(length, policy.schedule), Growth)
    return grown(policy, growth, length.batch_size), length.grown(growth)


def told(batches: Sequence[Mapping[str, float]]) -> list[str]:
    """The line of the table at the start: from which update on an update has how many samples, where that changes."""
    return [", ".join(f"{part['batch']} from update {part['update']}" for part in batches[1:])] if batches else []


def ends(length: Horizon, duration: int | float | str, name: str) -> Ends:
    """The interval that `duration` is in updates; where the batch grows, what gives its next end after an update."""
    every = length.reference.updates(duration, name, least=1)
    return (lambda t: length.growth.next(every, t)) if length.growth.grows else every


def points(length: Horizon, durations: Sequence[int | str]) -> list[int]:
    """The updates of `trainer.branches`, in their order: within the run, and before its end."""
    found = sorted({length.updates(one, "trainer.branches", least=1) for one in durations})
    if found and found[-1] >= length.total:
        raise Refusal(f"trainer.branches={found[-1]} is not before the end of the run of {length.total} updates.")
    return found


def stops(branches: Sequence[int], total: int) -> tuple[Ends, ...]:
    """Where blocks end, so that the run may be kept there."""
    return (lambda t: next((at for at in branches if at > t), total),) if branches else ()


def blocks(length: Horizon, settings: TrainerSettings) -> tuple[Ends, ...]:
    """Where blocks end, so that one of larger batches has fewer updates and needs no more memory."""
    most, growth = settings.updates_per_call, length.growth
    return (lambda t: t + max(1, most // growth.ratio(t)),) if growth.grows else ()
