"""One TensorBoard event file: TFRecord framing, and scalars encoded straight into protobuf's wire format."""

import errno
import os
import socket
import struct
import time
from array import array
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import google_crc32c
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

# Wire-format keys, (field number << 3) | wire type, of the five fields that a scalar event uses.
WALL_TIME, STEP, SUMMARY = b"\x09", b"\x10", b"\x2a"  # Event: 1 double, 2 int64, 5 message
VALUE, TAG, SIMPLE_VALUE = b"\x0a", b"\x0a", b"\x15"  # Summary: 1 message; its Value: 1 string, 2 float
_DOUBLE = struct.Struct("<d").pack


def varint(number: int) -> bytes:
    """Encode a non-negative integer: seven bits a byte, lowest first, the top bit set on all but the last."""
    if number < 0:
        raise ValueError(f"step {number} is negative: steps count from 0")
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


class ScalarEncoder:
    """Encodes `Event(wall_time, step, summary)` with one float32 per tag.

    Events of the same tags differ only in the step, the time and the floats. So the summary is one `struct`
    format, whose constant parts (keys, lengths, tags) are prepared once.
    """

    def __init__(self, tags: Sequence[str]) -> None:
        constants = []
        for tag in map(str.encode, tags):
            name = TAG + varint(len(tag)) + tag
            constants.append(VALUE + varint(len(name) + 5) + name + SIMPLE_VALUE)
        layout = struct.Struct("<" + "".join(f"{len(constant)}sf" for constant in constants))
        self._pack = layout.pack
        self._template: list[bytes | float] = [part for constant in constants for part in (constant, 0.0)]
        self._summary = SUMMARY + varint(layout.size)

    def __call__(self, step: int, wall_time: float, values: Iterable[float]) -> bytes:
        """Serialise one event; `values` follow the order of the tags and must be float32 already.

        Raises:
            ValueError: not one value per tag, or a negative step.
        """
        fields = self._template.copy()
        fields[1::2] = values
        head = WALL_TIME + _DOUBLE(wall_time) + STEP + varint(step)
        return head + self._summary + self._pack(*fields)


scalar_encoder = lru_cache(maxsize=256)(ScalarEncoder)


def float32(values: Iterable[float]) -> array:
    """Round to single precision as protobuf does: nan and infinities stay, overflow becomes an infinity."""
    return array("f", values)


def masked_crc(data: bytes) -> int:
    """CRC-32C of `data`, rotated right by 15 bits and offset, as TFRecord stores it."""
    crc = google_crc32c.value(data)
    return (crc >> 15 | crc << 17) + 0xA282EAD8 & 0xFFFFFFFF


@lru_cache(maxsize=1024)
def record_header(length: int) -> bytes:
    """The 12 bytes in front of a record of `length` bytes: the length and its masked CRC."""
    encoded = struct.pack("<Q", length)
    return encoded + struct.pack("<I", masked_crc(encoded))


class EventFile:
    """Appends TensorBoard events to one new file `events.out.tfevents.<time>.<host>.<pid>` in `folder`.

    The time in the name is in nanoseconds: readers take the files of a folder in order of their names, and so read a
    resumed run's file after the earlier ones. Writes are buffered until `flush`.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self._file = self.path.open("xb", buffering=1 << 18)
        self.write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def write_scalars(self, tags: tuple[str, ...], step: int, wall_time: float, values: Iterable[float]) -> None:
        """Append one event that holds one float32 per tag."""
        self._append(scalar_encoder(tags)(step, wall_time, values))

    def write(self, event: Event) -> None:
        """Append any event."""
        self._append(event.SerializeToString())

    def restart(self, step: int) -> None:
        """Tell readers that the run continues at `step`: they drop the scalars of this step and later ones."""
        if step < 0:
            raise ValueError(f"restart step {step} is negative: steps count from 0")
        self.write(Event(wall_time=time.time(), step=step, session_log=SessionLog(status=SessionLog.START)))

    def flush(self) -> None:
        """Hand everything written so far to the operating system. OSError where the file alone was removed."""
        self._file.flush()
        if not os.fstat(self._file.fileno()).st_nlink and self.path.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, "the log was removed", str(self.path))

    def close(self) -> None:
        """Flush and close; closing twice is harmless."""
        try:
            if not self._file.closed:
                self.flush()
        finally:
            self._file.close()

    def abandon(self) -> None:
        """Close without writing what is buffered: for a file that cannot be written."""
        with suppress(OSError):
            self._file.raw.close()  # type: ignore[attr-defined]

    def _append(self, record: bytes) -> None:
        crc = masked_crc(record).to_bytes(4, "little")
        self._file.write(record_header(len(record)) + record + crc)
