"""Matrices as pictures: a PNG of coloured cells, with numbers in them where they fit. Standard library only."""

import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import chain

SIDE = 640
"""The largest width and height of a picture, in pixels, where cells have more than one."""
GLYPHS = {
    **dict(zip("0123456789", "75557 26227 71747 71717 55711 74717 74757 71111 75757 75717".split())),
    **{".": "00002", "-": "00700", "e": "07747", "k": "45655"},
}
"""Five rows of three pixels for each character, every row as an octal digit."""
HIGH, WIDE = 5, 4

Matrix = Sequence[Sequence[float]]


def matrix_picture(numbers: object) -> bytes | None:
    """A PNG of a matrix, row by row; None for anything else.

    A cell is the darker the larger its number is: as a share of the sum of its row where all are counts, as in a
    confusion matrix, else between the smallest and the largest. A number that is not finite is grey.
    """
    if not (isinstance(numbers, list) and numbers and all(isinstance(row, list) and row for row in numbers)):
        return None
    if len({len(row) for row in numbers}) > 1 or not all(isinstance(one, int | float) for one in chain(*numbers)):
        return None
    cell = max(1, min(32, SIDE // max(len(numbers), len(numbers[0]))))
    pixels: list[bytes] = []
    for row, shares in zip(numbers, _shares(numbers)):
        pixels += _line_of_cells([_cell(number, share, cell) for number, share in zip(row, shares)], cell)
    return png(pixels, len(numbers[0]) * cell)


def _shares(numbers: Matrix) -> Iterator[list[float]]:
    """For each number from 0 to 1 how dark its cell is; nan where the number is not finite."""
    if all(float(one).is_integer() and one >= 0 for one in chain(*numbers) if math.isfinite(one)):
        yield from ([_ratio(one, math.fsum(filter(math.isfinite, row))) for one in row] for row in numbers)
        return
    finite = [one for one in chain(*numbers) if math.isfinite(one)] or [0.0]
    low, width = min(finite), max(finite) - min(finite)
    yield from ([_ratio(one - low, width) for one in row] for row in numbers)


def _ratio(part: float, of: float) -> float:
    return math.nan if not math.isfinite(part) else part / of if of else 0.0


def _cell(number: float, share: float, size: int) -> list[list[bytes]]:
    """The pixels of a cell, by rows: from white to blue, with the number in it."""
    if math.isnan(share):
        back, ink = bytes((160, 160, 160)), bytes((0, 0, 0))
    else:
        back = bytes((round(255 - 247 * share), round(255 - 207 * share), round(255 - 148 * share)))
        ink = bytes((255, 255, 255)) if share > 0.5 else bytes((0, 0, 0))
    rows = [[back] * size for _ in range(size)]
    text = _short(number)
    left, top = (size - len(text) * WIDE + 1) // 2, (size - HIGH) // 2
    if left >= 1 and top >= 1:
        for i, character in enumerate(text):
            for y, bits in enumerate(GLYPHS[character]):
                for x in range(3):
                    if int(bits, 8) >> (2 - x) & 1:
                        rows[top + y][left + i * WIDE + x] = ink
    return rows


def _short(number: float) -> str:
    """A number in few characters: 250, 13k, 0.42; empty where it is not finite."""
    if not math.isfinite(number):
        return ""
    if float(number).is_integer():
        return f"{number:.0f}" if abs(number) < 10_000 else f"{number / 1000:.0f}k" if abs(number) < 1e7 else ""
    return f"{number:.2g}".replace("+", "")


def _line_of_cells(cells: list[list[list[bytes]]], size: int) -> list[bytes]:
    return [b"".join(chain(*(cell[y] for cell in cells))) for y in range(size)]


def png(rows: Sequence[bytes], width: int) -> bytes:
    """An RGB image of 8 bits a channel as PNG. ISO/IEC 15948."""
    header = struct.pack(">2I5B", width, len(rows), 8, 2, 0, 0, 0)
    packed = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
