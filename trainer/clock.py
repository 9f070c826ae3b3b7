"""The one clock: how many optimizer updates have been applied."""

from dataclasses import dataclass


@dataclass
class Clock:
    """`t` is the number of applied updates, and so the index of the next one."""

    t: int = 0
