"""Files that end with their own length and checksum, so that whoever reads one can tell whether it is what was written.

The end is the comment of a zip archive, as `torch.save` writes it: every program that reads the archive ignores it. The
checksum is CRC-32C over all bytes before, so a tensor, its name, its shape and the plain data beside it are covered
alike. A change of at most 32 neighbouring bits is always found, any other goes unseen with a probability of 2^-32. It
proves no authorship: whoever can write the file can write the checksum.
"""

import os
import stat
import struct
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

_END = struct.Struct("<H8sQI")
"""Of a zip archive with a comment: the length of the comment, then the comment: magic, bytes before, their CRC-32C."""
_MAGIC = b"cadence\x01"
_COMMENT = _END.size - 2
_CHUNK = 1 << 20
_LAST = 22
"""Bytes of the last record of a zip archive without a comment."""


class Damaged(Exception):
    """A file is not what was written: cut short, overwritten, or changed."""


class ChecksumWriter:
    """Hands all that is written on to `file`, and computes its checksum on the way."""

    def __init__(self, file: BufferedWriter) -> None:
        self._file, self._length, self._checksum, self._small = file, 0, 0, bytearray()

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if len(view) < _CHUNK:
            self._small += view
        else:
            self._take(self._small)
            self._take(view)
            self._small = bytearray()
        if len(self._small) > _CHUNK:
            self._take(self._small[:-_LAST])
            self._small = self._small[-_LAST:]
        return self._file.write(view)

    def flush(self) -> None:
        self._file.flush()

    def finish(self) -> None:
        """Write length and checksum at the end; the archive must be complete, and have no comment yet."""
        if self._small[-_LAST : -_LAST + 4] != b"PK\5\6" or self._small[-2:] != b"\0\0":
            raise ValueError("only a zip archive without a comment can be given a checksum")
        self._take(self._small[:-2])
        self._file.seek(-2, os.SEEK_END)
        self._file.write(_END.pack(_COMMENT, _MAGIC, self._length, self._checksum))

    def _take(self, data: Any) -> None:
        values = np.frombuffer(data, np.uint8)
        for start in range(0, len(values), _CHUNK):  # in pieces, for other threads to run between
            self._checksum = google_crc32c.extend(self._checksum, values[start : start + _CHUNK])
        self._length += len(values)


def has_checksum(path: Path) -> bool:
    """Whether a file ends as one that was written with its checksum."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        end = _end_of(file)
    return end is not None and end[1] == _MAGIC


def verify(path: Path) -> None:
    """Read all bytes of a file, and compare them with its checksum.

    Raises:
        Damaged: it does not end with a checksum, or with that of other bytes, or the disk cannot read it.
        OSError: there is no such file, or it may not be opened.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise Damaged("it is no file")
    with path.open("rb") as file:
        try:
            _verify(file)
        except OSError as error:
            raise Damaged(f"the disk cannot read it ({error.strerror})") from error


def _verify(file: BufferedReader) -> None:
    end = _end_of(file)
    if end is None or end[:2] != (_COMMENT, _MAGIC):
        raise Damaged("it does not end with its checksum, so it was cut short or written over")
    length, checksum = end[2:]
    size = os.fstat(file.fileno()).st_size - _END.size
    if length != size:
        raise Damaged(f"it has {size:,} bytes, and {length:,} were written")
    file.seek(0)
    found, left, buffer = 0, size, memoryview(bytearray(_CHUNK))
    while left:
        read = file.readinto(buffer[: min(left, _CHUNK)])
        if not read:
            raise Damaged("it was cut short while it was read")
        found = google_crc32c.extend(found, np.frombuffer(buffer[:read], np.uint8))
        left -= read
    if found != checksum:
        raise Damaged("its bytes do not fit their checksum, so some have changed since they were written")


def _end_of(file: BufferedReader) -> tuple[int, bytes, int, int] | None:
    """The last bytes of a file as a checksum's; None where it is too short to have one."""
    if os.fstat(file.fileno()).st_size < _END.size:
        return None
    file.seek(-_END.size, os.SEEK_END)
    return _END.unpack(file.read(_END.size))
