"""Jobs of a worker that are alike train as one; then each makes its folder as a lone run does, with these updates."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trainer.checkpoint.io import checkpoints_in
from trainer.cli.run_cli import run_cli
from trainer.config.callbacks import is_foreign
from trainer.config.components import Parts, build
from trainer.config.model_data import prepare
from trainer.config.resolve import resolve
from trainer.distributed.launch import signals
from trainer.distributed.launch.time_limit import TimeLimit
from trainer.run import Start, begin, holding, train
from trainer.sweep.worker import Order
from trainer.tools.stacked import Stack, why_alone
from trainer.tools.worker.collect import collect
from trainer.tools.worker.inbox import Inbox
from trainer.tools.worker.isolation import exit_code, isolated
from trainer.tools.worker.replay import replay, updates_to_keep

MOST = 2**30
"""Bytes of weights and states that a stack may keep for its validations and saves."""


@dataclass
class Member:
    """A job with the run that it has asked for, and the parts of this run."""

    order: Order
    start: Start
    parts: Parts


FEW = 2
"""The smallest stack."""


class NotTogether(Exception):
    """The jobs cannot train as one, for the reason that it gives."""


def train_together(orders: Sequence[Order], inbox: Inbox) -> None:
    """Train jobs as one. Those for which that cannot be, or that break, are put back, to be trained alone."""
    begun = time.monotonic()
    members: list[Member] = []
    try:
        for order in orders:
            members += [found] if (found := _joining(order, members[0] if members else None, inbox)) else []
            if len(members) == FEW:
                _check(members)
        stack = _trained(members, inbox)
    except NotTogether as why:
        if len(members) >= FEW:
            inbox.note(f"jobs that are alike train one after another: {why}")
            inbox.separate(orders[0])
        inbox.give_back(_left(orders, inbox))
        return
    except signals.Interrupted as interrupted:
        _interrupt(_left(orders, inbox), interrupted, inbox)
        return
    seconds = time.monotonic() - begun
    broken = stack.broke()
    alone = f"; {sum(broken)} of them broke, and train alone to say where" if any(broken) else ""
    inbox.note(f"{len(members)} jobs have trained as one in {seconds:.1f} s{alone}")
    for i, (member, broke) in enumerate(zip(members, broken)):
        if signum := inbox.stopped(member.order):
            _interrupt([member.order], signals.Interrupted(signum), inbox)
        elif not broke:
            started = time.monotonic() - seconds / len(members)
            inbox.ended(member.order, _concluded(stack, i, member, started), time.monotonic() - started)
    inbox.give_back(_left(orders, inbox))


def _left(orders: Sequence[Order], inbox: Inbox) -> list[Order]:
    """The jobs that have not ended."""
    return [one for one in orders if one.number in inbox.running]


def _joining(order: Order, like: Member | None, inbox: Inbox) -> Member | None:
    """The run of a job with its parts; None where the job has ended, as one that is refused has, or must be alone."""
    begun = time.monotonic()
    with isolated(order):
        if signum := inbox.stopped(order):
            inbox.ended(order, 128 + signum, 0.0)
            return None
        code, start = collect(order, (like.order, like.start) if like else None)
        if start is None:
            inbox.ended(order, code, time.monotonic() - begun)
            return None
        if checkpoints_in(start.folder / "checkpoints"):
            return None
        if why := _why_whole(start):
            raise NotTogether(why)
        try:
            return Member(order, start, build(resolve(start.settings), start.folder))
        except Exception:  # noqa: BLE001 - it is met again, and told, where the job is alone
            return None


def _why_whole(start: Start) -> str:
    """Why a run is not made from a stack, as far as its settings tell; empty where it may be."""
    settings, run = start.settings, start.settings.trainer
    resumed = settings.resume.path not in (None, "none", "auto") or settings.resume.snapshot is not None
    checks = {
        "they go on from a checkpoint": resumed,
        "trainer.profile=true": run.profile,
        "trainer.max_time is set": run.max_time is not None,
        "trainer.deterministic=true": run.deterministic,
        "trainer.lightning is set": bool(run.lightning),
        "an adapter is trained": bool(settings.adapter),
    }
    return next((why for why, holds in checks.items() if holds), "")


def _check(members: Sequence[Member]) -> set[int]:
    """After how many updates these members need their weights. Raises `NotTogether` where they cannot be a stack."""
    if len(members) < FEW:
        raise NotTogether("only one of them can be stacked")
    parts = [one.parts for one in members]
    callbacks: Sequence[Any] = parts[0].trainer.callbacks  # type: ignore[attr-defined]
    foreign = next((f"{type(one).__name__} may look at each update" for one in callbacks if is_foreign(one)), "")
    if why := foreign or why_alone(parts):
        raise NotTogether(why)
    keep = updates_to_keep(parts[0])
    size = sum(one.nbytes for one in parts[0].module.net.parameters()) * 3 * len(keep) * len(parts)
    if size > MOST:
        raise NotTogether(f"the weights at {len(keep)} validations and saves take {size / 2**30:.1f} GiB")
    return keep


def _trained(members: Sequence[Member], inbox: Inbox) -> Stack:
    """The stack of the members, trained to its end."""
    keep, parts = _check(members), [one.parts for one in members]
    settings = parts[0].resolved.settings
    with isolated(members[0].order):
        inbox.check([one.order for one in members])
        prepare(settings.trainer, settings.seed)
        try:
            stack = Stack(parts)
            stack.train(keep)
        except (RuntimeError, ValueError, TypeError, NotImplementedError, UserWarning) as error:
            raise NotTogether(_line(error)) from error
    return stack


def _concluded(stack: Stack, i: int, member: Member, started: float) -> int:
    """Make the folder of a member with its updates of the stack; the exit code of its job."""

    def act() -> None:
        try:
            with holding(member.start) as monitor:
                begin(member.parts, member.start.overrides, member.start.program, TimeLimit())
                train(member.parts, monitor, started)
        except Exception as error:
            error.run_folder = str(member.start.folder)  # type: ignore[attr-defined]
            raise

    with isolated(member.order):
        settings = member.start.settings
        prepare(settings.trainer, settings.seed)
        replay(stack, i)
        return exit_code(lambda: sys.exit(run_cli(act, trains=True)))


def _interrupt(orders: Sequence[Order], interrupted: signals.Interrupted, inbox: Inbox) -> None:
    """End jobs of a stack that a signal has stopped: there is nothing to save."""

    def end() -> None:
        raise interrupted

    for order in orders:
        with isolated(order):
            code = exit_code(lambda: sys.exit(run_cli(end, trains=True)))
        inbox.ended(order, code, 0.0)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
