"""stdout and stderr that end no command: not by a character that they lack, a full disk or a closed terminal."""

import codecs
import io
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

_NAMES = {
    "κ": "kappa", "β": "beta", "λ": "lambda", "∑": "sum ", "√": "sqrt ", "·": "*", "×": "x", "→": "->", "±": "+-",
    "≥": ">=", "≤": "<=", "…": "...", "│": "|", "└": "+", "─": "-", **dict.fromkeys("▁▂▃", "."),
    **dict.fromkeys("▄▅▆▇█", "#"),
}  # fmt: skip
"""What is printed for a character that the encoding of stdout lacks."""
_LONG = re.compile(r"(?<![\w.-])-?(?=[\d.]{11})\d+\.\d+(?:e[+-]?\d+)?(?![\w.-])", re.IGNORECASE)
"""A number that is not whole, with ten digits or more."""
_STEERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class Lenient(io.RawIOBase):
    """Writes to a file of the system, and drops what it cannot write.

    `pipes_only`: only what goes to a pipe whose reader has ended, such as `head`.
    """

    def __init__(self, file: io.FileIO, pipes_only: bool) -> None:
        self.name, self.mode, self._file, self._pipes_only = file.name, file.mode, file, pipes_only

    def write(self, data: Any) -> int | None:
        try:
            return self._file.write(data)
        except BlockingIOError:
            raise
        except OSError as error:  # the terminal is closed, the disk is full, the reader of the pipe has left
            if self._pipes_only and not isinstance(error, BrokenPipeError):
                raise
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
    """A text of others for a terminal, with ? for each character that would control it or turn the order of the text.

    >>> shown("loss\\x1b[2J 0.5")
    'loss?[2J 0.5'
    """
    return _STEERS.sub("?", text)


def short_numbers(texts: Sequence[str]) -> list[str]:
    """The texts with six digits of each number that has more than nine, where the texts that differ still do.

    >>> short_numbers(["lr=0.0031622776601683794", "lr=0.001 seed=1234567890"])
    ['lr=0.00316228', 'lr=0.001 seed=1234567890']
    >>> short_numbers(["lr=0.10000000001", "lr=0.10000000002"])
    ['lr=0.10000000001', 'lr=0.10000000002']
    """
    short = [_LONG.sub(lambda found: f"{float(found[0]):.6g}", text) for text in texts]
    return short if len(set(short)) == len(set(texts)) else list(texts)


def replace_unknown_characters() -> None:
    """Let stdout print a character that it lacks, such as κ in ASCII, by its name; stderr prints its number anyway."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        codecs.register_error("cadence", _by_name)
        sys.stdout.reconfigure(errors="cadence")


def _by_name(error: UnicodeError) -> tuple[str, int]:
    """Stands in for the characters that an encoding lacks: those that Cadence prints have a name, others are ?."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_NAMES.get(sign, "?") for sign in error.object[error.start : error.end]), error.end


def drop_unwritable(pipes_only: bool = False) -> None:
    """Let stdout and stderr drop what they cannot write, for a command whose result is not what it prints.

    `pipes_only`: drop only what goes to a pipe whose reader has ended, such as `head`.
    """
    sys.stdout, sys.stderr = _lenient(sys.stdout, pipes_only), _lenient(sys.stderr, pipes_only)


def _lenient(stream: Any, pipes_only: bool) -> Any:
    """The stream with a lenient file, where it is the interpreter's own."""
    buffer: Any = stream.buffer if type(stream) is io.TextIOWrapper else None
    file = buffer.raw if isinstance(buffer, io.BufferedWriter) else buffer
    if not isinstance(file, io.FileIO):
        return stream
    with suppress(OSError):
        stream.flush()
    raw: Any = Lenient(file, pipes_only)
    return io.TextIOWrapper(
        io.BufferedWriter(raw) if file is not buffer else raw,
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
