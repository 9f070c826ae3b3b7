"""Which trials of a study count. Pure: the same on every machine that shares the study.

A search of N trials has N slots. The first N fresh trials have one each, in the order of their numbers, which the
storage gives out one by one; two drivers that ask for the last one at once so agree on whose it is, and the other's is
surplus. A trial whose driver was killed is lost; the first trial that takes its place has its slot.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A trial: `state` is waiting, running, complete, pruned, failed or lost; it may replace one that was lost."""

    number: int
    state: str
    replaces: int | None = None


def slots(entries: Sequence[Entry], trials: int) -> dict[int, int]:
    """The slot of each trial that counts, by its number; trials that are not here are surplus."""
    held: dict[int, int] = {}
    taken: set[int] = set()
    fresh = 0
    for entry in sorted(entries, key=lambda entry: entry.number):
        if entry.replaces is None:
            if fresh < trials:
                held[entry.number] = fresh
                fresh += 1
        elif entry.replaces in held and entry.replaces not in taken:
            taken.add(entry.replaces)
            held[entry.number] = held[entry.replaces]
    return held


def newest(entries: Sequence[Entry], trials: int) -> dict[int, Entry]:
    """The last trial of each slot, which is the one that counts."""
    held = slots(entries, trials)
    return {held[e.number]: e for e in sorted(entries, key=lambda e: e.number) if e.number in held}


def to_replace(entries: Sequence[Entry], trials: int, retries: int) -> list[int]:
    """The lost trials that nothing has replaced yet, and whose slot was replaced fewer than `retries` times."""
    held = slots(entries, trials)
    tried = list(held.values())
    last = newest(entries, trials)
    return [e.number for slot, e in sorted(last.items()) if e.state == "lost" and tried.count(slot) <= retries]


def ended(entries: Sequence[Entry], trials: int, retries: int) -> bool:
    """Whether every slot has come to its end, so that nothing is left to do or to wait for."""
    last = newest(entries, trials)
    again = set(to_replace(entries, trials, retries))
    over = [e for e in last.values() if e.state not in ("waiting", "running") and e.number not in again]
    return len(over) == trials
