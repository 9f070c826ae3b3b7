"""The curves of a run, read straight from its event files: few points of few tags, whatever the length of the run."""

import struct
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

Points = list[tuple[int, float]]
_LENGTH = struct.Struct("<Q")
POINTS = 160


def curves(folder: Path, metric: str, points: int = POINTS) -> dict[str, Points]:
    """Training loss, validated metric and learning rate (the first group's) by update; what is not logged is missing.

    Of a long series the loss is the mean of each of `points` parts, the rate is taken at so many places.
    """
    watched = metric.replace("test/", "val/", 1)
    found = scalars(folder, ("train/loss", watched, "lr/"))
    rate = next((tag for tag in found if tag.startswith("lr/")), "")
    told = {"loss": _means(found.get("train/loss", []), points), "lr": _places(found.get(rate, []), points)}
    told["metric"] = _places(found.get(watched, []), points)
    return {name: series for name, series in told.items() if series}


def scalars(folder: Path, wanted: Sequence[str]) -> dict[str, Points]:
    """The scalars of the tags that begin with a wanted word; what a resumed run has made anew counts once."""
    found: dict[str, Points] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in _events(path):
            if event.HasField("session_log") and event.session_log.status == SessionLog.START:
                found = {tag: [one for one in series if one[0] < event.step] for tag, series in found.items()}
            for value in event.summary.value:
                if value.HasField("simple_value") and value.tag.startswith(tuple(wanted)):
                    found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def _events(path: Path) -> Iterator[Event]:
    """The events of a file, up to its end or to the first that is not whole: the run may still be writing."""
    try:
        data = path.read_bytes()
    except OSError:
        return
    at = 0
    while at + 12 <= len(data):
        length = _LENGTH.unpack_from(data, at)[0]
        if at + 16 + length > len(data):
            return
        try:
            yield Event.FromString(data[at + 12 : at + 12 + length])
        except DecodeError:
            return
        at += 16 + length


def _means(series: Points, points: int) -> Points:
    if len(series) <= points:
        return series
    edges = [i * len(series) // points for i in range(points + 1)]
    parts = [series[a:b] for a, b in pairwise(edges)]
    return [(part[len(part) // 2][0], sum(value for _, value in part) / len(part)) for part in parts]


def _places(series: Points, points: int) -> Points:
    if len(series) <= points:
        return series
    last = len(series) - 1
    return [series[round(i * last / (points - 1))] for i in range(points)]
