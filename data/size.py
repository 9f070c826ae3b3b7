"""The number of samples in a file of text or token ids, counted without torch, for the plan."""

from pathlib import Path

from data.bounds import existing, integer, share

BYTES = {"uint8": 1, "uint16": 2, "int32": 4, "uint32": 4, "int64": 8}
"""The bytes of a token id in a file, by its type."""


def text(path: str) -> str:
    """The characters of a UTF-8 file. FileNotFoundError where there is none, ValueError if it is not text."""
    try:
        content = existing("data.path", path, "a UTF-8 text file").read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"data.path={path} is not UTF-8 text (byte {error.start}): convert it.") from None
    if not content:
        raise ValueError(f"data.path={path} is empty: give a file with text.")
    return content


def has_windows_line_ends(path: str) -> bool:
    """Whether lines at the start of a file end with \\r\\n, which `text` reads as \\n."""
    with existing("data.path", path, "a UTF-8 text file").open("rb") as file:
        return b"\r\n" in file.read(2**20)


def cut(chars: int, val_fraction: float, test_fraction: float) -> tuple[int, int, int]:
    """Characters for training, validation and test, in this order in the file; both fractions are of the whole."""
    val = int(chars * share("data.val_fraction", val_fraction))
    test = int(chars * share("data.test_fraction", test_fraction))
    if val + test >= chars:
        raise ValueError(
            f"data.val_fraction={val_fraction} and data.test_fraction={test_fraction} leave nothing to train "
            f"on: their sum must be below 1."
        )
    return chars - val - test, val, test


def phased_windows(tokens: int, context: int, what: str = "characters") -> int:
    """Windows of `context` tokens that fit for any phase in [0, context): (tokens - context) // context."""
    count = (tokens - integer("data.context", context)) // context
    if count < 1:
        raise ValueError(f"data.context={context} needs at least {2 * context} {what} to train on, not {tokens}.")
    return count


def windows(path: str, context: int, val_fraction: float = 0.1, test_fraction: float = 0.0) -> int:
    """The training samples in an epoch of `data.text.Text` on this file."""
    train, _, _ = cut(len(text(path)), val_fraction, test_fraction)
    return phased_windows(train, context)


def ids_in_file(name: str, path: str, dtype: str) -> tuple[Path, int]:
    """A file of token ids, and how many it has. ValueError where its size is no whole number of them."""
    if dtype not in BYTES:
        raise ValueError(f"data.dtype={dtype!r} is unknown: use {', '.join(BYTES)}.")
    file = existing(name, path, "a file of token ids")
    count, rest = divmod(file.stat().st_size, BYTES[dtype])
    if rest:
        raise ValueError(
            f"{name}={path} is no whole number of tokens of data.dtype={dtype}: its last has {rest} bytes."
        )
    return file, count


def file_windows(path: str, context: int, dtype: str = "uint16") -> int:
    """The training samples in an epoch of `data.token_file.TokenFile` on this file."""
    return phased_windows(ids_in_file("data.path", path, dtype)[1], context, "tokens")


def parquet_files(name: str, path: str) -> list[Path]:
    """A Parquet file, or those of a folder in the order of their names. FileNotFoundError where there is none."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return [existing(name, path, "a Parquet file, or a folder of some")]
    if not (found := sorted(folder.glob("*.parquet"))):
        raise FileNotFoundError(f"{name}={path} holds no .parquet file: set {name} to a file, or a folder of some.")
    return found


def parquet_rows(path: str) -> int:
    """The training samples in an epoch of `data.parquet_rows.ParquetRows` on these files."""
    from pyarrow import parquet

    return sum(parquet.ParquetFile(file).metadata.num_rows for file in parquet_files("data.path", path))
