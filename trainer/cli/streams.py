"""stdout and stderr: no character that they lack ends a command, and no full disk or closed terminal ends a run."""

import io
import re
import sys
from contextlib import suppress
from typing import Any

_STEERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class Lenient(io.RawIOBase):
    """Writes to a file of the system, and drops what it cannot write."""

    def __init__(self, file: io.FileIO) -> None:
        self.name, self.mode, self._file = file.name, file.mode, file

    def write(self, data: Any) -> int | None:
        try:
            return self._file.write(data)
        except BlockingIOError:
            raise
        except OSError:  # the terminal is closed, the disk is full, the reader of the pipe has left
            return memoryview(data).nbytes

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._file.fileno()

    def isatty(self) -> bool:
        with suppress(OSError):
            return self._file.isatty()
        return False


def shown(text: str) -> str:
    """A text for a terminal: ? for each character that would steer it or turn its order, as others may have written.

    >>> shown("loss\\x1b[2J 0.5")
    'loss?[2J 0.5'
    """
    return _STEERS.sub("?", text)


def replace_unknown_characters() -> None:
    """Let stdout print ? for a character that it lacks, such as κ in ASCII; stderr prints its number anyway."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def drop_unwritable() -> None:
    """Let stdout and stderr drop what they cannot write, for a command whose result is not what it prints."""
    sys.stdout, sys.stderr = _lenient(sys.stdout), _lenient(sys.stderr)


def _lenient(stream: Any) -> Any:
    """The stream with a lenient file, where it is the interpreter's own."""
    buffer: Any = stream.buffer if type(stream) is io.TextIOWrapper else None
    file = buffer.raw if isinstance(buffer, io.BufferedWriter) else buffer
    if not isinstance(file, io.FileIO):
        return stream
    with suppress(OSError):
        stream.flush()
    raw: Any = Lenient(file)
    return io.TextIOWrapper(
        io.BufferedWriter(raw) if file is not buffer else raw,
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
