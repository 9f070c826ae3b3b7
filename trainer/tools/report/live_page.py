"""A page that is written again and again while the runs in a folder go on."""

import html
import time
from collections.abc import Callable
from pathlib import Path

from trainer.distributed.launch.folder_lock import is_held
from trainer.tools.run_folders import find_folders

EVERY = 10
"""Seconds between two pages, at least."""
SHARE = 5
"""Writing pages takes at most 1 / SHARE of the time."""
WAITING = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">{refresh}<title>{title}</title></head>
<body><h1>{title}</h1><p>{text}</p></body></html>
"""


def write_while_running(folder: Path, write: Callable[[int], object]) -> None:
    """Call `write(seconds)` with the seconds to the next call, as long as a process holds the folder or a run below it.

    Ctrl-C ends it, too.
    """
    seconds = EVERY
    try:
        while goes_on(folder):
            begun = time.monotonic()
            write(seconds)
            seconds = max(EVERY, round(SHARE * (time.monotonic() - begun)))
            _sleep(folder, seconds)
    except KeyboardInterrupt:
        return


def goes_on(folder: Path) -> bool:
    """Whether the sweep in a folder goes on, or a run below it."""
    return is_held(folder) or any(is_held(place) for place in find_folders(folder))


def waiting_page(title: str, text: str, seconds: int) -> str:
    """The page before there is a result; it reloads itself after `seconds`, 0 for never."""
    refresh = f'<meta http-equiv="refresh" content="{seconds}">' if seconds else ""
    return WAITING.format(title=html.escape(title), text=html.escape(text), refresh=refresh)


def _sleep(folder: Path, seconds: float) -> None:
    """Sleep, but no longer than the runs go on."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and goes_on(folder):
        time.sleep(1)
